"""A mesh laid out for rasterization: what both engines draw. The light they draw it in is in `light.py`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .islands import blur_limits
from .mesh import Mesh
from .textures import halve

# A blended surface of this opacity hides what is behind it.
SOLID_ALPHA = 0.95

OPAQUE, TESTED, GLASS = 0, 1, 2  # kinds of faces: always solid, alpha looked up at each sample, never solid


@dataclass
class RasterMesh:
    """Arrays of a mesh, moved so that the box's middle is the origin. Dummies of length 1 stand for absent attributes.

    Attributes:
        vertices: (V, 3) float64.
        faces: (F, 3) int32.
        face_normals: (F, 3) float32 unit vectors.
        normals: (V, 3) float32, zeros where a vertex has none.
        uv: (V, 2) float32.
        vertex_colors, face_colors: (V or F, 4) float32, linear.
        face_material: (F,) int32.
        blur_limit: (F,) int32, mip level beyond which the texture would show what lies beside the face in it.
        face_kind: (F,) uint8, one of OPAQUE, TESTED, GLASS.
        base_colors: (M, 4) float32, linear.
        emissions: (M, 3) float32, linear.
        hole_below: (M,) float32, alpha under which a sample is not drawn.
        solid_from: (M,) float32, alpha from which a sample hides what is behind it.
        may_blend: (M,) bool, whether a sample's alpha may lie between hole_below and solid_from.
        double_sided: (M,) bool.
        texture_levels: (M, 2) int32, first row in `levels` and number of rows; -1 and 0 without texture.
        emission_levels: (M, 2) int32, the same for the texture of the emission.
        wraps: (M, 2) uint8, 0 repeat, 1 mirror, 2 clamp.
        levels: (L, 3) int64, first texel, width, height of each mip level.
        texels: (T, 4) uint8, all levels.
    """

    vertices: np.ndarray
    faces: np.ndarray
    face_normals: np.ndarray
    normals: np.ndarray
    uv: np.ndarray
    vertex_colors: np.ndarray
    face_colors: np.ndarray
    face_material: np.ndarray
    blur_limit: np.ndarray
    face_kind: np.ndarray
    base_colors: np.ndarray
    emissions: np.ndarray
    hole_below: np.ndarray
    solid_from: np.ndarray
    may_blend: np.ndarray
    double_sided: np.ndarray
    texture_levels: np.ndarray
    emission_levels: np.ndarray
    wraps: np.ndarray
    levels: np.ndarray
    texels: np.ndarray

    @classmethod
    def of(cls, mesh: Mesh, cull_back_faces: bool = False) -> RasterMesh:
        """Lay out a mesh; back faces of single-sided materials are hidden only if asked."""
        face_normals = mesh.face_normals()
        length = np.linalg.norm(face_normals, axis=1, keepdims=True)
        face_normals = np.divide(face_normals, length, out=np.zeros_like(face_normals), where=length > 0)
        texture_levels, emission_levels, levels, texels = _mip_chains(mesh)
        alpha = np.array([m.base_color[3] for m in mesh.materials], dtype=np.float32)
        modes = np.array([m.alpha_mode for m in mesh.materials])
        hole_below = np.array([m.hole_below for m in mesh.materials], dtype=np.float32)
        solid_from = np.where(modes == "BLEND", SOLID_ALPHA, hole_below).astype(np.float32)
        varies = (texture_levels[:, 1] > 0) | (mesh.vertex_colors is not None) | (mesh.face_colors is not None)
        kind = np.where(modes == "OPAQUE", OPAQUE, np.where(varies, TESTED, OPAQUE))
        kind[(modes == "BLEND") & (alpha < SOLID_ALPHA)] = GLASS
        kind[(modes == "MASK") & ~varies & (alpha < hole_below)] = TESTED
        wrap_codes = {"repeat": 0, "mirror": 1, "clamp": 2}
        return cls(
            vertices=np.ascontiguousarray(mesh.vertices - mesh.bounds.mean(axis=0)),
            faces=np.ascontiguousarray(mesh.faces, dtype=np.int32),
            face_normals=face_normals.astype(np.float32),
            normals=_or_dummy(mesh.normals, 3),
            uv=_or_dummy(mesh.uv, 2),
            vertex_colors=_or_dummy(mesh.vertex_colors, 4),
            face_colors=_or_dummy(mesh.face_colors, 4),
            face_material=np.ascontiguousarray(mesh.face_material, dtype=np.int32),
            blur_limit=blur_limits(mesh),
            face_kind=kind.astype(np.uint8)[mesh.face_material],
            base_colors=np.stack([m.base_color for m in mesh.materials]).astype(np.float32),
            emissions=np.stack([m.emission for m in mesh.materials]).astype(np.float32),
            hole_below=hole_below,
            solid_from=solid_from,
            may_blend=(modes == "BLEND") & (varies | (alpha < SOLID_ALPHA)),
            double_sided=np.array([m.double_sided or not cull_back_faces for m in mesh.materials], dtype=np.bool_),
            texture_levels=texture_levels,
            emission_levels=emission_levels,
            wraps=np.array([[wrap_codes[w] for w in m.wrap] for m in mesh.materials], dtype=np.uint8),
            levels=levels,
            texels=texels,
        )


def _or_dummy(values: np.ndarray | None, width: int) -> np.ndarray:
    if values is None:
        return np.ones((1, width), dtype=np.float32)
    return np.ascontiguousarray(values, dtype=np.float32)


def _mip_chains(mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Halve each texture down to one texel: a texel should be about as large as a sample of the picture."""
    levels: list[tuple[int, int, int]] = []
    texels: list[np.ndarray] = []
    total = 0
    done: dict[int, tuple[int, int]] = {}  # materials may share an image

    def chain(image: np.ndarray | None) -> tuple[int, int]:
        nonlocal total
        if image is None or mesh.uv is None:
            return -1, 0
        key = id(image)
        if key not in done:
            first = len(levels)
            while True:
                height, width = image.shape[:2]
                levels.append((total, width, height))
                texels.append(image.reshape(-1, 4))
                total += width * height
                if width == height == 1:
                    break
                image = halve(image)
            done[key] = (first, len(levels) - first)
        return done[key]

    of_color = np.array([chain(material.texture) for material in mesh.materials], dtype=np.int32)
    of_emission = np.array([chain(material.emission_texture) for material in mesh.materials], dtype=np.int32)
    if not levels:
        return of_color, of_emission, np.zeros((1, 3), dtype=np.int64), np.zeros((1, 4), dtype=np.uint8)
    return of_color, of_emission, np.array(levels, dtype=np.int64), np.concatenate(texels)
