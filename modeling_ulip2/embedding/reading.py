"""Turning a shape (a file, an array or a mapping) into the cloud that an encoder reads."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modeling_ulip2.geometry.inputs import as_cloud
from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor


@dataclass(frozen=True)
class Reading:
    """How one shape becomes what an encoder reads. A plain object, so that worker processes can have it.

    Attributes:
        extractor: prepares the cloud.
        root: folder below which a mesh may name other files; None: its own.
        up_axis: what points up, "y", "z", "-z", "x", or "auto": what the file's format fixes, else the extractor's.
        seed: of the points that are drawn from a mesh; None draws anew each time.
    """

    extractor: Ulip2FeatureExtractor
    root: str | None = None
    up_axis: str | None = None
    seed: int | None = 0

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
        return cls(extractor, None if root is None else os.fspath(root), up_axis, extractor.seed)

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


def is_single(shapes: Any) -> bool:
    """Whether it is one shape and no list of them."""
    return names_file(shapes) or isinstance(shapes, Mapping) or getattr(shapes, "ndim", None) == 2


def as_list(shapes: Any) -> Sequence[Any]:
    """A single shape, a batch (B, N, C) or any iterable as a sequence."""
    if is_single(shapes):
        return [shapes]
    if getattr(shapes, "ndim", None) == 3 or not (hasattr(shapes, "__len__") and hasattr(shapes, "__getitem__")):
        return list(shapes)
    return shapes


def names_file(shape: Any) -> bool:
    return isinstance(shape, (str, os.PathLike))


def shape_id(shapes: Sequence[Any], position: int) -> str:
    """What a shape is called: its path, the `id` of a mapping, or its place in the list."""
    shape = shapes[position] if isinstance(shapes, (list, tuple)) else None
    if isinstance(shape, (str, os.PathLike)):
        return os.fspath(shape)
    if isinstance(shape, Mapping) and isinstance(shape.get("id"), str):
        return shape["id"]
    return str(position)


class Selected(Sequence[Any]):
    """Some of the shapes of a sequence that reads them when it is asked for them."""

    def __init__(self, shapes: Any, places: Sequence[int]) -> None:
        self._shapes, self._places = shapes, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        return self._shapes[self._places[index]]
