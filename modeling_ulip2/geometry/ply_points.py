"""Point clouds as PLY files, among them 3D Gaussian splats."""

from __future__ import annotations

from .cloud import PointCloud
from .columns import named_cloud
from .errors import MeshError
from .ply import parse_ply


def read_ply_cloud(data: bytes, max_points: int) -> PointCloud:
    """The cloud in a PLY file's table of vertices; other tables, such as faces, are left out with a warning."""
    file = parse_ply(data, {"vertex": max_points})
    vertex = file.elements.get("vertex")
    if vertex is None:
        raise MeshError("empty", "it holds no table of vertices")
    if "packed_position" in vertex.columns:
        raise MeshError("unsupported", "it holds compressed Gaussian splats; store them as a plain PLY (SuperSplat)")
    return named_cloud(vertex.numbers, file.left_out({"vertex"}))
