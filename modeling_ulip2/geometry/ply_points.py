"""Point clouds as PLY files, among them 3D Gaussian splats."""

from __future__ import annotations

import numpy as np

from .cloud import PointCloud
from .columns import named_cloud
from .errors import MeshError
from .ply import parse_ply


def read_ply_cloud(data: bytes, max_points: int) -> PointCloud:
    """The cloud in a PLY file's table of vertices; faces, if there are any, are passed over."""
    vertex = parse_ply(data, {"vertex": max_points}).elements.get("vertex")
    if vertex is None:
        raise MeshError("empty", "it holds no table of vertices")
    return named_cloud({name: column for name, column in vertex.columns.items() if isinstance(column, np.ndarray)})
