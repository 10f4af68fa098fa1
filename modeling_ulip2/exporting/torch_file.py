"""A point encoder as a `torch.export` program, which runs without this package's modeling code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .program import check_deviation, example_clouds, largest_deviation, point_side, trace

# A program computes what the model computes, up to the order of a few sums.
_TOLERANCE = 1e-4


def export_torch(model: Any, path: str | Path) -> float:
    """Writes a model's point side as a program that `torch.export.load` reads.

    The program takes clouds (B, N, C) of any number and size and gives `PointSide.outputs`. Whoever loads it imports
    `modeling_ulip2.models.point_ops` first, which registers the point operators.

    Args:
        model: a `Ulip2Model`, `Ulip2PointModel`, `Ulip2PointModelWithProjection` or point encoder, in evaluation mode.
        path: file to write, `.pt2`.

    Returns:
        the largest relative deviation from the model on other clouds than the traced ones.

    Raises:
        ValueError: no such model; or the program deviates from it.
    """
    side = point_side(model)
    program = trace(side)
    clouds = example_clouds(side, batch=3, points=1500)
    with torch.no_grad():
        deviation = largest_deviation(program.module()(clouds), side(clouds))
    check_deviation(deviation, _TOLERANCE)
    torch.export.save(program, path)
    return deviation
