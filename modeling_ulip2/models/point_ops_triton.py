"""Point operators as Triton kernels for CUDA; the same results as `point_ops_torch`.

`TRITON_INTERPRET=1`, set before Triton is first imported, runs the kernels on the CPU: slow, and how they are tested
where there is no GPU. Products and sums are not fused (`enable_fp_fusion=False`): a fused step rounds otherwise, and
would choose other points.
"""

# no `from __future__ import annotations` here: Triton's interpreter wants the annotation itself, not its text
import os
from typing import Any

import torch

from .point_ops_torch import FAR, PointKernels

constexpr: Any
_jit: Any
try:
    import triton
    import triton.language as tl

    constexpr, _jit = tl.constexpr, triton.jit
except ImportError:
    triton = tl = None
    constexpr, _jit = None, lambda function: function


# Triton settles this when a kernel is defined, that is when this file is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# Points of a cloud whose distances one program keeps in registers: 64 for each of its 512 threads.
MAX_IN_REGISTERS = 1 << 15
# Points of a cloud whose coordinates fit there too, so that they are read once and not in every step.
_MAX_COORDINATES_IN_REGISTERS = 1 << 12
# Queries and points of one tile of distances; a program reads each point once for all its queries.
_QUERIES, _POINTS = (64, 1024) if INTERPRETED else (4, 256)


def runs_on(device: torch.device) -> bool:
    return triton is not None and (device.type == "cuda" or (INTERPRETED and device.type == "cpu"))


def farthest_positions(xyz: torch.Tensor, first: torch.Tensor, limit: float, num_samples: int) -> torch.Tensor:
    batch, _, num_points = xyz.shape
    chosen = torch.empty(batch, num_samples, dtype=torch.int64, device=xyz.device)
    options = {"num_warps": min(16, _power_of_two(-(-num_points // 256))), "enable_fp_fusion": False}
    with _on(xyz.device):
        if num_points <= MAX_IN_REGISTERS:
            # two blocks, since a block's size is a power of two: 10,000 points take 8,192 + 2,048 places, not 16,384
            block = 1 << (num_points.bit_length() - 1)
            rest = num_points - block
            _sample_in_registers[(batch,)](
                xyz,
                first,
                chosen,
                num_points,
                num_samples,
                limit,
                FAR=FAR,
                BLOCK=block,
                REST=_power_of_two(rest) if rest else 0,
                KEEP=num_points <= _MAX_COORDINATES_IN_REGISTERS,
                **options,
            )
        else:
            distance = torch.empty(batch, num_points, dtype=torch.float32, device=xyz.device)
            _sample_in_memory[(batch,)](
                xyz, first, distance, chosen, num_points, num_samples, limit, FAR=FAR, BLOCK=4096, **options
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
            num_warps=4,
            enable_fp_fusion=False,
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
            num_warps=4,
            enable_fp_fusion=False,
        )
    return inside


def _power_of_two(number: int) -> int:
    """The smallest that is not below `number`."""
    return 1 << (number - 1).bit_length()


def _on(device: torch.device) -> Any:
    """Kernels start on the current device, which need not be that of the tensors."""
    return torch.cuda.device(device) if device.type == "cuda" else torch.device(device)


@_jit
def _sample_in_registers(
    xyz,  # (B, 3, N)
    first,  # (B,)
    chosen,  # (B, num_samples)
    num_points,
    num_samples,
    limit,
    FAR: constexpr,  # noqa: N803
    BLOCK: constexpr,  # noqa: N803
    REST: constexpr,  # noqa: N803
    KEEP: constexpr,  # noqa: N803
):
    """One program per cloud. Its distances never leave the registers; its coordinates stay in the L1 cache."""
    cloud = tl.program_id(0).to(tl.int64)
    x_row = xyz + cloud * 3 * num_points
    y_row = x_row + num_points
    z_row = y_row + num_points
    chosen += cloud * num_samples

    place = tl.arange(0, BLOCK)
    there = place < num_points
    x = tl.load(x_row + place, mask=there, other=0.0)
    y = tl.load(y_row + place, mask=there, other=0.0)
    z = tl.load(z_row + place, mask=there, other=0.0)
    # a negative distance keeps a point from being chosen; if all are negative, position 0 is
    distance = tl.where(there & (x * x + y * y + z * z > limit), FAR, -1.0)
    if REST > 0:
        place2 = BLOCK + tl.arange(0, REST)
        there2 = place2 < num_points
        x2 = tl.load(x_row + place2, mask=there2, other=0.0)
        y2 = tl.load(y_row + place2, mask=there2, other=0.0)
        z2 = tl.load(z_row + place2, mask=there2, other=0.0)
        distance2 = tl.where(there2 & (x2 * x2 + y2 * y2 + z2 * z2 > limit), FAR, -1.0)

    last = tl.load(first + cloud).to(tl.int32)
    tl.store(chosen, last)
    for sample in range(1, num_samples):
        cx = tl.load(x_row + last)
        cy = tl.load(y_row + last)
        cz = tl.load(z_row + last)
        if not KEEP:
            x = tl.load(x_row + place, mask=there, other=0.0)
            y = tl.load(y_row + place, mask=there, other=0.0)
            z = tl.load(z_row + place, mask=there, other=0.0)
        dx, dy, dz = x - cx, y - cy, z - cz
        distance = tl.minimum(distance, dx * dx + dy * dy + dz * dz)
        farthest, last = tl.max(distance, axis=0, return_indices=True)  # the first of equals
        if REST > 0:
            if not KEEP:
                x2 = tl.load(x_row + place2, mask=there2, other=0.0)
                y2 = tl.load(y_row + place2, mask=there2, other=0.0)
                z2 = tl.load(z_row + place2, mask=there2, other=0.0)
            dx2, dy2, dz2 = x2 - cx, y2 - cy, z2 - cz
            distance2 = tl.minimum(distance2, dx2 * dx2 + dy2 * dy2 + dz2 * dz2)
            farthest2, last2 = tl.max(distance2, axis=0, return_indices=True)
            last = tl.where(farthest2 > farthest, BLOCK + last2, last)
        tl.store(chosen + sample, last)


@_jit
def _sample_in_memory(
    xyz,  # (B, 3, N)
    first,  # (B,)
    distance,  # (B, N), uninitialized
    chosen,  # (B, num_samples)
    num_points,
    num_samples,
    limit,
    FAR: constexpr,  # noqa: N803
    BLOCK: constexpr,  # noqa: N803
):
    """The same for clouds too large for the registers, block after block."""
    cloud = tl.program_id(0).to(tl.int64)
    x_row = xyz + cloud * 3 * num_points
    y_row = x_row + num_points
    z_row = y_row + num_points
    distance += cloud * num_points
    chosen += cloud * num_samples

    last = tl.load(first + cloud).to(tl.int32)
    tl.store(chosen, last)
    for sample in range(1, num_samples):
        cx = tl.load(x_row + last)
        cy = tl.load(y_row + last)
        cz = tl.load(z_row + last)
        farthest = -2.0
        last = last * 0
        for start in range(0, num_points, BLOCK):
            place = start + tl.arange(0, BLOCK)
            there = place < num_points
            x = tl.load(x_row + place, mask=there, other=0.0)
            y = tl.load(y_row + place, mask=there, other=0.0)
            z = tl.load(z_row + place, mask=there, other=0.0)
            if sample == 1:
                before = tl.where(there & (x * x + y * y + z * z > limit), FAR, -1.0)
            else:
                before = tl.load(distance + place, mask=there, other=-1.0)
            dx, dy, dz = x - cx, y - cy, z - cz
            now = tl.minimum(before, dx * dx + dy * dy + dz * dz)
            tl.store(distance + place, now, mask=there)
            farthest_here, last_here = tl.max(now, axis=0, return_indices=True)
            last = tl.where(farthest_here > farthest, start + last_here, last)
            farthest = tl.maximum(farthest, farthest_here)
        tl.store(chosen + sample, last)


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

    A key holds the bits of a distance above the index, as in `point_ops_torch`.
    """
    cloud = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1) * QUERIES + tl.arange(0, QUERIES)
    asked = g < num_queries
    query += cloud * 3 * num_queries
    qx = tl.load(query + g, mask=asked, other=0.0)
    qy = tl.load(query + num_queries + g, mask=asked, other=0.0)
    qz = tl.load(query + 2 * num_queries + g, mask=asked, other=0.0)
    x_row = xyz + cloud * 3 * num_points
    y_row = x_row + num_points
    z_row = y_row + num_points

    slot = tl.arange(0, SLOTS)
    none = tl.full([1, 1], 0x7FFFFFFFFFFFFFFF, tl.int64)  # above every key
    # a slot's first content is above every key, but no two are equal; slots that k leaves over are never the largest
    empty = none - SLOTS + slot[None, :]
    best = tl.where(slot[None, :] < k, empty, -1) + tl.zeros([QUERIES, 1], tl.int64)  # (QUERIES, SLOTS)
    worst = tl.max(best, axis=1)  # (QUERIES,)
    for start in range(0, num_points, POINTS):
        n = start + tl.arange(0, POINTS)
        there = n < num_points
        dx = qx[:, None] - tl.load(x_row + n, mask=there, other=0.0)[None, :]
        dy = qy[:, None] - tl.load(y_row + n, mask=there, other=0.0)[None, :]
        dz = qz[:, None] - tl.load(z_row + n, mask=there, other=0.0)[None, :]
        distance = dx * dx + dy * dy + dz * dz  # (QUERIES, POINTS)
        bits = distance.to(tl.int32, bitcast=True).to(tl.int64)
        key = tl.where(there[None, :] & asked[:, None], (bits << 32) | n[None, :].to(tl.int64), none)
        nearest = tl.min(key, axis=1)  # (QUERIES,)
        while tl.max((nearest < worst).to(tl.int32), axis=0) > 0:
            leaves = (best == worst[:, None]) & (nearest < worst)[:, None]
            best = tl.where(leaves, nearest[:, None], best)
            worst = tl.max(best, axis=1)
            key = tl.where(key == nearest[:, None], none, key)
            nearest = tl.min(key, axis=1)

    best = tl.where(slot[None, :] < k, best, none)
    rank = tl.sum((best[:, None, :] < best[:, :, None]).to(tl.int32), axis=2)  # (QUERIES, SLOTS)
    index = (best & 0xFFFFFFFF).to(tl.int32)
    row = (cloud * num_queries + g)[:, None] * k + rank
    given = asked[:, None] & (slot[None, :] < k)
    tl.store(neighbors + row, index.to(tl.int64), mask=given)
    points += cloud * num_points * channels
    for channel in range(channels):
        value = tl.load(points + index.to(tl.int64) * channels + channel, mask=given, other=0.0)
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
    query += cloud * 3 * num_queries
    qx = tl.load(query + g, mask=asked, other=0.0)
    qy = tl.load(query + num_queries + g, mask=asked, other=0.0)
    qz = tl.load(query + 2 * num_queries + g, mask=asked, other=0.0)
    x_row = xyz + cloud * 3 * num_points
    y_row = x_row + num_points
    z_row = y_row + num_points
    row = inside + (cloud * num_queries + g)[:, None] * k

    found = tl.where(asked, 0, k)  # (QUERIES,)
    first = tl.zeros([QUERIES], tl.int32)
    start = tl.program_id(0) * 0
    while (start < num_points) & (tl.min(found, axis=0) < k):
        n = start + tl.arange(0, POINTS)
        there = n < num_points
        dx = qx[:, None] - tl.load(x_row + n, mask=there, other=0.0)[None, :]
        dy = qy[:, None] - tl.load(y_row + n, mask=there, other=0.0)[None, :]
        dz = qz[:, None] - tl.load(z_row + n, mask=there, other=0.0)[None, :]
        distance = dx * dx + dy * dy + dz * dz  # (QUERIES, POINTS)
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

    slot = tl.arange(0, SLOTS)
    left = asked[:, None] & (slot[None, :] >= found[:, None]) & (slot[None, :] < k)
    tl.store(row + slot[None, :], first[:, None].to(tl.int64) + tl.zeros([1, SLOTS], tl.int64), mask=left)


TRITON = PointKernels(farthest_positions, nearest, nearest_rows, inside_ball)
