"""The color of points on a mesh's surface."""

from __future__ import annotations

import numpy as np

from .colors import SRGB_TO_LINEAR
from .light import pane_color
from .mesh import Material, Mesh


def surface_colors(mesh: Mesh, face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """Color and opacity at points of the surface: base color * texture * vertex color * face color.

    Args:
        mesh: with P points on it,
        face: (P,) their triangles,
        barycentric: (P, 3) their weights of the triangles' corners.

    Returns:
        (P, 4) float32, linear RGB and alpha. Alpha is what the files say, whatever the material's alpha mode.
    """
    corners = mesh.faces[face]  # (P, 3)
    material_of = mesh.face_material[face]
    colors = np.stack([material.base_color for material in mesh.materials])[material_of]  # (P, 4)
    if mesh.vertex_colors is not None:
        colors = colors * np.einsum("pk,pkc->pc", barycentric, mesh.vertex_colors[corners])
    if mesh.face_colors is not None:
        colors = colors * mesh.face_colors[face]
    if mesh.uv is not None:
        for index, material in enumerate(mesh.materials):
            here = np.flatnonzero(material_of == index) if material.texture is not None else ()
            if len(here):
                uv = _uv_at(mesh, face[here], barycentric[here])
                colors[here] = colors[here] * sample_texture(material, uv)
    return colors.astype(np.float32)


def seen_colors(mesh: Mesh, face: np.ndarray, barycentric: np.ndarray, rgba: np.ndarray) -> np.ndarray:
    """One opaque color for each point, in which glass is not transparent and lamps do not shine.

    - Glass: see `light.pane_color` and `Material.pane_opacity`.
    - Lamps: emission is added; where the sum leaves [0, 1], it is scaled by its largest channel, which keeps its hue.

    Args:
        mesh, face, barycentric: P points, as for `surface_colors`.
        rgba: (P, 4) float32, what `surface_colors` gives for them.

    Returns:
        (P, 3) float32, linear, in [0, 1].
    """
    material_of = mesh.face_material[face]
    colors = rgba[:, :3]
    own = np.array([material.pane_opacity for material in mesh.materials], dtype=np.float32)
    colors = pane_color(colors, own[material_of, None])
    for index, material in enumerate(mesh.materials):
        here = np.flatnonzero(material_of == index) if material.emission.any() else ()
        if len(here):
            emission = material.emission[None]
            if material.emission_texture is not None and mesh.uv is not None:
                uv = _uv_at(mesh, face[here], barycentric[here])
                emission = emission * sample_texture(material, uv, material.emission_texture)[:, :3]
            colors[here] += emission
    return (colors / np.maximum(colors.max(axis=1, keepdims=True), 1.0)).astype(np.float32)


def _uv_at(mesh: Mesh, face: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """(P, 2) float64 texture coordinates."""
    assert mesh.uv is not None
    return np.einsum("pk,pkc->pc", barycentric, mesh.uv[mesh.faces[face]].astype(np.float64))


def sample_texture(material: Material, uv: np.ndarray, texture: np.ndarray | None = None) -> np.ndarray:
    """Bilinear texture look-up, averaged in linear light.

    Args:
        material: with a texture.
        uv: (P, 2), v = 0 at the texture's first row; anything outside [0, 1) goes by `material.wrap`.
        texture: (H, W, 4) uint8; None: the material's `texture`.

    Returns:
        (P, 4) float32, linear RGB and alpha.
    """
    texture = material.texture if texture is None else texture
    assert texture is not None
    height, width = texture.shape[:2]
    columns, across = _texels(uv[:, 0], width, material.wrap[0])
    rows, down = _texels(uv[:, 1], height, material.wrap[1])
    result = np.zeros((len(uv), 4), dtype=np.float32)
    for i in range(2):
        for j in range(2):
            texel = texture[rows[i], columns[j]]  # (P, 4) uint8
            weight = (down if i else 1 - down) * (across if j else 1 - across)
            result[:, :3] += weight[:, None] * SRGB_TO_LINEAR[texel[:, :3]]
            result[:, 3] += weight * (texel[:, 3] / np.float32(255.0))
    return result


def _texels(coordinate: np.ndarray, size: int, wrap: str) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """The two texels around each coordinate along one axis, and the second one's weight."""
    if wrap == "clamp":
        coordinate = np.clip(coordinate, 0.0, 1.0)
    elif wrap == "mirror":
        coordinate = 1.0 - np.abs(np.mod(coordinate, 2.0) - 1.0)
    else:
        coordinate = np.mod(coordinate, 1.0)
    position = coordinate * size - 0.5  # texel centers stand at halves
    first = np.floor(position).astype(np.int64)
    weight = (position - first).astype(np.float32)
    pair = (first, first + 1)
    if wrap == "repeat":
        return (pair[0] % size, pair[1] % size), weight
    return (np.clip(pair[0], 0, size - 1), np.clip(pair[1], 0, size - 1)), weight
