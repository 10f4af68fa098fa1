"""Pieces of furniture at their place, in their size and colors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from modeling_ulip2.geometry.colors import srgb_to_linear
from modeling_ulip2.geometry.mesh import AlphaMode, Material

from .home import Paint, Piece
from .models import Model
from .plan import place_in_plan
from .surfaces import Surfaces, texture_coordinates

# The program's: a model that is flat along an axis counts as this long along it, in its own unit.
_LEAST_SIZE = 0.001


def add_piece(surfaces: Surfaces, piece: Piece, model: Model) -> None:
    """Adds a piece to the current object."""
    own = sized(piece, model)
    vertices = stood(piece, own)
    mesh = model.mesh
    for number, material in enumerate(mesh.materials):
        faces = mesh.faces[mesh.face_material == number]
        if len(faces) == 0:
            continue
        used, faces = np.unique(faces, return_inverse=True)
        faces = faces.reshape(-1, 3)
        paint = _paint_of(piece, model, number)
        if paint.hidden:
            continue
        uv = None if mesh.uv is None else mesh.uv[used]
        if paint.texture is not None:
            image = surfaces.image(paint.texture.image)
            if image is not None:
                material = surfaces.material(paint)
                if uv is None or not mesh.materials[number].textured:
                    uv = texture_coordinates(paint.texture, _front(piece, own[used]))
        elif paint.color is not None:
            material = _colored(material, paint.color)
        if piece.mirrored:
            faces = faces[:, ::-1]
        surfaces.add_part(vertices[used], faces, material, uv)


def sized(piece: Piece, model: Model) -> np.ndarray:
    """(V, 3) vertices of a piece's model in its own frame, in cm, filling width x height x depth around its middle."""
    low, high = model.bounds
    vertices = model.mesh.vertices - (low + high) / 2
    if piece.rotation is not None:
        vertices = vertices @ piece.rotation.T
        corners = (
            np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (high - low) - (high - low) / 2
        )
        # a model's box, where lights that are not shown reach beyond its surfaces; else its surfaces' own
        reach = vertices if np.allclose(model.bounds, model.mesh.bounds) else corners @ piece.rotation.T
        low, high = reach.min(axis=0), reach.max(axis=0)
        if piece.centered:
            vertices = vertices - (low + high) / 2
    size = np.maximum(high - low, _LEAST_SIZE)
    width = -piece.width if piece.mirrored else piece.width
    return vertices / size * [width, piece.height, piece.depth]


def stood(piece: Piece, own: np.ndarray) -> np.ndarray:
    """(V, 3) cm in the home: x and y of the plan are x and z, elevations are y.

    Args:
        own: (V, 3) from `sized`.
    """
    height = piece.height
    if piece.pitch or piece.roll:
        own = own @ (_about_z(-piece.roll) @ _about_x(-piece.pitch)).T
        low, high = own.min(axis=0), own.max(axis=0)
        own = own - (low + high) / 2
        height = high[1] - low[1]
    plan = place_in_plan(own[:, [0, 2]], piece)  # (V, 2)
    elevation = own[:, 1] + piece.ground_elevation + height / 2
    return np.stack([plan[:, 0], elevation, plan[:, 1]], axis=1)


def _about_x(angle: float) -> np.ndarray:
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])


def _about_z(angle: float) -> np.ndarray:
    cosine, sine = math.cos(angle), math.sin(angle)
    return np.array([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]])


def _paint_of(piece: Piece, model: Model, number: int) -> Paint:
    """What covers a material of a model: the piece's own paint but for panes, else what the piece says of it."""
    if piece.paint.color is not None or piece.paint.texture is not None:
        if number in model.panes:
            return Paint()
        # a color counts before a texture
        return Paint(piece.paint.color) if piece.paint.color is not None else piece.paint
    paint = piece.materials.get(model.names[number], Paint())
    return paint if paint.hidden or paint.texture is None or paint.color is None else Paint(paint.color)


def _colored(material: Material, color: tuple[float, float, float]) -> Material:
    """A material in another color, as transparent as before."""
    opacity = float(material.base_color[3])
    base = np.array([*srgb_to_linear(np.array(color)), opacity], dtype=np.float32)
    mode: AlphaMode = "BLEND" if opacity < 1 else "OPAQUE"
    return replace(material, base_color=base, texture=None, alpha_mode=mode, emission_texture=None)


def _front(piece: Piece, own: np.ndarray) -> np.ndarray:
    """(V, 2) cm to the right and up of a piece's lower left corner: a texture falls over its top, then its front."""
    x, y, z = own.T
    return np.stack([x + piece.width / 2, y + piece.height / 2 + piece.depth / 2 - z], axis=1)
