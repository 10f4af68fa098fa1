"""One shape, however it is given (a file, an array, a mapping), as a feature extractor takes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .folders import ShapeFile
from .shapes import read_shape


def as_cloud(
    shape: Any,
    num_points: int,
    *,
    root: str | os.PathLike[str] | None = None,
    up_axis: str | None = None,
    seed: int | None = 0,
) -> tuple[Any, list[str]]:
    """One shape as a feature extractor takes it, and warnings: a file is read, anything else is left for it to check.

    Args:
        shape: path of a mesh or of points, an array (N, 3) or (N, 6), or a mapping with "xyz" and perhaps "rgb" and
            "up_axis".
        num_points: how many points a mesh becomes.
        root, up_axis, seed: see `read_shape`.

    Raises:
        MeshError: the file cannot be used.
        ValueError: `shape` is none of these.
    """
    if isinstance(shape, (str, os.PathLike)):
        if root is None and isinstance(shape, ShapeFile):
            root = shape.root
        place = None if root is None else os.fspath(root)
        read = read_shape(os.fspath(shape), num_points, root=place, up_axis=up_axis, seed=seed)
        return read.cloud, list(read.warnings)
    warnings: list[str] = []
    if isinstance(shape, Mapping):
        if "xyz" not in shape:
            raise ValueError(f"A shape given as a mapping needs 'xyz' and perhaps 'rgb', got {sorted(shape)}.")
        cloud = {name: shape[name] for name in ("xyz", "rgb", "up_axis") if shape.get(name) is not None}
        warnings = list(shape.get("warnings") or [])
    elif getattr(shape, "ndim", None) == 2:
        if shape.shape[-1] not in (3, 6):
            return shape, []  # which the extractor refuses in its own words
        cloud = {"xyz": shape[:, :3]} if shape.shape[-1] == 3 else {"xyz": shape[:, :3], "rgb": shape[:, 3:]}
    else:
        what = f"an array of shape {tuple(shape.shape)}" if hasattr(shape, "shape") else f"{type(shape).__name__}"
        raise ValueError(
            f"A shape is a path, an array (N, 3) or (N, 6), or a mapping with 'xyz' and perhaps 'rgb', got {what}."
        )
    if up_axis is not None:
        cloud.setdefault("up_axis", up_axis)
    return cloud, warnings
