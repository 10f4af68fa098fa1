"""The loops of the proposals, compiled by numba."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np


@functools.cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    from modeling_ulip2.geometry.compiled import jit  # imports numba, which takes a second

    return jit(function)


def plane_normals(xyz: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """(c, 3) float32 unit normals of the planes through neighborhoods: of points (V, 3), those of indices (c, k)."""
    return _compiled(_plane_normals)(xyz, indices)


def graph_segments(
    starts: np.ndarray, ends: np.ndarray, weights: np.ndarray, count: int, scale: float, smallest: int
) -> np.ndarray:
    """(V,) int32, the segment of each node of a graph, by Felzenszwalb and Huttenlocher, 2004.

    Two segments become one where the edge between them weighs no more than the heaviest edge within each of them plus
    scale / its size. Thereafter segments of fewer than `smallest` nodes join their nearest neighbor.

    Args:
        starts, ends: (E,) nodes of the edges, by rising weight.
        weights: (E,).
        count: of nodes, V.
    """
    root = _compiled(_graph_segments)(starts, ends, weights, count, scale, smallest)
    return np.unique(root, return_inverse=True)[1].astype(np.int32)


def _plane_normals(xyz, indices):
    count, k = indices.shape
    normals = np.empty((count, 3), dtype=np.float32)
    for i in range(count):
        x = y = z = 0.0
        for j in range(k):
            x += xyz[indices[i, j], 0]
            y += xyz[indices[i, j], 1]
            z += xyz[indices[i, j], 2]
        x /= k
        y /= k
        z /= k
        xx = xy = xz = yy = yz = zz = 0.0
        for j in range(k):
            dx = xyz[indices[i, j], 0] - x
            dy = xyz[indices[i, j], 1] - y
            dz = xyz[indices[i, j], 2] - z
            xx += dx * dx
            xy += dx * dy
            xz += dx * dz
            yy += dy * dy
            yz += dy * dz
            zz += dz * dz
        # the least eigenvalue in closed form; its vector is normal to the rows of (covariance - eigenvalue)
        mean = (xx + yy + zz) / 3
        off = xy * xy + xz * xz + yz * yz
        spread = np.sqrt(((xx - mean) ** 2 + (yy - mean) ** 2 + (zz - mean) ** 2 + 2 * off) / 6)
        normals[i] = 0.0
        normals[i, 1] = 1.0  # all in one place: up, as good as any
        if spread > 1e-12:
            a, b, c = (xx - mean) / spread, (yy - mean) / spread, (zz - mean) / spread
            d, e, f = xy / spread, xz / spread, yz / spread
            half = (a * (b * c - f * f) - d * (d * c - f * e) + e * (d * f - b * e)) / 2
            least = mean + 2 * spread * np.cos(np.arccos(min(1.0, max(-1.0, half))) / 3 + 2 * np.pi / 3)
            a, b, c = xx - least, yy - least, zz - least
            best = 0.0
            for pair in range(3):
                if pair == 0:
                    nx, ny, nz = xy * yz - xz * b, xz * xy - a * yz, a * b - xy * xy
                elif pair == 1:
                    nx, ny, nz = xy * c - xz * yz, xz * xz - a * c, a * yz - xy * xz
                else:
                    nx, ny, nz = b * c - yz * yz, yz * xz - xy * c, xy * yz - b * xz
                length = nx * nx + ny * ny + nz * nz
                if length > best:
                    best = length
                    length = np.sqrt(length)
                    normals[i, 0], normals[i, 1], normals[i, 2] = nx / length, ny / length, nz / length
    return normals


def _graph_segments(starts, ends, weights, count, scale, smallest):
    above = np.arange(count)
    size = np.ones(count, dtype=np.int64)
    limit = np.full(count, scale, dtype=np.float64)
    for sweep in range(2):
        for e in range(len(weights)):
            a = starts[e]
            while above[a] != a:
                above[a] = above[above[a]]
                a = above[a]
            b = ends[e]
            while above[b] != b:
                above[b] = above[above[b]]
                b = above[b]
            if a == b:
                continue
            if sweep == 0:
                joins = weights[e] <= limit[a] and weights[e] <= limit[b]
            else:
                joins = size[a] < smallest or size[b] < smallest
            if joins:
                if size[a] < size[b]:
                    a, b = b, a
                above[b] = a
                size[a] += size[b]
                limit[a] = weights[e] + scale / size[a]
    root = np.empty(count, dtype=np.int64)
    for i in range(count):
        a = i
        while above[a] != a:
            above[a] = above[above[a]]
            a = above[a]
        root[i] = a
    return root
