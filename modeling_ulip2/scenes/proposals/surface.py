"""The surface that points lie on: their neighbors, normals and the area that each stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .loops import plane_normals

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

# Points whose neighbors are gathered at a time: bounds memory, not what comes out.
_CHUNK = 100_000


@dataclass
class Surface:
    """
    Args:
        neighbors: (V, k) int32, the nearest other points; the point itself where there are fewer within reach.
        normals: (V, 3) float32 unit vectors, whose sign means nothing.
        area: (V,) float32, square meters that each point stands for.
    """

    neighbors: np.ndarray
    normals: np.ndarray
    area: np.ndarray


def find_surface(xyz: np.ndarray, normals: np.ndarray | None, size: float, k: int, workers: int) -> Surface:
    """Neighbors, normals and areas of points on a grid.

    Args:
        xyz: (V, 3).
        normals: (V, 3) if they are known; else they are those of the plane through a point's neighbors (the
            eigenvector of the least eigenvalue of their covariance), whose sign is arbitrary.
        size: edge of a cell of the grid; neighbors are at most 4 of them away, twice as far where a scan is sparse.
        k: neighbors for each point.
        workers: threads that look for neighbors.
    """
    from scipy.spatial import cKDTree

    tree = cKDTree(xyz)
    count = len(xyz)
    neighbors = np.empty((count, k), dtype=np.int32)
    area = np.empty(count, dtype=np.float32)
    found = np.empty((count, 3), dtype=np.float32) if normals is None else normals
    reach = 4 * max(size, _spacing(tree, xyz))
    for start in range(0, count, _CHUNK):
        part = slice(start, min(start + _CHUNK, count))
        distances, indices = tree.query(xyz[part], k=k + 1, distance_upper_bound=reach, workers=workers)  # (c, k + 1)
        own = np.arange(part.start, part.stop)[:, None]
        indices = np.where(indices == count, own, indices)  # (c, k + 1)
        neighbors[part] = indices[:, 1:]
        area[part] = _areas(distances[:, 1:], reach)
        if normals is None:
            found[part] = plane_normals(xyz, indices)
    return Surface(neighbors, found, area)


def thickness(xyz: np.ndarray, size: float) -> float:
    """Meters by which points on a grid stray from the planes through their neighbors, half the points less: the noise
    of the scan."""
    from scipy.spatial import cKDTree

    some = xyz[:: max(1, len(xyz) // 3000)]
    neighborhoods = xyz[cKDTree(xyz).query(some, k=min(30, len(xyz)))[1]].reshape(len(some), -1, 3)  # (c, k, 3)
    offsets = neighborhoods - neighborhoods.mean(axis=1, keepdims=True)
    deviations = np.linalg.svd(offsets, compute_uv=False)[:, -1]  # (c,)
    return float(np.median(deviations)) / np.sqrt(neighborhoods.shape[1])


def _spacing(tree: cKDTree, xyz: np.ndarray) -> float:
    """How far a point is from its fourth neighbor, half the points being nearer."""
    some = xyz[:: max(1, len(xyz) // 5000)]
    distances = tree.query(some, k=5)[0][:, -1]
    distances = distances[np.isfinite(distances)]
    return float(np.median(distances)) / 2 if len(distances) else 0.0


def _areas(distances: np.ndarray, reach: float) -> np.ndarray:
    """(c,) the area that each of the points stands for whose neighbors have these distances (c, k)."""
    near = np.isfinite(distances)
    number = near.sum(axis=1)  # (c,)
    farthest = np.where(near, distances, 0).max(axis=1)
    return np.pi * np.where(number > 0, farthest, reach / 4) ** 2 / np.maximum(number, 1)
