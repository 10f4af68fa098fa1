"""Wavefront OBJ geometry.

trimesh's loader is not used here because it is silently wrong on files that exist: relative (negative) indices count
from the file's end, a group that mixes `v/vt` and `v` corners loses all its texture coordinates, only the first
`mtllib` is read, and options and transparency in MTL files are passed over.
"""

from __future__ import annotations

from array import array
from pathlib import Path

import numpy as np

from .errors import MeshError
from .mesh import Mesh
from .mtl import MaterialLibrary
from .polygons import fan
from .sandbox import Sandbox


def read_obj(path: Path, data: bytes, sandbox: Sandbox, *, max_faces: int, strict: bool) -> Mesh:
    """Parse an OBJ file with its MTL files and textures; see `read_mesh` for the arguments' meaning."""
    if b"\0" in data[:65536]:
        raise MeshError("corrupt", "it is binary data, not an OBJ file")
    if data.count(b"\nf") > max_faces:
        raise MeshError("too_many_faces", f"it has more than {max_faces} faces")
    lines = data.replace(b"\\\r\n", b" ").replace(b"\\\n", b" ").splitlines()
    text = _Statements(lines, max_faces)
    library = MaterialLibrary(sandbox, strict)
    for files in text.libraries:
        library.load(files)
    positions, colors = text.positions()
    uv = text.rows(text.vt, 2, "vt")
    normals = text.rows(text.vn, 3, "vn")
    corners = text.corners()  # (F, 3, 3): vertex, uv, normal of every corner, -1 where absent
    if len(corners) == 0:
        raise MeshError("empty", "it holds no triangle")
    for column, (rows, what) in enumerate(((positions, "vertex"), (uv, "vt"), (normals, "vn"))):
        index = corners[..., column]
        if index.max(initial=-1) >= len(rows) or (column == 0 and index.min(initial=0) < 0):
            raise MeshError("corrupt", f"a face names {what} {index.max() + 1} of {len(rows)}")

    names, face_material = text.face_materials()
    materials = [library.material(name) for name in names]
    textured = any(material.texture is not None for material in materials)
    if not textured:
        corners[..., 1] = -1
    faces, vertex_of, uv_of, normal_of = _merge_corners(corners, len(uv), len(normals))
    if textured and (uv_of < 0).any():
        bare = np.unique(face_material[(corners[..., 1] < 0).any(axis=1)])
        for index in bare:
            if materials[index].texture is not None:
                library.warnings.append(f"material {names[index]!r} is textured but some of its faces have no vt")
    return Mesh(
        vertices=positions[vertex_of],
        faces=faces,
        materials=materials,
        face_material=face_material,
        normals=_take(normals, normal_of) if len(normals) else None,
        uv=_flip_v(_take(uv, uv_of)) if textured else None,
        vertex_colors=None if colors is None else colors[vertex_of],
        warnings=library.warnings,
    )


def _take(rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """rows[index], zeros where the index is -1."""
    taken = rows[np.maximum(index, 0)].astype(np.float32)
    taken[index < 0] = 0.0
    return taken


def _flip_v(uv: np.ndarray) -> np.ndarray:
    """OBJ puts v = 0 at the image's last row, `Mesh` at its first."""
    return np.column_stack([uv[:, 0], 1.0 - uv[:, 1]])


def _merge_corners(
    corners: np.ndarray, num_uv: int, num_normals: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Give each distinct (vertex, uv, normal) one vertex: faces (F, 3), then the three old indices of each vertex."""
    flat = corners.reshape(-1, 3)
    key = flat[:, 0].copy()  # (3F,)
    for column, count in ((1, num_uv), (2, num_normals)):
        if (flat[:, column] >= 0).any():
            # Renumbering between the columns keeps the product of the counts within 64 bits.
            key = np.unique(key, return_inverse=True)[1] * (count + 1) + flat[:, column] + 1
    _, first, faces = np.unique(key, return_index=True, return_inverse=True)
    return faces.reshape(-1, 3).astype(np.int32), flat[first, 0], flat[first, 1], flat[first, 2]


class _Statements:
    """The lines of an OBJ file, sorted by keyword."""

    def __init__(self, lines: list[bytes], max_faces: int) -> None:
        self.v: list[bytes] = []
        self.vt: list[bytes] = []
        self.vn: list[bytes] = []
        self.faces: list[bytes] = []
        self.libraries: list[str] = []
        self._materials: dict[str, int] = {}
        self._material_of_face = array("i")
        self._counts: list[tuple[int, int, int]] | None = None  # v, vt, vn above each face, for relative indices
        current = -1
        relative = any(b"-" in line for line in lines if line[:1] == b"f" or line.lstrip()[:2] in (b"f ", b"f\t"))
        counts: list[tuple[int, int, int]] = []
        for line in lines:
            keyword, _, rest = line.lstrip().replace(b"\t", b" ").partition(b" ")
            if keyword == b"v":
                self.v.append(rest)
            elif keyword == b"vt":
                self.vt.append(rest)
            elif keyword == b"vn":
                self.vn.append(rest)
            elif keyword in (b"f", b"fo"):
                if current < 0:
                    current = self._material_index("")
                self.faces.append(rest)
                self._material_of_face.append(current)
                if relative:
                    counts.append((len(self.v), len(self.vt), len(self.vn)))
            elif keyword == b"usemtl":
                current = self._material_index(_text(rest))
            elif keyword == b"mtllib":
                self.libraries.append(_text(rest))
        if relative:
            self._counts = counts
        self._max_faces = max_faces
        self._polygon_of = np.zeros(0, dtype=np.int64)

    def _material_index(self, name: str) -> int:
        return self._materials.setdefault(name, len(self._materials))

    def face_materials(self) -> tuple[list[str], np.ndarray]:
        """Names of the materials in use, and their index for each triangle (F,); after `corners`."""
        of_triangle = np.frombuffer(self._material_of_face, dtype=np.int32)[self._polygon_of]
        used, index = np.unique(of_triangle, return_inverse=True)
        names = list(self._materials)
        return [names[i] for i in used], index.astype(np.int32)

    @staticmethod
    def rows(lines: list[bytes], width: int, what: str) -> np.ndarray:
        """(N, width) float64; a `vt` of one number gets a zero, further numbers are dropped."""
        if not lines:
            return np.zeros((0, width))
        values = _numbers(lines)
        if values is not None and len(values) % len(lines) == 0:
            per_line = len(values) // len(lines)
            if per_line >= width and all(len(line.split()) == per_line for line in lines):
                return values.reshape(len(lines), per_line)[:, :width]
        table = np.zeros((len(lines), width))
        for row, line in enumerate(lines):
            numbers = line.split(b"#")[0].split()[:width]
            if len(numbers) < (1 if what == "vt" else width):
                raise MeshError("corrupt", f"statement {row + 1} of kind {what!r} has {len(numbers)} numbers")
            try:
                table[row, : len(numbers)] = [float(number) for number in numbers]
            except ValueError:
                raise MeshError("corrupt", f"statement {row + 1} of kind {what!r} is not made of numbers") from None
        return table

    def positions(self) -> tuple[np.ndarray, np.ndarray | None]:
        """(N, 3) coordinates, and (N, 4) linear colours where each `v` has six numbers or seven."""
        from .colors import srgb_to_linear

        if not self.v:
            raise MeshError("empty", "it holds no vertex")
        widths = {len(line.split()) for line in self.v}
        if widths <= {6, 7} and len(widths) == 1:
            table = self.rows(self.v, 6, "v")
            rgb = table[:, 3:6]
            rgb = rgb / 255.0 if rgb.max(initial=0.0) > 1.0 else rgb
            return table[:, :3], np.column_stack([srgb_to_linear(rgb), np.ones(len(rgb), dtype=np.float32)])
        return self.rows(self.v, 3, "v"), None

    def corners(self) -> np.ndarray:
        """(F, 3, 3) int64: zero-based vertex, uv and normal of each triangle's corners; polygons become fans."""
        if not self.faces:
            return np.zeros((0, 3, 3), dtype=np.int64)
        sizes = np.zeros(len(self.faces), dtype=np.int64)
        flat = array("q")
        for row, line in enumerate(self.faces):
            tokens = line.split(b"#")[0].split()
            sizes[row] = len(tokens)
            for token in tokens:
                pieces = token.split(b"/")
                try:
                    flat.append(int(pieces[0]))
                    flat.append(int(pieces[1]) if len(pieces) > 1 and pieces[1] else 0)
                    flat.append(int(pieces[2]) if len(pieces) > 2 and pieces[2] else 0)
                except (ValueError, OverflowError):
                    raise MeshError("corrupt", f"face {row + 1} has the corner {token[:40]!r}") from None
        triangles = int(np.maximum(sizes - 2, 0).sum())
        if triangles > self._max_faces:
            raise MeshError("too_many_faces", f"it has {triangles} triangles; at most {self._max_faces}")
        index = np.frombuffer(flat, dtype=np.int64).reshape(-1, 3)  # (corners, 3), 1-based, 0 where absent
        if self._counts is not None:
            above = np.repeat(np.asarray(self._counts, dtype=np.int64), sizes, axis=0)
            if (index + above < 0).any():
                raise MeshError("corrupt", "a face has a relative index before the first statement")
            index = np.where(index < 0, index + above, index - 1)
        else:
            index = index - 1
        corners, self._polygon_of = fan(sizes)
        return index[corners]


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace").strip()


def _numbers(lines: list[bytes]) -> np.ndarray | None:
    """All numbers of the lines, or None if something else stands among them."""
    try:
        return np.array(b" ".join(lines).split(), dtype=np.float64)
    except ValueError:
        return None
