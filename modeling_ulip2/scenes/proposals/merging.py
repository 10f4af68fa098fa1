"""Segments merged bottom-up into objects: a tree, of which every branch that holds for a while is a proposal.

Two regions are merged the sooner, the more they are alike in color, the less the surface bends inwards between them
(objects are convex where they are whole, and meet in creases: Stein et al., 2014), and the smaller one of them is.
Regions that do not touch are merged by the gap between them.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

from .grid import Voxels, cell_keys
from .segments import Edges
from .surface import Surface

GAP = 0.12  # meters, the widest gap over which regions are merged
# Costs of a merger, times the size of the smaller region. These, `choosing` and the scale of the segments were chosen
# on the first home of Sweet Home 3D as a complete scan, and the first two as seen by a walk.
BASE = 0.3
CREASE = 1.0  # where all of the common border is a crease
COLOR = 2.0  # for a difference in color from black to white
GAP_COST = 1.0  # of a gap of no width
GAP_SLOPE = 20.0  # per meter
SMALL = 0.1  # square meters: of a smaller region, mergers cost less
LEAST_COST = 0.2  # of what segments are taken to have cost


@dataclass
class Tree:
    """How segments were merged. Nodes 0 to S - 1 are segments, the others mergers in the order in which they came.

    Args:
        children: (M, 2) int32, the two nodes of each merger.
        costs: (S + M,) float32, what it cost to make each node, never less than what its parts cost.
        parents: (S + M,) int32, the node into which each was merged, -1 for none.
        areas: (S + M,) float32, square meters.
    """

    children: np.ndarray
    costs: np.ndarray
    parents: np.ndarray
    areas: np.ndarray

    def leaves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """An order of the segments (S,) in which those of every node stand together: from firsts to lasts (S + M,)."""
        total, number = len(self.costs), len(self.costs) - len(self.children)
        counts = np.ones(total, dtype=np.int64)
        for m, (a, b) in enumerate(self.children):
            counts[number + m] = counts[a] + counts[b]
        firsts = np.zeros(total, dtype=np.int64)
        roots = np.flatnonzero(self.parents < 0)
        firsts[roots] = np.cumsum(counts[roots]) - counts[roots]
        for m in range(len(self.children) - 1, -1, -1):
            a, b = self.children[m]
            firsts[a] = firsts[number + m]
            firsts[b] = firsts[a] + counts[a]
        order = np.empty(number, dtype=np.int64)
        order[firsts[:number]] = np.arange(number)
        return order, firsts, firsts + counts


@dataclass
class _Border:
    """What two regions have in common: edges, how many of them lie in creases, and the gap where there are none."""

    edges: float = 0.0
    creases: float = 0.0
    gap: float = np.inf

    def joined(self, other: _Border) -> _Border:
        return _Border(self.edges + other.edges, self.creases + other.creases, min(self.gap, other.gap))


@dataclass
class _Regions:
    """What is known of the regions so far."""

    area: list[float]
    color: list[tuple[float, float, float]]  # mean
    borders: list[dict[int, _Border]] = field(default_factory=list)

    def cost(self, a: int, b: int) -> float:
        border = self.borders[a][b]
        color = math.dist(self.color[a], self.color[b])
        if border.edges:
            cost = BASE + CREASE * border.creases / border.edges + COLOR * color
        else:
            cost = BASE + GAP_COST + GAP_SLOPE * border.gap + COLOR * color
        smaller = min(self.area[a], self.area[b])
        return cost * math.sqrt(smaller / (smaller + SMALL))


def merge_segments(segments: np.ndarray, edges: Edges, voxels: Voxels, surface: Surface) -> Tree:
    """The tree over segments.

    Args:
        segments: (V,) int32, from 0 to S - 1; -1 for points that belong to none.
    """
    number = int(segments.max()) + 1 if len(segments) else 0
    regions = _start(segments, number, edges, voxels, surface)
    queue = [(regions.cost(a, b), a, b) for a in range(number) for b in regions.borders[a] if a < b]
    heapq.heapify(queue)
    gone = [False] * number
    costs, parents = [LEAST_COST] * number, [-1] * number
    children: list[tuple[int, int]] = []
    while queue:
        cost, a, b = heapq.heappop(queue)
        if gone[a] or gone[b]:
            continue
        new = len(gone)
        _join(regions, a, b)
        gone[a] = gone[b] = True
        gone.append(False)
        parents[a] = parents[b] = new
        parents.append(-1)
        costs.append(max(cost, costs[a], costs[b]))
        children.append((a, b))
        for other in regions.borders[new]:
            heapq.heappush(queue, (regions.cost(new, other), other, new))
    return Tree(
        np.array(children, dtype=np.int32).reshape(-1, 2),
        np.array(costs, dtype=np.float32),
        np.array(parents, dtype=np.int32),
        np.array(regions.area, dtype=np.float32),
    )


def _join(regions: _Regions, a: int, b: int) -> None:
    """Adds the region of `a` and `b`, in whose place it stands among their neighbors."""
    new = len(regions.area)
    area = regions.area[a] + regions.area[b]
    share = regions.area[a] / area
    (r1, g1, b1), (r2, g2, b2) = regions.color[a], regions.color[b]
    regions.area.append(area)
    regions.color.append((share * r1 + (1 - share) * r2, share * g1 + (1 - share) * g2, share * b1 + (1 - share) * b2))
    borders: dict[int, _Border] = {}
    for part in (a, b):
        for other, border in regions.borders[part].items():
            if other not in (a, b):
                borders[other] = border.joined(borders[other]) if other in borders else border
                del regions.borders[other][part]
                regions.borders[other][new] = borders[other]
        regions.borders[part] = {}
    regions.borders.append(borders)


def _start(segments: np.ndarray, number: int, edges: Edges, voxels: Voxels, surface: Surface) -> _Regions:
    inside = segments >= 0
    part = segments[inside]
    area = np.bincount(part, weights=surface.area[inside], minlength=number).clip(min=1e-9)
    color = np.zeros((number, 3))
    if voxels.rgb is not None:
        for c in range(3):
            weights = surface.area[inside] * voxels.rgb[inside, c]
            color[:, c] = np.bincount(part, weights=weights, minlength=number)
    a, b = segments[edges.starts], segments[edges.ends]
    across = (a != b) & (a >= 0) & (b >= 0)
    a, b = a[across], b[across]
    creases = _creases(segments, number, edges.starts[across], edges.ends[across], voxels, surface)
    keys, pair = np.unique(np.minimum(a, b).astype(np.int64) * number + np.maximum(a, b), return_inverse=True)
    shared = np.bincount(pair, minlength=len(keys))
    creased = np.bincount(pair, weights=creases, minlength=len(keys))
    borders: list[dict[int, _Border]] = [{} for _ in range(number)]
    for key, count, crease in zip(keys.tolist(), shared.tolist(), creased.tolist(), strict=True):
        one, other = divmod(key, number)
        borders[one][other] = borders[other][one] = _Border(count, crease, 0.0)
    for one, other, gap in _gaps(segments, number, voxels):
        if other not in borders[one]:
            borders[one][other] = borders[other][one] = _Border(gap=gap)
    color /= area[:, None]
    return _Regions(area.tolist(), [(r, g, b) for r, g, b in color.tolist()], borders)


def _creases(
    segments: np.ndarray, number: int, starts: np.ndarray, ends: np.ndarray, voxels: Voxels, surface: Surface
) -> np.ndarray:
    """(E,) 1 where the surface bends inwards between two segments, else 0.

    Normals of scans rarely say reliably where outside is, so only one case is certain: where something stands on a
    level surface, of which the upper side is seen.
    """
    inside = segments >= 0
    sizes = np.bincount(segments[inside], minlength=number).clip(min=1)
    level = np.bincount(segments[inside], weights=np.abs(surface.normals[inside, 1]), minlength=number) / sizes > 0.8
    height = np.bincount(segments[inside], weights=voxels.xyz[inside, 1], minlength=number) / sizes
    a, b = segments[starts], segments[ends]
    border = (voxels.xyz[starts, 1] + voxels.xyz[ends, 1]) / 2
    on_a = level[a] & ~level[b] & (height[b] > border + voxels.size)
    on_b = level[b] & ~level[a] & (height[a] > border + voxels.size)
    return (on_a | on_b).astype(np.float64)


def _gaps(segments: np.ndarray, number: int, voxels: Voxels) -> list[tuple[int, int, float]]:
    """Pairs of segments no farther apart than `GAP`, and the distance between their nearest points."""
    from scipy.spatial import cKDTree

    step = max(GAP / 3, 2 * voxels.size)
    inside = np.flatnonzero(segments >= 0)
    if len(inside) == 0:
        return []
    cells = cell_keys(voxels.xyz[inside], voxels.xyz.min(axis=0), step)
    order = np.lexsort((cells, segments[inside]))
    cells, of = cells[order], segments[inside[order]]
    first = np.concatenate([[True], (np.diff(cells) != 0) | (np.diff(of) != 0)])
    some = inside[order[first]]  # one point of each segment in a cell
    pairs = cKDTree(voxels.xyz[some]).query_pairs(GAP + step / 2, output_type="ndarray")  # (n, 2)
    a, b = segments[some[pairs[:, 0]]], segments[some[pairs[:, 1]]]
    apart = a != b
    pairs, a, b = pairs[apart], a[apart], b[apart]
    gap = np.linalg.norm(voxels.xyz[some[pairs[:, 0]]] - voxels.xyz[some[pairs[:, 1]]], axis=1)
    keys = np.minimum(a, b).astype(np.int64) * number + np.maximum(a, b)
    order = np.lexsort((gap, keys))
    keys, gap = keys[order], gap[order]
    first = np.concatenate([[True], np.diff(keys) != 0]) if len(keys) else np.empty(0, dtype=bool)
    one, other = np.divmod(keys[first], number)
    return list(zip(one.tolist(), other.tolist(), gap[first].tolist(), strict=True))
