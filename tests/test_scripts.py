"""How scripts end: one line and a status for what people can mend, a traceback for what is our fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_ulip2.training.callbacks import NothingLearnedError
from modeling_ulip2.utils import scripts

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*(ROOT / "examples").glob("*.py"), *(ROOT / "dataset_scripts").glob("*.py")])


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    "error",
    [
        ValueError("two\nlines"),
        FileNotFoundError(2, "No such file", "x.csv"),
        ModuleNotFoundError("No module named 'accelerate'"),
        FloatingPointError("the loss is nan"),
        NothingLearnedError("nothing is learned"),
        KeyError("a fault"),
        RuntimeError("a fault"),
        KeyboardInterrupt(),
    ],
)
def test_what_people_can_mend_is_one_line(error, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["examples/pretrain.py", "--seed", "1"])
    if "a fault" in str(error):
        with pytest.raises(type(error)):
            scripts.run_main(raising(error))
        return
    with pytest.raises(SystemExit) as ended:
        scripts.run_main(raising(error))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("pretrain.py: ") and str(error).split("\n")[0] in said
    assert ended.value.code == (130 if isinstance(error, KeyboardInterrupt) else 2)


@pytest.mark.parametrize("how", ["option", "variable"])
def test_the_traceback_can_be_had(how, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py", "--seed", "1", *(["--traceback"] if how == "option" else [])])
    monkeypatch.setenv("ULIP2_TRACEBACK", "1" if how == "variable" else "0")
    with pytest.raises(ValueError, match="wrong"):
        scripts.run_main(raising(ValueError("wrong")))
    assert "--traceback" not in sys.argv, "the script's own parser does not know it"


def test_the_status_is_what_main_returns(monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py"])
    for returned, status in ((None, 0), ({"loss": 1.0}, 0), (3, 3), (0, 0)):
        with pytest.raises(SystemExit) as ended:
            scripts.run_main(lambda returned=returned: returned)
        assert ended.value.code == status


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_script_ends_so(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    if "__main__" in text:
        assert re.search(r"\n    run_main\((main|command)\)\n$", text)


def test_a_script_tells_a_mistake_in_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, ROOT / "examples" / "pretrain.py", "--config", "nowhere.yaml"],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("pretrain.py: ") and "nowhere.yaml" in last
