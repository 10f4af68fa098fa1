"""What the readers of published scans share: files of a scene within limits, and segments that make objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modeling_ulip2.geometry.axes import turn_to_y_up
from modeling_ulip2.geometry.cloud import PointCloud
from modeling_ulip2.geometry.points import MAX_POINTS, read_cloud
from modeling_ulip2.scenes.schema import Scene

# A list of five million segments takes some 40 MB of JSON.
MAX_JSON_BYTES = 256 << 20
# What readers of meshes say of faces that are not points.
_LEFT_OUT = "are left out"


class LayoutError(ValueError):
    """A scene's files are not laid out as published; the message names the file and what it should hold."""


def scene_place(folder: Path, inside: str, marker: str) -> tuple[Path, str]:
    """Where the files of a scene lie, in its folder or in one `inside`, and the name of the scene's folder.

    Args:
        marker: a file that lies there.
    """
    place = folder if (folder / marker).is_file() else folder / inside
    resolved = place.resolve()
    return place, resolved.parent.name if resolved.name == inside else resolved.name


def read_json(path: Path) -> Any:
    """A JSON file of bounded size.

    Raises:
        LayoutError: it is missing, too large or no JSON.
    """
    try:
        size = path.stat().st_size
        if size > MAX_JSON_BYTES:
            raise LayoutError(f"{path} has {size:,} bytes; at most {MAX_JSON_BYTES:,}")
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise LayoutError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{path} is no JSON ({str(error)[:120]})") from None


def field(values: Any, name: str, kind: type, path: Path) -> Any:
    """A field of a JSON object, of a kind.

    Raises:
        LayoutError: it is missing, or of another kind.
    """
    value = values.get(name) if isinstance(values, Mapping) else None
    if not isinstance(value, kind):
        raise LayoutError(f"{path} lacks {name!r}, or it is no {kind.__name__}")
    return value


def whole_numbers(values: Iterable[Any], what: str, path: Path) -> np.ndarray:
    """(N,) int64 of a list of JSON.

    Raises:
        LayoutError: it holds something else.
    """
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        array = np.zeros((1, 1))
    if array.ndim != 1 or (len(array) and array.dtype.kind not in "iu"):
        raise LayoutError(f"{what} in {path} are not all whole numbers")
    return array.astype(np.int64)


def read_vertices(path: Path) -> PointCloud:
    """The points of a file in its order, which annotations count on; see `read_cloud`."""
    cloud = read_cloud(path, max_points=MAX_POINTS)
    cloud.warnings = [warning for warning in cloud.warnings if _LEFT_OUT not in warning]  # faces
    return cloud


def objects_of_segments(
    segments: np.ndarray, groups: Sequence[tuple[np.ndarray, str, str]]
) -> tuple[np.ndarray, list[str], list[str]]:
    """Objects that are made of segments.

    Args:
        segments: (N,) segment of each point.
        groups: segments (S,), category and name of each object.

    Returns:
        (N,) int32 object of each point, -1 for none; where objects share a segment, the later one has it, as in the
        benchmarks' own scripts. And categories and names of the objects.
    """
    known, inverse = np.unique(segments, return_inverse=True)
    of_segment = np.full(len(known), -1, dtype=np.int32)
    for number, (own, _, _) in enumerate(groups):
        place = np.searchsorted(known, own).clip(max=max(len(known) - 1, 0))
        if len(known):
            of_segment[place[known[place] == own]] = number
    instance = of_segment[inverse] if len(known) else np.zeros(0, np.int32)
    return instance, [group[1] for group in groups], [group[2] for group in groups]


def z_up_scene(
    name: str,
    cloud: PointCloud,
    instance: np.ndarray | None,
    categories: list[str],
    names: list[str],
    source: str,
    warnings: Sequence[str] = (),
) -> Scene:
    """A scene of points in meters that stand z up."""
    return Scene(
        id=name,
        xyz=turn_to_y_up(cloud.xyz, "z").astype(np.float32),
        rgb=cloud.rgb,
        instance=None if instance is None else instance.astype(np.int32),
        categories=categories,
        names=names,
        source=source,
        warnings=[*cloud.warnings, *warnings],
    )
