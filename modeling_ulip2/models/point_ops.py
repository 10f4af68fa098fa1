"""Point operators: farthest point sampling, nearest neighbors, ball query, gather. Pure torch, any device.

Where numba is installed, tensors on the CPU take a compiled path with the same results: the same sampling indices to
the last one, the same neighbor sets. The torch path is the reference, and tests compare the two.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class FPSRule:
    """What farthest point sampling leaves open, as the published kernels settle it.

    min_squared_norm: a point p with |p|^2 <= this is never chosen (the start excepted); None: every point may be.
    tie_cap: among points at equal distance the smallest bit-reversed value of (index mod T) wins, then the smallest
        index, where T = min(tie_cap, 2^floor(log2 N)). This is the order in which a CUDA block of T threads reduces.
        `tie_cap=1` is plain "lowest index wins".
    bit_reversed: False: the smallest (index mod tie_cap) wins instead, then the smallest index.
    """

    min_squared_norm: float | None = None
    tie_cap: int = 1
    bit_reversed: bool = True


FPS_POINTBERT = FPSRule(min_squared_norm=1e-3, tie_cap=512)
FPS_POINTNEXT = FPSRule(min_squared_norm=None, tie_cap=1024)
FPS_PPAT = FPSRule(min_squared_norm=None, tie_cap=1024, bit_reversed=False)
FPS_LOWEST_INDEX = FPSRule()

# "Infinity" of the published kernels: the distance of a point to the empty set.
_FAR = 1e10
# Elements of the distance matrix held at once by the torch path of `nearest_neighbors`.
_MAX_DISTANCES = 1 << 26


@torch.compiler.disable
def farthest_point_sample(
    xyz: torch.Tensor,
    num_samples: int,
    rule: FPSRule = FPS_POINTBERT,
    backend: str = "auto",
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """Farthest point sampling (FPS), exactly as the published models were trained with.

    Squared distances are computed in float32 as (dx*dx + dy*dy) + dz*dz, whatever the autocast state. Where no point
    may be chosen under `rule`, index 0 is returned; with more samples than points, indices repeat.

    Args:
        xyz: (B, N, 3) floating coordinates, finite, N >= 1.
        num_samples: number of indices per cloud.
        rule: near-origin and tie rule.
        backend: "auto" (numba for CPU tensors where it is installed), "torch" or "numba".
        start: (B,) index of the first sample of each cloud; default: point 0.

    Returns:
        (B, num_samples) int64 indices into the N points.
    """
    _check_points("xyz", xyz)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    xyz = xyz.detach().float()  # (B, N, 3)
    order = _tie_order(xyz.shape[1], rule, xyz)  # (N,)
    ordered = xyz[:, order].transpose(1, 2).contiguous()  # (B, 3, N): equal distances are now won by the first point
    x, y, z = ordered.unbind(1)
    if rule.min_squared_norm is None:
        candidates = torch.ones_like(x, dtype=torch.bool)  # (B, N)
    else:
        # in double, as the kernels compare a float with a double literal
        candidates = (x * x + y * y + z * z).double() > rule.min_squared_norm  # (B, N)
    first = torch.zeros(xyz.shape[0], dtype=torch.int64, device=xyz.device)  # (B,): position 0 is index 0
    if start is not None:
        first = order.argsort()[_checked_start(start, xyz)]
    kernels = _kernels_for(xyz, backend)
    if kernels is None:
        chosen = _fps_torch(ordered, candidates, first, num_samples)  # (B, num_samples)
    else:
        chosen = torch.empty(xyz.shape[0], num_samples, dtype=torch.int64)
        chosen[:, 0] = first
        _over_clouds(kernels.fps, ordered, candidates, chosen)
    return order[chosen]  # (B, num_samples)


def _checked_start(start: torch.Tensor, xyz: torch.Tensor) -> torch.Tensor:
    batch, num_points = xyz.shape[:2]
    if start.shape != (batch,) or start.is_floating_point() or bool(((start < 0) | (start >= num_points)).any()):
        raise ValueError(
            f"start must hold one index in [0, {num_points}) for each of the {batch} clouds, got {start.tolist()}."
        )
    return start.to(xyz.device)


def _fps_torch(ordered: torch.Tensor, candidates: torch.Tensor, first: torch.Tensor, num_samples: int) -> torch.Tensor:
    x, y, z = ordered.unbind(1)  # (B, N) each
    # a negative distance keeps a point from being chosen; if all are negative, arg-max takes position 0: index 0
    distance = torch.where(candidates, _FAR, -1.0).to(x.dtype)  # (B, N)
    last = first[:, None]  # (B, 1)
    chosen = [last]
    for _ in range(num_samples - 1):
        dx, dy, dz = x - x.gather(1, last), y - y.gather(1, last), z - z.gather(1, last)
        distance = torch.minimum(distance, dx * dx + dy * dy + dz * dz)
        last = distance.argmax(dim=1, keepdim=True)  # the first of equals
        chosen.append(last)
    return torch.cat(chosen, dim=1)


def _tie_order(num_points: int, rule: FPSRule, like: torch.Tensor) -> torch.Tensor:
    """Permutation (N,) of the indices, on the device of `like`, such that among equal distances the first one wins."""
    # Numbers are cached, never tensors that a tracer (torch.export, FakeTensorMode, torch.device("meta")) may have
    # made: those would outlive it. A GPU's copy is kept too, but only if it is an ordinary tensor beside another.
    key = (num_points, rule.tie_cap, rule.bit_reversed, like.device)
    plain = type(like) is torch.Tensor
    order = _GPU_ORDERS.get(key) if plain else None
    if order is None:
        order = torch.tensor(
            _tie_permutation(*key[:3]), device=like.device
        )  # (N,), of the tracer while one is at work
        if plain and type(order) is torch.Tensor and order.is_cuda:
            if len(_GPU_ORDERS) >= _KEPT_ORDERS:
                _GPU_ORDERS.clear()
            _GPU_ORDERS[key] = order
    return order


_KEPT_ORDERS = 64
_GPU_ORDERS: dict[tuple[int, int, bool, torch.device], torch.Tensor] = {}


@functools.lru_cache(maxsize=_KEPT_ORDERS)
def _tie_permutation(num_points: int, tie_cap: int, bit_reversed: bool) -> np.ndarray:
    index = np.arange(num_points)
    if not bit_reversed:
        return (index % tie_cap).argsort(kind="stable")  # (N,)
    bits = min(tie_cap, num_points).bit_length() - 1  # T = 2^bits
    residue = index & ((1 << bits) - 1)
    reversed_residue = np.zeros_like(residue)
    for bit in range(bits):
        reversed_residue |= ((residue >> bit) & 1) << (bits - 1 - bit)
    return reversed_residue.argsort(kind="stable")  # (N,)


@torch.compiler.disable
def nearest_neighbors(query: torch.Tensor, xyz: torch.Tensor, k: int, backend: str = "auto") -> torch.Tensor:
    """The k nearest points of each query point. Their order, and the choice among exact ties, are unspecified.

    Computed in float32 from coordinate differences, whatever the autocast state and matmul precision, so that the
    groups do not depend on either.

    Args:
        query: (B, G, 3) floating coordinates.
        xyz: (B, N, 3) floating coordinates, N >= k.
        k: number of neighbors.
        backend: "auto" (numba for CPU tensors where it is installed), "torch" or "numba".

    Returns:
        (B, G, k) int64 indices into the N points.
    """
    _check_points("query", query)
    _check_points("xyz", xyz)
    batch, num_points = xyz.shape[:2]
    if not 1 <= k <= num_points:
        raise ValueError(f"Cannot take {k} nearest neighbors in a cloud of {num_points} points.")
    query, xyz = query.detach().float(), xyz.detach().float()
    query, xyz = query.transpose(1, 2).contiguous(), xyz.transpose(1, 2).contiguous()  # (B, 3, G), (B, 3, N)
    kernels = _kernels_for(xyz, backend)
    if kernels is not None:
        neighbors = torch.empty(batch, query.shape[2], k, dtype=torch.int64)
        _over_clouds(kernels.knn, query, xyz, neighbors)
        return neighbors
    chunk = max(1, _MAX_DISTANCES // (batch * num_points))
    return torch.cat([_knn_torch(part, xyz, k) for part in query.split(chunk, dim=2)], dim=1)  # (B, G, k)


def _knn_torch(query: torch.Tensor, xyz: torch.Tensor, k: int) -> torch.Tensor:
    return _squared_distances(query, xyz).topk(k, dim=-1, largest=False, sorted=False).indices  # (B, G, k)


@torch.compiler.disable
def ball_query(
    query: torch.Tensor,
    xyz: torch.Tensor,
    radius: float,
    k: int,
    include_boundary: bool = False,
    backend: str = "auto",
) -> torch.Tensor:
    """The first k points, by index, within `radius` of each query point.

    Where fewer than k lie inside, the first of them fills up the row; where none does, index 0. Squared distances are
    computed in float32 from coordinate differences, whatever the autocast state.

    Args:
        query: (B, G, 3) floating coordinates.
        xyz: (B, N, 3) floating coordinates.
        radius: in the unit of the coordinates.
        k: indices a row.
        include_boundary: whether a point at exactly `radius` counts as inside.
        backend: "auto" (numba for CPU tensors where it is installed), "torch" or "numba".

    Returns:
        (B, G, k) int64 indices into the N points.
    """
    _check_points("query", query)
    _check_points("xyz", xyz)
    if k < 1 or not radius > 0:
        raise ValueError(f"A ball query needs k >= 1 and radius > 0, got k={k} and radius={radius}.")
    batch, num_points = xyz.shape[:2]
    query, xyz = query.detach().float(), xyz.detach().float()
    query, xyz = query.transpose(1, 2).contiguous(), xyz.transpose(1, 2).contiguous()  # (B, 3, G), (B, 3, N)
    kernels = _kernels_for(xyz, backend)
    if kernels is not None:
        inside = torch.empty(batch, query.shape[2], k, dtype=torch.int64)
        # in float32, as torch compares a float32 tensor with a number
        limit = torch.tensor(radius**2, dtype=torch.float32).numpy()[()]
        _over_clouds(functools.partial(kernels.ball, limit, include_boundary), query, xyz, inside)
        return inside
    chunk = max(1, _MAX_DISTANCES // (batch * num_points))
    parts = [_ball_torch(part, xyz, radius**2, k, include_boundary) for part in query.split(chunk, dim=2)]
    return torch.cat(parts, dim=1)  # (B, G, k)


def _squared_distances(query: torch.Tensor, xyz: torch.Tensor) -> torch.Tensor:
    """(B, 3, G), (B, 3, N) -> (B, G, N)."""
    distance = query.new_zeros(())
    for axis in range(3):
        difference = query[:, axis, :, None] - xyz[:, axis, None, :]  # (B, G, N)
        distance = distance + difference.square_()
    return distance


def _ball_torch(query: torch.Tensor, xyz: torch.Tensor, limit: float, k: int, include_boundary: bool) -> torch.Tensor:
    distance = _squared_distances(query, xyz)  # (B, G, N)
    inside = distance <= limit if include_boundary else distance < limit
    num_points = xyz.shape[2]
    index = torch.arange(num_points, dtype=torch.int32, device=xyz.device)  # (N,)
    index = torch.where(inside, index, num_points)  # (B, G, N): points outside come last
    index = index.topk(min(k, num_points), dim=-1, largest=False, sorted=True).values.long()  # (B, G, min(k, N))
    index = torch.nn.functional.pad(index, (0, k - index.shape[-1]), value=num_points)  # (B, G, k)
    first = index[..., :1] % num_points  # (B, G, 1): 0 where none is inside
    return torch.where(index == num_points, first, index)


def gather_points(values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Rows of `values` (B, N, C) at `indices` (B, ...) of any further shape, as (B, ..., C)."""
    flat = indices.flatten(1)  # (B, M)
    rows = values.gather(1, flat.unsqueeze(-1).expand(-1, -1, values.shape[-1]))  # (B, M, C)
    return rows.view(*indices.shape, values.shape[-1])


def _check_points(name: str, points: torch.Tensor) -> None:
    if points.ndim != 3 or points.shape[-1] != 3 or points.shape[1] == 0 or not points.is_floating_point():
        raise ValueError(
            f"{name} must be a floating tensor of shape (batch, points, 3) with at least one point, got "
            f"{tuple(points.shape)} of {points.dtype}."
        )


# --- the compiled path -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kernels:
    fps: Callable[..., None]
    knn: Callable[..., None]
    ball: Callable[..., None]


def _kernels_for(xyz: torch.Tensor, backend: str) -> _Kernels | None:
    if backend not in ("auto", "torch", "numba"):
        raise ValueError(f"backend must be 'auto', 'torch' or 'numba', got {backend!r}.")
    # a tensor without numbers (torch.export, FakeTensorMode) is no ordinary one, and only torch can follow it
    if backend == "torch" or (backend == "auto" and (xyz.device.type != "cpu" or type(xyz) is not torch.Tensor)):
        return None
    kernels = _compiled_kernels()
    if backend == "numba" and (kernels is None or xyz.device.type != "cpu"):
        raise ValueError(f"backend='numba' needs numba and CPU tensors, got a tensor on {xyz.device}.")
    return kernels


def _over_clouds(kernel: Callable[..., None], *arrays: torch.Tensor) -> None:
    """Runs `kernel` on every cloud of the batch, in as many threads as torch may use (the kernels release the GIL)."""
    clouds = list(zip(*(array.numpy() for array in arrays), strict=True))
    threads = min(len(clouds), torch.get_num_threads())
    if threads <= 1:
        for cloud in clouds:
            kernel(*cloud)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda cloud: kernel(*cloud), clouds))


@functools.cache
def _compiled_kernels() -> _Kernels | None:
    try:
        import numba
    except ImportError:
        return None

    def compiled(function: Callable[..., None]) -> Callable[..., None]:
        options: dict[str, Any] = {
            "nogil": True,
            "boundscheck": False,
        }  # no fastmath: sums keep the order of the torch path
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # nowhere to write the cache
            return numba.njit(**options)(function)

    block = 256
    far = np.float32(_FAR)

    def fps(points, candidates, chosen):
        """points (3, N) in tie order, candidates (N,), chosen (num_samples,): positions after the first are set."""
        chosen[1:] = 0
        count = candidates.sum()
        if count == 0:
            return
        # only candidates are kept, padded to whole blocks with copies of the first (which never win against it)
        padded = (count + block - 1) // block * block
        position = np.zeros(padded, dtype=np.int64)
        kept = 0
        for i in range(candidates.size):
            if candidates[i]:
                position[kept] = i
                kept += 1
        position[kept:] = position[0]
        x, y, z = points[0][position], points[1][position], points[2][position]
        distance = np.full(padded, far, dtype=np.float32)
        # distances are not negative, so their bits compare like integers, and integer maxima vectorize
        bits = distance.view(np.int32)
        blocks = np.empty(padded // block, dtype=np.int32)
        last = chosen[0]
        for sample in range(1, chosen.size):
            cx, cy, cz = points[0][last], points[1][last], points[2][last]
            for b in range(blocks.size):
                for i in range(b * block, (b + 1) * block):
                    dx, dy, dz = x[i] - cx, y[i] - cy, z[i] - cz
                    distance[i] = min(distance[i], dx * dx + dy * dy + dz * dz)
                largest = np.int32(-1)
                for i in range(b * block, (b + 1) * block):
                    largest = max(largest, bits[i])
                blocks[b] = largest
            first = blocks.argmax()
            largest = blocks[first]
            i = int(first) * block
            while bits[i] != largest:
                i += 1
            last = position[i]
            chosen[sample] = last

    def knn(query, points, neighbors):
        """query (3, G), points (3, N), neighbors (G, k): filled with indices."""
        x, y, z = points[0], points[1], points[2]
        k = neighbors.shape[1]
        distance = np.empty(x.size, dtype=np.float32)
        heap = np.empty(k, dtype=np.float32)
        for g in range(neighbors.shape[0]):
            cx, cy, cz = query[0, g], query[1, g], query[2, g]
            for i in range(x.size):
                dx, dy, dz = cx - x[i], cy - y[i], cz - z[i]
                distance[i] = dx * dx + dy * dy + dz * dz
            # a max-heap of the k best so far: nearly every further point fails one comparison with its root
            index = neighbors[g]
            for i in range(x.size):
                if i < k:
                    child = i
                    while child > 0 and heap[(child - 1) // 2] < distance[i]:
                        heap[child] = heap[(child - 1) // 2]
                        index[child] = index[(child - 1) // 2]
                        child = (child - 1) // 2
                    heap[child] = distance[i]
                    index[child] = i
                elif distance[i] < heap[0]:
                    parent = 0
                    while True:
                        child = 2 * parent + 1
                        if child >= k:
                            break
                        if child + 1 < k and heap[child + 1] > heap[child]:
                            child += 1
                        if heap[child] <= distance[i]:
                            break
                        heap[parent] = heap[child]
                        index[parent] = index[child]
                        parent = child
                    heap[parent] = distance[i]
                    index[parent] = i

    def ball(limit, include_boundary, query, points, inside):
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

    return _Kernels(fps=compiled(fps), knn=compiled(knn), ball=compiled(ball))
