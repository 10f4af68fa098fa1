"""The Ray engine beside the local one. Each test starts a Ray of its own, which takes most of its time."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from modeling_ulip2.building.engines import ray as ray_engine
from modeling_ulip2.building.engines.ray import run_ray
from modeling_ulip2.building.engines.shard import EngineError, ShardResult
from modeling_ulip2.building.meshes import main
from tests.dataset_scripts.shapes import build_arguments
from tests.dataset_scripts.test_build_triplets import SCRIPT, contents

from .test_engine import files_of, make_plan, make_shards, model_plan, run
from .toy_stages import FullDisk, Unmakeable, wait_for

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def run_on_ray(plan, shards, num_proc=1, **options) -> dict[int, ShardResult]:
    results = list(run_ray(plan, shards, num_proc, on_ready=lambda stages: None, **options))
    assert len({result.shard for result in results}) == len(results) == len(shards)
    return {result.shard: result for result in results}


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("PPid:")[1].split()[0])


@pytest.mark.parametrize(("num_gpus", "wave"), [(0, 4096), (0, 2), (2, 4096)])
def test_rows_are_those_of_the_local_engine(tmp_path, monkeypatch, num_gpus, wave):
    """Also where workers die, an object hangs, stages with models have actors of their own, and Ray is not given all
    shards at once."""
    monkeypatch.setattr(ray_engine, "WAVE_SHARDS", wave)
    names = ["a", "kill once", "bad"], ["c", "kill", "d", "hang"], ["e", "f"]
    local, remote = model_plan(tmp_path / "local"), model_plan(tmp_path / "ray")
    expected, _ = run(local, make_shards(*names), object_timeout=3)
    results = run_on_ray(remote, make_shards(*names), 2, object_timeout=3, num_gpus=num_gpus)
    assert files_of(remote) == files_of(local) and len(files_of(remote)) == 6
    for shard, result in results.items():
        assert result.errors == expected[shard].errors
        assert result.record["bytes"] == expected[shard].record["bytes"]
    scratch = tmp_path / "ray" / "scratch"
    models = [path.read_text().split(" ") for path in scratch.glob("model-*")]
    makers = [path.read_text().split(" ")[0] for path in scratch.iterdir() if path.name.isdigit()]
    assert bool(num_gpus) == (not {pid for pid, _ in models} & set(makers))
    if num_gpus:
        assert {visible for _, visible in models} <= {"0", "1"}


def test_a_killed_actor_costs_nothing(tmp_path):
    plan = make_plan(tmp_path)
    shards = make_shards(["a", "hold", "b"], ["c"], ["d", "e"])
    killed = []

    def kill() -> None:
        wait_for(tmp_path / "scratch" / "1", seconds=500)  # Ray itself may take its time
        worker = int((tmp_path / "scratch" / "1").read_text().split()[0])
        actor = parent_of(parent_of(worker))  # between the two is the server that forked the worker
        assert b"ray::" in Path(f"/proc/{actor}/cmdline").read_bytes()
        os.kill(actor, signal.SIGKILL)
        (tmp_path / "scratch" / "go").touch()
        killed.append(actor)

    killer = threading.Thread(target=kill)
    killer.start()
    results = run_on_ray(plan, shards)
    killer.join()
    assert killed and all(result.errors == [] for result in results.values())
    expected = make_plan(tmp_path / "local")
    (tmp_path / "local" / "scratch" / "go").touch()
    run(expected, shards)
    assert {name: files_of(plan)[name] for name in files_of(expected)} == files_of(expected)


@pytest.mark.parametrize(
    ("stage", "message"), [(Unmakeable, "there is no tower like that"), (FullDisk, "no space left on the disk")]
)
def test_a_build_that_cannot_go_on_ends_with_a_sentence(tmp_path, stage, message):
    plan = make_plan(tmp_path, *make_plan(tmp_path).stages, stage)
    with pytest.raises(EngineError, match=message):
        run_on_ray(plan, make_shards(["a"], ["b"]))


def test_a_cluster_that_is_not_there_is_a_sentence(tmp_path):
    with pytest.raises(EngineError, match="cannot reach the Ray cluster '127.0.0.1:1'"):
        run_on_ray(make_plan(tmp_path), make_shards(["a"]), address="127.0.0.1:1")


def test_a_build_whose_driver_is_killed_goes_on_with_either_engine(built, meshes, tower, tmp_path):
    output = tmp_path / "boxes"
    command = build_arguments(meshes[0], output, tower, "--engine", "ray", "--num-proc", "1")
    environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[1])}
    process = subprocess.Popen([sys.executable, str(SCRIPT), *command], env=environment)
    while process.poll() is None and not (output / "triplets" / "train-00000-of-00003.parquet").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    main(build_arguments(meshes[0], output, tower, "--engine", "ray", "--num-proc", "1"))
    assert contents(output) == contents(built)
