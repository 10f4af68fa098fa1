"""From shapes to batches of clouds to vectors, one record per shape: the loop inside `Ulip2Embedder`.

Reading and preparation run in worker processes while the encoder works; a shape that cannot be used becomes a record
with its reason, and does not take its batch with it.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import logging

from .geometry.errors import MeshError
from .geometry.inputs import as_cloud
from .models.feature_extraction_ulip2 import Ulip2FeatureExtractor
from .utils.cpus import available_cores
from .utils.workers import in_workers

# What one bad shape may raise while it is read and prepared; anything else is a fault of the program.
SHAPE_ERRORS = (ValueError, OSError, MemoryError)
MAX_WORKERS = 8
# What a cloud can become: the vector in the shared space, the encoder's own vector, or one vector per patch.
FEATURES = ("embeds", "pooled", "tokens")


@dataclass(frozen=True)
class ShapeFailure:
    """A shape that cannot be used.

    Attributes:
        id: of the shape: its path, or its place in the list.
        reason: one of `geometry.errors.REASONS`, or "unusable".
        message: a sentence, without the path.
    """

    id: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.id}: {self.message}"

    @classmethod
    def of(cls, name: str, error: BaseException) -> ShapeFailure:
        if isinstance(error, MeshError):  # whose `str` begins with the path
            return cls(name, error.reason, str(error.args[0]))
        if isinstance(error, OSError) and error.strerror:
            return cls(name, "missing", error.strerror)
        return cls(name, "unusable", str(error) or type(error).__name__)


@dataclass(frozen=True)
class ShapeRecord:
    """What became of one shape.

    Attributes:
        position: in the list of shapes.
        id: its path, or its position.
        embed: (D,) float32 on the CPU, or (G, C) tokens; None if the shape cannot be used.
        warnings: what had to be left out or guessed, one sentence each.
        error: why it cannot be used.
        shape: what was read, if it was asked for and can be used.
    """

    position: int
    id: str
    embed: Tensor | None
    warnings: tuple[str, ...] = ()
    error: Exception | None = None
    shape: Any = None

    @property
    def failure(self) -> ShapeFailure | None:
        return None if self.error is None else ShapeFailure.of(self.id, self.error)


@dataclass
class ShapeEmbeddings:
    """The usable ones of a list of shapes, and what is to be said about all of them.

    Attributes:
        embeddings: (M, D) float32 on the CPU.
        ids: of the M rows.
        positions: of the M rows in the list that was given.
        warnings: of shapes that have some, by id.
        failures: the shapes that cannot be used, with their reasons.
    """

    embeddings: Tensor
    ids: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    failures: list[ShapeFailure] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.embeddings)


@dataclass(frozen=True)
class Reading:
    """How one shape becomes what an encoder reads. A plain object, so that worker processes can have it.

    Attributes:
        extractor: prepares the cloud.
        root: folder below which a mesh may name other files; None: its own.
        up_axis: what points up, "y", "z", "-z", "x", or "auto": what the file's format fixes, else the extractor's.
        seed: of the points that are drawn from a mesh.
    """

    extractor: Ulip2FeatureExtractor
    root: str | None = None
    up_axis: str | None = None
    seed: int = 0

    @classmethod
    def of(
        cls,
        extractor: Ulip2FeatureExtractor,
        root: str | os.PathLike[str] | None = None,
        up_axis: str | None = None,
        num_points: int | None = None,
        seed: int | None = None,
    ) -> Reading:
        """As an extractor has it, but with what is given."""
        if num_points is not None or seed is not None:
            extractor = copy.copy(extractor)
            if num_points is not None:
                if num_points < 1:
                    raise ValueError(f"num_points must be at least 1, got {num_points}.")
                extractor.num_points = num_points
            if seed is not None:
                extractor.seed = seed
        return cls(extractor, None if root is None else os.fspath(root), up_axis, seed or 0)

    def __call__(self, shape: Any) -> tuple[np.ndarray, list[str]]:
        """The cloud (N, C) float32 of a shape as the encoder reads it, and what there is to warn of.

        Raises:
            MeshError: the file cannot be used.
            ValueError: `shape` is no shape, or a cloud that no extractor takes.
        """
        cloud, warnings = as_cloud(
            shape, self.extractor.num_points, root=self.root, up_axis=self.up_axis, seed=self.seed
        )
        return self.extractor(cloud, return_tensors="np")["point_values"][0], warnings


@dataclass
class Prepared:
    """What `Reading` makes of a shape, or the error."""

    values: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)
    error: Exception | None = None
    shape: Any = None


@dataclass(frozen=True)
class Preparation:
    """What `reading` makes of each of the `shapes`, in the process that asks; with `keep` the shapes beside it."""

    shapes: Sequence[Any]
    reading: Reading
    keep: bool = False

    def __call__(self, position: int) -> Prepared:
        try:
            shape = self.shapes[position]
            values, warnings = self.reading(shape)
            return Prepared(values, warnings, None, shape if self.keep else None)
        except SHAPE_ERRORS as error:
            return Prepared(error=error)


def choose_features(model: Any, features: str | None = None) -> str:
    """`features` itself, or by default "embeds", or "pooled" of a model without projection.

    Raises:
        ValueError: the model does not make them.
    """
    projects = hasattr(model, "point_projection") or hasattr(model, "get_point_features")
    if features is None:
        return "embeds" if projects else "pooled"
    if features not in FEATURES:
        raise ValueError(f"features must be one of {', '.join(FEATURES)}, got {features!r}.")
    if features == "embeds" and not projects:
        raise ValueError(f"{type(model).__name__} has no projection into a shared space: ask for features='pooled'.")
    return features


def check_evaluating(model: Any) -> None:
    """Raises ValueError for a model in training mode."""
    if getattr(model, "training", False):
        raise ValueError(
            "the model is in training mode, so BatchNorm would mix the clouds of a batch; call model.eval()"
        )


def encode_points(model: Any, point_values: Tensor, features: str | None = None) -> Tensor:
    """What any model of this package makes of clouds (B, N, C).

    Args:
        model: a `Ulip2Model`, `Ulip2PointModelWithProjection`, `Ulip2PointModel` or point encoder, in evaluation mode.
        features: see `choose_features`.

    Returns:
        "embeds" (B, projection_dim) of unit length, "pooled" (B, D) or "tokens" (B, G, C), float32.

    Raises:
        ValueError: the model is in training mode.
    """
    features = choose_features(model, features)
    check_evaluating(model)
    if features == "embeds" and hasattr(model, "get_point_features"):
        return F.normalize(model.get_point_features(point_values).pooler_output.float(), dim=-1)
    encoded = getattr(model, "point_model", model)(point_values)
    if features == "embeds":
        return F.normalize(model.point_projection(encoded.pooled).float(), dim=-1)
    return encoded[features].float()


Encode = Callable[[list[np.ndarray]], Tensor]


def run(
    shapes: Sequence[Any],
    reading: Reading,
    encode: Encode,
    *,
    ids: Sequence[str] | None = None,
    batch_size: int,
    num_workers: int | None,
    progress: bool | None,
    keep: bool = False,
) -> Iterator[ShapeRecord]:
    """A record for each shape, in their order.

    Args:
        encode: makes a row (B, …) of each cloud (N, C) of a batch; raises ValueError for a cloud that it refuses.
        ids: of the shapes; default: paths and positions.
        num_workers: processes that read; None: none for shapes in memory or a single file, else `reading_workers`.
            Where there are any, a file that crashes its decoder is a failure of its own.
        progress: show a bar; None: for more than two batches.
        keep: hand on what was read, as `shape` of each record.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if num_workers is None:
        read = isinstance(shapes, (list, tuple)) and any(map(is_path, shapes))
        num_workers = reading_workers(len(shapes), batch_size) if read else 0
    prepare = Preparation(shapes, reading, keep)
    if num_workers > 0:
        ahead = (2 * num_workers + 1) * batch_size
        prepared = in_workers(prepare, len(shapes), num_workers, ahead, lambda position: Prepared(error=_killed()))
    else:
        prepared = map(prepare, range(len(shapes)))
    position = 0
    hidden = len(shapes) <= 2 * batch_size if progress is None else not progress
    with logging.tqdm(total=len(shapes), desc="shapes", unit="shape", disable=hidden) as bar:
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


def in_batches(
    clouds: Sequence[np.ndarray | Tensor] | Tensor, device: torch.device, encode: Callable[[Tensor], Tensor]
) -> Tensor:
    """What `encode` makes of clouds (B, N, C), for a list of clouds (N, C) of any sizes; on the CPU.

    Clouds of one size go together; of several sizes each goes alone, since padding would be points.
    """
    if isinstance(clouds, Tensor):
        groups = [clouds]
    else:
        tensors = [torch.as_tensor(cloud) for cloud in clouds]
        alike = len({tensor.shape for tensor in tensors}) == 1
        groups = [torch.stack(tensors)] if alike else [tensor[None] for tensor in tensors]
    return torch.cat([encode(values.to(device, non_blocking=True)).cpu() for values in groups])


def is_single(shapes: Any) -> bool:
    """Whether it is one shape and no list of them."""
    return is_path(shapes) or isinstance(shapes, Mapping) or getattr(shapes, "ndim", None) == 2


def as_list(shapes: Any) -> Sequence[Any]:
    """A single shape, a batch (B, N, C) or any iterable as a sequence."""
    if is_single(shapes):
        return [shapes]
    if getattr(shapes, "ndim", None) == 3 or not (hasattr(shapes, "__len__") and hasattr(shapes, "__getitem__")):
        return list(shapes)
    return shapes


def is_path(shape: Any) -> bool:
    return isinstance(shape, (str, os.PathLike))


def shape_id(shapes: Sequence[Any], position: int) -> str:
    """What a shape is called: its path, the `id` of a mapping, or its place in the list."""
    shape = shapes[position] if isinstance(shapes, (list, tuple)) else None
    if isinstance(shape, (str, os.PathLike)):
        return os.fspath(shape)
    if isinstance(shape, Mapping) and isinstance(shape.get("id"), str):
        return shape["id"]
    return str(position)


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
