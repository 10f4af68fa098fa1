"""A collection of colored triangles of many objects, on its way to becoming one mesh."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from modeling_ulip2.geometry.colors import srgb_to_linear
from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.geometry.mesh import Material, Mesh
from modeling_ulip2.geometry.textures import decode_texture

from .home import HomeError, Paint, Texture

_METERS = 0.01
_TEXTURE_SIDE = 1024


class Surfaces:
    """Triangles in cm: x and y of the plan are x and z, elevations are y. They become meters.

    Args:
        read: gives an image's bytes by the name of its content.
    """

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self.warnings: list[str] = []
        self.current = -1  # number of the object that is added to
        self._read = read
        self._materials: list[Material] = []
        self._painted: dict[Paint, int] = {}
        self._images: dict[str, np.ndarray | None] = {}
        self._vertices: list[np.ndarray] = []
        self._faces: list[np.ndarray] = []
        self._material: list[np.ndarray] = []
        self._object: list[np.ndarray] = []
        self._uv: list[np.ndarray] = []
        self._count = 0

    def add(self, vertices: np.ndarray, faces: np.ndarray, paint: Paint, plane: np.ndarray | None = None) -> None:
        """Adds flat triangles to the current object.

        Args:
            vertices: (V, 3) cm.
            faces: (F, 3).
            paint: what covers them.
            plane: (V, 2) cm along the surface, over which a texture repeats; v up.
        """
        if len(faces) == 0:
            return
        material = self._material_of(paint)
        uv = np.zeros((len(vertices), 2))
        if plane is not None and paint.texture is not None:
            uv = texture_coordinates(paint.texture, plane)
        self._append(vertices, faces, np.full(len(faces), material), uv)

    def quad(self, a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray, paint: Paint) -> None:
        """Adds the rectangle between four points (3,), in order around it."""
        corners = np.stack([a, b, c, d])
        across, up = np.linalg.norm(b - a), np.linalg.norm(d - a)
        if across < 1e-6 or up < 1e-6:
            return
        plane = np.array([[0, 0], [across, 0], [across, up], [0, up]])
        self.add(corners, np.array([[0, 1, 2], [0, 2, 3]]), paint, plane)

    def add_part(self, vertices: np.ndarray, faces: np.ndarray, material: Material, uv: np.ndarray | None) -> None:
        """Adds triangles (F, 3) of vertices (V, 3), in cm, of one material with its own uv (V, 2), to the current
        object."""
        if len(faces):
            self._materials.append(material)
            own = np.zeros((len(vertices), 2)) if uv is None else uv
            self._append(vertices, faces, np.full(len(faces), len(self._materials) - 1), own)

    def _append(self, vertices: np.ndarray, faces: np.ndarray, material: np.ndarray, uv: np.ndarray) -> None:
        self._vertices.append(np.asarray(vertices, dtype=np.float64) * _METERS)
        self._faces.append(np.asarray(faces) + self._count)
        self._material.append(material)
        self._object.append(np.full(len(faces), self.current, dtype=np.int32))
        self._uv.append(np.asarray(uv, dtype=np.float32))
        self._count += len(vertices)

    def _material_of(self, paint: Paint) -> int:
        if paint not in self._painted:
            self._painted[paint] = len(self._materials)
            self._materials.append(self.material(paint))
        return self._painted[paint]

    def material(self, paint: Paint) -> Material:
        """A material of a paint; white where it says nothing."""
        image = None if paint.texture is None else self.image(paint.texture.image)
        if image is not None:
            return Material(texture=image, alpha_mode="OPAQUE" if image[..., 3].min() >= 250 else "MASK")
        color = paint.color or (1.0, 1.0, 1.0)
        return Material(base_color=np.array([*srgb_to_linear(np.array(color)), 1.0], dtype=np.float32))

    def image(self, name: str) -> np.ndarray | None:
        """(H, W, 4) uint8 of an image in the home; None, with a warning, if it cannot be read."""
        if name not in self._images:
            try:
                self._images[name] = decode_texture(self._read(name), name, _TEXTURE_SIDE)
            except (HomeError, MeshError) as error:
                self._images[name] = None
                self.warnings.append(f"the texture {name[:60]!r} is left out ({error.args[0]})")
        return self._images[name]

    def mesh(self) -> tuple[Mesh, np.ndarray]:
        """The mesh in meters, y up, and the object (F,) int32 of each triangle.

        Raises:
            HomeError: there is no surface.
        """
        if not self._faces:
            raise HomeError("it shows nothing: no wall, no room and no piece of furniture")
        textured = any(material.texture is not None for material in self._materials)
        mesh = Mesh(
            vertices=np.concatenate(self._vertices),
            faces=np.concatenate(self._faces),
            materials=self._materials,
            face_material=np.concatenate(self._material),
            uv=np.concatenate(self._uv) if textured else None,
        )
        return mesh, np.concatenate(self._object)


def texture_coordinates(texture: Texture, plane: np.ndarray) -> np.ndarray:
    """(V, 2) u and v, v down from the image's first row, at points (V, 2) of a surface in cm, the second number up."""
    cosine, sine = math.cos(texture.angle), math.sin(texture.angle)
    turned = np.stack([cosine * plane[:, 0] - sine * plane[:, 1], sine * plane[:, 0] + cosine * plane[:, 1]], axis=1)
    size = np.array([texture.width, texture.height]) * texture.scale
    u, up = (turned / size + texture.offset).T
    return np.stack([u, -up], axis=1)
