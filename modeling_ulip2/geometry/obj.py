"""Wavefront OBJ geometry.

trimesh's loader is not used here because it is silently wrong on files that exist: relative (negative) indices count
from the file's end, a group that mixes `v/vt` and `v` corners loses all its texture coordinates, only the first
`mtllib` is read, and options and transparency in MTL files are passed over.
"""

from __future__ import annotations

import io
from array import array
from collections import Counter

import numpy as np

from .cloud import PointCloud, check_count
from .colors import linear_to_srgb, to_uint8
from .errors import MeshError
from .mesh import Mesh, check_indices, linear_colors
from .mtl import MaterialLibrary, decode_name
from .numbers import parse_numbers, without_no_numbers
from .polygons import triangulate
from .sandbox import Sandbox
from .text import plain_text

# Vertices, texture coordinates or normals that a file may hold for each face allowed; most need fewer than one.
_ROWS_PER_FACE = 4
# Stands for a number that a row does not have while others do.
_ABSENT = -np.inf
# Statements of shapes that are not read: free-form curves and surfaces, also of the format's first version, and other
# files.
_FREE_FORM = {b"curv", b"curv2", b"surf", b"bzp", b"bsp", b"cdc", b"cdp", b"res"}
_CALLS = {b"call", b"csh"}


def read_obj(data: bytes, sandbox: Sandbox, *, max_faces: int, strict: bool) -> Mesh:
    """Parse an OBJ file with its MTL files and textures; see `read_mesh` for the arguments' meaning."""
    text = _Statements(without_no_numbers(plain_text(data)), max_faces)
    if text.positions.count == 0:
        raise MeshError("empty", "it holds no vertex")
    positions, uv, normals = text.positions.rows(), text.uv.rows(), text.normals.rows()
    all_corners = text.corners()  # (C, 3)
    check_indices(all_corners[:, 0], len(positions), first=1)
    warnings = _leave_out_missing(all_corners, len(uv), len(normals))
    triangles, polygon = triangulate(positions[:, :3], all_corners[:, 0], text.sizes(), warnings)
    corners = all_corners[triangles]  # (F, 3, 3)
    if len(corners) == 0:
        what = "points but no triangle; read_points reads point clouds" if text.points else "no triangle"
        raise MeshError("empty", f"it holds {what}")
    if text.points:
        warnings.append(f"its points ({len(text.points)}) are left out")
    warnings += text.left_out()

    library = MaterialLibrary(sandbox, strict)
    for files in text.libraries:
        library.load(files)
    names, face_material = text.face_materials(polygon)
    if not text.libraries and any(names):
        warnings.append("it names materials but no material file; they are shown white")
    materials = [library.material(name) for name in names]
    # A face without texture coordinates shows its material's plain color.
    bare = (corners[..., 1] < 0).any(axis=1)
    for number, material in enumerate(list(materials)):
        here = bare & (face_material == number)
        if material.textured and here.any():
            face_material[here] = len(materials)
            materials.append(library.material(names[number], textured=False))
    textured = any(material.textured for material in materials)
    if not textured:
        corners[..., 1] = -1
    transforms = [library.uv_transform(name) for name in names]
    for number, transform in enumerate(transforms):
        if transform is not None and materials[number].textured:
            uv = _with_transformed_copy(uv, transform, corners, face_material == number)
    faces, vertex_of, uv_of, normal_of = _merge_corners(corners, len(uv), len(normals))
    colors = _vertex_colors(text, positions, warnings)
    return Mesh(
        vertices=positions[vertex_of, :3],
        faces=faces,
        materials=materials,
        face_material=face_material,
        normals=_take(normals, normal_of) if len(normals) else None,
        uv=_flip_v(_take(uv, uv_of)) if textured else None,
        vertex_colors=None if colors is None else colors[vertex_of],
        warnings=[*warnings, *library.warnings],
    )


def read_obj_points(data: bytes, max_points: int) -> PointCloud:
    """The points (`p`) of an OBJ file, or all of its vertices if it has neither points nor faces."""
    text = _Statements(without_no_numbers(plain_text(data)), max_points)
    check_count(max(len(text.points), 0 if text.points else text.positions.count), max_points)
    rows = text.positions.rows()
    if (text.sizes() > 2).any() and not text.points:
        raise MeshError("empty", "it holds faces and no points; read_mesh reads meshes")
    judged: list[str] = []
    colors = _vertex_colors(text, rows, judged) if len(rows) else None  # (V, 4)
    index = np.array(text.points, dtype=np.int64) - 1 if text.points else np.arange(len(rows))
    if index.min(initial=0) < 0 or index.max(initial=-1) >= len(rows):
        raise MeshError("corrupt", f"a point names a vertex that is none of its {len(rows)}")
    rows = rows[index]
    warnings = text.left_out()
    if len(text.sizes()):
        warnings.append("it holds faces beside its points; they are left out")
    return PointCloud(
        rows[:, :3], None if colors is None else to_uint8(linear_to_srgb(colors[index, :3])), [*warnings, *judged]
    )


def _leave_out_missing(corners: np.ndarray, num_uv: int, num_normals: int) -> list[str]:
    """Put -1, in place, where (C, 3) corners name texture coordinates or normals that do not exist; gives warnings."""
    warnings = []
    for column, count, what in ((1, num_uv, "texture coordinates (vt)"), (2, num_normals, "normals (vn)")):
        missing = (corners[:, column] >= count) | (corners[:, column] < -1)
        if missing.any():
            corners[missing, column] = -1
            warnings.append(f"{int(missing.sum())} corners of its faces name {what} that it lacks; they are left out")
    return warnings


def _vertex_colors(text: _Statements, positions: np.ndarray, warnings: list[str]) -> np.ndarray | None:
    """(V, 4) linear colors of vertices (V, 3 or 6), whose last three columns are sRGB, or of ZBrush's comments; None
    without. Vertices without a color are white, as a factor should."""
    if positions.shape[1] < 6:
        return linear_colors(text.comment_colors(warnings), warnings)
    colors = np.ones((len(positions), 4), dtype=np.float32)
    given = (positions[:, 3:] != _ABSENT).all(axis=1)
    own = linear_colors(positions[given, 3:], warnings)
    if own is None:
        return None
    colors[given] = own
    return colors


def _with_transformed_copy(
    uv: np.ndarray, transform: np.ndarray, corners: np.ndarray, faces: np.ndarray
) -> np.ndarray:
    """Append uv * scale + offset of the rows that these faces use, and point their corners there, in place."""
    used, inverse = np.unique(corners[faces, :, 1], return_inverse=True)
    corners[faces, :, 1] = len(uv) + inverse.reshape(-1, 3)
    return np.concatenate([uv, uv[used] * transform[0] + transform[1]])


def _take(rows: np.ndarray, index: np.ndarray) -> np.ndarray:
    """rows[index], zeros where the index is -1."""
    taken = np.zeros((len(index), rows.shape[1]), dtype=np.float32)
    taken[index >= 0] = rows[index[index >= 0]]
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


class _Table:
    """Rows of numbers under one keyword, parsed in blocks so that the text is never held twice."""

    _BLOCK = 65536

    def __init__(self, keyword: str, widths: tuple[int, ...], fewest: int, limit: int) -> None:
        """Args: `widths`, columns to keep, the largest that a row has; `fewest`, numbers a row needs."""
        self.count = 0
        self._keyword, self._widths, self._fewest, self._limit = keyword, widths, fewest, limit
        self._lines: list[bytes] = []
        self._blocks: list[np.ndarray] = []

    def add(self, line: bytes) -> None:
        self.count += 1
        if self.count > self._limit:
            raise MeshError("too_large", f"it has more than {self._limit} statements {self._keyword!r}")
        self._lines.append(line)
        if len(self._lines) == self._BLOCK:
            self._flush()

    def rows(self) -> np.ndarray:
        """(count, width) float64, as wide as the widest row; `_ABSENT` where a row has less."""
        self._flush()
        blocks = self._blocks or [np.zeros((0, self._widths[-1]))]
        width = max(block.shape[1] for block in blocks)
        return np.concatenate(
            [np.pad(b, ((0, 0), (0, width - b.shape[1])), constant_values=_ABSENT) if b.shape[1] < width else b
             for b in blocks]
        )  # fmt: skip

    def _flush(self) -> None:
        if not self._lines:
            return
        lines, first = self._lines, self.count - len(self._lines)
        self._lines = []
        widest, base = self._widths[0], self._widths[-1]
        given = set(map(len, map(bytes.split, lines)))
        per_line = min(given)
        if len(given) == 1 and per_line >= base:
            values = parse_numbers(b" ".join(lines))
            if values is not None and len(values) == per_line * len(lines):
                width = next(width for width in self._widths if width <= per_line)
                self._blocks.append(values.reshape(len(lines), per_line)[:, :width])
                return
        block = np.full((len(lines), widest), _ABSENT)
        block[:, :base] = 0.0  # `vt u` has v = 0
        for row, line in enumerate(lines):
            numbers = line.split(b"#")[0].split()
            place = f"statement {self._keyword!r} number {first + row + 1}"
            if len(numbers) < self._fewest:
                raise MeshError("corrupt", f"{place} has {len(numbers)} numbers; {self._fewest} are needed")
            numbers = numbers[: widest if len(numbers) >= widest else base]
            try:
                block[row, : len(numbers)] = [float(number) for number in numbers]
            except ValueError:
                raise MeshError("corrupt", f"{place} is not made of numbers") from None
        self._blocks.append(block if (block[:, base:] != _ABSENT).any() else block[:, :base])


class _Statements:
    """The lines of an OBJ file, sorted by keyword."""

    def __init__(self, data: bytes, max_faces: int) -> None:
        limit = _ROWS_PER_FACE * max_faces
        self.positions = _Table("v", (6, 3), 3, limit)  # some programs write r, g, b behind x, y, z
        self.uv = _Table("vt", (2,), 1, limit)
        self.normals = _Table("vn", (3,), 3, limit)
        self.libraries: list[str] = []
        self._max_faces, self._limit = max_faces, limit
        self._materials: dict[str, int] = {}
        self._material_of_face = array("i")
        self._sizes = array("q")  # corners of each face
        self.points = array("q")  # the vertex of each point, from 1
        self.lines = 0
        self._unread: Counter[bytes] = Counter()
        self._painted: list[bytes] = []  # ZBrush's colors, MMRRGGBB in hex for one vertex after the other
        self._indices = array("q")  # vertex, uv, normal of each corner, from 1; 0 where absent
        current = -1
        triangles = 0
        stream = io.BytesIO(data)
        for line in stream:
            while line.rstrip(b"\r\n").endswith(b"\\"):  # continued on the next line
                line = line.rstrip(b"\r\n")[:-1] + b" " + stream.readline()
            words = line.split(None, 1)
            if len(words) < 2:
                continue
            keyword, rest = words
            if keyword == b"v":
                self.positions.add(rest)
            elif keyword == b"vt":
                self.uv.add(rest)
            elif keyword == b"vn":
                self.normals.add(rest)
            elif keyword in (b"f", b"fo"):
                if current < 0:
                    current = self._materials.setdefault("", 0)
                triangles += self._add_face(rest)
                self._material_of_face.append(current)
                if triangles > max_faces:
                    raise MeshError("too_many_faces", f"it has more than {max_faces} triangles")
            elif keyword == b"p":
                self._add_points(rest)
            elif keyword == b"l":
                self.lines += 1
            elif keyword == b"usemtl":
                current = self._materials.setdefault(decode_name(rest), len(self._materials))
            elif keyword == b"mtllib":
                self.libraries.append(decode_name(rest))
            elif keyword == b"#MRGB":
                self._painted.append(rest.strip())
            elif keyword in _FREE_FORM or keyword in _CALLS:
                self._unread[keyword] += 1

    def left_out(self) -> list[str]:
        """Warnings about what is no face and no point."""
        warnings = [f"its lines ({self.lines}) are left out"] if self.lines else []
        forms = sorted(keyword.decode() for keyword in self._unread if keyword in _FREE_FORM)
        if forms:
            warnings.append(
                f"its free-form curves and surfaces ({', '.join(forms)}) are left out; store it as polygons"
            )
        if self._unread.keys() & _CALLS:
            warnings.append("it calls other files, which are not read")
        return warnings

    def comment_colors(self, warnings: list[str]) -> np.ndarray | None:
        """(V, 3) uint8 sRGB that ZBrush writes into comments `#MRGB`; None without."""
        if not self._painted:
            return None
        try:
            values = np.frombuffer(bytes.fromhex(b"".join(self._painted).decode("ascii")), np.uint8)
        except ValueError:
            values = np.zeros(0, dtype=np.uint8)
        if len(values) == 4 * self.positions.count:
            return values.reshape(-1, 4)[:, 1:]
        if not self._painted[0].startswith(b"block"):
            warnings.append("its painted colors (#MRGB) are not one for each vertex, and are left out")
        return None

    def _add_points(self, rest: bytes) -> None:
        try:
            for word in rest.split(b"#")[0].split():
                index = int(word.partition(b"/")[0])
                self.points.append(index if index > 0 else self.positions.count + index + 1)
        except (ValueError, OverflowError):
            raise MeshError("corrupt", f"a point has the vertex {rest[:40]!r}") from None
        if len(self.points) > self._limit:
            raise MeshError("too_many_points", f"it has more than {self._limit} points")

    def _add_face(self, rest: bytes) -> int:
        """Note a polygon's corners; returns the number of its triangles."""
        corners = rest.split(b"#")[0].split() if b"#" in rest else rest.split()
        self._sizes.append(len(corners))
        append = self._indices.append
        try:
            for corner in corners:
                pieces = corner.split(b"/")
                append(int(pieces[0]))
                append(int(pieces[1]) if len(pieces) > 1 and pieces[1] else 0)
                append(int(pieces[2]) if len(pieces) > 2 and pieces[2] else 0)
        except (ValueError, OverflowError):
            raise MeshError("corrupt", f"face {len(self._sizes)} has the corner {corner[:40]!r}") from None
        if b"-" in rest:  # relative indices count back from the statements above the face
            above = (self.positions.count, self.uv.count, self.normals.count)
            for place in range(len(self._indices) - 3 * len(corners), len(self._indices)):
                if self._indices[place] < 0:
                    self._indices[place] += above[place % 3] + 1
                    if self._indices[place] >= 1:
                        continue
                    self._indices[place] = -1  # a texture coordinate or normal may be missing
                    if place % 3 == 0:
                        raise MeshError("corrupt", f"face {len(self._sizes)} reaches back before the first statement")
        return max(0, len(corners) - 2)

    def corners(self) -> np.ndarray:
        """(C, 3) int64: vertex, uv and normal of each polygon's corners from 0, -1 where absent."""
        return np.array(self._indices, dtype=np.int64).reshape(-1, 3) - 1

    def sizes(self) -> np.ndarray:
        """(P,) int64: number of corners of each polygon."""
        return np.array(self._sizes, dtype=np.int64)

    def face_materials(self, polygon: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Names of the materials in use, and their index for each triangle, which is cut from a `polygon` (F,)."""
        of_triangle = np.array(self._material_of_face, dtype=np.int32)[polygon]
        used, index = np.unique(of_triangle, return_inverse=True)
        names = list(self._materials)
        return [names[i] for i in used], index.astype(np.int32)
