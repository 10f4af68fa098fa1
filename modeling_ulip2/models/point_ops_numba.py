"""Point operators compiled by numba for tensors on the CPU; the same results as `point_ops_torch`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from .compiled import jit
from .point_ops_torch import FAR, PointKernels, relative_rows


def farthest_positions(xyz: torch.Tensor, first: torch.Tensor, limit: float, num_samples: int) -> torch.Tensor:
    chosen = torch.empty(xyz.shape[0], num_samples, dtype=torch.int64, device="cpu")
    chosen[:, 0] = first
    _in_threads(_sample, [(points, np.float32(limit), own) for points, own in _clouds(xyz, chosen)])
    return chosen


def nearest(query: torch.Tensor, xyz: torch.Tensor, k: int) -> torch.Tensor:
    neighbors = torch.empty(xyz.shape[0], query.shape[2], k, dtype=torch.int64, device="cpu")
    _in_threads(_knn, _by_queries(query, xyz, neighbors))
    return neighbors


def nearest_rows(
    query: torch.Tensor, xyz: torch.Tensor, k: int, points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return relative_rows(nearest(query, xyz, k), query, points)


def inside_ball(query: torch.Tensor, xyz: torch.Tensor, limit: float, k: int, include_boundary: bool) -> torch.Tensor:
    inside = torch.empty(xyz.shape[0], query.shape[2], k, dtype=torch.int64, device="cpu")
    jobs = [(*job, np.float32(limit), include_boundary) for job in _by_queries(query, xyz, inside)]
    _in_threads(_ball, jobs)
    return inside


def _clouds(*tensors: torch.Tensor) -> list[tuple[np.ndarray, ...]]:
    return list(zip(*(tensor.numpy() for tensor in tensors), strict=True))


def _by_queries(*tensors: torch.Tensor) -> list[tuple[np.ndarray, ...]]:
    """Clouds (query, points, found), the queries of each in as many parts as it takes to give every thread work."""
    clouds = _clouds(*tensors)
    size = -(-clouds[0][2].shape[0] // -(-torch.get_num_threads() // len(clouds))) if clouds else 1
    jobs: list[tuple[np.ndarray, ...]] = []
    for query, points, found in clouds:
        for start in range(0, len(found), max(1, size)):
            jobs.append((query[:, start : start + size], points, found[start : start + size]))
    return jobs


def _in_threads(kernel: Callable[..., None], jobs: list[tuple[Any, ...]]) -> None:
    """Runs `kernel` on every job, in as many threads as torch may use (the kernels release the GIL)."""
    threads = min(len(jobs), torch.get_num_threads())
    if threads <= 1:
        for job in jobs:
            kernel(*job)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda job: kernel(*job), jobs))


_BLOCK = 256
_FAR = np.float32(FAR)


@jit
def _sample(points, limit, chosen):
    """points (3, N), chosen (num_samples,): positions after the first are set."""
    chosen[1:] = 0
    position = np.empty(points.shape[1] + _BLOCK, dtype=np.int64)
    count = 0
    for i in range(points.shape[1]):
        x, y, z = points[0, i], points[1, i], points[2, i]
        if x * x + y * y + z * z > limit:
            position[count] = i
            count += 1
    if count == 0:
        return
    # only candidates are kept, padded to whole blocks with copies of the first (which never win against it)
    padded = (count + _BLOCK - 1) // _BLOCK * _BLOCK
    position[count:padded] = position[0]
    position = position[:padded]
    x, y, z = points[0][position], points[1][position], points[2][position]
    distance = np.full(padded, _FAR, dtype=np.float32)
    # distances are not negative, so their bits compare like integers, and integer maxima vectorize
    bits = distance.view(np.int32)
    blocks = np.empty(padded // _BLOCK, dtype=np.int32)
    last = chosen[0]
    for sample in range(1, chosen.size):
        cx, cy, cz = points[0][last], points[1][last], points[2][last]
        for b in range(blocks.size):
            for i in range(b * _BLOCK, (b + 1) * _BLOCK):
                dx, dy, dz = x[i] - cx, y[i] - cy, z[i] - cz
                distance[i] = min(distance[i], dx * dx + dy * dy + dz * dz)
            largest = np.int32(-1)
            for i in range(b * _BLOCK, (b + 1) * _BLOCK):
                largest = max(largest, bits[i])
            blocks[b] = largest
        first = blocks.argmax()
        largest = blocks[first]
        i = int(first) * _BLOCK
        while bits[i] != largest:
            i += 1
        last = position[i]
        chosen[sample] = last


@jit
def _knn(query, points, neighbors):
    """query (3, G), points (3, N), neighbors (G, k): filled with indices, by distance, then by index."""
    x, y, z = points[0], points[1], points[2]
    k = neighbors.shape[1]
    distance = np.empty(x.size, dtype=np.float32)
    bits = distance.view(np.int32)
    # a max-heap of the k best so far, each the bits of its distance above its index: nearly every further point fails
    # one comparison with its root
    heap = np.empty(k, dtype=np.int64)
    for g in range(neighbors.shape[0]):
        cx, cy, cz = query[0, g], query[1, g], query[2, g]
        for i in range(x.size):
            dx, dy, dz = cx - x[i], cy - y[i], cz - z[i]
            distance[i] = dx * dx + dy * dy + dz * dz
        for i in range(k):
            key = (np.int64(bits[i]) << 32) | i
            child = i
            while child > 0 and heap[(child - 1) // 2] < key:
                heap[child] = heap[(child - 1) // 2]
                child = (child - 1) // 2
            heap[child] = key
        farthest = np.int32(heap[0] >> 32)
        for i in range(k, x.size):
            if bits[i] < farthest:  # at an equal distance the earlier index stays
                _sift(heap, k, (np.int64(bits[i]) << 32) | i)
                farthest = np.int32(heap[0] >> 32)
        for size in range(k - 1, -1, -1):  # the root is the last of those that remain
            neighbors[g, size] = heap[0] & 0xFFFFFFFF
            _sift(heap, size, heap[size])


@jit
def _sift(heap, size, key):
    """Puts `key` in the place of the root of the first `size` entries."""
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= key:
            break
        heap[parent] = heap[child]
        parent = child
    heap[parent] = key


@jit
def _ball(query, points, inside, limit, include_boundary):
    """query (3, G), points (3, N), inside (G, k): filled with indices."""
    x, y, z = points[0], points[1], points[2]
    k = inside.shape[1]
    for g in range(inside.shape[0]):
        cx, cy, cz = query[0, g], query[1, g], query[2, g]
        count = 0
        for i in range(x.size):
            dx, dy, dz = cx - x[i], cy - y[i], cz - z[i]
            distance = dx * dx + dy * dy + dz * dz
            if distance < limit or (include_boundary and distance == limit):
                inside[g, count] = i
                count += 1
                if count == k:
                    break
        inside[g, count:] = inside[g, 0] if count else 0


NUMBA = PointKernels(farthest_positions, nearest, nearest_rows, inside_ball)
