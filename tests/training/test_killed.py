"""Trainings that are killed and started again have the losses of one that never was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modeling_ulip2.recipes import pretraining
from modeling_ulip2.training.checkpoints import is_whole_checkpoint, last_checkpoint
from tests.training import killed
from tests.training.world import ENCODER

ROOT = Path(__file__).parents[2]
SIGKILL = -9


def options(dataset: Path, tower: Path, output: Path, **changes: Any) -> list[str]:
    given = ENCODER | {"num_points": 64, "dataset": dataset, "tower": tower, "output_dir": output, "top_k": 2}
    given |= {"num_train_epochs": 3, "per_device_train_batch_size": 4, "logging_steps": 1, "save_steps": 1}
    given |= {"save_strategy": "steps", "disable_tqdm": True, "drop_path_rate": 0.2, "feature_cache": output / "cache"}
    return [word for name, value in (given | changes).items() for word in (f"--{name}", str(value))]


def start(where: str, count: int, words: list[str], processes: int = 1) -> int:
    """Exit status of a training in processes of its own."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    environment |= {"PYTHONPATH": str(ROOT)}
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    run = subprocess.run(
        [*launcher, killed.__file__, where, str(count), *words],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=550,
    )
    if where == "never":
        assert run.returncode == 0, run.stderr[-4000:]
    return run.returncode


def curve(folder: Path) -> list[float]:
    state = json.loads((folder / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def test_a_run_killed_while_it_saves_goes_on_as_if_nothing_had_happened(dataset_with_features, tower_folder, tmp_path):
    """Killed in the middle of the second checkpoint's optimizer; 12 steps of stochastic depth in three passes."""
    own = options(dataset_with_features, tower_folder, tmp_path / "run")
    assert start("optimizer", 2, [*own, "--use_cpu", "True"]) == SIGKILL
    assert not is_whole_checkpoint(tmp_path / "run" / "checkpoint-2")
    assert last_checkpoint(tmp_path / "run") == tmp_path / "run" / "checkpoint-1"
    pretraining.main([*own, "--use_cpu", "True"])
    straight = options(dataset_with_features, tower_folder, tmp_path / "straight", save_strategy="no")
    pretraining.main([*straight, "--use_cpu", "True"])
    assert len(curve(tmp_path / "run")) == 12
    assert curve(tmp_path / "run") == pytest.approx(curve(tmp_path / "straight"), abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a process for each kill
@pytest.mark.parametrize("total_limit", [1, 2])
def test_killed_again_and_again_wherever(dataset_with_features, tower_folder, tmp_path, total_limit):
    changes = {"use_cpu": True, "save_total_limit": total_limit, "gradient_accumulation_steps": 2}
    changes |= {"per_device_train_batch_size": 2}
    own = options(dataset_with_features, tower_folder, tmp_path / "run", **changes)
    for where, count in (("step", 5), ("weights", 1), ("state", 1), ("random", 2), ("rotation", 1), ("step", 1)):
        assert start(where, count, own) == SIGKILL, where
    pretraining.main(own)
    pretraining.main(options(dataset_with_features, tower_folder, tmp_path / "straight", **changes))
    assert len(curve(tmp_path / "run")) == 12
    assert curve(tmp_path / "run") == pytest.approx(curve(tmp_path / "straight"), abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # a process for each kill
@pytest.mark.parametrize("streaming", [False, True])
def test_two_processes_and_streams(dataset_with_features, tower_folder, tmp_path, streaming):
    """The second process dies while it writes its random state, and the launcher ends the first."""
    changes: dict[str, Any] = {"per_device_train_batch_size": 2}
    if streaming:  # the towers run; three passes of a stream that has no end
        changes |= {"streaming": True, "max_steps": 12, "shuffle_buffer": 5}
    own = options(dataset_with_features, tower_folder, tmp_path / "run", **changes)
    for where, count in (("random", 3), ("step", 4)):
        assert start(where, count, own, processes=2) != 0
    start("never", 1, own, processes=2)
    start("never", 1, options(dataset_with_features, tower_folder, tmp_path / "straight", **changes), processes=2)
    assert len(curve(tmp_path / "run")) == 12
    assert curve(tmp_path / "run") == pytest.approx(curve(tmp_path / "straight"), abs=1e-5)


def test_checkpoints_that_are_not_whole_are_passed_over(dataset_with_features, tower_folder, tmp_path, caplog):
    changes = {"save_total_limit": 5, "use_cpu": True, "num_train_epochs": 1}
    pretraining.main(options(dataset_with_features, tower_folder, tmp_path, **changes))
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"
    killed.cut(tmp_path / "checkpoint-4" / "trainer_state.json")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-3" and "checkpoint-4 was not saved whole" in caplog.text
    killed.cut(tmp_path / "checkpoint-3" / "model.safetensors")
    (tmp_path / "checkpoint-2" / "rng_state.pth").unlink()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-1"
    killed.cut(tmp_path / "checkpoint-1" / "scheduler.pt")
    assert last_checkpoint(tmp_path) is None
