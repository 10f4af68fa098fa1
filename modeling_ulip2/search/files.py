"""Any 3D file, mesh or points, as a cloud that a feature extractor takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from modeling_ulip2.geometry import MESH_SUFFIXES, Mesh, MeshError, read_mesh, read_points, sample_points
from modeling_ulip2.geometry.points import MAX_POINTS, POINT_SUFFIXES
from modeling_ulip2.geometry.reading import MAX_BYTES, MAX_FACES

SHAPE_SUFFIXES: tuple[str, ...] = tuple(sorted({*MESH_SUFFIXES, *POINT_SUFFIXES}))


@dataclass
class Shape:
    """What a 3D file holds.

    Attributes:
        xyz: (n, 3) float32, in the file's frame and scale.
        rgb: (n, 3) uint8 sRGB, or None for a cloud without colour.
        mesh: None for a file of points.
    """

    xyz: np.ndarray
    rgb: np.ndarray | None
    mesh: Mesh | None = None

    @property
    def cloud(self) -> dict[str, np.ndarray]:
        """As `Ulip2FeatureExtractor` takes it."""
        return {"xyz": self.xyz} if self.rgb is None else {"xyz": self.xyz, "rgb": self.rgb}


def read_shape(
    path: str | Path,
    num_points: int,
    *,
    max_bytes: int = MAX_BYTES,
    max_faces: int = MAX_FACES,
    max_points: int = MAX_POINTS,
    seed: int = 0,
) -> Shape:
    """Reads a mesh, of which `num_points` points are drawn by `seed`, or a cloud, which is left as it is.

    A PLY file is a mesh if it has faces. Colours that a mesh's missing material or image file would give are left out
    (`Mesh.warnings` says so).

    Raises:
        MeshError: with `.reason`, one of `geometry.errors.REASONS`.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SHAPE_SUFFIXES:
        raise MeshError("unsupported", f"{suffix or 'no suffix'} is none of {', '.join(SHAPE_SUFFIXES)}", path)
    if suffix in MESH_SUFFIXES:
        try:
            mesh = read_mesh(path, max_faces=max_faces, max_bytes=max_bytes, strict=False)
            return Shape(*sample_points(mesh, num_points, seed), mesh)
        except MeshError as error:
            if suffix not in POINT_SUFFIXES or error.reason != "empty":
                raise
    return Shape(*read_points(path, max_points=max_points, max_bytes=max_bytes))
