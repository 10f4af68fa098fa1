"""One shard from objects to files, the unit of work of every engine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from stages.base import Batch, Row, Stage, to_batch, to_rows
from transformers.utils.logging import disable_progress_bar

from modeling_ulip2.triplets.schema import FEATURES_CONFIG, TRIPLETS_CONFIG, features_features, triplet_features
from modeling_ulip2.triplets.shards import shard_path, write_parquet

StageFactory: TypeAlias = Callable[[], Stage]
Report: TypeAlias = Callable[[str, list[str]], None]  # name of a stage, ids of the objects it is about to see


@dataclass(frozen=True)
class ShardPlan:
    """What every worker knows: how to make the stages, and where and what to write.

    `stages` are picklable, such as `functools.partial(ReadMesh, folder=…)`, and called in the worker.
    """

    stages: Sequence[StageFactory]
    output: Path
    num_shards: int
    num_points: int
    write_features: bool = True
    depth: bool = False


@dataclass
class ShardResult:
    """What a finished shard reports: `record` is its entry in the manifest, `seconds` the time spent in each stage."""

    shard: int
    record: dict[str, Any]
    errors: list[Row] = field(default_factory=list)
    warnings: list[Row] = field(default_factory=list)


def make_stages(plan: ShardPlan) -> list[Stage]:
    disable_progress_bar()  # of loading weights, once for each stage and worker
    return [make() for make in plan.stages]


def describe_stages(stages: Sequence[Stage]) -> dict[str, Any]:
    return {type(stage).__name__: description for stage in stages if (description := stage.describe())}


def process_shard(
    plan: ShardPlan,
    stages: Sequence[Stage],
    shard: int,
    objects: Sequence[Row],
    skip: dict[str, str],
    report: Report,
) -> ShardResult:
    """Run the stages over the objects of a shard and write its files.

    Args:
        skip: ids that killed a worker before, with a message for `errors.parquet`.
        report: told before each call of a stage, so that whoever watches knows whose turn it was.
    """
    seconds: Counter[str] = Counter()
    batches: Iterator[Batch] = (to_batch([_begin(row, skip)]) for row in objects)
    for stage in stages:
        batches = _run(stage, batches, report, seconds)
    rows = [row for batch in batches for row in to_rows(batch)]
    good = [row for row in rows if row["error"] is None]
    start = time.perf_counter()
    size, data_size = {}, {}
    for config in (TRIPLETS_CONFIG, FEATURES_CONFIG) if plan.write_features else (TRIPLETS_CONFIG,):
        path = shard_path(plan.output, config, shard, plan.num_shards)
        if not good:  # a parquet file without rows helps nobody
            path.unlink(missing_ok=True)
        elif config == TRIPLETS_CONFIG:
            size[config], data_size[config] = write_parquet(
                path, good, triplet_features(plan.num_points, depth=plan.depth)
            )
        else:
            dim = good[0]["image_embeds"].shape[-1]
            size[config], data_size[config] = write_parquet(path, good, features_features(dim))
    seconds["write"] += time.perf_counter() - start
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
    warnings = [{"id": row["id"], "message": message} for row in good for message in row["warnings"]]
    return ShardResult(shard, record, errors, warnings)


def _begin(row: Row, skip: dict[str, str]) -> Row:
    return {**row, "error": "worker_died" if row["id"] in skip else None, "message": skip.get(row["id"])}


def _run(stage: Stage, batches: Iterable[Batch], report: Report, seconds: Counter[str]) -> Iterator[Batch]:
    name = type(stage).__name__
    for batch in rebatch(batches, stage.batch_size):
        report(name, batch["id"])
        start = time.perf_counter()
        batch = stage(batch)
        seconds[name] += time.perf_counter() - start
        yield batch


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
