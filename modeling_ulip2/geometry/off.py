"""OFF and its relatives. trimesh's loader drops the colors of faces (OFF) and of vertices (COFF), so this is ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain

import numpy as np

from .cloud import PointCloud, check_count
from .colors import linear_to_srgb, to_uint8
from .errors import MeshError
from .mesh import Mesh, check_indices, linear_colors
from .numbers import parse_numbers, without_no_numbers
from .polygons import triangulate
from .sandbox import Sandbox
from .text import plain_text

# Texture coordinates, colors, normals; then the dimensions that are not read. ModelNet glues the counts to the word,
# and by the format it may be missing.
_HEADER = re.compile(
    rb"\s*(ST)?(C)?(N)?(4)?(n)?OFF\b\s*(BINARY)?|\s*OFF(?=\d)|(?=\s*\d+[ \t]+\d+([ \t]+\d+)?[ \t]*\n)"
)


def read_off(data: bytes, sandbox: Sandbox, *, max_faces: int, strict: bool) -> Mesh:
    """Parse an OFF, COFF, NOFF, CNOFF or ST… file; see `read_mesh` for the arguments' meaning.

    Numbers may stand on any lines (free form), but for a face's color, which by the format ends with its line.
    """
    vertices, lines, num_faces, warnings = _vertices(data, max_faces)
    sizes, corners, extra = _face_table(lines, num_faces, max_faces)
    check_indices(corners, len(vertices.xyz))
    triangles, polygon = triangulate(vertices.xyz, corners, sizes, warnings)
    if len(triangles) == 0 and len(vertices.xyz):
        raise MeshError("empty", "it holds points but no triangle; read_points reads point clouds")
    face_colors = None
    colored = ~np.isnan(extra[:, 2]) if extra.shape[1] > 2 else np.zeros(len(extra), dtype=bool)
    if colored.any():
        own = linear_colors(extra[colored], warnings, "the colors of its faces")
        if own is not None:
            colors = np.ones((len(extra), 4), dtype=np.float32)  # a face without color among colored ones is white
            colors[colored] = own
            face_colors = colors[polygon]
    elif extra.shape[1]:
        warnings.append("its faces' colors are numbers of a palette, which is not read; they are left out")
    return Mesh(
        vertices=vertices.xyz,
        faces=corners[triangles],
        normals=vertices.normals,
        vertex_colors=vertices.colors,
        face_colors=face_colors,
        warnings=warnings,
    )


def read_off_points(data: bytes, max_points: int) -> PointCloud:
    """The vertices of an OFF file without triangles."""
    vertices, _, num_faces, warnings = _vertices(data, max_points, max_points)
    if num_faces:
        warnings.append(f"its {num_faces} faces have no triangle; they are left out")
    colors = vertices.colors
    return PointCloud(vertices.xyz, None if colors is None else to_uint8(linear_to_srgb(colors[:, :3])), warnings)


@dataclass
class _Vertices:
    """xyz (V, 3), and perhaps normals (V, 3) and linear colors (V, 4)."""

    xyz: np.ndarray
    normals: np.ndarray | None
    colors: np.ndarray | None


def _vertices(
    data: bytes, max_faces: int, max_points: int | None = None
) -> tuple[_Vertices, list[bytes], int, list[str]]:
    """The vertices, the lines behind them, the number of faces that these hold, and what is to be warned of."""
    text = re.sub(rb"#[^\n]*", b"", without_no_numbers(plain_text(data)))
    match = _HEADER.match(text)
    if match is None:
        raise MeshError("unsupported", f"it does not begin with OFF but with {text[:20].decode(errors='replace')!r}")
    has_uv, has_color, has_normal, four, n_dim, binary = match.groups()[:6]
    if four or n_dim or binary:
        raise MeshError("unsupported", "it is a four- or n-dimensional or binary OFF file; only plain ones are read")
    lines = [line for line in text[match.end() :].split(b"\n") if line and not line.isspace()]
    num_vertices, num_faces, lines = _counts(lines)
    if num_faces > max_faces:
        raise MeshError("too_many_faces", f"its header declares {num_faces} faces; at most {max_faces}")
    if max_points is not None:
        check_count(num_vertices, max_points)
    # A digit and a blank each; a face of no corners is one number.
    if num_vertices < 0 or num_faces < 0 or 2 * (3 * num_vertices + num_faces) > len(text) + 1:
        raise MeshError(
            "truncated", f"it declares {num_vertices} vertices and {num_faces} faces and has {len(lines)} lines"
        )
    table, lines = _vertex_table(
        lines, num_vertices, 3 + 3 * bool(has_normal) + 4 * bool(has_color) + 2 * bool(has_uv)
    )
    warnings: list[str] = []
    colors = None
    behind = table[:, 6 if has_normal else 3 : table.shape[1] - 2 * bool(has_uv)]
    # Some programs write colors behind a plain OFF's coordinates, too.
    if behind.shape[1] >= 3 and (has_color or behind.shape[1] <= 4):
        colors = linear_colors(behind[:, :4], warnings)
    elif behind.shape[1]:
        warnings.append(f"{behind.shape[1]} numbers behind each vertex are no color that is read; they are left out")
    return _Vertices(table[:, :3], table[:, 3:6] if has_normal else None, colors), lines, num_faces, warnings


def _counts(lines: list[bytes]) -> tuple[int, int, list[bytes]]:
    """The numbers of vertices and faces, and the lines behind them; the number of edges says nothing."""
    words: list[bytes] = []
    used = 0
    # Some files leave the number of edges out; where it follows on a line of its own, it stands alone there.
    while used < len(lines) and (len(words) < 2 or (len(words) == 2 and len(lines[used].split()) == 1)):
        words += lines[used].split()
        used += 1
    try:
        num_vertices, num_faces = int(words[0]), int(words[1])
    except (IndexError, ValueError):
        raise MeshError("corrupt" if words else "truncated", "its vertex and face counts are missing") from None
    rest = [b" ".join(words[3:])] if len(words) > 3 else []
    return num_vertices, num_faces, rest + lines[used:]


def _vertex_table(lines: list[bytes], count: int, width: int) -> tuple[np.ndarray, list[bytes]]:
    """(count, columns) of the vertices, and the lines behind them. `width` is what the format says of a row."""
    if count == 0:
        return np.zeros((0, width)), lines
    widths = set(map(len, map(bytes.split, lines[:count])))
    if len(widths) == 1 and len(lines) >= count and min(widths) >= 3:  # a line each, as nearly always
        own = min(widths)
        values = parse_numbers(b"\n".join(lines[:count]))
        if values is not None and len(values) == own * count and own >= width - 1:  # a color may lack its alpha
            return values.reshape(count, own), lines[count:]
        if own >= width - 1:
            raise MeshError("corrupt", "its vertices are not all numbers")
    needed, position, used = width * count, 0, 0
    while used < len(lines) and position < needed:
        position += len(lines[used].split())
        used += 1
    values = parse_numbers(b"\n".join(lines[:used]))
    if values is None or len(values) != position:
        raise MeshError("corrupt", "its vertices are not all numbers")
    if position < needed:
        raise MeshError("truncated", f"it declares {count} vertices of {width} numbers and has {position} numbers")
    rest = lines[used - 1].split()[len(lines[used - 1].split()) - (position - needed) :] if position > needed else []
    if rest and len(widths) > 1 and lines[0].split()[width:]:
        raise MeshError("corrupt", f"its vertices are not all {width} numbers")
    return values[:needed].reshape(count, width), ([b" ".join(rest)] if rest else []) + lines[used:]


def _face_table(lines: list[bytes], count: int, max_faces: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Corners of each face (count,), their vertices one face after the other, and up to four numbers behind each
    (count, 0 to 4), NaN where a face has fewer."""
    if count == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros((0, 0))
    values, width = parse_numbers(b"\n".join(lines[:count])), len(lines[0].split()) if lines else 0
    if values is not None and len(lines) >= count and len(values) == width * count:
        table = values.reshape(count, width)
        size = table[0, 0]
        if (
            2 < size < width and (size - 2) * count <= max_faces and (table[:, 0] == size).all()
        ):  # all alike, as nearly always
            corners = table[:, 1 : int(size) + 1]
            broken = np.flatnonzero((corners != np.floor(corners)).any(axis=1))
            if len(broken) == 0 and size == int(size):
                return (
                    np.full(count, int(size)),
                    corners.astype(np.int64).reshape(-1),
                    table[:, int(size) + 1 : int(size) + 5],
                )
            raise MeshError("corrupt", f"face {broken[0] + 1 if len(broken) else 1} has numbers that are not whole")
    try:
        faces = _free_faces(lines, count, max_faces, colors=True)
        faces = faces or _free_faces([b" ".join(lines)], count, max_faces, colors=False)
    except (ValueError, OverflowError) as error:
        if isinstance(error, MeshError):
            raise
        raise MeshError("corrupt", f"its faces are not made of numbers as OFF has them ({error})") from None
    if faces is None:
        raise MeshError("truncated", f"it declares {count} faces and ends before the last of them")
    sizes = np.array([len(corners) for corners, _ in faces], dtype=np.int64)
    extra = np.full((count, max(len(numbers) for _, numbers in faces)), np.nan)
    for row, (_, words) in enumerate(faces):
        numbers = parse_numbers(b" ".join(words))
        if numbers is None or len(numbers) != len(words):
            raise MeshError("corrupt", f"face {row + 1} has a color that is not made of numbers")
        extra[row, : len(words)] = numbers
    try:
        indices = np.array(list(chain.from_iterable(corners for corners, _ in faces)), dtype=np.int64)
    except OverflowError:
        raise MeshError("corrupt", "a face names a vertex beyond all numbers") from None
    return sizes, indices, extra


def _free_faces(
    lines: list[bytes], count: int, max_faces: int, colors: bool
) -> list[tuple[list[int], list[bytes]]] | None:
    """Corners and color of each face, whose numbers may stand on several lines; None if the lines end too early.

    Where several faces share a line there are no colors: what would be one is the next face.
    """
    faces: list[tuple[list[int], list[bytes]]] = []
    ahead = iter(lines)
    words: list[bytes] = []
    place = triangles = 0
    while len(faces) < count:
        while place >= len(words):
            line = next(ahead, None)
            if line is None:
                return None
            words, place = line.split(), 0
        size = int(words[place])
        if size < 0:
            raise MeshError("corrupt", f"face {len(faces) + 1} has {size} corners")
        triangles += max(size - 2, 0)
        if triangles > max_faces:
            raise MeshError("too_many_faces", f"its polygons hold more than {max_faces} triangles")
        place += 1
        corners: list[int] = []
        while len(corners) < size:
            corners += [int(word) for word in words[place : place + size - len(corners)]]
            place += size
            if len(corners) < size:
                line = next(ahead, None)
                if line is None:
                    return None
                words, place = line.split(), 0
                size_left = size - len(corners)
                corners += [int(word) for word in words[:size_left]]
                place = size_left
        behind = words[place:]
        if colors and len(behind) <= 4:
            faces.append((corners, behind))
            place = len(words)
        else:
            faces.append((corners, []))
    return faces
