"""Meshes and clouds as GLB files for the browser, everything embedded."""

from __future__ import annotations

import numpy as np
import trimesh
from PIL import Image
from trimesh.visual.material import PBRMaterial
from trimesh.visual.texture import TextureVisuals

from modeling_ulip2.geometry import Material, Mesh
from modeling_ulip2.geometry.colors import SRGB_TO_LINEAR, encode_srgb
from modeling_ulip2.geometry.light import pane_color

# Textures are shown a few hundred pixels wide.
MAX_TEXTURE_SIDE = 1024
# A bead of a cloud of n points in the unit sphere has the radius BEAD / sqrt(n): neighbors just touch.
BEAD = 0.9

# From here on beads are octahedra, with less than half of the triangles of icosahedra.
MANY = 5000


def cloud_glb(xyz: np.ndarray, rgb: np.ndarray, radius: float | None = None) -> bytes:
    """A cloud as colored beads, since browsers draw points one pixel wide.

    Args:
        xyz: (n, 3) in the unit sphere.
        rgb: (n, 3) uint8 sRGB.
        radius: of a bead; default: neighbors of n points on one surface touch.
    """
    count = len(xyz)
    radius = BEAD / np.sqrt(count) if radius is None else radius
    bead = (
        trimesh.creation.icosahedron()
        if count <= MANY
        else trimesh.Trimesh(np.concatenate([np.eye(3), -np.eye(3)])).convex_hull
    )
    directions = bead.vertices / np.linalg.norm(bead.vertices, axis=1, keepdims=True)  # (v, 3)
    vertices = (xyz[:, None] + directions * radius).reshape(-1, 3)  # (n * v, 3)
    faces = (bead.faces + len(directions) * np.arange(count)[:, None, None]).reshape(-1, 3)  # (n * f, 3)
    # vertex colors of GLB are linear bytes, which would crush dark colors: a texel for each bead keeps them
    side = int(np.ceil(np.sqrt(count)))
    texels = np.zeros((side * side, 3), dtype=np.uint8)
    texels[:count] = rgb
    row, column = np.divmod(np.arange(count), side)
    uv = np.column_stack([(column + 0.5) / side, 1 - (row + 0.5) / side])  # trimesh's v points up
    beads = trimesh.Trimesh(
        vertices,
        faces,
        vertex_normals=np.tile(directions, (count, 1)),
        visual=TextureVisuals(
            np.repeat(uv, len(directions), axis=0), material=_material(Material(), texels.reshape(side, side, 3))
        ),
        process=False,
    )
    return _glb([beads])


def mesh_glb(mesh: Mesh) -> bytes:
    """A mesh with its materials, moved and scaled into the unit sphere."""
    low, high = mesh.bounds
    radius = float(np.linalg.norm(high - low)) / 2
    vertices = (mesh.vertices - (low + high) / 2) / radius
    parts = []
    for number, material in enumerate(mesh.materials):
        chosen = np.flatnonzero(mesh.face_material == number)
        if len(chosen) == 0:
            continue
        corners = mesh.faces[chosen]  # (F, 3)
        texture = None if mesh.uv is None or material.texture is None else material.texture
        colors = None if texture is not None else _corner_colors(mesh, chosen)
        # one vertex for each corner where colors may change from face to face
        used, local = (corners.ravel(), np.arange(corners.size)) if colors is not None else _unique(corners)
        uv = np.zeros((len(used), 2)) if mesh.uv is None else mesh.uv[used] * [1, -1] + [0, 1]
        visual = TextureVisuals(uv, material=_material(material, texture, colors is not None, mesh.uv is not None))
        if colors is not None:
            visual.vertex_attributes["color"] = colors
        part = trimesh.Trimesh(vertices[used], local.reshape(-1, 3), visual=visual, process=False)
        if mesh.normals is not None and (mesh.normals[used] != 0).any(axis=1).all():
            part.vertex_normals = mesh.normals[used]  # type: ignore[method-assign]
        parts.append(part)
    return _glb(parts)


def _unique(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.unique(corners, return_inverse=True)


def _corner_colors(mesh: Mesh, chosen: np.ndarray) -> np.ndarray | None:
    """Linear RGBA bytes of each corner (F * 3, 4), or None where the material's color is all there is."""
    if mesh.vertex_colors is None and mesh.face_colors is None:
        return None
    material = mesh.materials[mesh.face_material[chosen[0]]]
    colors = np.tile(material.base_color, (len(chosen) * 3, 1))
    if mesh.vertex_colors is not None:
        colors = colors * mesh.vertex_colors[mesh.faces[chosen].ravel()]
    if mesh.face_colors is not None:
        colors = colors * np.repeat(mesh.face_colors[chosen], 3, axis=0)
    colors[:, :3] = pane_color(colors[:, :3], material.pane_opacity)
    return np.rint(colors.clip(0, 1) * 255).astype(np.uint8)


def _material(
    material: Material, texture: np.ndarray | None, colored: bool = False, has_uv: bool = True
) -> PBRMaterial:
    """Glass and lamps as the pictures and points have them (`surface.seen_colors`): browsers know neither rule.

    Args:
        texture: (H, W, 4) uint8 of the color.
        colored: its color is in the corners.
        has_uv: whether it has texture coordinates, without which its emission has no texture either.
    """
    base, own = material.base_color.copy(), material.pane_opacity
    if texture is not None and own < 1.0:
        seen = pane_color(SRGB_TO_LINEAR[texture[..., :3]] * base[:3], own)
        texture, base[:3] = np.dstack([encode_srgb(seen), texture[..., 3]]), 1.0
    elif own < 1.0:
        base[:3] = pane_color(base[:3], own)
    if colored:
        base[:] = 1.0
    lamp = bool(material.emission.any())
    return PBRMaterial(
        baseColorFactor=np.rint(base * 255).astype(np.uint8),
        baseColorTexture=None if texture is None else _image(texture, material.alpha_mode != "OPAQUE"),
        emissiveFactor=material.emission / max(1.0, float(material.emission.max())) if lamp else None,
        emissiveTexture=_image(material.emission_texture, False)
        if lamp and has_uv and material.emission_texture is not None
        else None,
        metallicFactor=0.0,
        roughnessFactor=0.9,
        alphaMode=material.alpha_mode,
        alphaCutoff=material.alpha_cutoff if material.alpha_mode == "MASK" else None,
        doubleSided=True,
    )


def _image(texture: np.ndarray, alpha: bool) -> Image.Image:
    image = Image.fromarray(texture)
    image.thumbnail((MAX_TEXTURE_SIDE, MAX_TEXTURE_SIDE))
    return image if alpha else image.convert("RGB")


def _glb(parts: list[trimesh.Trimesh]) -> bytes:
    return trimesh.Scene(parts).export(file_type="glb", include_normals=True)
