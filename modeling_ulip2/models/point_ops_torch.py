"""Point operators in plain torch: the reference of the compiled versions, and what every other device runs.

All take float32 coordinates, one axis after the other: clouds are (B, 3, N) and queries (B, 3, G). Squared distances
are (dx*dx + dy*dy) + dz*dz, each step rounded to float32, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PointKernels:
    """One implementation of the operators; what each does is said at its plain version here."""

    farthest_positions: Callable[[torch.Tensor, torch.Tensor, float, int], torch.Tensor]
    nearest: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
    nearest_rows: Callable[[torch.Tensor, torch.Tensor, int, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    inside_ball: Callable[[torch.Tensor, torch.Tensor, float, int, bool], torch.Tensor]


# "Infinity" of the published kernels: the distance of a point to the empty set.
FAR = 1e10
# Elements of the distance matrix held at once.
_MAX_DISTANCES = 1 << 26


def farthest_positions(xyz: torch.Tensor, first: torch.Tensor, limit: float, num_samples: int) -> torch.Tensor:
    """Farthest point sampling in which the lowest of equally distant positions wins.

    Args:
        xyz: (B, 3, N).
        first: (B,) position of the first sample.
        limit: a float32; points whose squared norm is not above it are not chosen. If all are such, position 0 is.
        num_samples: positions per cloud.

    Returns:
        (B, num_samples) int64 positions.
    """
    x, y, z = xyz.unbind(1)  # (B, N) each
    # a negative distance keeps a point from being chosen
    distance = torch.where(x * x + y * y + z * z > limit, FAR, -1.0).to(x.dtype)  # (B, N)
    last = first[:, None]  # (B, 1)
    chosen = [last]
    for _ in range(num_samples - 1):
        dx, dy, dz = x - x.gather(1, last), y - y.gather(1, last), z - z.gather(1, last)
        distance = torch.minimum(distance, dx * dx + dy * dy + dz * dz)
        last = distance.argmax(dim=1, keepdim=True)  # the first of equals
        chosen.append(last)
    return torch.cat(chosen, dim=1)


def nearest(query: torch.Tensor, xyz: torch.Tensor, k: int) -> torch.Tensor:
    """The k nearest points, by distance and among equal distances by index: (B, 3, G), (B, 3, N) -> (B, G, k)."""
    return torch.cat([_nearest(part, xyz, k) for part in _parts(query, xyz)], dim=1)


def _nearest(query: torch.Tensor, xyz: torch.Tensor, k: int) -> torch.Tensor:
    distance = _squared_distances(query, xyz)  # (B, G, N)
    # Bits of a float that is not negative compare like the float. With the index below them no two keys are equal,
    # so that the choice does not depend on how a device breaks ties.
    keys = distance.view(torch.int32).long() << 32  # (B, G, N)
    keys |= torch.arange(xyz.shape[2], device=xyz.device)
    return keys.topk(k, dim=-1, largest=False, sorted=True).values & 0xFFFFFFFF  # (B, G, k)


def nearest_rows(
    query: torch.Tensor, xyz: torch.Tensor, k: int, points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The k nearest points of each query, relative to it, with all their channels.

    Args:
        query: (B, 3, G).
        xyz: (B, 3, N).
        k: number of neighbors.
        points: (B, N, C), xyz and further channels, which stay as they are.

    Returns:
        (B, G, k, C) and indices (B, G, k).
    """
    return relative_rows(nearest(query, xyz, k), query, points)


def relative_rows(index: torch.Tensor, query: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (B, G, k, C) of `points` (B, N, C) at `index` (B, G, k), relative to the queries (B, 3, G); and `index`."""
    cloud = torch.arange(points.shape[0], device=points.device)[:, None, None]  # (B, 1, 1)
    rows = points[cloud, index]  # (B, G, k, C)
    rows[..., :3] -= query.transpose(1, 2).unsqueeze(2)
    return rows, index


def inside_ball(query: torch.Tensor, xyz: torch.Tensor, limit: float, k: int, include_boundary: bool) -> torch.Tensor:
    """The first k points whose squared distance is below `limit`: (B, 3, G), (B, 3, N) -> (B, G, k).

    Rows with fewer repeat their first; those without any hold 0.
    """
    return torch.cat([_inside_ball(part, xyz, limit, k, include_boundary) for part in _parts(query, xyz)], dim=1)


def _inside_ball(query: torch.Tensor, xyz: torch.Tensor, limit: float, k: int, include_boundary: bool) -> torch.Tensor:
    distance = _squared_distances(query, xyz)  # (B, G, N)
    inside = distance <= limit if include_boundary else distance < limit
    num_points = xyz.shape[2]
    index = torch.arange(num_points, dtype=torch.int32, device=xyz.device)  # (N,)
    index = torch.where(inside, index, num_points)  # (B, G, N): points outside come last
    index = index.topk(min(k, num_points), dim=-1, largest=False, sorted=True).values.long()  # (B, G, min(k, N))
    index = torch.nn.functional.pad(index, (0, k - index.shape[-1]), value=num_points)  # (B, G, k)
    first = index[..., :1] % num_points  # (B, G, 1): 0 where none is inside
    return torch.where(index == num_points, first, index)


def _parts(query: torch.Tensor, xyz: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Queries in parts whose distances fit in memory."""
    return query.split(max(1, _MAX_DISTANCES // (xyz.shape[0] * xyz.shape[2])), dim=2)


def _squared_distances(query: torch.Tensor, xyz: torch.Tensor) -> torch.Tensor:
    """(B, 3, G), (B, 3, N) -> (B, G, N)."""
    distance = query.new_zeros(())
    for axis in range(3):
        difference = query[:, axis, :, None] - xyz[:, axis, None, :]  # (B, G, N)
        distance = distance + difference.square_()
    return distance


PLAIN = PointKernels(farthest_positions, nearest, nearest_rows, inside_ball)
