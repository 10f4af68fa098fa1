"""Commands with a memory: what runs again, what runs side by side, and what a failure leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modeling_ulip2.utils.steps import Step, Steps


def test_a_step_runs_again_when_its_command_or_inputs_change_or_its_product_is_gone(tmp_path: Path) -> None:
    product, script = tmp_path / "product", tmp_path / "step.py"
    script.write_text(f"import sys; open({str(product)!r}, 'a').write(sys.argv[1])")
    for argument, inputs in (("a", ""), ("a", ""), ("b", ""), ("b", "other meshes"), ("b", "other meshes")):
        Steps(tmp_path, tmp_path).run("step", product, script, argument, inputs=inputs)
    assert product.read_text() == "abb"
    product.unlink()
    Steps(tmp_path, tmp_path).run("step", product, script, "c")
    assert product.read_text() == "c" and set(Steps(tmp_path, tmp_path).durations) == {"step"}


def test_a_failed_step_ends_the_run_and_is_not_done(tmp_path: Path) -> None:
    steps = Steps(tmp_path, tmp_path)
    with pytest.raises(SystemExit, match="'broken' failed"):
        steps.run("broken", tmp_path, "-c", "raise SystemExit(3)")
    assert steps.durations == {}


def test_steps_that_need_not_wait_for_one_another_run_side_by_side(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # each waits for the other's file: one after another they would never end
    script = """
import pathlib, sys, time
own, other = map(pathlib.Path, sys.argv[1:])
print("made", own.name)
own.write_text("")
while not other.exists():
    time.sleep(0.01)
"""
    (tmp_path / "script.py").write_text(script)
    a, b = tmp_path / "a", tmp_path / "b"
    both = [Step("first one", a, ("script.py", a, b)), Step("second one", b, ("script.py", b, a))]
    steps = Steps(tmp_path, tmp_path)
    steps.run_together(both)
    assert set(steps.durations) == {"first one", "second one"}
    shown = capfd.readouterr().out
    assert "made a" in shown and "made b" not in shown and "second_one.log" in shown
    assert (tmp_path / "second_one.log").read_text() == "made b\n"
    Steps(tmp_path, tmp_path).run_together(both)
    assert capfd.readouterr().out.count("done before") == 2


def test_of_two_steps_the_one_that_succeeds_counts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = Step("good", tmp_path / "steps.json", ("-c", "pass"))
    bad = Step("bad", tmp_path / "none", ("-c", "raise SystemExit('no such thing')"))
    steps = Steps(tmp_path, tmp_path)
    with pytest.raises(SystemExit, match="'bad' failed"):
        steps.run_together([good, bad])
    assert "no such thing" in capfd.readouterr().err  # of its log
    assert set(json.loads((tmp_path / "steps.json").read_text())) == {"good"}
