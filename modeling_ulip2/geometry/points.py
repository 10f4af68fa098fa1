"""`read_points`: one door for every format of point clouds, bounded in bytes and points."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from .cloud import PointCloud, check_count, leaving_out_invalid
from .errors import MeshError
from .gltf import read_gltf_points
from .las import read_las
from .obj import read_obj_points
from .off import read_off_points
from .pcd import read_pcd
from .ply_points import read_ply_cloud
from .point_arrays import read_npy_cloud, read_npz_cloud
from .point_text import read_text
from .reading import MAX_BYTES, naming, open_bounded

MAX_POINTS = 20_000_000

# Called with the file's bytes, its suffix, and the largest number of points and of bytes.
_READERS: dict[str, Callable[[bytes, str, int, int], PointCloud]] = {
    ".las": lambda data, suffix, max_points, max_bytes: read_las(data, max_points),
    ".laz": lambda data, suffix, max_points, max_bytes: read_las(data, max_points),
    ".npy": lambda data, suffix, max_points, max_bytes: read_npy_cloud(data, max_points),
    ".npz": lambda data, suffix, max_points, max_bytes: read_npz_cloud(data, max_points, max_bytes),
    ".pcd": lambda data, suffix, max_points, max_bytes: read_pcd(data, max_points),
    ".ply": lambda data, suffix, max_points, max_bytes: read_ply_cloud(data, max_points),
    **dict.fromkeys(
        (".asc", ".csv", ".pts", ".txt", ".xyz", ".xyzn", ".xyzrgb"),
        lambda data, suffix, max_points, max_bytes: read_text(data, suffix, max_points),
    ),
}
POINT_SUFFIXES: tuple[str, ...] = tuple(sorted(_READERS))
# Formats of meshes, whose files may hold points instead.
MIXED_SUFFIXES = (".glb", ".gltf", ".obj", ".off")


def read_points(
    path: str | Path, root: str | Path | None = None, *, max_points: int = MAX_POINTS, max_bytes: int = MAX_BYTES
) -> tuple[np.ndarray, np.ndarray | None]:
    """As `read_cloud`: xyz (N, 3) float64 and rgb (N, 3) uint8 or None. Warnings are issued as UserWarning."""
    cloud = read_cloud(path, root, max_points=max_points, max_bytes=max_bytes)
    for warning in cloud.warnings:
        warnings.warn(f"{path}: {warning}", stacklevel=2)
    return cloud.xyz, cloud.rgb


def read_cloud(
    path: str | Path,
    root: str | Path | None = None,
    *,
    max_points: int = MAX_POINTS,
    max_bytes: int = MAX_BYTES,
    leave_out_invalid: bool = False,
) -> PointCloud:
    """Read a point cloud in its own frame and scale, coordinates in float64 as far as the file has their digits.

    Formats: PLY (also 3D Gaussian splats), PCD, LAS and LAZ (with laspy), NumPy's npy and npz, and text: xyz, asc,
    txt, csv and pts; also the points, not the meshes, of glTF, OBJ and OFF. Named columns are what their names say;
    those of files without names are x y z, then what their values say: see `columns`.

    Args:
        path: the file; its suffix names the format.
        root: the folder below which everything is read; see `read_mesh`.
        max_points: largest number of points.
        max_bytes: largest size, of the file and of the arrays that it unpacks to.
        leave_out_invalid: leave points that are NaN or infinite out, with a warning, instead of refusing the file.

    Raises:
        MeshError: with `.reason`, one of `errors.REASONS`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    with naming(path), leaving_out_invalid(leave_out_invalid):
        if suffix not in POINT_SUFFIXES + MIXED_SUFFIXES:
            raise MeshError("unsupported", f"{suffix or 'no suffix'} is none of {', '.join(POINT_SUFFIXES)}")
        data, sandbox = open_bounded(path, max_bytes, root)
        if suffix == ".obj":
            cloud = read_obj_points(data, max_points)
        elif suffix == ".off":
            cloud = read_off_points(data, max_points)
        elif suffix in MIXED_SUFFIXES:
            cloud = read_gltf_points(data, sandbox, max_points)
        else:
            cloud = _READERS[suffix](data, suffix, max_points, max_bytes)
        check_count(len(cloud.xyz), max_points)
        return cloud
