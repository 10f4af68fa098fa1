"""How scripts end: one line and a status for what people can mend, a traceback for what is our fault."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_ulip2.training.callbacks import NothingLearnedError
from modeling_ulip2.utils import packages, scripts

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted([*(ROOT / "examples").glob("*.py"), *(ROOT / "dataset_scripts").glob("*.py")])
APP = ROOT / "spaces_demo" / "app.py"


def raising(error: BaseException):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    "error",
    [
        ValueError("two\nlines"),
        FileNotFoundError(2, "No such file", "x.csv"),
        ModuleNotFoundError("No module named 'accelerate'", name="accelerate"),
        SystemExit("pretrain.py: a script's own refusal"),
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


def test_a_refusal_shows_its_reason_where_a_traceback_is_wanted(monkeypatch) -> None:
    def main() -> None:
        try:
            raise OSError("the disk")
        except OSError as error:
            sys.exit(f"x: {error}")

    monkeypatch.setattr(sys, "argv", ["x.py", "--traceback"])
    with pytest.raises(OSError, match="the disk"):
        scripts.run_main(main)


@pytest.mark.parametrize("code", [0, 3, None])
def test_a_status_that_is_a_number_stays(code, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x.py"])
    with pytest.raises(SystemExit) as ended:
        scripts.run_main(lambda: sys.exit(code))
    assert ended.value.code == code


@pytest.mark.parametrize(("failed", "total", "expected"), [(0, 0, 0), (0, 4, 0), (1, 4, 3), (4, 4, 2)])
def test_the_status_of_many_things(failed: int, total: int, expected: int) -> None:
    assert scripts.status(failed, total) == expected


def test_what_to_install_is_said_once() -> None:
    trainer = ImportError("Using the `Trainer` with `PyTorch` requires `accelerate>=1.1.0`: pip install it")
    assert "modeling-ulip2[train]" in scripts.one_line(trainer)
    with pytest.raises(ImportError) as caught:
        packages.require_package("no_such_module", "mesh")
    assert scripts.one_line(caught.value).count("modeling-ulip2[") == 1
    assert "modeling-ulip2" not in scripts.one_line(ImportError("cannot import name 'x'", name="modeling_ulip2.x"))


def test_the_extras_that_are_named_exist() -> None:
    extras = re.search(r"\[project.optional-dependencies\]\n(.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.S)
    assert extras and set(packages.EXTRAS.values()) <= set(re.findall(r"^(\w+) = \[", extras[1], re.M))


@pytest.mark.parametrize("script", [*SCRIPTS, APP], ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_missing_extra_is_one_line(script: Path, tmp_path: Path) -> None:
    """Each script where nothing of any extra is installed: it answers, or names an extra."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_EXTRAS.format(names=set(packages.EXTRAS)))
    ended = subprocess.run(
        [sys.executable, script, "--help"],
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
    )
    if ended.returncode == 0:
        assert "usage:" in ended.stdout
        return
    assert ended.returncode == 2, ended.stderr
    assert re.fullmatch(rf"{script.name}: .*pip install \"modeling-ulip2\[\w+\]\"\n", ended.stderr), ended.stderr


# Stands for an environment without the extras: their modules are not found.
WITHOUT_EXTRAS = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
"""


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
