"""Point clouds from meshes: uniform by area, colored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .colors import linear_to_srgb, to_uint8
from .mesh import Mesh
from .surface import seen_colors, surface_colors

_ROUNDS = 16
# Points that are drawn at once, which bounds memory: some 300 MB.
_AT_ONCE = 1_000_000


@dataclass
class SurfaceSample:
    """Points of a mesh's surface.

    Attributes:
        xyz: (n, 3) float64 in the mesh's frame and scale.
        rgb: (n, 3) uint8, sRGB.
        face: (n,) int32, the triangle that each lies on.
        normals: (n, 3) float32, the unit normal of that triangle.
    """

    xyz: np.ndarray
    rgb: np.ndarray
    face: np.ndarray
    normals: np.ndarray


def sample_points(mesh: Mesh, n: int, seed: int | None = 0) -> tuple[np.ndarray, np.ndarray]:
    """As `sample_surface`: xyz (n, 3) float64 and rgb (n, 3) uint8."""
    sample = sample_surface(mesh, n, seed)
    return sample.xyz, sample.rgb


def sample_surface(mesh: Mesh, n: int, seed: int | None = 0) -> SurfaceSample:
    """Draw points from a mesh's surface, independently and uniformly by area.

    Points that fall on a material's holes (alpha below the cut-off of MASK, or nearly 0 under BLEND) are drawn again.
    Colors are those of `surface.seen_colors`: glass is pale, lamps shine.

    Args:
        mesh: what to sample.
        n: number of points.
        seed: the same seed gives the same points; None draws anew each time.

    Returns:
        n points. A mesh far from the origin loses its shape in float32: center before you cast, as
        `Ulip2FeatureExtractor` does.
    """
    if n < 1:
        raise ValueError(f"n is {n}; at least one point is needed")
    rng = np.random.default_rng(seed)
    cumulative = np.cumsum(mesh.face_areas())
    cumulative /= cumulative[-1]
    unit = mesh.face_normals()  # (F, 3)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    parts = [_draw(mesh, cumulative, min(_AT_ONCE, n - start), rng) for start in range(0, n, _AT_ONCE)]
    xyz, rgb, face = (np.concatenate(values) for values in zip(*parts, strict=True))
    return SurfaceSample(xyz, rgb, face, unit[face].astype(np.float32))


def _draw(
    mesh: Mesh, cumulative: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """xyz (n, 3), rgb (n, 3) uint8 and triangles (n,) of n points; `cumulative` (F,) are the areas up to each face."""
    hole_below = np.array([material.hole_below for material in mesh.materials])
    points, colors, faces, missing = [], [], [], n
    for attempt in range(_ROUNDS):
        face = np.searchsorted(cumulative, rng.random(missing), side="right").clip(max=mesh.num_faces - 1)
        root, split = np.sqrt(rng.random(missing)), rng.random(missing)
        barycentric = np.column_stack([1 - root, root * (1 - split), root * split])  # uniform on the triangle
        rgba = surface_colors(mesh, face, barycentric)
        solid = rgba[:, 3] >= hole_below[mesh.face_material[face]]
        if attempt == _ROUNDS - 1:  # all but invisible as a whole: take it as it is
            solid[:] = True
        corners = mesh.vertices[mesh.faces[face[solid]]]  # (P, 3, 3)
        points.append(np.einsum("pk,pkc->pc", barycentric[solid], corners))
        colors.append(seen_colors(mesh, face[solid], barycentric[solid], rgba[solid]))
        faces.append(face[solid].astype(np.int32))
        missing -= int(solid.sum())
        if missing == 0:
            break
    return np.concatenate(points), to_uint8(linear_to_srgb(np.concatenate(colors))), np.concatenate(faces)
