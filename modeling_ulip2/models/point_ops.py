"""Point operators: farthest point sampling, nearest neighbors, ball query, grouping, gather.

Each of the first four is one operator of torch (`torch.ops.ulip2.*`), which compilers and exporters see as one node.
Behind it run

- kernels compiled by numba on a CPU (`point_ops_numba`), where numba is installed
- Triton kernels on CUDA (`point_ops_triton`), where Triton is installed
- plain torch everywhere else (`point_ops_torch`): readable, and what the tests hold the other two against

with the same indices, to the last one. `backend` asks for one of them by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .point_ops_torch import PLAIN, PointKernels


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

BACKENDS = ("auto", "torch", "numba", "triton")


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
        backend: "auto", "torch", "numba" (CPU) or "triton" (CUDA).
        start: (B,) index of the first sample of each cloud; default: point 0.

    Returns:
        (B, num_samples) int64 indices into the N points.
    """
    _check_points("xyz", xyz)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    if start is not None and (start.shape != xyz.shape[:1] or start.is_floating_point()):
        raise ValueError(
            f"start must hold one index in [0, {xyz.shape[1]}) for each of the {xyz.shape[0]} clouds, got a tensor of "
            f"shape {tuple(start.shape)} and {start.dtype}."
        )
    return _ops().farthest_point_sample(
        xyz.detach().float(), num_samples, start, rule.min_squared_norm, rule.tie_cap, rule.bit_reversed, backend
    )


def nearest_neighbors(query: torch.Tensor, xyz: torch.Tensor, k: int, backend: str = "auto") -> torch.Tensor:
    """The k nearest points of each query point, nearest first; among equally distant ones the lower index comes first.

    Computed in float32 from coordinate differences, whatever the autocast state and matmul precision, so that the
    groups do not depend on either.

    Args:
        query: (B, G, 3) floating coordinates.
        xyz: (B, N, 3) floating coordinates, N >= k.
        k: number of neighbors.
        backend: "auto", "torch", "numba" (CPU) or "triton" (CUDA).

    Returns:
        (B, G, k) int64 indices into the N points.
    """
    _check_points("query", query)
    _check_points("xyz", xyz)
    _check_neighbors(k, xyz)
    return _ops().nearest_neighbors(query.detach().float(), xyz.detach().float(), k, backend)


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
        k: indices per row.
        include_boundary: whether a point at exactly `radius` counts as inside.
        backend: "auto", "torch", "numba" (CPU) or "triton" (CUDA).

    Returns:
        (B, G, k) int64 indices into the N points.
    """
    _check_points("query", query)
    _check_points("xyz", xyz)
    if k < 1 or not radius > 0:
        raise ValueError(f"A ball query needs k >= 1 and radius > 0, got k={k} and radius={radius}.")
    query, xyz = query.detach().float(), xyz.detach().float()
    return _ops().ball_query(query, xyz, float(radius), k, include_boundary, backend)


def group_points(
    points: torch.Tensor, centers: torch.Tensor, k: int, backend: str = "auto"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches: the k points nearest to each center, xyz relative to it, further channels as they are.

    The choice is that of `nearest_neighbors`. Gradients flow to points and centers.

    Args:
        points: (B, N, C) floating, xyz and further channels, N >= k.
        centers: (B, G, 3) floating coordinates.
        k: points per patch.
        backend: "auto", "torch", "numba" (CPU) or "triton" (CUDA).

    Returns:
        patches (B, G, k, C) float32, and indices (B, G, k) int64 into the N points.
    """
    _check_points("points", points[..., :3])
    _check_points("centers", centers)
    _check_neighbors(k, points)
    return _ops().group_points(points.float(), centers.float(), k, backend)


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


def _check_neighbors(k: int, points: torch.Tensor) -> None:
    if not 1 <= k <= points.shape[1]:
        raise ValueError(f"Cannot take {k} nearest neighbors in a cloud of {points.shape[1]} points.")


# --- the operators ---------------------------------------------------------------------------------------------------


def _ops() -> Any:
    return torch.ops.ulip2


def _operator(schema: str, fake: Callable[..., Any], backward: tuple[Callable[..., Any], ...] = ()) -> Any:
    """Registers a function as an operator of torch.

    A process may hold this file twice, in the installed package and beside a checkpoint that it trusts. The first one
    registers the operators, and the other finds them there: torch would otherwise throw away those already in use.
    Whoever changes a schema or a result therefore also changes the namespace.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__.removesuffix("_op")
        if not hasattr(_ops(), name):
            operator = torch.library.custom_op(f"ulip2::{name}", function, mutates_args=(), schema=schema)
            operator.register_fake(fake)
            if backward:
                operator.register_autograd(backward[0], setup_context=backward[1])
        return function

    return register


@_operator(
    "(Tensor xyz, SymInt num_samples, Tensor? start, float? min_squared_norm, int tie_cap, bool bit_reversed, "
    "str backend) -> Tensor",
    fake=lambda xyz, num_samples, *_: xyz.new_empty(xyz.shape[0], num_samples, dtype=torch.int64),
)
def farthest_point_sample_op(
    xyz: torch.Tensor,
    num_samples: int,
    start: torch.Tensor | None,
    min_squared_norm: float | None,
    tie_cap: int,
    bit_reversed: bool,
    backend: str,
) -> torch.Tensor:
    order = _tie_order(xyz.shape[1], tie_cap, bit_reversed, xyz.device)  # (N,)
    ordered = xyz[:, order].transpose(1, 2).contiguous()  # (B, 3, N): equal distances are now won by the first point
    if start is None:
        first = torch.zeros(xyz.shape[0], dtype=torch.int64, device=xyz.device)  # (B,): position 0 is index 0
    else:
        start = start.to(xyz.device)
        if bool(((start < 0) | (start >= xyz.shape[1])).any()):
            raise ValueError(
                f"start must hold one index in [0, {xyz.shape[1]}) for each of the {xyz.shape[0]} clouds, got "
                f"{start.tolist()}."
            )
        first = order.argsort()[start]
    limit = -1.0 if min_squared_norm is None else float32_below(min_squared_norm)
    chosen = _kernels(xyz.device, backend).farthest_positions(ordered, first, limit, num_samples)
    return order[chosen]  # (B, num_samples)


@_operator(
    "(Tensor query, Tensor xyz, int k, str backend) -> Tensor",
    fake=lambda query, xyz, k, backend: query.new_empty(*query.shape[:2], k, dtype=torch.int64),
)
def nearest_neighbors_op(query: torch.Tensor, xyz: torch.Tensor, k: int, backend: str) -> torch.Tensor:
    return _kernels(xyz.device, backend).nearest(_by_axis(query), _by_axis(xyz), k)


@_operator(
    "(Tensor query, Tensor xyz, float radius, int k, bool include_boundary, str backend) -> Tensor",
    fake=lambda query, xyz, radius, k, *_: query.new_empty(*query.shape[:2], k, dtype=torch.int64),
)
def ball_query_op(
    query: torch.Tensor, xyz: torch.Tensor, radius: float, k: int, include_boundary: bool, backend: str
) -> torch.Tensor:
    limit = float(np.float32(radius**2))  # as torch compares a float32 tensor with a number
    return _kernels(xyz.device, backend).inside_ball(_by_axis(query), _by_axis(xyz), limit, k, include_boundary)


def _remember_index(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, torch.Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.num_points = inputs[0].shape[1]


def _scatter_gradient(
    ctx: Any, of_patches: torch.Tensor, of_index: Any
) -> tuple[torch.Tensor | None, torch.Tensor | None, None, None]:
    (index,) = ctx.saved_tensors  # (B, G, k)
    of_points, of_centers = None, None
    if ctx.needs_input_grad[0]:
        rows = of_patches.flatten(1, 2)  # (B, G * k, C)
        places = index.flatten(1).unsqueeze(-1).expand_as(rows)
        of_points = rows.new_zeros(rows.shape[0], ctx.num_points, rows.shape[2]).scatter_add(1, places, rows)
    if ctx.needs_input_grad[1]:
        of_centers = -of_patches[..., :3].sum(dim=2)  # (B, G, 3)
    return of_points, of_centers, None, None


@_operator(
    "(Tensor points, Tensor centers, int k, str backend) -> (Tensor, Tensor)",
    fake=lambda points, centers, k, backend: (
        points.new_empty(*centers.shape[:2], k, points.shape[2]),
        points.new_empty(*centers.shape[:2], k, dtype=torch.int64),
    ),
    backward=(_scatter_gradient, _remember_index),
)
def group_points_op(
    points: torch.Tensor, centers: torch.Tensor, k: int, backend: str
) -> tuple[torch.Tensor, torch.Tensor]:
    kernels = _kernels(points.device, backend)
    return kernels.nearest_rows(_by_axis(centers), _by_axis(points[..., :3]), k, points.contiguous())


def _by_axis(points: torch.Tensor) -> torch.Tensor:
    """(B, N, 3) -> (B, 3, N)."""
    return points.transpose(1, 2).contiguous()


def float32_below(number: float) -> float:
    """The largest float32 that is not above `number`.

    The published kernels compare a float with a double; a float32 is above the one if and only if above the other.
    """
    nearest = np.float32(number)
    return float(nearest if float(nearest) <= number else np.nextafter(nearest, np.float32(-np.inf)))


def _kernels(device: torch.device, backend: str) -> PointKernels:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
    if backend == "triton" or (backend == "auto" and device.type == "cuda"):
        from .point_ops_triton import TRITON, runs_on

        if runs_on(device):
            return TRITON
        if backend == "triton":
            raise ValueError(f"backend='triton' needs Triton and CUDA tensors, got a tensor on {device}.")
    if backend == "numba" or (backend == "auto" and device.type == "cpu"):
        from .compiled import HAS_NUMBA
        from .point_ops_numba import NUMBA

        if HAS_NUMBA and device.type == "cpu":
            return NUMBA
        if backend == "numba":
            raise ValueError(f"backend='numba' needs numba and CPU tensors, got a tensor on {device}.")
    return PLAIN


# Orders by their rule and device, at most so many.
_ORDERS: dict[tuple[int, int, bool, torch.device], torch.Tensor] = {}
_MOST_ORDERS = 64


def _tie_order(num_points: int, tie_cap: int, bit_reversed: bool, device: torch.device) -> torch.Tensor:
    """Permutation (N,) of the indices such that among equal distances the first one wins."""
    # called within the operators alone, where no tracer should be at work; what is kept is an ordinary tensor even so
    rule = (num_points, tie_cap, bit_reversed)
    order = _ORDERS.get((*rule, device))
    if order is not None:
        return order
    with torch.inference_mode(False):
        order = torch.from_numpy(_tie_permutation(*rule)).to(device)
    if device.type != "cpu" and type(order) is torch.Tensor:  # on a CPU it is the array itself, which is kept below
        if len(_ORDERS) >= _MOST_ORDERS:
            _ORDERS.clear()
        _ORDERS[(*rule, device)] = order
    return order


@functools.lru_cache(maxsize=64)
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
