"""Replica (Straub et al. 2019), as it is exported for AI Habitat:

SCENE/habitat/mesh_semantic.ply      quads, each with the number of its object
SCENE/habitat/info_semantic.json     class of each object
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modeling_ulip2.geometry.cloud import PointCloud
from modeling_ulip2.geometry.columns import named_cloud
from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.geometry.ply import PlyFile, parse_ply
from modeling_ulip2.geometry.ply_mesh import polygon_corners
from modeling_ulip2.geometry.points import MAX_POINTS
from modeling_ulip2.geometry.reading import MAX_BYTES, naming, open_bounded
from modeling_ulip2.scenes.schema import Scene

from .layouts import LayoutError, field, read_json, scene_place, z_up_scene

_MESH, _INFO = "mesh_semantic.ply", "info_semantic.json"
# Classes that say that nothing is known.
_NO_CLASS = {"", "undefined", "unknown"}


def is_replica(folder: Path) -> bool:
    place, _ = scene_place(folder, "habitat", _MESH)
    return (place / _MESH).is_file() and (place / _INFO).is_file()


def read_replica(folder: Path, max_bytes: int = 4 * MAX_BYTES) -> Scene:
    """A scene of Replica, turned y up, called like its folder: the vertices of its mesh, each in the object of most of
    the faces around it.

    Raises:
        LayoutError: files are missing, or do not belong together.
        MeshError: the mesh cannot be read.
    """
    place, name = scene_place(folder, "habitat", _MESH)
    path = place / _MESH
    with naming(path):
        data, _ = open_bounded(path, max_bytes)
        file = parse_ply(data, {"vertex": MAX_POINTS, "face": 2 * MAX_POINTS})
        if "vertex" not in file.elements:
            raise MeshError("empty", "it holds no table of vertices")
        cloud: PointCloud = named_cloud(file.elements["vertex"].numbers)
        numbers = _object_of_vertex(file, len(cloud.xyz))
    info = place / _INFO
    index: dict[int, int] = {}
    categories: list[str] = []
    for entry in field(read_json(info), "objects", list, info):
        number = field(entry, "id", int, info)
        word = field(entry, "class_name", str, info)
        if word.lower() not in _NO_CLASS and number not in index:
            index[number] = len(categories)
            categories.append(word)
    known = np.array(sorted(index), dtype=np.int64)
    instance = np.full(len(numbers), -1, dtype=np.int32)
    if len(known):
        place_of = np.searchsorted(known, numbers).clip(max=len(known) - 1)
        found = known[place_of] == numbers
        instance[found] = np.array([index[int(number)] for number in known], dtype=np.int32)[place_of[found]]
    return z_up_scene(name, cloud, instance, categories, list(categories), "Replica")


def _object_of_vertex(file: PlyFile, count: int) -> np.ndarray:
    """(count,) number of the object of each vertex; -1 for a vertex of no face."""
    faces = file.elements.get("face")
    if faces is None or "object_id" not in faces.numbers:
        raise LayoutError(f"{_MESH} has no object_id for its faces")
    corners = polygon_corners(faces)
    if corners is None:
        raise LayoutError(f"the faces of {_MESH} name no vertices")
    vertex, sizes = corners[0].astype(np.int64), corners[1]
    if len(vertex) and not 0 <= vertex.min() <= vertex.max() < count:
        raise MeshError("corrupt", f"a face names a vertex that is none of its {count}")
    number = np.repeat(faces.numbers["object_id"].astype(np.int64), sizes)  # (C,)
    votes, counts = np.unique(np.stack([vertex, number], axis=1), axis=0, return_counts=True)
    order = np.lexsort((votes[:, 1], counts, votes[:, 0]))
    result = np.full(count, -1, dtype=np.int64)
    result[votes[order, 0]] = votes[order, 1]  # the last of each vertex has the most faces
    return result
