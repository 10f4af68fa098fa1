"""From shapes to batches of clouds to vectors, one record per shape: the loop inside `Ulip2Embedder`.

Reading and preparation run in worker processes while the encoder works; a shape that cannot be used becomes a record
with its reason, and does not take its batch with it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from torch import Tensor
from transformers.utils import logging

from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.utils.cpus import available_cores
from modeling_ulip2.utils.workers import in_workers

from .reading import names_file, shape_id
from .records import SHAPE_ERRORS, ShapeRecord

MAX_WORKERS = 8

# A shape -> the cloud (N, C) float32 as the encoder reads it, and what there is to warn of.
Read = Callable[[Any], tuple[np.ndarray, list[str]]]
# Clouds (N, C) -> a row of a tensor (B, …) for each; raises ValueError for a cloud that it refuses.
Encode = Callable[[list[np.ndarray]], Tensor]


@dataclass
class Prepared:
    """What reading makes of a shape, or the error."""

    values: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)
    error: Exception | None = None
    shape: Any = None


@dataclass(frozen=True)
class Preparation:
    """What `read` makes of each of the `shapes`, in the process that asks; with `keep` the shapes beside it."""

    shapes: Sequence[Any]
    read: Read
    keep: bool = False

    def __call__(self, position: int) -> Prepared:
        try:
            shape = self.shapes[position]
            values, warnings = self.read(shape)
            return Prepared(values, warnings, None, shape if self.keep else None)
        except SHAPE_ERRORS as error:
            return Prepared(error=error)


def embed_each(
    shapes: Sequence[Any],
    read: Read,
    encode: Encode,
    *,
    ids: Sequence[str] | None = None,
    batch_size: int,
    num_workers: int | None = None,
    progress: bool | str | None = None,
    keep: bool = False,
) -> Iterator[ShapeRecord]:
    """A record for each shape, in their order.

    Args:
        shapes: a list, or a sequence that reads shapes when it is asked for them.
        read, encode: see `Read` and `Encode`.
        ids: names of the shapes; default: paths and positions.
        num_workers: processes that read; None: none for arrays in a list or a single file, else `reading_workers`.
            Where there are any, a file that crashes its decoder is a failure of its own.
        progress: show a bar, or what it says; None: for more than two batches.
        keep: hand on what was read, as `shape` of each record.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if num_workers is None:
        listed = isinstance(shapes, (list, tuple))
        files = listed and any(map(names_file, shapes))
        num_workers = reading_workers(len(shapes), batch_size, files) if files or not listed else 0
    prepare = Preparation(shapes, read, keep)
    if num_workers > 0:
        ahead = (2 * num_workers + 1) * batch_size
        prepared = in_workers(prepare, len(shapes), num_workers, ahead, lambda position: Prepared(error=_killed()))
    else:
        prepared = map(prepare, range(len(shapes)))
    position = 0
    hidden = len(shapes) <= 2 * batch_size if progress is None else not progress
    said = progress if isinstance(progress, str) else "shapes"
    with logging.tqdm(total=len(shapes), desc=said, unit="shape", disable=hidden) as bar:
        while batch := list(islice(prepared, batch_size)):
            rows = iter(encode_batch(encode, [one.values for one in batch if one.values is not None]))
            for one in batch:
                embed, error = (None, one.error) if one.values is None else next(rows)
                name = ids[position] if ids is not None else shape_id(shapes, position)
                yield ShapeRecord(position, name, embed, tuple(one.warnings), error, one.shape)
                position += 1
            bar.update(len(batch))


def _killed() -> MeshError:
    return MeshError(
        "corrupt", "the process that read it was killed: it crashed its decoder, or needs more memory than there is"
    )


def encode_batch(encode: Encode, clouds: list[np.ndarray]) -> list[tuple[Tensor | None, Exception | None]]:
    """Vector or error of each cloud; one that the model refuses does not take its batch with it."""
    if not clouds:
        return []
    try:
        rows = encode(clouds)  # (B, …)
    except ValueError as error:
        if len(clouds) == 1:
            return [(None, error)]
        return [encode_batch(encode, [cloud])[0] for cloud in clouds]
    bad = MeshError("non_finite", "its embedding is not finite")
    return [(row, None) if bool(row.isfinite().all()) else (None, bad) for row in rows]


def default_workers(num_processes: int = 1) -> int:
    """Worker processes for one of `num_processes` on this machine."""
    cores = available_cores()
    return max(0, min(MAX_WORKERS, cores // max(1, num_processes) - 1))


def reading_workers(count: int, batch_size: int, files: bool = True) -> int:
    """Worker processes that read `count` shapes: what the machine has to spare, no more than there are batches.

    Where a process is forked, which takes milliseconds, there is one at least for `files`, so that one which crashes
    its decoder ends that process alone.
    """
    spare = min(default_workers(), -(-count // batch_size)) if count > batch_size else 0
    return max(spare, int(files and count > 1 and multiprocessing.get_start_method() == "fork"))
