"""Up axes of files: the axis that a format fixes, and turning meshes y up.

The turns themselves, with their convention, are in `modeling_ulip2.models.axes`, which travels with the checkpoints.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from modeling_ulip2.models.axes import AUTO_AXIS, UP_AXES, check_up_axis, rotation_to_y_up, turn_to_y_up

from .mesh import Mesh

# glTF 2.0, section 3.4: +Y is up. LAS 1.4: z is the elevation. The other formats leave it open.
_FORMAT_AXES = {".glb": "y", ".gltf": "y", ".las": "z", ".laz": "z"}


def format_up_axis(path: str | Path) -> str | None:
    """The axis that a file's format says is up, or None where the format leaves it open."""
    return _FORMAT_AXES.get(Path(path).suffix.lower())


def resolve_up_axis(path: str | Path, up_axis: str | None = None) -> str | None:
    """What is up in a file: `up_axis` if it names an axis; for None and "auto" what the format says, None if nothing.

    Raises:
        ValueError: `up_axis` is neither None, "auto" nor one of `UP_AXES`.
    """
    if up_axis is None or check_up_axis(up_axis, auto=True) == AUTO_AXIS:
        return format_up_axis(path)
    return up_axis


def rotate_mesh(mesh: Mesh, rotation: np.ndarray) -> Mesh:
    """A mesh turned by a rotation matrix (3, 3) for column vectors; it shares all but vertices and normals."""
    normals = None if mesh.normals is None else mesh.normals @ rotation.T  # (V, 3)
    return replace(mesh, vertices=mesh.vertices @ rotation.T, normals=normals)


def turn_mesh(mesh: Mesh, up_axis: str) -> Mesh:
    """A mesh whose `up_axis` points up, turned y up."""
    return mesh if up_axis == "y" else rotate_mesh(mesh, rotation_to_y_up(up_axis))


__all__ = [
    "AUTO_AXIS",
    "UP_AXES",
    "check_up_axis",
    "format_up_axis",
    "resolve_up_axis",
    "rotate_mesh",
    "rotation_to_y_up",
    "turn_mesh",
    "turn_to_y_up",
]
