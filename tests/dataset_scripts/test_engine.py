import itertools
from functools import partial

import pyarrow.parquet as pq
import pytest
from engines.local import EngineError, Progress, Retry, run_local
from engines.shard import ShardPlan, ShardResult, rebatch
from stages.base import to_batch

from modeling_ulip2.triplets.schema import triplet_features
from modeling_ulip2.triplets.shards import shard_path

from .toy_stages import NUM_POINTS, MakeRow, Unmakeable, Whole

COLUMNS = ("path", "tags", "category", "group", "creator", "license", "source", "rotation")


def make_shards(*names: list[str]) -> list[tuple[int, list[dict]]]:
    numbers = itertools.count()
    blank = dict.fromkeys(COLUMNS, "")
    return [(i, [blank | {"id": str(next(numbers)), "name": name} for name in own]) for i, own in enumerate(names)]


def make_plan(tmp_path, *stages) -> ShardPlan:
    (tmp_path / "scratch").mkdir(exist_ok=True)
    first = partial(MakeRow, scratch=str(tmp_path / "scratch"))
    return ShardPlan(stages=stages or (first, Whole), output=tmp_path, num_shards=3, num_points=NUM_POINTS)


def run(plan, shards, num_proc=1) -> tuple[dict[int, ShardResult], list]:
    events = list(run_local(plan, shards, num_proc, on_ready=lambda stages: None))
    results = [event for event in events if isinstance(event, ShardResult)]
    assert len({result.shard for result in results}) == len(results)
    return {result.shard: result for result in results}, events


def ids_in(plan, shard: int) -> list[str]:
    path = shard_path(plan.output, "triplets", shard, plan.num_shards)
    return pq.read_table(path, columns=["id"])["id"].to_pylist() if path.exists() else []


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
    assert {event.stage for event in events if isinstance(event, Progress)} == {"MakeRow", "Whole"}


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
