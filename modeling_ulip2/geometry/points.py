"""Point-cloud files: PLY, NumPy's npy and npz, and text (xyz, txt, csv, pts)."""

from __future__ import annotations

import io
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .colors import linear_to_srgb, to_uint8
from .errors import MeshError
from .npy import load_npy
from .ply import parse_ply
from .reading import MAX_BYTES, open_bounded

MAX_POINTS = 20_000_000
POINT_SUFFIXES = (".csv", ".npy", ".npz", ".ply", ".pts", ".txt", ".xyz")
# Names under which archives hold coordinates and colours; rows of six numbers are both.
_XYZ_NAMES = ("xyz", "points", "pos", "positions", "coords", "pc", "point_cloud", "arr_0")
_RGB_NAMES = ("rgb", "colors", "color", "colour", "colours")


@dataclass
class PointCloud:
    """The points of a file.

    Attributes:
        xyz: (N, 3) float64, in the file's frame and scale: coordinates far from the origin keep their digits.
        rgb: (N, 3) uint8 sRGB, or None for a cloud without color.
        warnings: what had to be left out or guessed, one sentence each.
    """

    xyz: np.ndarray
    rgb: np.ndarray | None
    warnings: list[str] = field(default_factory=list)


def read_points(
    path: str | Path, *, max_points: int = MAX_POINTS, max_bytes: int = MAX_BYTES
) -> tuple[np.ndarray, np.ndarray | None]:
    """As `read_cloud`: xyz (N, 3) float64 and rgb (N, 3) uint8 or None. What it warns of is issued as UserWarning."""
    cloud = read_cloud(path, max_points=max_points, max_bytes=max_bytes)
    for warning in cloud.warnings:
        warnings.warn(f"{path}: {warning}", stacklevel=2)
    return cloud.xyz, cloud.rgb


def read_cloud(path: str | Path, *, max_points: int = MAX_POINTS, max_bytes: int = MAX_BYTES) -> PointCloud:
    """Read a point cloud in its own frame and scale.

    Args:
        path: the file; its suffix names the format. Text holds x y z and, if there are more columns, r g b, separated
            by spaces, tabs, commas or semicolons; a first line of words is skipped.
        max_points: largest number of points.
        max_bytes: largest size, of the file and of the arrays that it unpacks to.

    Raises:
        MeshError: with `.reason`, one of `errors.REASONS`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if suffix not in POINT_SUFFIXES:
            raise MeshError("unsupported", f"{suffix or 'no suffix'} is none of {', '.join(POINT_SUFFIXES)}")
        data, _ = open_bounded(path, max_bytes)
        if suffix == ".ply":
            xyz, rgb = _from_ply(data, max_points)
        elif suffix == ".npy":
            xyz, rgb = _split(load_npy(io.BytesIO(data), len(data), "it"), None)
        elif suffix == ".npz":
            xyz, rgb = _from_npz(data, max_bytes)
        else:
            xyz, rgb = _split(_load_text(data), None)
        if len(xyz) == 0:
            raise MeshError("empty", "it holds no point")
        if len(xyz) > max_points:
            raise MeshError("too_many_points", f"it holds {len(xyz)} points; at most {max_points}")
        if not np.isfinite(xyz).all():
            raise MeshError("non_finite", f"{int((~np.isfinite(xyz)).any(axis=1).sum())} points are NaN or infinite")
        return PointCloud(np.ascontiguousarray(xyz, dtype=np.float64), rgb)
    except MeshError as error:
        if error.path is None:
            error.path = path
        raise


def _from_ply(data: bytes, max_points: int) -> tuple[np.ndarray, np.ndarray | None]:
    vertex = parse_ply(data, {"vertex": max_points}).elements.get("vertex")
    xyz = None if vertex is None else vertex.stack("x", "y", "z")
    if vertex is None or xyz is None:
        raise MeshError("empty", "it holds no table of vertices with x, y and z")
    colors = vertex.colors()
    return xyz, None if colors is None else to_uint8(linear_to_srgb(colors[:, :3]))


def _from_npz(data: bytes, max_bytes: int) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {Path(info.filename).stem.lower(): info for info in archive.infolist()}
            xyz_name = next((name for name in _XYZ_NAMES if name in members), None)
            rgb_name = next((name for name in _RGB_NAMES if name in members), None)
            if xyz_name is None:
                raise MeshError("empty", f"it holds none of {', '.join(_XYZ_NAMES)}; it holds {sorted(members)[:8]}")
            arrays = []
            for name in (xyz_name, rgb_name):
                if name is None:
                    continue
                size = members[name].file_size  # as declared; the read below stops there
                if size > max_bytes:
                    raise MeshError("too_large", f"its array {name!r} unpacks to {size} bytes; at most {max_bytes}")
                with archive.open(members[name]) as member:
                    arrays.append(load_npy(io.BytesIO(member.read(size)), size, repr(name)))
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise MeshError("corrupt", f"it is not a readable npz archive ({error})") from None
    return _split(arrays[0], arrays[1] if len(arrays) > 1 else None)


def _load_text(data: bytes) -> np.ndarray:
    if b"\0" in data[:65536]:
        raise MeshError("unsupported", "it is binary data, not text")
    lines = data.decode("utf-8", errors="replace").replace(",", " ").replace(";", " ").splitlines()
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith(("#", "//"))]
    # A line of column names, or PTS's and XYZ's count of points.
    while lines and (not _is_numbers(lines[0]) or len(lines[0].split()) == 1):
        if len(lines) > 1 and not _is_numbers(lines[1]) and not _is_numbers(lines[0]):
            raise MeshError("corrupt", f"its lines are not numbers ({lines[0][:40]!r})")
        lines = lines[1:]
    if not lines:
        raise MeshError("empty", "it holds no point")
    width = len(lines[0].split())
    try:
        return np.loadtxt(lines, dtype=np.float64, ndmin=2, comments=None)
    except ValueError as error:
        raise MeshError("corrupt", f"its lines are not all {width} numbers ({error})") from None


def _is_numbers(line: str) -> bool:
    try:
        return all(np.isfinite(float(word)) or True for word in line.split())
    except ValueError:
        return False


def _split(values: np.ndarray, colors: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """Rows of 3 coordinates, or of 6 or more that end in sRGB colour, to xyz and rgb bytes."""
    if values.ndim != 2 or values.shape[1] < 3:
        raise MeshError("corrupt", f"its array has the shape {values.shape}; (N, 3) or (N, 6) is needed")
    if colors is None:
        if values.shape[1] not in (3, 6, 7):
            raise MeshError(
                "unsupported", f"its rows have {values.shape[1]} numbers; x y z, x y z r g b or x y z r g b a are read"
            )
        colors = values[:, 3:6] if values.shape[1] > 3 else None
    elif colors.shape[:1] != values.shape[:1] or colors.ndim != 2 or colors.shape[1] not in (3, 4):
        raise MeshError("corrupt", f"its colours have the shape {colors.shape} for {len(values)} points")
    if colors is None:
        return values[:, :3], None
    colors = colors[:, :3]
    if not np.isfinite(colors).all():
        raise MeshError("non_finite", "its colours are NaN or infinite")
    if colors.dtype.kind == "f" and (len(colors) == 0 or colors.max() <= 1.0):
        return values[:, :3], to_uint8(colors)
    return values[:, :3], np.clip(np.round(colors), 0, 255).astype(np.uint8)
