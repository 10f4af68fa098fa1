"""The point operators in plain ONNX operators, for `torch.onnx.export(custom_translation_table=...)`.

They choose the points that `models.point_ops` chooses: distances are summed in the same order, and ONNX's ArgMax and
TopK prefer the lower index among equals.
"""

# what ONNX Script compiles is not typed as Python is
# mypy: disable-error-code="type-arg, misc, call-overload"

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript import FLOAT, INT64, opset18, script

from modeling_ulip2.models.point_ops import float32_below
from modeling_ulip2.models.point_ops_torch import FAR

OPSET = 18
op: Any = opset18


@script(default_opset=op)
def _farthest_positions(
    points: FLOAT[...],
    distance: FLOAT[...],
    first: INT64[...],
    num_samples: INT64,
) -> INT64[...]:
    """Farthest point sampling in which the lowest of equally distant positions wins.

    points (B, 3, N), distance (B, N) to the empty set, first (B, 1), num_samples () -> positions (B, num_samples).
    """
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    column = op.Unsqueeze(op.Range(zero, num_samples, one), [0])  # (1, num_samples)
    chosen = op.Mul(first, op.Add(op.Mul(column, zero), one))  # (B, num_samples): first everywhere
    last = op.Identity(first)
    for i in range(num_samples):
        chosen = op.Where(op.Equal(column, i), last, chosen)
        place = op.Expand(op.Unsqueeze(last, [2]), [1, 3, 1])  # (B, 3, 1)
        offset = op.Sub(points, op.GatherElements(points, place, axis=2))  # (B, 3, N)
        squared = op.Mul(offset, offset)
        x = op.Gather(squared, 0, axis=1)
        y = op.Gather(squared, 1, axis=1)
        z = op.Gather(squared, 2, axis=1)
        distance = op.Min(distance, op.Add(op.Add(x, y), z))
        last = op.ArgMax(distance, axis=1, keepdims=1, select_last_index=0)
    return chosen


def _int64(*values: int) -> Any:
    return op.Constant(value=numpy_helper.from_array(np.array(values, dtype=np.int64)))


def _scalar(value: Any) -> Any:
    """A whole number of the call as a scalar tensor; where it depends on a size it is one already."""
    if isinstance(value, int):
        return op.Constant(value=helper.make_tensor("value", TensorProto.INT64, [], [value]))
    return op.Squeeze(op.Cast(value, to=INT64.dtype))


def _size(tensor: Any, axis: int) -> Any:
    """(1,) the size of an axis."""
    return op.Shape(tensor, start=axis, end=axis + 1)


def _range(size: Any) -> Any:
    """0 ... size - 1, of a size (1,)."""
    return op.Range(_scalar(0), op.Squeeze(size), _scalar(1))


def _tie_order(num_points: Any, tie_cap: int, bit_reversed: bool) -> Any:
    """Permutation (N,) of the indices such that among equal distances the first one wins; see `FPSRule`."""
    index = _range(num_points)
    if bit_reversed:
        bits = tie_cap.bit_length() - 1
        powers = [1 << bit for bit in range(bits + 1)]
        # T = min(2^bits, 2^floor(log2 N)): as many powers of two are no larger than N
        fitting = op.ReduceSum(op.Cast(op.LessOrEqual(_int64(*powers), num_points), to=INT64.dtype), keepdims=1)
        residue = op.Mod(index, op.Gather(_int64(*powers), op.Sub(fitting, _int64(1))))
        key = op.Mul(index, _int64(0))
        for bit in range(bits):
            digit = op.Mod(op.Div(residue, _int64(1 << bit)), _int64(2))
            key = op.Add(key, op.Mul(digit, _int64(1 << (bits - 1 - bit))))
    else:
        key = op.Mod(index, _int64(tie_cap))
    rank = op.Add(op.Mul(key, num_points), index)  # no two are equal
    _, order = op.TopK(rank, num_points, largest=0, sorted=1)
    return order


def farthest_point_sample(
    xyz: Any,
    num_samples: Any,
    start: Any,
    min_squared_norm: float | None,
    tie_cap: int,
    bit_reversed: bool,
    backend: str,
) -> Any:
    num_points = _size(xyz, 1)
    order = _tie_order(num_points, tie_cap, bit_reversed)  # (N,)
    points = op.Transpose(op.Gather(xyz, order, axis=1), perm=[0, 2, 1])  # (B, 3, N)
    squared = op.Mul(points, points)
    x, y, z = (op.Gather(squared, _scalar(axis), axis=1) for axis in range(3))  # (B, N) each
    norm = op.Add(op.Add(x, y), z)
    limit = -1.0 if min_squared_norm is None else float32_below(min_squared_norm)
    distance = op.Where(
        op.Greater(norm, op.Constant(value_float=limit)),
        op.Constant(value_float=FAR),
        op.Constant(value_float=-1.0),
    )
    if start is None:
        first = op.Mul(op.ArgMax(distance, axis=1, keepdims=1), _int64(0))  # (B, 1)
    else:
        _, inverse = op.TopK(order, num_points, largest=0, sorted=1)
        first = op.Unsqueeze(op.Gather(inverse, start), _int64(1))
    chosen = _farthest_positions(points, distance, first, _scalar(num_samples))
    return op.Gather(order, chosen)


def _squared_distances(query: Any, xyz: Any) -> Any:
    """(B, G, 3), (B, N, 3) -> (B, G, N)."""
    total = None
    for axis in range(3):
        of_query = op.Unsqueeze(op.Gather(query, _scalar(axis), axis=2), _int64(2))  # (B, G, 1)
        of_points = op.Unsqueeze(op.Gather(xyz, _scalar(axis), axis=2), _int64(1))  # (B, 1, N)
        difference = op.Sub(of_query, of_points)
        squared = op.Mul(difference, difference)
        total = squared if total is None else op.Add(total, squared)
    return total


def nearest_neighbors(query: Any, xyz: Any, k: int, backend: str) -> Any:
    _, index = op.TopK(_squared_distances(query, xyz), _int64(k), axis=-1, largest=0, sorted=1)
    return index  # (B, G, k)


def group_points(points: Any, centers: Any, k: int, backend: str) -> tuple[Any, Any]:
    xyz = op.Slice(points, _int64(0), _int64(3), _int64(2))
    index = nearest_neighbors(centers, xyz, k, backend)  # (B, G, k)
    rows = op.GatherND(points, op.Unsqueeze(index, _int64(3)), batch_dims=1)  # (B, G, k, C)
    further = op.Sub(_size(points, 2), _int64(3))  # channels that stay as they are
    offset = op.Pad(centers, op.Concat(_int64(0, 0, 0, 0, 0), further, axis=0))  # (B, G, C)
    return op.Sub(rows, op.Unsqueeze(offset, _int64(2))), index


def ball_query(query: Any, xyz: Any, radius: float, k: int, include_boundary: bool, backend: str) -> Any:
    distance = _squared_distances(query, xyz)  # (B, G, N)
    limit = op.Constant(value_float=float(np.float32(radius**2)))
    inside = op.LessOrEqual(distance, limit) if include_boundary else op.Less(distance, limit)
    num_points = _size(xyz, 1)
    index = op.Where(inside, _range(num_points), num_points)  # (B, G, N): points outside come last
    kept = op.Min(_int64(k), num_points)
    index, _ = op.TopK(index, kept, axis=-1, largest=0, sorted=1)  # (B, G, min(k, N))
    missing = op.Concat(_int64(0, 0, 0, 0, 0), op.Sub(_int64(k), kept), axis=0)
    index = op.Pad(index, missing, op.Squeeze(num_points))  # (B, G, k)
    first = op.Mod(op.Slice(index, _int64(0), _int64(1), _int64(2)), num_points)  # (B, G, 1): 0 where none is inside
    return op.Where(op.Equal(index, num_points), first, index)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What `torch.onnx.export` takes as `custom_translation_table`."""
    ops = torch.ops.ulip2
    return {
        ops.farthest_point_sample.default: farthest_point_sample,
        ops.nearest_neighbors.default: nearest_neighbors,
        ops.group_points.default: group_points,
        ops.ball_query.default: ball_query,
    }
