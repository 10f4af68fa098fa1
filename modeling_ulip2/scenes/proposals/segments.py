"""Small patches of one surface and one color, of which objects are made: a graph-based over-segmentation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .grid import Voxels
from .loops import graph_segments
from .structure import Plane
from .surface import Surface

# Neighbors of a point that are edges of the graph; more make it no better connected.
EDGES = 8
COLOR_WEIGHT = 0.5  # of a difference in color from black to white, against one of 90 degrees between normals
# A piece of a wall or floor of another color is an object of its own: a picture, a rug.
PATCH_COLOR = 0.15
PATCH_AREA = (0.02, 4.0)  # square meters


@dataclass
class Edges:
    """Neighbors that are joined in the graph, each pair once.

    Args:
        starts, ends: (E,) int32, indices of points.
        turn: (E,) float32, by how much the surface turns: 0, same direction, to 1, at a right angle.
        color: (E,) float32, distance of their colors, 0 to about 1.7; 0 without color.
    """

    starts: np.ndarray
    ends: np.ndarray
    turn: np.ndarray
    color: np.ndarray


def make_edges(voxels: Voxels, surface: Surface) -> Edges:
    """The nearest neighbors of each point as edges."""
    count = len(voxels)
    starts = np.repeat(np.arange(count, dtype=np.int32), EDGES)
    ends = np.ascontiguousarray(surface.neighbors[:, :EDGES]).reshape(-1)
    keys = np.minimum(starts, ends).astype(np.int64) * count + np.maximum(starts, ends)
    keys = keys[starts != ends]
    keys.sort()  # np.unique would take ten times as long
    keys = keys[np.concatenate([[True], np.diff(keys) != 0])] if len(keys) else keys
    starts, ends = (keys // count).astype(np.int32), (keys % count).astype(np.int32)
    turn = 1 - np.abs(np.einsum("ec,ec->e", surface.normals[starts], surface.normals[ends]))
    color = np.zeros(len(keys), dtype=np.float32)
    if voxels.rgb is not None:
        color = np.linalg.norm(voxels.rgb[starts] - voxels.rgb[ends], axis=1)
    return Edges(starts, ends, turn.clip(0, 1).astype(np.float32), color.astype(np.float32))


def over_segment(edges: Edges, count: int, scale: float, smallest: int) -> np.ndarray:
    """(V,) int32, the segment of each point; see `graph_segments` for `scale` and `smallest`."""
    weights = edges.turn + np.float32(COLOR_WEIGHT) * edges.color
    order = np.argsort(weights, kind="stable")
    return graph_segments(edges.starts[order], edges.ends[order], weights[order], count, scale, smallest)


def part_from_structure(
    segments: np.ndarray, planes: list[Plane], voxels: Voxels, surface: Surface
) -> tuple[np.ndarray, list[Plane]]:
    """Which points belong to objects, and which to the planes of a room.

    A segment that lies on planes for the most part belongs to them, as far as it lies there, unless it differs in
    color from the rest of its plane. So does a segment along them that is of their color: what is left over.

    Returns:
        (V,) int32, the segment of each point of an object, numbered anew, -1 for points of the room; and the planes,
        in the order in which they came.
    """
    plane_of = np.full(len(segments), -1, dtype=np.int32)
    for number, plane in enumerate(planes):
        plane_of[plane.points] = number
    sizes = np.bincount(segments)
    flat = np.bincount(segments, weights=plane_of >= 0) >= 0.5 * sizes  # (S,)
    rgb = np.zeros_like(voxels.xyz) if voxels.rgb is None else voxels.rgb
    usual = np.array([np.median(rgb[plane.points], axis=0) for plane in planes]).reshape(-1, 3)  # (P, 3)
    means = np.stack([np.bincount(segments, weights=rgb[:, c]) / sizes for c in range(3)], axis=1)  # (S, 3)
    areas = np.bincount(segments, weights=surface.area)
    if planes:
        pairs, counts = np.unique(segments[plane_of >= 0] * len(planes) + plane_of[plane_of >= 0], return_counts=True)
        order = np.argsort(counts, kind="stable")
        main = np.zeros(len(sizes), dtype=np.int64)  # (S,) the plane that holds most of a segment
        main[pairs[order] // len(planes)] = pairs[order] % len(planes)
        differs = np.linalg.norm(means - usual[main], axis=1) > PATCH_COLOR
        flat &= ~(differs & (areas > PATCH_AREA[0]) & (areas < PATCH_AREA[1]))
    plane_of[~flat[segments]] = -1
    _add_remains(plane_of, segments, sizes, means, usual, surface)
    numbered = np.full(len(segments), -1, dtype=np.int32)
    left = plane_of < 0
    numbered[left] = np.unique(segments[left], return_inverse=True)[1]
    found = [Plane(plane.kind, np.flatnonzero(plane_of == number)) for number, plane in enumerate(planes)]
    return numbered, [plane for plane in found if len(plane.points)]


def _add_remains(
    plane_of: np.ndarray,
    segments: np.ndarray,
    sizes: np.ndarray,
    means: np.ndarray,
    usual: np.ndarray,
    surface: Surface,
) -> None:
    """Gives segments that lie along planes and are of their color to them, in `plane_of` (V,) in place."""
    planes = plane_of[surface.neighbors]  # (V, k)
    beside = planes.max(axis=1)  # (V,) the plane of a neighbor, -1 where none has one
    crease = (np.where(planes < 0, beside[:, None], planes) != beside[:, None]).any(axis=1)  # (V,)
    along = np.flatnonzero((plane_of < 0) & (beside >= 0))
    if len(along) == 0:
        return
    part = segments[along]
    # where two planes meet, colors are mixed
    differs = np.where(crease[along], 0, np.linalg.norm(means[part] - usual[beside[along]], axis=1))
    number = np.bincount(part, minlength=len(sizes))
    left = np.bincount(segments[plane_of < 0], minlength=len(sizes))
    difference = np.bincount(part, weights=differs, minlength=len(sizes)) / np.maximum(number, 1)
    remains = (number >= 0.5 * left) & (difference < PATCH_COLOR)
    given = along[remains[part]]
    plane_of[given] = beside[given]
    # the rest of them, not quite beside a plane
    rest = np.flatnonzero((plane_of < 0) & remains[segments])
    if len(rest):
        of_segment = np.full(len(sizes), -1, dtype=np.int32)
        of_segment[part] = beside[along]
        plane_of[rest] = of_segment[segments[rest]]
