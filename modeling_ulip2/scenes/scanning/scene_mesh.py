"""A furnished building as one mesh, of which scans are made."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from modeling_ulip2.geometry.mesh import Mesh


@dataclass
class Floor:
    """Ground to stand on.

    Args:
        name: of its room, "" without.
        outline: (N, 2) corners, x and z in meters.
        holes: outlines of what is cut out of it.
        elevation, ceiling: y of the floor, and of the highest point of its room's ceiling, meters.
    """

    name: str
    outline: np.ndarray
    holes: list[np.ndarray]
    elevation: float
    ceiling: float


@dataclass
class SceneMesh:
    """A mesh whose triangles belong to objects.

    Args:
        id: name of the scene.
        mesh: in meters, y up.
        face_object: (F,) int32 index into `categories`, -1 for a triangle of no object.
        categories, names: of each object, as in `Scene`.
        floors: where one may stand.
        source, license, warnings: as in `Scene`.
    """

    id: str
    mesh: Mesh
    face_object: np.ndarray
    categories: list[str]
    names: list[str]
    floors: list[Floor] = field(default_factory=list)
    source: str = ""
    license: str = ""
    warnings: list[str] = field(default_factory=list)
