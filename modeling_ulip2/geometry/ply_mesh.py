"""The mesh that a PLY file's tables hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .errors import MeshError
from .mesh import Material, Mesh
from .ply import PlyElement, PlyFile, parse_ply
from .polygons import triangulate
from .sandbox import Sandbox
from .textures import TextureLoader


def read_ply(path: Path, data: bytes, sandbox: Sandbox, *, max_faces: int, strict: bool) -> Mesh:
    """Parse a PLY mesh; see `read_mesh` for the arguments' meaning."""
    file = parse_ply(data, {"face": max_faces})
    vertex, face = file.elements.get("vertex"), file.elements.get("face")
    positions = vertex.stack("x", "y", "z") if vertex is not None else None
    if vertex is None or positions is None or vertex.count == 0:
        raise MeshError("empty", "it holds no vertex")
    corners, polygon = _faces(file, positions, max_faces)
    if len(corners) == 0:
        raise MeshError("empty", "it holds points but no triangle; read_points reads point clouds")
    indices, positions_in_list = corners
    warnings: list[str] = []
    material, uv_of_corner = _texture(file, positions_in_list, sandbox, strict, warnings)
    normals, colors = vertex.stack("nx", "ny", "nz"), _colors(vertex, warnings)
    uv = None
    if material.texture is not None:
        uv = vertex_uv(vertex)
        if uv is not None:
            uv = uv.astype(np.float32)
        elif uv_of_corner is not None:  # one vertex per corner: a PLY texture splits them anyhow
            take = indices.reshape(-1)
            positions, uv = positions[take], uv_of_corner
            normals = None if normals is None else normals[take]
            colors = None if colors is None else colors[take]
            indices = np.arange(len(take)).reshape(-1, 3)
        if uv is None:
            warnings.append("it names a texture but has no texture coordinates")
            material = Material()
        else:
            uv = np.column_stack([uv[:, 0], 1.0 - uv[:, 1]])  # v = 0 is the image's last row
    face_colors = _colors(face, warnings) if face is not None else None
    return Mesh(
        vertices=positions,
        faces=indices,
        materials=[material],
        normals=normals,
        uv=uv,
        vertex_colors=colors,
        # Where both exist they describe the same surface; the vertices' are the finer ones.
        face_colors=face_colors[polygon]
        if face_colors is not None and colors is None and polygon is not None
        else None,
        warnings=warnings,
    )


def _colors(element: PlyElement, warnings: list[str]) -> np.ndarray | None:
    try:
        return element.colors()
    except MeshError as error:
        warnings.append(f"{error}; they are left out")
        return None


def vertex_uv(vertex: PlyElement) -> np.ndarray | None:
    """(V, 2) texture coordinates under one of their usual names."""
    for names in (("texture_u", "texture_v"), ("u", "v"), ("s", "t")):
        uv = vertex.stack(*names)
        if uv is not None:
            return uv
    return None


def _faces(
    file: PlyFile, positions: np.ndarray, max_faces: int
) -> tuple[tuple[np.ndarray, np.ndarray] | tuple[()], np.ndarray | None]:
    """((F, 3) vertex indices, (F, 3) positions among the corners), and (F,) the row of the face table."""
    for table, names in (
        ("face", ("vertex_indices", "vertex_index")),
        ("tristrips", ("vertex_indices", "vertex_index")),
    ):
        element = file.elements.get(table)
        column = next((element.columns[n] for n in names if n in element.columns), None) if element else None
        if not isinstance(column, tuple) or element is None or element.count == 0:
            continue
        values, lengths = column[0].astype(np.int64), column[1]
        if table == "tristrips":
            triangles = _strips(values, lengths)
            if len(triangles) > max_faces:
                raise MeshError("too_many_faces", f"its strips hold {len(triangles)} triangles; at most {max_faces}")
            _check_indices(values[triangles], len(positions))
            return (values[triangles], triangles), None
        if np.maximum(lengths - 2, 0).sum() > max_faces:
            raise MeshError("too_many_faces", f"its polygons hold more than {max_faces} triangles")
        _check_indices(values, len(positions))
        triangles, polygon = triangulate(positions, values, lengths)
        return ((values[triangles], triangles), polygon) if len(triangles) else ((), None)
    return (), None


def _check_indices(indices: np.ndarray, count: int) -> None:
    if indices.min(initial=0) < 0 or indices.max(initial=-1) >= count:
        raise MeshError("corrupt", f"a face names vertex {indices.max()} of {count}")


def _strips(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(F, 3) positions of triangle strips, which -1 separates."""
    end = np.zeros(len(values), dtype=bool)
    end[np.cumsum(lengths)[lengths > 0] - 1] = True
    position = np.arange(max(0, len(values) - 2))
    cut = values < 0
    broken = end[position] | end[position + 1] | cut[position] | cut[position + 1] | cut[position + 2]
    # Where the strip of each position began decides which way round its triangle runs.
    began = np.zeros(len(values), dtype=np.int64)
    began[1:][end[:-1]] = np.arange(1, len(values))[end[:-1]]
    after_cut = np.flatnonzero(cut) + 1
    began[after_cut[after_cut < len(values)]] = after_cut[after_cut < len(values)]
    began = np.maximum.accumulate(began)
    odd = (position - began[position]) % 2 == 1
    triangles = np.column_stack([position, position + 1, position + 2])
    triangles[odd] = triangles[odd][:, [1, 0, 2]]
    return triangles[~broken]


def _texture(
    file: PlyFile, corners: np.ndarray, sandbox: Sandbox, strict: bool, warnings: list[str]
) -> tuple[Material, np.ndarray | None]:
    """The material of the image that the header names, and (3F, 2) texture coordinates stored with the faces."""
    if file.texture is None:
        return Material(), None
    try:
        image = TextureLoader(sandbox.read).load(file.texture, expected=1)
    except MeshError as error:
        if strict or error.reason in ("too_large", "texture_too_large"):
            raise
        warnings.append(f"{error}; the vertex colours or white are used")
        return Material(), None
    face = file.elements.get("face")
    column = face.columns.get("texcoord") if face is not None else None
    uv = None
    if isinstance(column, tuple) and len(column[0]) == 2 * (int(corners.max()) + 1):
        uv = column[0].reshape(-1, 2)[corners.reshape(-1)].astype(np.float32)
    mode = "OPAQUE" if image[..., 3].min() >= 250 else "MASK"
    return Material(texture=image, alpha_mode=mode), uv  # type: ignore[arg-type]
