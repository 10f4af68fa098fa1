"""What rays meet in a mesh, through Intel's Embree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modeling_ulip2.geometry.mesh import Mesh
from modeling_ulip2.geometry.surface import surface_colors
from modeling_ulip2.utils.packages import require_package

# Rays that are followed at once.
_AT_ONCE = 1 << 19
# How often a ray goes on through holes of leaves and panes of glass.
_LAYERS = 8
# How far behind a surface a ray goes on, meters.
_BEHIND = 1e-4
# Materials of less opacity let a ray through, as a depth camera's light goes through glass.
_GLASS = 0.95


@dataclass
class Hits:
    """What R rays met first.

    Args:
        face: (R,) int32 triangle, -1 for nothing within reach.
        distance: (R,) float32 meters along the ray; meaningless for nothing.
        barycentric: (R, 3) float32 weights of the triangle's corners.
    """

    face: np.ndarray
    distance: np.ndarray
    barycentric: np.ndarray


class RayCaster:
    """Casts rays into a mesh in meters. Rays go through glass and through the holes of cut-out textures."""

    def __init__(self, mesh: Mesh) -> None:
        scenes, meshes = require_package("embreex.rtcore_scene"), require_package("embreex.mesh_construction")
        self._mesh = mesh
        self._scene = scenes.EmbreeScene()
        # the scene holds what it is given only as long as this lives
        self._triangles = meshes.TriangleMesh(self._scene, mesh.vertices[mesh.faces].astype(np.float32))
        glass = np.array([m.alpha_mode == "BLEND" and m.base_color[3] < _GLASS for m in mesh.materials])
        tested = np.array([m.alpha_mode != "OPAQUE" and m.texture is not None for m in mesh.materials])
        self._glass, self._tested = glass[mesh.face_material], tested[mesh.face_material]  # (F,)
        self._hole_below = np.array([material.hole_below for material in mesh.materials])

    def cast(self, origins: np.ndarray, directions: np.ndarray, reach: float) -> Hits:
        """What rays meet.

        Args:
            origins: (R, 3) meters.
            directions: (R, 3) unit vectors.
            reach: length of the rays, meters.
        """
        parts = [
            self._cast(origins[start : start + _AT_ONCE], directions[start : start + _AT_ONCE], reach)
            for start in range(0, len(origins), _AT_ONCE)
        ]
        return Hits(*(np.concatenate([getattr(part, name) for part in parts]) for name in Hits.__annotations__))

    def _cast(self, origins: np.ndarray, directions: np.ndarray, reach: float) -> Hits:
        count = len(origins)
        hits = Hits(np.full(count, -1, np.int32), np.zeros(count, np.float32), np.zeros((count, 3), np.float32))
        directions = np.ascontiguousarray(directions, dtype=np.float32)
        going, gone = np.arange(count), np.zeros(count)
        for _ in range(_LAYERS):
            starts = (origins[going] + directions[going] * gone[going, None]).astype(np.float32)
            left = (reach - gone[going]).astype(np.float32)
            found = self._scene.run(starts, directions[going], left, output=1)
            met = found["primID"] >= 0
            face, ray = found["primID"][met], going[met]
            distance = gone[ray] + found["tfar"][met]
            weights = np.stack([1 - found["u"][met] - found["v"][met], found["u"][met], found["v"][met]], axis=1)
            through = self._lets_through(face, weights)
            stopped = ray[~through]
            hits.face[stopped], hits.distance[stopped] = face[~through], distance[~through]
            hits.barycentric[stopped] = weights[~through]
            going = ray[through]
            gone[going] = distance[through] + _BEHIND
            going = going[gone[going] < reach]
            if len(going) == 0:
                break
        return hits

    def _lets_through(self, face: np.ndarray, weights: np.ndarray) -> np.ndarray:
        through = self._glass[face].copy()
        tested = np.flatnonzero(self._tested[face] & ~through)
        if len(tested):
            alpha = surface_colors(self._mesh, face[tested], weights[tested])[:, 3]
            through[tested] = alpha < self._hole_below[self._mesh.face_material[face[tested]]]
        return through
