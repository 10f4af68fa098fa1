"""Point operators as Triton kernels for CUDA; the same results as `point_ops_torch`.

`TRITON_INTERPRET=1`, set before Triton is first imported, runs the kernels on the CPU: slow, and how they are tested
where there is no GPU. Products and sums are not fused (`enable_fp_fusion=False`): a fused step rounds otherwise, and
would choose other points.
"""

# no `from __future__ import annotations` here: Triton's interpreter wants the annotation itself, not its text
import functools
import os
import warnings
from typing import Any

import torch

from .point_ops_torch import FAR, PointKernels

constexpr: Any
_jit: Any
try:
    import triton
    import triton.language as tl

    constexpr, _jit = tl.constexpr, triton.jit
except Exception:  # missing, or installed and broken
    triton = tl = None
    constexpr, _jit = None, lambda function: function


# Triton settles this when a kernel is defined, that is when this file is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# Points of a cloud whose distances one program keeps in registers: 32 for each of its 512 threads.
MAX_IN_REGISTERS = 1 << 14
# Queries and points of one tile of distances. On a GPU a program is one warp and has one query, so that no query waits
# for another; its points are in the L1 cache, where the programs beside it read them, too.
_QUERIES, _POINTS = (64, 1024) if INTERPRETED else (1, 256)
_EXACT = {"enable_fp_fusion": False}


def runs_on(device: torch.device) -> bool:
    """Whether Triton is there and compiles for `device`; a warning says why a GPU does without it."""
    return triton is not None and (device.type == "cuda" and _compiles(device) or INTERPRETED and device.type == "cpu")


@functools.lru_cache(maxsize=64)
def _compiles(device: torch.device) -> bool:
    try:
        points = torch.zeros(1, 3, 2, device=device)
        inside_ball(points, points, 1.0, 1, False)
    except Exception as error:  # no C compiler, a GPU that is too old, a driver that does not fit
        warnings.warn(
            f"plain torch samples and groups points on {device}, Triton does not work: {error}", stacklevel=2
        )
        return False
    return True


def farthest_positions(xyz: torch.Tensor, first: torch.Tensor, limit: float, num_samples: int) -> torch.Tensor:
    batch, _, num_points = xyz.shape
    # rows whose length 16 divides are loaded four numbers at a time, which also saves registers
    xyz = torch.nn.functional.pad(xyz, (0, -num_points % 16))  # (B, 3, R)
    chosen = torch.empty(batch, num_samples, dtype=torch.int64, device=xyz.device)
    options = {"num_warps": min(16, _power_of_two(-(-num_points // 256))), **_EXACT}
    with _on(xyz.device):
        if num_points <= MAX_IN_REGISTERS:
            # two blocks, since a block's size is a power of two: 10,000 points take 8,192 + 2,048 places, not 16,384
            block = 1 << (num_points.bit_length() - 1)
            rest = num_points - block
            _sample_in_registers[(batch,)](
                xyz,
                first,
                chosen,
                xyz.shape[2],
                num_points,
                num_samples,
                limit,
                FAR=FAR,
                BLOCK=block,
                REST=_power_of_two(rest) if rest else 0,
                **options,
            )
        else:
            distance = torch.empty(batch, xyz.shape[2], dtype=torch.float32, device=xyz.device)
            _sample_in_memory[(batch,)](
                xyz,
                first,
                distance,
                chosen,
                xyz.shape[2],
                num_points,
                num_samples,
                limit,
                FAR=FAR,
                BLOCK=4096,
                **options,
            )
    return chosen


def nearest(query: torch.Tensor, xyz: torch.Tensor, k: int) -> torch.Tensor:
    return _nearest_rows(query, xyz, k, None)[1]


def nearest_rows(
    query: torch.Tensor, xyz: torch.Tensor, k: int, points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return _nearest_rows(query, xyz, k, points)


def _nearest_rows(
    query: torch.Tensor, xyz: torch.Tensor, k: int, points: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    batch, _, num_queries = query.shape
    neighbors = torch.empty(batch, num_queries, k, dtype=torch.int64, device=xyz.device)
    channels = 0 if points is None else points.shape[2]
    rows = torch.empty(batch, num_queries, k, channels, dtype=torch.float32, device=xyz.device)
    # a row's rank among its K keys takes K x K comparisons for every query of the program
    queries = min(_QUERIES, max(1, 8192 // _power_of_two(k) ** 2), _power_of_two(num_queries))
    with _on(xyz.device):
        _nearest_kernel[(batch, -(-num_queries // queries))](
            query,
            xyz,
            xyz if points is None else points,
            neighbors,
            rows,
            num_queries,
            xyz.shape[2],
            k,
            channels,
            QUERIES=queries,
            POINTS=_POINTS,
            SLOTS=_power_of_two(k),
            num_warps=_warps(k),
            **_EXACT,
        )
    return rows, neighbors


def inside_ball(query: torch.Tensor, xyz: torch.Tensor, limit: float, k: int, include_boundary: bool) -> torch.Tensor:
    batch, _, num_queries = query.shape
    inside = torch.empty(batch, num_queries, k, dtype=torch.int64, device=xyz.device)
    queries = min(_QUERIES, _power_of_two(num_queries))
    with _on(xyz.device):
        _ball_kernel[(batch, -(-num_queries // queries))](
            query,
            xyz,
            inside,
            num_queries,
            xyz.shape[2],
            k,
            limit,
            INCLUDE_BOUNDARY=include_boundary,
            QUERIES=queries,
            POINTS=_POINTS,
            SLOTS=_power_of_two(k),
            num_warps=1,
            **_EXACT,
        )
    return inside


def _power_of_two(number: int) -> int:
    """The smallest that is not below `number`."""
    return 1 << (number - 1).bit_length()


def _warps(k: int) -> int:
    """One, but for rows whose K x K comparisons would not fit into its registers."""
    return 1 if k <= 64 else 4


def _on(device: torch.device) -> Any:
    """Kernels start on the current device, which need not be that of the tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else torch.device(device)


# --- what the kernels share ------------------------------------------------------------------------------------------


@_jit
def _load(xyz, cloud, size, place, there):
    """x, y and z of some points of one cloud of (B, 3, size); 0 where there is none."""
    at = xyz + cloud * 3 * size + place
    x = tl.load(at, mask=there, other=0.0)
    y = tl.load(at + size, mask=there, other=0.0)
    z = tl.load(at + 2 * size, mask=there, other=0.0)
    return x, y, z


@_jit
def _squared(x, y, z):
    return x * x + y * y + z * z


@_jit
def _to_point(xyz, cloud, size, place, there, cx, cy, cz):
    """Squared distances of some points of one cloud to (cx, cy, cz); axis after axis, for few registers."""
    at = xyz + cloud * 3 * size + place
    offset = tl.load(at, mask=there, other=0.0) - cx
    total = offset * offset
    offset = tl.load(at + size, mask=there, other=0.0) - cy
    total += offset * offset
    offset = tl.load(at + 2 * size, mask=there, other=0.0) - cz
    return total + offset * offset


@_jit
def _to_nothing(xyz, cloud, row, num_points, place, there, limit, FAR: constexpr):  # noqa: N803
    """Distances before the first sample; a negative one keeps a point from being chosen."""
    allowed = _to_point(xyz, cloud, row, place, there, 0.0, 0.0, 0.0) > limit
    return tl.where(allowed & (place < num_points), FAR, -1.0)


@_jit
def _distances(qx, qy, qz, xyz, cloud, num_points, start, POINTS: constexpr):  # noqa: N803
    """(QUERIES, POINTS) squared distances to the points from `start` on, their indices, and which of them exist."""
    n = start + tl.arange(0, POINTS)
    there = n < num_points
    x, y, z = _load(xyz, cloud, num_points, n, there)
    return _squared(qx[:, None] - x[None, :], qy[:, None] - y[None, :], qz[:, None] - z[None, :]), n, there


# --- sampling --------------------------------------------------------------------------------------------------------


@_jit
def _sample_in_registers(
    xyz,  # (B, 3, row)
    first,  # (B,)
    chosen,  # (B, num_samples)
    row,
    num_points,
    num_samples,
    limit,
    FAR: constexpr,  # noqa: N803
    BLOCK: constexpr,  # noqa: N803
    REST: constexpr,  # noqa: N803
):
    """One program per cloud. Its distances stay in the registers, as many as fit; its coordinates in the L1 cache."""
    cloud = tl.program_id(0).to(tl.int64)
    chosen += cloud * num_samples
    place = tl.arange(0, BLOCK)  # all below num_points
    distance = _to_nothing(xyz, cloud, row, num_points, place, True, limit, FAR)
    if REST > 0:
        place2 = BLOCK + tl.arange(0, REST)
        there2 = place2 < row
        distance2 = _to_nothing(xyz, cloud, row, num_points, place2, there2, limit, FAR)

    last = tl.load(first + cloud).to(tl.int32)
    tl.store(chosen, last)
    for sample in range(1, num_samples):
        cx, cy, cz = _load(xyz, cloud, row, last, True)
        distance = tl.minimum(distance, _to_point(xyz, cloud, row, place, True, cx, cy, cz))
        farthest, last = tl.max(distance, axis=0, return_indices=True)  # the first of equals
        if REST > 0:
            distance2 = tl.minimum(distance2, _to_point(xyz, cloud, row, place2, there2, cx, cy, cz))
            farthest2, last2 = tl.max(distance2, axis=0, return_indices=True)
            last = tl.where(farthest2 > farthest, BLOCK + last2, last)
        tl.store(chosen + sample, last)


@_jit
def _sample_in_memory(
    xyz,  # (B, 3, row)
    first,  # (B,)
    distance,  # (B, row), uninitialized
    chosen,  # (B, num_samples)
    row,
    num_points,
    num_samples,
    limit,
    FAR: constexpr,  # noqa: N803
    BLOCK: constexpr,  # noqa: N803
):
    """The same for clouds too large for the registers, block after block."""
    cloud = tl.program_id(0).to(tl.int64)
    distance += cloud * row
    chosen += cloud * num_samples
    last = tl.load(first + cloud).to(tl.int32)
    tl.store(chosen, last)
    for sample in range(1, num_samples):
        cx, cy, cz = _load(xyz, cloud, row, last, True)
        # the farthest that each place of a block has seen, and where
        farthest = tl.full([BLOCK], -2.0, tl.float32)
        where = tl.zeros([BLOCK], tl.int32)
        for start in range(0, num_points, BLOCK):
            place = start + tl.arange(0, BLOCK)
            if sample == 1:
                before = _to_nothing(xyz, cloud, row, num_points, place, place < row, limit, FAR)
            else:
                before = tl.load(distance + place, mask=place < row, other=-1.0)
            now = tl.minimum(before, _to_point(xyz, cloud, row, place, place < row, cx, cy, cz))
            tl.store(distance + place, now, mask=place < row)
            where = tl.where(now > farthest, place, where)
            farthest = tl.maximum(farthest, now)
        last = tl.min(tl.where(farthest == tl.max(farthest, axis=0), where, num_points), axis=0)
        tl.store(chosen + sample, last)


# --- neighbors and balls ---------------------------------------------------------------------------------------------


@_jit
def _nearest_kernel(
    query,  # (B, 3, G)
    xyz,  # (B, 3, N)
    points,  # (B, N, channels)
    neighbors,  # (B, G, k)
    rows,  # (B, G, k, channels)
    num_queries,
    num_points,
    k,
    channels,
    QUERIES: constexpr,  # noqa: N803
    POINTS: constexpr,  # noqa: N803
    SLOTS: constexpr,  # noqa: N803
):
    """The k best keys of some queries, while all points pass by; distances never leave the registers.

    A key holds the bits of a distance above the index, as in `point_ops_torch`. Points come in the order of their
    indices, so one at the distance of the worst key is never better, and the bits alone decide.
    """
    cloud = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    asked = g < num_queries
    qx, qy, qz = _load(query, cloud, num_queries, g, asked)

    slot = tl.arange(0, SLOTS)[None, :]
    above = tl.full([1, 1], 0x7FFFFFFF, tl.int32)  # the bits of no distance, not even an infinite one
    # a slot's first content is above every key, but no two are equal; slots that k leaves over are never the largest
    best = tl.where(slot < k, (above.to(tl.int64) << 32) | slot, -1) + tl.zeros([QUERIES, 1], tl.int64)
    worst = tl.max(best, axis=1)  # (QUERIES,)
    for start in range(0, num_points, POINTS):
        distance, n, there = _distances(qx, qy, qz, xyz, cloud, num_points, start, POINTS)
        bits = tl.where(there[None, :] & asked[:, None], distance.to(tl.int32, bitcast=True), above)
        nearest = tl.min(bits, axis=1)  # (QUERIES,)
        better = nearest < (worst >> 32).to(tl.int32)
        while tl.max(better.to(tl.int32), axis=0) > 0:
            # the first of equals
            place = tl.min(tl.where(bits == nearest[:, None], n[None, :], 0x7FFFFFFF), axis=1)  # (QUERIES,)
            key = (nearest.to(tl.int64) << 32) | place
            best = tl.where((best == worst[:, None]) & better[:, None], key[:, None], best)
            worst = tl.max(best, axis=1)
            bits = tl.where((n[None, :] == place[:, None]) & better[:, None], above, bits)
            nearest = tl.min(bits, axis=1)
            better = nearest < (worst >> 32).to(tl.int32)

    best = tl.where(slot < k, best, 0x7FFFFFFFFFFFFFFF)
    rank = tl.sum((best[:, None, :] < best[:, :, None]).to(tl.int32), axis=2)  # (QUERIES, SLOTS)
    index = best & 0xFFFFFFFF
    row = (cloud * num_queries + g)[:, None] * k + rank
    given = asked[:, None] & (slot < k)
    tl.store(neighbors + row, index, mask=given)
    points += cloud * num_points * channels
    query += cloud * 3 * num_queries
    for channel in range(channels):
        value = tl.load(points + index * channels + channel, mask=given, other=0.0)
        if channel < 3:
            value -= tl.load(query + channel * num_queries + g, mask=asked, other=0.0)[:, None]
        tl.store(rows + row * channels + channel, value, mask=given)


@_jit
def _ball_kernel(
    query,  # (B, 3, G)
    xyz,  # (B, 3, N)
    inside,  # (B, G, k)
    num_queries,
    num_points,
    k,
    limit,
    INCLUDE_BOUNDARY: constexpr,  # noqa: N803
    QUERIES: constexpr,  # noqa: N803
    POINTS: constexpr,  # noqa: N803
    SLOTS: constexpr,  # noqa: N803
):
    """Points pass by in the order of their indices until every query of the program has k of them."""
    cloud = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    asked = g < num_queries
    qx, qy, qz = _load(query, cloud, num_queries, g, asked)
    row = inside + (cloud * num_queries + g)[:, None] * k

    found = tl.where(asked, 0, k)  # (QUERIES,)
    first = tl.zeros([QUERIES], tl.int32)
    start = tl.program_id(0) * 0
    while (start < num_points) & (tl.min(found, axis=0) < k):
        distance, n, there = _distances(qx, qy, qz, xyz, cloud, num_points, start, POINTS)
        hit = distance < limit
        if INCLUDE_BOUNDARY:
            hit = distance <= limit
        hit = hit & there[None, :] & asked[:, None]  # (QUERIES, POINTS)
        place = found[:, None] + tl.cumsum(hit.to(tl.int32), axis=1) - 1
        tl.store(row + place, n[None, :].to(tl.int64) + tl.zeros([QUERIES, 1], tl.int64), mask=hit & (place < k))
        earliest = tl.min(tl.where(hit, n[None, :], num_points), axis=1)  # (QUERIES,)
        first = tl.where((found == 0) & (earliest < num_points), earliest, first)
        found += tl.sum(hit.to(tl.int32), axis=1)
        start += POINTS

    slot = tl.arange(0, SLOTS)[None, :]
    left = asked[:, None] & (slot >= found[:, None]) & (slot < k)
    tl.store(row + slot, first[:, None].to(tl.int64) + tl.zeros([1, SLOTS], tl.int64), mask=left)


TRITON = PointKernels(farthest_positions, nearest, nearest_rows, inside_ball)
