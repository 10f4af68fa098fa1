"""Point clouds as NumPy files: `.npy`, also the dictionaries in which datasets circulate, and `.npz`."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .cloud import PointCloud
from .columns import color_bytes, named_cloud, names_points, plain_name, unnamed_cloud
from .errors import MeshError
from .npy import load_npy, load_npy_content

# Names under which archives and dictionaries hold coordinates and colors; rows of six numbers are both.
_XYZ_NAMES = ("xyz", "points", "pos", "positions", "coords", "pc", "point_cloud", "arr_0")
_RGB_NAMES = ("rgb", "colors", "color", "colour", "colours")


def read_npy_cloud(data: bytes, max_points: int) -> PointCloud:
    """The cloud in a `.npy` file: rows of numbers, records with named fields, or a pickled dictionary of arrays."""
    content = load_npy_content(io.BytesIO(data), len(data), max_rows=max_points, records=True)
    if isinstance(content, list):
        if len(content) != 1:
            raise MeshError("unsupported", f"it holds a list of {len(content)} clouds; one is needed")
        content = content[0]
    if isinstance(content, Mapping):
        found = {str(name).lower(): value for name, value in content.items()}
        wanted = _wanted(found)
        cloud = _cloud_of({name: _array(name, found[name], max_points) for name in wanted})
        return _tell_left_out(cloud, found, wanted)
    return _table(_array("it", content, max_points))


def read_npz_cloud(data: bytes, max_points: int, max_bytes: int) -> PointCloud:
    """The cloud in a `.npz` archive of arrays; together they unpack to at most `max_bytes`."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {Path(info.filename).stem.lower(): info for info in archive.infolist()}
            arrays = {}
            wanted = _wanted(members)
            for name in wanted:
                size = members[name].file_size  # as declared; the read below stops there
                max_bytes -= size
                if max_bytes < 0:
                    raise MeshError("too_large", f"its array {name!r} unpacks to {size} bytes, more than max_bytes")
                with archive.open(members[name]) as member:
                    stream = io.BytesIO(member.read(size))
                arrays[name] = load_npy(stream, size, repr(name), max_rows=max_points, records=True)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise MeshError("corrupt", f"it is not a readable npz archive ({error})") from None
    return _tell_left_out(_cloud_of(arrays), members, wanted)


def _tell_left_out(cloud: PointCloud, names: Mapping[str, Any], wanted: list[str]) -> PointCloud:
    """Says what else the file holds where one of it may be the color that was not found."""
    left = sorted(name for name in names if name not in wanted and not plain_name(name).startswith("normal"))
    if cloud.rgb is None and left:
        cloud.warnings.append(
            f"none of its {', '.join(left)[:120]} is called {' or '.join(_RGB_NAMES[:3])}: it is read without color"
        )
    return cloud


def _wanted(names: Mapping[str, Any]) -> list[str]:
    """The arrays that make the cloud, coordinates first: one for all of them, or a column each."""
    xyz = next((name for name in _XYZ_NAMES if name in names), None)
    if xyz is None:
        if names_points(list(names)):
            return list(names)
        listed = ", ".join(sorted(names)[:8])
        raise MeshError("empty", f"it holds none of {', '.join(_XYZ_NAMES)}; it holds {listed[:120]}")
    return [xyz, *[name for name in _RGB_NAMES if name in names][:1]]


def _array(name: str, value: Any, max_points: int) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unequal lengths
        array = np.zeros((), dtype=object)
    if array.dtype.kind not in "fiuV":
        raise MeshError("unsupported", f"{name} holds {array.dtype}, not rows of numbers")
    if array.ndim and len(array) > max_points:
        raise MeshError("too_many_points", f"it holds {len(array)} points; at most {max_points}")
    return array


def _cloud_of(arrays: Mapping[str, np.ndarray]) -> PointCloud:
    values, *colors = arrays.values()
    if values.ndim == 1 and values.dtype.names is None:
        columns = {name: array for name, array in arrays.items() if array.shape == values.shape}
        return named_cloud(columns)
    if not colors:
        return _table(values)
    (rgb,) = colors
    if rgb.ndim != 2 or rgb.shape[1] not in (3, 4) or len(rgb) != len(values):
        raise MeshError("corrupt", f"its colors have the shape {rgb.shape} for points of the shape {values.shape}")
    cloud = unnamed_cloud(values[:, :3] if values.ndim == 2 else values)
    cloud.rgb = color_bytes(rgb[:, :3], cloud.warnings)
    return cloud


def _table(values: np.ndarray) -> PointCloud:
    if values.dtype.names is None:
        return unnamed_cloud(values)
    return named_cloud({name: values[name].reshape(-1) for name in values.dtype.names if values[name].ndim == 1})
