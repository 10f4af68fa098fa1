"""A scan on a grid: so few points that a graph of them fits into memory, and the way back to all points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modeling_ulip2.geometry.numbers import ranges
from modeling_ulip2.scenes.schema import Scene


@dataclass
class Voxels:
    """The occupied cells of a grid of cubes.

    Args:
        xyz: (V, 3) float32, the mean of each cell's points, meters.
        rgb: (V, 3) float32, their mean color in [0, 1] (sRGB), or None.
        normals: (V, 3) float32 unit vectors, their mean normal, or None.
        of_point: (N,) int32, the cell of each point of the scan.
        size: edge of a cell, meters.
    """

    xyz: np.ndarray
    rgb: np.ndarray | None
    normals: np.ndarray | None
    of_point: np.ndarray
    size: float

    def __len__(self) -> int:
        return len(self.xyz)

    def points_of(self, cells: list[np.ndarray]) -> list[np.ndarray]:
        """The points of the scan in each of some sets of cells, as ascending indices, int32."""
        order = np.argsort(self.of_point, kind="stable").astype(np.int32)  # (N,)
        ends = np.cumsum(np.bincount(self.of_point, minlength=len(self)))  # (V,)
        starts = np.concatenate([[0], ends[:-1]])
        return [np.sort(order[ranges(starts[some], (ends - starts)[some])]) for some in cells]


def voxelize(scene: Scene, size: float, max_voxels: int) -> Voxels:
    """Puts a scan on a grid.

    Args:
        size: edge of a cell in meters; larger where that would leave more than `max_voxels` cells.
    """
    low = scene.xyz.min(axis=0)
    while True:
        keys = cell_keys(scene.xyz, low, size)
        order = np.argsort(keys, kind="stable")
        begins = np.concatenate([[True], np.diff(keys[order]) != 0])
        occupied = int(begins.sum())
        if occupied <= max_voxels:
            break
        size *= 1.05 * float(np.sqrt(occupied / max_voxels))  # a scan is made of surfaces
    of_point = np.empty(len(keys), dtype=np.int32)
    of_point[order] = np.cumsum(begins) - 1
    del keys, order, begins
    counts = np.bincount(of_point, minlength=occupied)  # (V,)
    rgb = None if scene.rgb is None else _mean(scene.rgb, of_point, counts) / np.float32(255)
    normals = None
    if scene.normals is not None:
        normals = _mean(scene.normals, of_point, counts)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    return Voxels(_mean(scene.xyz, of_point, counts), rgb, normals, of_point, size)


def cell_keys(xyz: np.ndarray, low: np.ndarray, size: float) -> np.ndarray:
    """(N,) int64, one number for all points (N, 3) of a cell of a grid that begins at `low` (3,).

    Raises:
        ValueError: the points lie so far apart that the cells cannot be counted.
    """
    highest = (xyz.max(axis=0).astype(np.float64) - low) / size
    if not (highest < 2**21).all():
        raise ValueError(
            f"the scan is {float(highest.max() * size):g} m wide, too much for cells of {size:g} m: are its "
            "coordinates in meters, and are there points far outside?"
        )
    keys = np.zeros(len(xyz), dtype=np.int64)
    for axis in range(xyz.shape[1]):
        keys <<= 21
        keys |= ((xyz[:, axis] - low[axis]) / np.float32(size)).astype(np.int64)
    return keys


def _mean(values: np.ndarray, groups: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means (G, C) float32 of values (N, C) by group (N,)."""
    return np.stack(
        [np.bincount(groups, weights=values[:, c], minlength=len(counts)) / counts for c in range(values.shape[1])],
        axis=1,
    ).astype(np.float32)
