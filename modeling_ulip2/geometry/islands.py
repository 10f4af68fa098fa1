"""How far a texture may be blurred where a mesh shows it.

An atlas has leaves, bark and paper side by side. Where a leaf is three pixels large in a picture, it is read from a
halved image, whose texels hold paper, too: the tree would turn gray. So no face reads texels larger than a share of
its island, the connected piece of the image that its faces show together.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from .mesh import Mesh

# Texels along the shorter side of an island that are left of it in the most blurred image of it.
LEAST_TEXELS = 8
UNLIMITED = 31  # halvings; no image has so many


def blur_limits(mesh: Mesh) -> np.ndarray:
    """How often the texture of each face may be halved for it.

    Tiles, which cover the image from edge to edge along an axis, have no neighbors along it.

    Returns:
        (F,) int32, UNLIMITED for faces without a texture.
    """
    limits = np.full(mesh.num_faces, UNLIMITED, dtype=np.int32)
    sizes = np.zeros((len(mesh.materials), 2))  # width, height
    for index, material in enumerate(mesh.materials):
        image = material.texture if material.texture is not None else material.emission_texture
        if image is not None:
            sizes[index] = image.shape[1], image.shape[0]
    if mesh.uv is None or not (sizes > 2 * LEAST_TEXELS).all(axis=1).any():
        return limits
    textured = np.flatnonzero((sizes[mesh.face_material] > 0).all(axis=1))
    # Vertices at one place of the image are one there, whatever parts them on the surface.
    places, place_of = np.unique(np.ascontiguousarray(mesh.uv).view(np.int64)[:, 0], return_inverse=True)
    extent = _compiled()(mesh.faces[textured], place_of, mesh.uv, len(places))  # (T, 2)
    texels = np.where(extent > 0.99, np.inf, extent * sizes[mesh.face_material[textured]]).min(axis=1)
    halvings = np.floor(np.log2(np.maximum(texels / LEAST_TEXELS, 1.0)))
    limits[textured] = np.minimum(halvings, UNLIMITED)
    return limits


@functools.cache
def _compiled() -> Callable[..., np.ndarray]:
    from .compiled import jit  # imports numba, which takes a second

    return jit(_extents)


def _extents(faces, place_of, uv, count):
    """(T, 2) width and height in uv of the connected piece of the image that each of the faces (T, 3) is part of.

    `place_of` (V,) numbers the places of the image, below `count`: faces that share one are connected.
    """
    above = np.arange(count)
    for t in range(faces.shape[0]):
        a = place_of[faces[t, 0]]
        while above[a] != a:
            above[a] = above[above[a]]
            a = above[a]
        for column in range(1, 3):
            b = place_of[faces[t, column]]
            while above[b] != b:
                above[b] = above[above[b]]
                b = above[b]
            if a < b:
                above[b] = a
            else:
                above[a] = b
                a = b
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    piece = np.empty(faces.shape[0], dtype=np.int64)
    for t in range(faces.shape[0]):
        a = place_of[faces[t, 0]]
        while above[a] != a:
            above[a] = above[above[a]]
            a = above[a]
        piece[t] = a
        for column in range(3):
            for axis in range(2):
                value = uv[faces[t, column], axis]
                low[a, axis] = min(low[a, axis], value)
                high[a, axis] = max(high[a, axis], value)
    return (high - low)[piece]
