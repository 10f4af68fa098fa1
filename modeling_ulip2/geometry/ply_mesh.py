"""The mesh that a PLY file's tables hold."""

from __future__ import annotations

import numpy as np

from .columns import named_colors, named_normals, named_points, plain_name
from .errors import MeshError
from .mesh import AlphaMode, Material, Mesh, check_indices, linear_colors
from .ply import PlyElement, PlyFile, parse_ply
from .polygons import triangulate
from .sandbox import Sandbox
from .textures import TextureLoader

# As `columns.plain_name` makes them.
_INDEX_NAMES = ("vertexindices", "vertexindex", "vertices", "indices", "vertexids", "vertexid", "index", "vertex")
_TABLES = ("face", "tristrips")


def read_ply(data: bytes, sandbox: Sandbox, *, max_faces: int, strict: bool) -> Mesh:
    """Parse a PLY mesh; see `read_mesh` for the arguments' meaning."""
    file = parse_ply(data, {"face": max_faces}, needed=_TABLES)
    vertex, face = file.elements.get("vertex"), file.elements.get("face")
    positions = named_points(vertex.numbers) if vertex is not None else None
    if vertex is None or positions is None or vertex.count == 0:
        raise MeshError("empty", "it holds no vertex")
    warnings: list[str] = []
    corners, polygon = _faces(file, positions, max_faces, warnings)
    if len(corners) == 0:
        raise MeshError("empty", "it holds points but no triangle; read_points reads point clouds")
    warnings += file.left_out({"vertex", "face" if polygon is not None else "tristrips"})
    indices, positions_in_list = corners
    normals, colors = named_normals(vertex.numbers), _colors(vertex, warnings)
    materials, face_material, uv_of_corner = _textures(file, polygon, positions_in_list, sandbox, strict, warnings)
    uv = None
    if any(material.texture is not None for material in materials):
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
            materials, face_material = [Material()], np.zeros(len(indices), dtype=np.int32)
        else:
            # A corner without coordinates shows no texture; v = 0 is the image's last row.
            bare = np.isnan(uv[indices]).any(axis=(1, 2))
            if bare.any():
                face_material[bare] = len(materials)
                materials.append(Material())
            uv = np.column_stack([uv[:, 0], 1.0 - uv[:, 1]])
    face_colors = _colors(face, warnings) if face is not None else None
    return Mesh(
        vertices=positions,
        faces=indices,
        materials=materials,
        face_material=face_material,
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
    """(count, 4) linear colors of a table's rows; None without."""
    rgb = named_colors(element.numbers, warnings, f"the colors of its {element.name} table")
    alpha = next((column for name, column in element.numbers.items() if plain_name(name) in ("alpha", "a")), None)
    return linear_colors(rgb, warnings, alpha=alpha)


def vertex_uv(vertex: PlyElement) -> np.ndarray | None:
    """(V, 2) texture coordinates under one of their usual names."""
    plain = {plain_name(name): column for name, column in vertex.numbers.items()}
    for names in (("textureu", "texturev"), ("u", "v"), ("s", "t")):
        if all(name in plain for name in names):
            return np.column_stack([plain[name] for name in names])
    return None


def polygon_corners(element: PlyElement) -> tuple[np.ndarray, np.ndarray] | None:
    """The corners of a table's rows and their numbers: a list under one of the usual names, or its only one of whole
    numbers."""
    lists = {name: column for name, column in element.columns.items() if isinstance(column, tuple)}
    for known in _INDEX_NAMES:
        found = next((column for name, column in lists.items() if plain_name(name) == known), None)
        if found is not None:
            return found
    whole = [column for column in lists.values() if column[0].dtype.kind in "iu"]
    return whole[0] if len(whole) == 1 else None


def _faces(
    file: PlyFile, positions: np.ndarray, max_faces: int, warnings: list[str]
) -> tuple[tuple[np.ndarray, np.ndarray] | tuple[()], np.ndarray | None]:
    """((F, 3) vertex indices, (F, 3) positions among the corners), and (F,) the row of the face table."""
    for table in _TABLES:
        element = file.elements.get(table)
        column = polygon_corners(element) if element is not None else None
        if column is None or element is None or element.count == 0:
            continue
        values, lengths = column[0].astype(np.int64), column[1]
        if table == "tristrips":
            triangles = _strips(values, lengths)
            if len(triangles) > max_faces:
                raise MeshError("too_many_faces", f"its strips hold {len(triangles)} triangles; at most {max_faces}")
            check_indices(values[triangles], len(positions))
            return (values[triangles], triangles), None
        if np.maximum(lengths - 2, 0).sum() > max_faces:
            raise MeshError("too_many_faces", f"its polygons hold more than {max_faces} triangles")
        check_indices(values, len(positions))
        triangles, polygon = triangulate(positions, values, lengths, warnings)
        if len(triangles):
            return (values[triangles], triangles), polygon
    return (), None


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


def _textures(
    file: PlyFile,
    polygon: np.ndarray | None,
    corners: np.ndarray,
    sandbox: Sandbox,
    strict: bool,
    warnings: list[str],
) -> tuple[list[Material], np.ndarray, np.ndarray | None]:
    """A material for each image that the header names.

    Args:
        polygon: (F,) the row of the face table of each triangle; None for strips.
        corners: (F, 3) positions of the triangles' corners among those of all rows.

    Returns:
        The materials, their index for each triangle (F,), and (3F, 2) texture coordinates stored with the faces, NaN
        where a face has none; None if no face has any.
    """
    face = file.elements.get("face")
    number = np.zeros(len(corners), dtype=np.int64)
    if len(file.textures) > 1:
        column = None if face is None or polygon is None else face.columns.get("texnumber")
        if isinstance(column, np.ndarray) and polygon is not None:
            number = column[polygon].astype(np.int64)
        else:
            warnings.append(f"it names {len(file.textures)} textures but not which face has which; the first is used")
    images = TextureLoader(sandbox.read)
    materials: list[Material] = []
    for index, name in enumerate(file.textures):
        materials.append(Material())
        if not (number == index).any():
            continue
        try:
            image = images.load(name, expected=len(set(file.textures)))
        except MeshError as error:
            if strict or error.reason in ("too_large", "texture_too_large"):
                raise
            warnings.append(f"{error}; the vertex colors or white are used")
            continue
        mode: AlphaMode = "OPAQUE" if image[..., 3].min() >= 250 else "MASK"
        materials[-1] = Material(texture=image, alpha_mode=mode)
    # A number that stands for no image (MeshLab writes -1) means a face without one.
    plain = (number < 0) | (number >= len(materials))
    if plain.any():
        number[plain] = len(materials)
        materials.append(Material())
    return materials, number.astype(np.int32), _corner_uv(face, polygon, corners)


def _corner_uv(face: PlyElement | None, polygon: np.ndarray | None, corners: np.ndarray) -> np.ndarray | None:
    """(3F, 2) texture coordinates that are stored with the faces, two numbers for each corner."""
    column = face.columns.get("texcoord") if face is not None else None
    if polygon is None or face is None or not isinstance(column, tuple):
        return None
    indices = polygon_corners(face)
    assert indices is not None  # they made the triangles
    sizes = indices[1]
    values, counts = column
    if not len(values):
        return None
    begin = (np.cumsum(counts) - counts)[polygon, None]  # (F, 1)
    within = corners - (np.cumsum(sizes) - sizes)[polygon, None]  # (F, 3)
    whole = (counts == 2 * sizes)[polygon]
    uv = np.full((len(corners), 3, 2), np.nan, dtype=np.float32)
    at = (begin + 2 * within)[whole]
    uv[whole] = np.stack([values[at], values[at + 1]], axis=-1)
    return uv.reshape(-1, 2)
