"""OFF and its relatives. trimesh's loader drops the colours of faces (OFF) and of vertices (COFF), so this is ours."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from .colors import srgb_to_linear
from .errors import MeshError
from .mesh import Mesh
from .numbers import parse_numbers
from .polygons import triangulate
from .sandbox import Sandbox

# Texture coordinates, colours, normals; then the dimensions that are not read. ModelNet glues the counts to the word.
_HEADER = re.compile(r"\s*(ST)?(C)?(N)?(4)?(n)?OFF\b\s*(BINARY)?|\s*OFF(?=\d)")


def read_off(path: Path, data: bytes, sandbox: Sandbox, *, max_faces: int, strict: bool) -> Mesh:
    """Parse an OFF, COFF, NOFF, CNOFF or ST… file; see `read_mesh` for the arguments' meaning."""
    if b"\0" in data[:65536]:
        raise MeshError("unsupported", "it is a binary OFF file or none at all; only text is read")
    text = re.sub(r"#[^\n]*", "", data.decode("utf-8", errors="replace"))
    match = _HEADER.match(text)
    if match is None:
        raise MeshError("unsupported", f"it does not begin with OFF but with {text[:20]!r}")
    _, has_color, has_normal, four, n_dim, binary = match.groups()
    if four or n_dim or binary:
        raise MeshError("unsupported", "it is a four- or n-dimensional or binary OFF file; only plain ones are read")
    lines = [line for line in text[match.end() :].splitlines() if line.strip()]
    try:
        num_vertices, num_faces = (int(word) for word in lines[0].split()[:2])
    except (IndexError, ValueError):
        raise MeshError("corrupt" if lines else "truncated", "its vertex and face counts are missing") from None
    if num_faces > max_faces:
        raise MeshError("too_many_faces", f"its header declares {num_faces} faces; at most {max_faces}")
    if num_vertices < 0 or num_faces < 0 or len(lines) - 1 < num_vertices + num_faces:
        raise MeshError(
            "truncated", f"it declares {num_vertices} vertices and {num_faces} faces and has {len(lines) - 1} lines"
        )
    vertices, normals, vertex_colors = _vertices(lines[1 : num_vertices + 1], bool(has_color), bool(has_normal))
    try:
        faces, face_colors = _faces(lines[num_vertices + 1 : num_vertices + num_faces + 1], vertices, max_faces)
    except ValueError as error:
        if isinstance(error, MeshError):
            raise
        raise MeshError("corrupt", f"its faces are not made of numbers as OFF has them ({error})") from None
    return Mesh(vertices=vertices, faces=faces, normals=normals, vertex_colors=vertex_colors, face_colors=face_colors)


def _vertices(
    lines: list[str], has_color: bool, has_normal: bool
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Positions (V, 3), normals (V, 3) and linear colours (V, 4)."""
    if not lines:
        return np.zeros((0, 3)), None, None
    values, width = parse_numbers("\n".join(lines).encode()), len(lines[0].split())
    first = 6 if has_normal else 3
    if values is None or len(values) != width * len(lines) or width < first:
        raise MeshError("corrupt", f"its vertices are not all {max(width, first)} numbers")
    table = values.reshape(len(lines), width)
    normals = table[:, 3:6] if has_normal else None
    # Some programs write colours behind a plain OFF's coordinates, too.
    extra = width - first
    if extra < 3 or (not has_color and extra > 4):
        return table[:, :3], normals, None
    fractions = any("." in word for line in lines[:100] for word in line.split()[first:])
    return table[:, :3], normals, _colors(table[:, first : first + min(extra, 4)], fractions)


def _faces(lines: list[str], vertices: np.ndarray, max_faces: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Triangles (F, 3) and their linear colours (F, 4); a face without colour among coloured ones is white."""
    if not lines:
        return np.zeros((0, 3), dtype=np.int64), None
    fractions = any("." in word for line in lines[:100] for word in line.split())
    values, width = parse_numbers("\n".join(lines).encode()), len(lines[0].split())
    if values is not None and len(values) == width * len(lines):
        table = values.reshape(len(lines), width)
        size = int(table[0, 0])
        if 3 <= size < width and (table[:, 0] == size).all():  # all alike, as nearly always
            if len(lines) * (size - 2) > max_faces:
                raise MeshError("too_many_faces", f"its polygons hold more than {max_faces} triangles")
            corners = table[:, 1 : size + 1].astype(np.int64).reshape(-1)
            _check_indices(corners, len(vertices))
            triangles, polygon = triangulate(vertices, corners, np.full(len(lines), size))
            faces = corners[triangles]
            extra = table[:, size + 1 : size + 5]
            return faces, _colors(extra, fractions)[polygon] if extra.shape[1] >= 3 else None
    return _mixed_faces(lines, vertices, max_faces, fractions)


def _check_indices(indices: np.ndarray, count: int) -> None:
    if indices.min(initial=0) < 0 or indices.max(initial=-1) >= count:
        raise MeshError("corrupt", f"a face names vertex {indices.max()} of {count}")


def _mixed_faces(
    lines: list[str], vertices: np.ndarray, max_faces: int, fractions: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """As `_faces`, for polygons of several sizes, or with and without colours, line by line."""
    rows = [line.split() for line in lines]
    sizes = np.array([int(words[0]) for words in rows], dtype=np.int64)
    if np.maximum(sizes - 2, 0).sum() > max_faces:
        raise MeshError("too_many_faces", f"its polygons hold more than {max_faces} triangles")
    for words, size in zip(rows, sizes, strict=True):
        if size < 0 or len(words) < size + 1:
            raise MeshError("truncated", f"a face of {size} corners has {len(words) - 1}")
    corners = np.array(
        [int(index) for words, size in zip(rows, sizes, strict=True) for index in words[1 : size + 1]], dtype=np.int64
    )
    _check_indices(corners, len(vertices))
    triangles, polygon = triangulate(vertices, corners, sizes)
    faces = corners[triangles].reshape(-1, 3)
    extra = [words[size + 1 :] for words, size in zip(rows, sizes, strict=True)]
    if not any(len(words) >= 3 for words in extra):
        return faces, None
    colors = np.ones((len(rows), 4), dtype=np.float32)
    for width in (3, 4):
        colored = [i for i, words in enumerate(extra) if min(len(words), 4) == width]
        if colored:
            values = np.array([extra[i][:width] for i in colored], dtype=np.float64)
            colors[colored] = _colors(values, fractions)
    return faces, colors[polygon]


def _colors(values: np.ndarray, fractions: bool) -> np.ndarray:
    """(N, 4) linear colours from (N, 3 or 4) sRGB: written as fractions if none exceeds 1, else as 0..255."""
    if not (fractions and values.max(initial=0.0) <= 1.0):
        values = values / 255.0
    alpha = values[:, 3] if values.shape[1] == 4 else np.ones(len(values))
    return np.column_stack([srgb_to_linear(values[:, :3]), alpha]).astype(np.float32)
