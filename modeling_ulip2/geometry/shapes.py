"""Any 3D file, mesh or points, as a cloud that a feature extractor takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .axes import AUTO_AXIS, resolve_up_axis, turn_mesh, turn_to_y_up
from .errors import MeshError
from .mesh import Mesh
from .points import MAX_POINTS, MIXED_SUFFIXES, POINT_SUFFIXES, read_cloud
from .reading import MAX_BYTES, MAX_FACES, MESH_SUFFIXES, read_mesh
from .sampling import sample_points

SHAPE_SUFFIXES: tuple[str, ...] = tuple(sorted({*MESH_SUFFIXES, *POINT_SUFFIXES}))


@dataclass
class Shape:
    """What a 3D file holds.

    Attributes:
        xyz: (n, 3) float64, in the file's scale and origin: float32 would lose the shape of a cloud that lies far from
            the origin, so center before you cast, as `Ulip2FeatureExtractor` does.
        rgb: (n, 3) uint8 sRGB, or None for a cloud without color.
        mesh: in the frame of `xyz`; None for a file of points.
        warnings: what had to be left out or guessed, one sentence each; for the person who sent the file.
        up_axis: "y" where `xyz` is known to stand y up, since the caller or the format said what is up in the file;
            "auto" where nobody said it: the frame is the file's, and the feature extractor's setting decides.
    """

    xyz: np.ndarray
    rgb: np.ndarray | None
    mesh: Mesh | None = None
    warnings: list[str] = field(default_factory=list)
    up_axis: str = AUTO_AXIS

    @property
    def cloud(self) -> dict[str, Any]:
        """As `Ulip2FeatureExtractor` takes it: `xyz`, `rgb` if there is color, `up_axis` if it is known."""
        cloud: dict[str, Any] = {"xyz": self.xyz}
        if self.rgb is not None:
            cloud["rgb"] = self.rgb
        if self.up_axis != AUTO_AXIS:
            cloud["up_axis"] = self.up_axis
        return cloud


def read_shape(
    path: str | Path,
    num_points: int,
    *,
    root: str | Path | None = None,
    up_axis: str | None = None,
    max_bytes: int = MAX_BYTES,
    max_faces: int = MAX_FACES,
    max_points: int = MAX_POINTS,
    seed: int | None = 0,
) -> Shape:
    """Reads a mesh, of which `num_points` points are drawn by `seed`, or a cloud, which is left as it is.

    PLY, OBJ, OFF and glTF files are meshes if they have faces, else clouds of their points. Colors that a mesh's
    missing material or image file would give are left out (`Shape.warnings` says so).

    Args:
        path: the file; its suffix names the format, one of `SHAPE_SUFFIXES`.
        num_points: points drawn from a mesh.
        root: folder below which a mesh may name other files; its own folder by default.
        up_axis: what points up in the file, "y", "z", "-z" or "x"; the shape is turned y up. None and "auto" take the
            axis that the format fixes (glTF: y, LAS: z); where it fixes none the shape stays as it is.
        max_bytes, max_faces, max_points: see `read_mesh` and `read_points`.
        seed: the same seed draws the same points; None draws anew each time.

    Raises:
        MeshError: with `.reason`, one of `geometry.errors.REASONS`.
        ValueError: an `up_axis` that is no axis.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    up = resolve_up_axis(path, up_axis)
    if suffix not in SHAPE_SUFFIXES:
        raise MeshError("unsupported", f"{suffix or 'no suffix'} is none of {', '.join(SHAPE_SUFFIXES)}", path)
    if suffix in MESH_SUFFIXES:
        try:
            mesh = read_mesh(path, root, max_faces=max_faces, max_bytes=max_bytes, strict=False)
            if up is not None:
                mesh = turn_mesh(mesh, up)
            xyz, rgb = sample_points(mesh, num_points, seed)
            return Shape(xyz, rgb, mesh, list(mesh.warnings), AUTO_AXIS if up is None else "y")
        except MeshError as error:
            if suffix not in POINT_SUFFIXES + MIXED_SUFFIXES or error.reason != "empty":
                raise
    cloud = read_cloud(path, root, max_points=max_points, max_bytes=max_bytes)
    xyz = cloud.xyz if up is None else turn_to_y_up(cloud.xyz, up)
    return Shape(xyz, cloud.rgb, None, cloud.warnings, AUTO_AXIS if up is None else "y")
