"""One shard from objects to files, the unit of work of every engine."""

from __future__ import annotations

import errno
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from modeling_ulip2.building.stages.base import Batch, Stage, to_batch, to_rows
from modeling_ulip2.data.schema import FEATURES_CONFIG, TRIPLETS_CONFIG, Row, features_features, triplet_features
from modeling_ulip2.data.shards import shard_path
from modeling_ulip2.utils.machine_paths import without_paths
from modeling_ulip2.utils.memory import peak_memory
from modeling_ulip2.utils.parquet import write_parquet

if TYPE_CHECKING:
    from datasets import Features

StageFactory: TypeAlias = Callable[[], Stage]
Report: TypeAlias = Callable[[str, list[str]], None]  # name of a stage, ids of the objects it is about to see
# Objects that a worker must not touch again, by id: reason and message for `errors.parquet`.
Skip: TypeAlias = dict[str, tuple[str, str]]

WRITING = "write"  # the name under which writing the files is reported, as if it were a stage


class EngineError(RuntimeError):
    """The build cannot go on; the shards that are done are kept."""


@dataclass(frozen=True)
class ShardPlan:
    """What every worker knows: how to make the stages, and where and what to write.

    `stages` are picklable, such as `functools.partial(ReadMesh, folder=…)`, and called in the worker. `configs` are
    those of the dataset that are written; a plan without any is the first part of a longer one (see `split`).
    """

    stages: Sequence[StageFactory]
    output: Path
    num_shards: int
    num_points: int
    configs: Sequence[str] = (TRIPLETS_CONFIG, FEATURES_CONFIG)
    depth: bool = False

    @property
    def wants_gpu(self) -> bool:
        """Whether a stage has a model."""
        return any(map(wants_gpu, self.stages))

    def split(self) -> tuple[ShardPlan | None, ShardPlan]:
        """The stages before the first one with a model, None if there are none, and the rest, which writes."""
        cut = next((i for i, make in enumerate(self.stages) if wants_gpu(make)), len(self.stages))
        body = replace(self, stages=self.stages[cut:])
        return (replace(self, stages=self.stages[:cut], configs=()) if cut else None), body


@dataclass
class ShardRows:
    """The objects of a shard between two parts of a plan, and the seconds and processor time that these took."""

    rows: list[Row]
    seconds: Counter[str] = field(default_factory=Counter)
    cpu_seconds: float = 0.0


@dataclass
class ShardResult:
    """What a finished shard reports.

    `record` is its entry in the manifest, with the time spent in each stage. `cpu_seconds` is the processor time of
    the whole shard, and `memory` the most that its last process has held so far, in bytes; 0 where that is not known.
    """

    shard: int
    record: dict[str, Any]
    errors: list[Row] = field(default_factory=list)
    warnings: list[Row] = field(default_factory=list)
    cpu_seconds: float = 0.0
    memory: int = 0


def wants_gpu(factory: StageFactory) -> bool:
    return getattr(getattr(factory, "func", factory), "on_gpu", False)  # of a class or a partial of one


def make_stages(plan: ShardPlan) -> list[Stage]:
    if plan.wants_gpu:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # of loading weights, once for each stage and worker
    return [make() for make in plan.stages]


def describe_stages(stages: Sequence[Stage]) -> dict[str, Any]:
    return {type(stage).__name__: description for stage in stages if (description := stage.describe())}


def process_part(
    plan: ShardPlan, stages: Sequence[Stage], shard: int, part: ShardRows, skip: Skip, report: Report
) -> ShardRows | ShardResult:
    """Run the stages over the objects of a shard; write its files if the plan has configs, else return the rows.

    Args:
        skip: objects that killed a worker or took too long before.
        report: told before each call of a stage, so that whoever watches knows whose turn it was.
    """
    seconds, begin = Counter(part.seconds), time.process_time()
    batches: Iterator[Batch] = (to_batch([_begin(row, skip)]) for row in part.rows)
    for stage in stages:
        batches = _run(stage, batches, report, seconds)
    rows = [row for batch in batches for row in to_rows(batch)]
    result = _write(plan, shard, rows, seconds, report) if plan.configs else ShardRows(rows, seconds)
    result.cpu_seconds = part.cpu_seconds + time.process_time() - begin
    return result


def process_shard(
    plan: ShardPlan, stages: Sequence[Stage], shard: int, objects: Sequence[Row], skip: Skip, report: Report
) -> ShardResult:
    """Run all stages over the objects of a shard and write its files; arguments as for `process_part`."""
    result = process_part(plan, stages, shard, ShardRows(list(objects)), skip, report)
    assert isinstance(result, ShardResult)
    return result


def _begin(row: Row, skip: Skip) -> Row:
    row = {"error": None, "message": None, **row}
    if row["id"] in skip and row["error"] is None:
        row["error"], row["message"] = skip[row["id"]]
    return row


def _run(stage: Stage, batches: Iterable[Batch], report: Report, seconds: MutableMapping[str, Any]) -> Iterator[Batch]:
    name = type(stage).__name__
    for batch in rebatch(batches, stage.batch_size):
        report(name, batch["id"])
        start = time.perf_counter()
        batch = stage(batch)
        seconds[name] += time.perf_counter() - start
        yield batch


def _write(
    plan: ShardPlan, shard: int, rows: list[Row], seconds: MutableMapping[str, Any], report: Report
) -> ShardResult:
    good = [row for row in rows if row["error"] is None]
    report(WRITING, [])
    start = time.perf_counter()
    size, data_size = dict[str, int](), dict[str, int]()
    for config in plan.configs:
        path = shard_path(plan.output, config, shard, plan.num_shards)
        if good:
            size[config], data_size[config] = write_parquet(path, good, _schema(plan, config, good[0]))
        else:  # a parquet file without rows helps nobody
            path.unlink(missing_ok=True)
    seconds[WRITING] += time.perf_counter() - start
    record = {
        "triplets": len(good),
        "captions": sum(len(captions) for row in good for captions in row["captions"]),
        "warned": sum(bool(row["warnings"]) for row in good),
        "errors": Counter(row["error"] for row in rows if row["error"] is not None),
        "licenses": Counter(row["license"] for row in good),
        "sources": Counter(row["source"] for row in good),
        "bytes": size,
        "data_bytes": data_size,
        "seconds": seconds,
    }
    errors = [
        {"id": row["id"], "reason": row["error"], "message": row["message"]}
        for row in rows
        if row["error"] is not None
    ]
    # a mesh may name its textures by paths of whoever made it
    warnings = [{"id": row["id"], "message": without_paths(message)} for row in good for message in row["warnings"]]
    return ShardResult(shard, record, errors, warnings, memory=peak_memory())


def _schema(plan: ShardPlan, config: str, row: Row) -> Features:
    if config == TRIPLETS_CONFIG:
        return triplet_features(plan.num_points, depth=plan.depth, sources="caption_sources" in row)
    hidden = row["image_hidden"].shape[-1] if "image_hidden" in row else 0
    return features_features(row["image_embeds"].shape[-1], depth="depth_embeds" in row, hidden=hidden)


def rebatch(batches: Iterable[Batch], size: int | None) -> Iterator[Batch]:
    """The same rows in batches of `size`, the last one smaller; None puts all into one."""
    rows: list[Row] = []
    for batch in batches:
        rows += to_rows(batch)
        while size is not None and len(rows) >= size:
            yield to_batch(rows[:size])
            del rows[:size]
    if rows:
        yield to_batch(rows)


def explain_failure(error: Exception) -> str:
    """Why a worker or a build cannot go on, in a sentence for whoever started it."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f" under {error.filename}" if error.filename else ""
        return (
            f"there is no space left on the disk{place}: make room, then run the same command again. "
            "Finished shards are kept."
        )
    return str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"
