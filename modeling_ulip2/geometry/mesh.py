"""What a mesh is: plain arrays, one convention for each of them, and the checks that every reader's result passes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from .colors import srgb_to_linear, unit_alpha, unit_colors
from .errors import MeshError

# Beyond this, squared lengths leave float32; no real file comes near it.
LARGEST_COORDINATE = 1e15

# Below this opacity a blended surface is air, unless the material as a whole is as clear.
INVISIBLE_ALPHA = 0.1
# Clearer than this nothing is a pane; files hide surfaces with an opacity of 0.001.
LEAST_GLASS = 0.01
# Share of what lies behind that shows through glass which a file calls wholly clear: some of it must be seen.
GLASS_CLEARNESS = 0.7

AlphaMode = Literal["OPAQUE", "MASK", "BLEND"]


@dataclass
class Material:
    """The color of a surface, reduced to what a diffuse picture needs.

    Attributes:
        base_color: (4,) float32, linear RGB and alpha; multiplies texture and vertex colors.
        texture: (H, W, 4) uint8 or None, sRGB with straight alpha, row 0 at v = 0.
        wrap: how u and v outside [0, 1) are read: "repeat", "mirror" or "clamp" for each axis.
        alpha_mode: OPAQUE ignores alpha, MASK cuts at `alpha_cutoff`, BLEND mixes with what is behind.
        double_sided: whether the file wants both sides shown; see `Renderer(cull_back_faces=...)`.
        emission: (3,) float32, linear RGB of the light that the surface gives off, 0 or more; it is added to the
            color, see `surface.seen_colors`.
        emission_texture: (H, W, 4) uint8 or None, sRGB, multiplies `emission`; read with the same `uv` and `wrap`.
    """

    name: str = ""
    base_color: np.ndarray = field(default_factory=lambda: np.ones(4, dtype=np.float32))
    texture: np.ndarray | None = None
    wrap: tuple[str, str] = ("repeat", "repeat")
    alpha_mode: AlphaMode = "OPAQUE"
    alpha_cutoff: float = 0.5
    double_sided: bool = True
    emission: np.ndarray = field(default_factory=lambda: np.zeros(3, dtype=np.float32))
    emission_texture: np.ndarray | None = None

    @property
    def textured(self) -> bool:
        """Whether it reads `Mesh.uv`."""
        return self.texture is not None or self.emission_texture is not None

    @property
    def pane_opacity(self) -> float:
        """How opaque it is as a whole, which gives glass its color (`light.pane_color`): 1 for all but panes.

        The alpha of a texture says where a leaf ends, and changes no color.
        """
        return float(self.base_color[3]) if self.alpha_mode == "BLEND" else 1.0

    @property
    def hole_below(self) -> float:
        """Opacity under which there is no surface: a stencil's hole, the cut-out of a leaf, but not a clear pane."""
        if self.alpha_mode == "OPAQUE":
            return -1.0
        if self.alpha_mode == "MASK":
            return self.alpha_cutoff
        return min(INVISIBLE_ALPHA, max(LEAST_GLASS, 0.5 * float(self.base_color[3])))


@dataclass
class Mesh:
    """Triangles with their colors, in the file's own frame and scale (y up is a convention of the datasets).

    A mesh is valid from its making: every vertex is used by a face, coordinates are finite, the surface has an area.

    Args:
        vertices: (V, 3), kept as float64.
        faces: (F, 3) integers, kept as int32, counter-clockwise seen from outside.
        materials: at least one; white without.
        face_material: (F,) index into `materials`, kept as int32; 0 without.
        normals: (V, 3), kept as float32 unit vectors; zeros (also for NaN) where a vertex has none and its faces are
            shaded flat; None if there are none at all.
        uv: (V, 2) float32, v = 0 at the texture's first row; NaN becomes 0; None if no material is textured.
        vertex_colors: (V, 4) float32, linear RGB and alpha; None if there are none.
        face_colors: (F, 4) float32, linear RGB and alpha; None if there are none.
        warnings: what had to be left out or guessed, one sentence each.

    Raises:
        MeshError: no faces, indices out of range, non-finite coordinates or colors, no surface at all.
    """

    vertices: np.ndarray
    faces: np.ndarray
    materials: list[Material] = field(default_factory=lambda: [Material()])
    face_material: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int32))
    normals: np.ndarray | None = None
    uv: np.ndarray | None = None
    vertex_colors: np.ndarray | None = None
    face_colors: np.ndarray | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def num_faces(self) -> int:
        return len(self.faces)

    @property
    def bounds(self) -> np.ndarray:
        """(2, 3) float64: smallest and largest coordinates."""
        return np.stack([self.vertices.min(axis=0), self.vertices.max(axis=0)])

    def face_normals(self) -> np.ndarray:
        """(F, 3) float64: cross products of the edges, whose length is twice the triangle's area."""
        a, b, c = (self.vertices[self.faces[:, i]] for i in range(3))  # each (F, 3)
        return np.cross(b - a, c - a)

    def face_areas(self) -> np.ndarray:
        """(F,) float64 areas in the file's units, squared."""
        return 0.5 * np.linalg.norm(self.face_normals(), axis=1)

    def __post_init__(self) -> None:
        faces = np.asarray(self.faces)
        if faces.size == 0 or len(self.vertices) == 0:
            raise MeshError("empty", "it holds no triangle")
        check_indices(faces, len(self.vertices))
        self.faces = np.ascontiguousarray(faces, dtype=np.int32)
        self.vertices = np.asarray(self.vertices, dtype=np.float64)
        self._drop_unused_vertices()
        extreme = np.abs(self.vertices).max()
        if not extreme < LARGEST_COORDINATE:  # False for NaN, too
            what = "too large" if np.isfinite(extreme) else "NaN or infinite"
            raise MeshError("non_finite", f"vertex coordinates are {what}")
        if not self.face_areas().sum() > 0:
            raise MeshError("zero_area", f"its {len(self.faces)} triangles have no area")
        self.face_material = np.ascontiguousarray(self.face_material, dtype=np.int32)
        if len(self.face_material) == 0:
            self.face_material = np.zeros(len(self.faces), dtype=np.int32)
        if self.normals is not None:
            normals = np.nan_to_num(np.asarray(self.normals, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
            length = np.linalg.norm(normals, axis=1, keepdims=True)
            self.normals = np.divide(normals, length, out=np.zeros_like(normals), where=length > 1e-12)
        if self.uv is not None:
            self.uv = np.nan_to_num(np.asarray(self.uv, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        for name in ("vertex_colors", "face_colors"):
            colors = getattr(self, name)
            if colors is None:
                continue
            colors = np.asarray(colors, dtype=np.float32)
            if colors.shape[1] == 3:
                colors = np.column_stack([colors, np.ones(len(colors), dtype=np.float32)])
            if not np.isfinite(colors).all():
                raise MeshError("non_finite", f"{name.replace('_', ' ')} are NaN or infinite")
            setattr(self, name, np.clip(colors, 0.0, 1.0))

    def _drop_unused_vertices(self) -> None:
        used = np.zeros(len(self.vertices), dtype=bool)
        used[self.faces] = True
        if used.all():
            return
        renumber = np.cumsum(used, dtype=np.int32) - 1
        self.faces = renumber[self.faces]
        self.vertices = self.vertices[used]
        for name in ("normals", "uv", "vertex_colors"):
            values = getattr(self, name)
            if values is not None:
                setattr(self, name, np.asarray(values)[used])


def check_indices(indices: np.ndarray, count: int, first: int = 0) -> None:
    """Refuses faces that name a vertex which does not exist.

    Args:
        indices: from 0, of any shape.
        count: number of vertices.
        first: what the format calls the first vertex, for the message.
    """
    low, high = int(indices.min(initial=0)), int(indices.max(initial=-1))
    if low < 0 or high >= count:
        bad = (low if low < 0 else high) + first
        raise MeshError("corrupt", f"a face names vertex {bad}; its {count} vertices count from {first}")


def linear_colors(
    stored: np.ndarray | None, warnings: list[str], what: str = "its colors", alpha: np.ndarray | None = None
) -> np.ndarray | None:
    """(N, 4) float32 linear colors and opacity of sRGB (N, 3 or 4) as a file stores it, by `colors.unit_colors`.

    None without, or with a warning where the values are no colors: a file's shape stays without them.
    """
    rgb = None if stored is None else unit_colors(stored[:, :3], warnings, what)
    if stored is None or rgb is None:
        return None
    if alpha is None and stored.shape[1] > 3:
        alpha = stored[:, 3]
    opacity = np.ones(len(rgb)) if alpha is None else unit_alpha(alpha)
    return np.column_stack([srgb_to_linear(rgb), opacity]).astype(np.float32)


@dataclass
class Part:
    """A piece of a mesh under construction: one material, attributes or not. Shapes and units as in `Mesh`."""

    vertices: np.ndarray
    faces: np.ndarray
    material: int = 0
    normals: np.ndarray | None = None
    uv: np.ndarray | None = None
    vertex_colors: np.ndarray | None = None


def join(parts: list[Part], materials: list[Material]) -> Mesh:
    """Put parts together; a part without normals, uv or colors gets zeros, zeros and white."""
    if not parts:
        raise MeshError("empty", "it holds no triangle")
    sizes = [len(part.vertices) for part in parts]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])

    def gather(name: str, width: int, default: float) -> np.ndarray | None:
        if all(getattr(part, name) is None for part in parts):
            return None
        rows = []
        for part, size in zip(parts, sizes, strict=True):
            values = getattr(part, name)
            rows.append(np.full((size, width), default, dtype=np.float32) if values is None else values)
        return np.concatenate(rows).astype(np.float32, copy=False)

    return Mesh(
        vertices=np.concatenate([part.vertices for part in parts]),
        faces=np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=True)]),
        materials=materials or [Material()],
        face_material=np.concatenate([np.full(len(part.faces), part.material, dtype=np.int32) for part in parts]),
        normals=gather("normals", 3, 0.0),
        uv=gather("uv", 2, 0.0),
        vertex_colors=gather("vertex_colors", 4, 1.0),
    )
