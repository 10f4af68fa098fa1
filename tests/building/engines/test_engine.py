import itertools
import os
import signal
from functools import partial

import pyarrow.parquet as pq
import pytest

from modeling_ulip2.building.engines.local import STAGED_PER_GPU, TASKS_PER_GPU, Progress, Retry, run_local
from modeling_ulip2.building.engines.shard import EngineError, ShardPlan, ShardResult, explain_failure, rebatch
from modeling_ulip2.building.stages.base import to_batch
from modeling_ulip2.data.schema import triplet_features
from modeling_ulip2.data.shards import shard_path
from modeling_ulip2.utils import files as written

from .toy_stages import NUM_POINTS, FullDisk, MakeRow, Model, Unmakeable, Whole, wait_for

COLUMNS = ("path", "tags", "category", "group", "creator", "license", "source", "rotation")


def make_shards(*names: list[str]) -> list[tuple[int, list[dict]]]:
    numbers = itertools.count()
    blank = dict.fromkeys(COLUMNS, "")
    return [(i, [blank | {"id": str(next(numbers)), "name": name} for name in own]) for i, own in enumerate(names)]


def make_plan(tmp_path, *stages) -> ShardPlan:
    (tmp_path / "scratch").mkdir(parents=True, exist_ok=True)
    first = partial(MakeRow, scratch=str(tmp_path / "scratch"))
    return ShardPlan(stages=stages or (first, Whole), output=tmp_path, num_shards=3, num_points=NUM_POINTS)


def run(plan, shards, num_proc=1, **options) -> tuple[dict[int, ShardResult], list]:
    events = list(run_local(plan, shards, num_proc, on_ready=lambda stages: None, **options))
    results = [event for event in events if isinstance(event, ShardResult)]
    assert len({result.shard for result in results}) == len(results)
    return {result.shard: result for result in results}, events


def ids_in(plan, shard: int) -> list[str]:
    path = shard_path(plan.output, "triplets", shard, plan.num_shards)
    return pq.read_table(path, columns=["id"])["id"].to_pylist() if path.exists() else []


def files_of(plan) -> dict[str, bytes]:
    return {path.relative_to(plan.output).as_posix(): path.read_bytes() for path in plan.output.rglob("*.parquet")}


def model_plan(tmp_path) -> ShardPlan:
    """Rows are made without a GPU, then seen by a stage that wants one."""
    scratch = str(tmp_path / "scratch")
    return make_plan(tmp_path, partial(MakeRow, scratch=scratch), partial(Model, scratch=scratch), Whole)


def test_batches_are_cut_anew():
    ones = [to_batch([{"id": i}]) for i in range(5)]
    assert [batch["id"] for batch in rebatch(ones, 2)] == [[0, 1], [2, 3], [4]]
    assert [batch["id"] for batch in rebatch(ones, None)] == [[0, 1, 2, 3, 4]]
    assert [batch["id"] for batch in rebatch(rebatch(ones, None), 1)] == [[0], [1], [2], [3], [4]]
    assert list(rebatch([], None)) == []


def test_a_shard_holds_the_good_rows_and_reports_the_bad(tmp_path):
    plan = make_plan(tmp_path)
    seen = []
    shards = make_shards(["a", "bad", "c"], ["bad"])
    results = list(run_local(plan, shards, 0, on_ready=seen.append))
    assert seen == [{"Whole": {"fingerprint": "toy"}}]
    assert ids_in(plan, 0) == ["0", "2"] and ids_in(plan, 1) == []
    assert pq.read_schema(shard_path(tmp_path, "triplets", 0, 3)).names == list(triplet_features(NUM_POINTS))
    assert results[0].record["errors"] == {"internal_error": 1} and results[0].errors[0]["id"] == "1"
    assert results[0].record["bytes"].keys() == {"triplets", "features"} and results[1].record["bytes"] == {}


@pytest.mark.timeout(120)
def test_a_killed_worker_costs_nothing_and_a_deadly_object_only_itself(tmp_path):
    plan = make_plan(tmp_path)
    shards = make_shards(["a", "kill once", "b"], ["c", "kill", "d"], ["e"])
    results, events = run(plan, shards, num_proc=2)
    assert [ids_in(plan, shard) for shard in range(3)] == [["0", "1", "2"], ["3", "5"], ["6"]]
    assert results[0].errors == [] and results[2].errors == []
    (error,) = results[1].errors
    assert (error["id"], error["reason"]) == ("4", "worker_died")
    assert "SIGKILL" in error["message"] and "MakeRow" in error["message"]
    assert [event.shard for event in events if isinstance(event, Retry)].count(1) == 2
    assert {event.stage for event in events if isinstance(event, Progress)} == {"MakeRow", "Whole", "write"}


@pytest.mark.timeout(120)
def test_workers_that_keep_dying_over_a_whole_shard_end_the_build_with_advice(tmp_path):
    plan = make_plan(tmp_path)
    with pytest.raises(EngineError, match=r"2 worker processes died in Whole of shard 1 \(SIGKILL.*--num-proc"):
        run(plan, make_shards(["a"], ["kill whole", "b"]))
    assert ids_in(plan, 0) == ["0"]


@pytest.mark.timeout(120)
def test_a_stage_that_cannot_be_made_ends_the_build(tmp_path, capfd):
    with pytest.raises(EngineError, match="there is no tower like that"):
        run(make_plan(tmp_path, Unmakeable), make_shards(["a"], ["b"]), num_proc=2)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.timeout(120)
def test_an_output_that_cannot_be_written_ends_the_build(tmp_path):
    (tmp_path / "triplets").write_text("a file where a folder should be")
    with pytest.raises(EngineError, match="triplets"):
        run(make_plan(tmp_path), make_shards(["a"]))


@pytest.mark.timeout(120)
def test_an_object_that_hangs_is_given_up(tmp_path):
    plan = make_plan(tmp_path)
    results, events = run(plan, make_shards(["a", "hang", "b"], ["c"]), object_timeout=2)
    assert [ids_in(plan, shard) for shard in range(2)] == [["0", "2"], ["3"]]
    (error,) = results[0].errors
    assert (error["id"], error["reason"]) == ("1", "timed_out")
    assert error["message"] == "MakeRow took more than 2 s over this object"
    assert [event.cause for event in events if isinstance(event, Retry)] == ["An object took too long"]


@pytest.mark.timeout(120)
def test_a_killed_idle_worker_is_replaced(tmp_path):
    """Both workers are killed from outside, one of them while it has nothing to do."""
    plan = make_plan(tmp_path)
    shards = make_shards(["a"], ["hold", "b"])
    results, killed = {}, []
    for event in run_local(plan, shards, 2, on_ready=lambda stages: None):
        if isinstance(event, ShardResult):
            results[event.shard] = event
        if len(results) == 1 and not killed:
            wait_for(tmp_path / "scratch" / "1")
            killed = [int((tmp_path / "scratch" / name).read_text().split()[0]) for name in ("0", "1")]
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            (tmp_path / "scratch" / "go").touch()
    assert len(set(killed)) == 2 and [ids_in(plan, shard) for shard in range(2)] == [["0"], ["1", "2"]]
    assert all(result.errors == [] for result in results.values())


@pytest.mark.timeout(120)
def test_stages_with_models_run_in_a_process_per_gpu_and_rows_stay_the_same(tmp_path):
    names = ["a", "bad", "b"], ["c", "kill", "d", "e"], ["f", "g"]
    plain, split = model_plan(tmp_path / "plain"), model_plan(tmp_path / "split")
    expected, _ = run(plain, make_shards(*names))
    seen = []
    events = list(run_local(split, make_shards(*names), 2, seen.append, gpus=["4,5", "7"]))
    results = {event.shard: event for event in events if isinstance(event, ShardResult)}
    assert files_of(split) == files_of(plain) and len(files_of(split)) == 6
    assert {shard: result.errors for shard, result in results.items()} == {
        shard: result.errors for shard, result in expected.items()
    }
    assert seen[-1] == {"Model": {"model": "toy"}, "Whole": {"fingerprint": "toy"}}
    assert {"MakeRow", "Model", "Whole", "write"} == set(results[0].record["seconds"])
    assert all(0 < result.cpu_seconds < 60 and 2**24 < result.memory < 2**34 for result in results.values())
    scratch = tmp_path / "split" / "scratch"
    models = [path.read_text().split(" ") for path in scratch.glob("model-*")]
    makers = [path.read_text().split(" ") for path in scratch.iterdir() if path.name.isdigit()]
    assert {visible for _, visible in models} <= {"4,5", "7"} and {visible for _, visible in makers} == {""}
    assert not {pid for pid, _ in models} & {pid for pid, _ in makers}


@pytest.mark.timeout(120)
def test_meshes_are_read_while_a_model_is_busy_and_no_more_than_can_wait(tmp_path):
    """The model stays at the first shard until the last one for which there is room is made."""
    plan, room = model_plan(tmp_path), TASKS_PER_GPU + STAGED_PER_GPU
    run(plan, make_shards([f"await {room - 1}"], *([name] for name in "bcdefghij")), gpus=["0"])
    assert (tmp_path / "scratch" / "made").read_text() == str(room)
    assert len(files_of(plan)) == 20


@pytest.mark.timeout(120)
@pytest.mark.parametrize("num_proc", [0, 1])
def test_a_full_disk_ends_the_build_with_a_sentence_and_without_half_a_file(tmp_path, num_proc, monkeypatch):
    monkeypatch.setattr(written, "os", os)  # as it was, after a run in this process
    shards = make_shards(["a"])
    plan = make_plan(tmp_path, partial(MakeRow, scratch=str(tmp_path / "scratch")), FullDisk)
    with pytest.raises((EngineError, OSError)) as error:
        run(plan, shards, num_proc)
    assert "no space left on the disk: make room" in explain_failure(error.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "scratch"] == []
    monkeypatch.undo()
    run(make_plan(tmp_path), shards, num_proc)
    assert ids_in(plan, 0) == ["0"]
