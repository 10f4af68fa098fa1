"""The loops of the feature extractor compiled by numba: the same values as in NumPy, to the last digit.

They go through one coordinate of all points at a time, which the compiler turns into steps of several points.
"""

from __future__ import annotations

import numpy as np

from .compiled import jit

# What a byte of a color is in [0, 1].
_OF_BYTE = (np.arange(256) / 255).astype(np.float32)


def place(columns, order, signs, normalize, points):
    """Writes coordinates (3, n) into `points` (n, C), see `feature_extraction_ulip2.place`."""
    center, radius = np.zeros(3), 1.0
    if normalize:
        center = _center(columns, order, signs)
        radius = np.sqrt(_squares(columns, order, signs, center).max()) or 1.0
    _write(columns, order, signs, center, radius, points)


def paint(rgb, white, points):
    """Writes rgb (n, 3) into columns 3 to 5 of `points` (n, C), see `feature_extraction_ulip2.paint`."""
    if rgb.dtype == np.uint8 and white == 255:
        _paint_bytes(rgb, _OF_BYTE, points)
    else:
        _paint_numbers(rgb, white, points)


@jit
def _center(columns, order, signs):
    """(3,) mean of the coordinates (3, n), summed in their order."""
    first, second, third = columns[order[0]], columns[order[1]], columns[order[2]]
    x, y, z = 0.0, 0.0, 0.0
    for i in range(first.size):
        x += np.float64(first[i]) * signs[0]
        y += np.float64(second[i]) * signs[1]
        z += np.float64(third[i]) * signs[2]
    return np.array([x, y, z]) / first.size


@jit
def _squares(columns, order, signs, center):
    """(n,) squared distance from `center` (3,)."""
    first, second, third = columns[order[0]], columns[order[1]], columns[order[2]]
    sign_x, sign_y, sign_z = signs[0], signs[1], signs[2]
    x, y, z = center[0], center[1], center[2]
    squares = np.empty(first.size)
    for i in range(first.size):
        dx = np.float64(first[i]) * sign_x - x
        dy = np.float64(second[i]) * sign_y - y
        dz = np.float64(third[i]) * sign_z - z
        squares[i] = dx * dx + dy * dy + dz * dz
    return squares


@jit
def _write(columns, order, signs, center, radius, points):
    """Writes the moved and scaled coordinates (3, n), which change, too, into the first columns of `points` (n, C)."""
    for axis in range(3):
        column, sign, middle = columns[order[axis]], signs[axis], center[axis]
        for i in range(column.size):
            column[i] = (np.float64(column[i]) * sign - middle) / radius
    first, second, third = columns[order[0]], columns[order[1]], columns[order[2]]
    for i in range(first.size):
        points[i, 0], points[i, 1], points[i, 2] = first[i], second[i], third[i]


@jit
def _paint_bytes(rgb, of_byte, points):
    for i in range(rgb.shape[0]):
        for channel in range(3):
            points[i, 3 + channel] = of_byte[np.uintp(rgb[i, channel])]


@jit
def _paint_numbers(rgb, white, points):
    for i in range(rgb.shape[0]):
        for channel in range(3):
            points[i, 3 + channel] = min(max(np.float64(rgb[i, channel]) / white, 0.0), 1.0)


__all__ = ["paint", "place"]
