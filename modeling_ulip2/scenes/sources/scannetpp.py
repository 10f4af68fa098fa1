"""ScanNet++ (Yeshwanth et al., ICCV 2023), the folder `scans` of a scene:

SCENE/scans/mesh_aligned_0.05.ply
SCENE/scans/segments.json          segment of each vertex
SCENE/scans/segments_anno.json     segments of each object, and its label
"""

from __future__ import annotations

from pathlib import Path

from modeling_ulip2.scenes.schema import Scene

from .layouts import (
    LayoutError,
    field,
    objects_of_segments,
    read_json,
    read_vertices,
    scene_place,
    whole_numbers,
    z_up_scene,
)

_MESH, _SEGMENTS, _OBJECTS = "mesh_aligned_0.05.ply", "segments.json", "segments_anno.json"


def is_scannetpp(folder: Path) -> bool:
    return (scene_place(folder, "scans", _MESH)[0] / _MESH).is_file()


def read_scannetpp(folder: Path) -> Scene:
    """A scene of ScanNet++, turned y up, called like its folder; without annotation where the folder has none.

    Raises:
        LayoutError: files are missing, or do not belong together.
        MeshError: the mesh cannot be read.
    """
    scans, name = scene_place(folder, "scans", _MESH)
    cloud = read_vertices(scans / _MESH)
    there = [(scans / part).is_file() for part in (_SEGMENTS, _OBJECTS)]
    if not any(there):
        return z_up_scene(name, cloud, None, [], [], "ScanNet++")
    if not all(there):
        raise LayoutError(f"{scans} holds one half of an annotation: {_OBJECTS if there[0] else _SEGMENTS} is missing")
    path = scans / _SEGMENTS
    of_vertex = whole_numbers(field(read_json(path), "segIndices", list, path), "segIndices", path)
    if len(of_vertex) != len(cloud.xyz):
        raise LayoutError(f"{path} has segments for {len(of_vertex):,} vertices, {_MESH} has {len(cloud.xyz):,}")
    path = scans / _OBJECTS
    groups = []
    for group in field(read_json(path), "segGroups", list, path):
        own = whole_numbers(field(group, "segments", list, path), "segments", path)
        label = field(group, "label", str, path)
        groups.append((own, label, label))
    return z_up_scene(name, cloud, *objects_of_segments(of_vertex, groups), source="ScanNet++")
