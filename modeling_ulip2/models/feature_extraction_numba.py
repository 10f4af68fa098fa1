"""The loops of the feature extractor compiled by numba: the same values as in NumPy, to the last digit."""

from __future__ import annotations

import numpy as np

from .compiled import jit


@jit
def limits(values):
    """(n, 3) -> (3,) smallest and (3,) largest, NaN where a value is NaN or infinite."""
    low_x, low_y, low_z, high_x, high_y, high_z = np.inf, np.inf, np.inf, -np.inf, -np.inf, -np.inf
    finite = True
    for i in range(values.shape[0]):
        x, y, z = np.float64(values[i, 0]), np.float64(values[i, 1]), np.float64(values[i, 2])
        low_x, low_y, low_z = min(low_x, x), min(low_y, y), min(low_z, z)
        high_x, high_y, high_z = max(high_x, x), max(high_y, y), max(high_z, z)
        finite &= x - x == 0 and y - y == 0 and z - z == 0
    nothing = 0.0 if finite else np.nan
    return np.array([low_x, low_y, low_z]) + nothing, np.array([high_x, high_y, high_z]) + nothing


@jit
def place(xyz, order, signs, normalize, points):
    """Writes xyz (n, 3) into the first columns of `points` (n, C), see `feature_extraction_ulip2.place`."""
    number = xyz.shape[0]
    # unsigned: an index that may be negative costs a comparison each time
    first, second, third = np.uintp(order[0]), np.uintp(order[1]), np.uintp(order[2])
    sign_x, sign_y, sign_z = signs[0], signs[1], signs[2]
    x, y, z, radius = 0.0, 0.0, 0.0, 1.0
    if normalize:
        for i in range(number):
            x += np.float64(xyz[i, first]) * sign_x
            y += np.float64(xyz[i, second]) * sign_y
            z += np.float64(xyz[i, third]) * sign_z
        x, y, z = x / number, y / number, z / number
        largest = 0.0
        for i in range(number):
            dx = np.float64(xyz[i, first]) * sign_x - x
            dy = np.float64(xyz[i, second]) * sign_y - y
            dz = np.float64(xyz[i, third]) * sign_z - z
            largest = max(largest, dx * dx + dy * dy + dz * dz)
        if largest > 0:
            radius = np.sqrt(largest)
    for i in range(number):
        points[i, 0] = (np.float64(xyz[i, first]) * sign_x - x) / radius
        points[i, 1] = (np.float64(xyz[i, second]) * sign_y - y) / radius
        points[i, 2] = (np.float64(xyz[i, third]) * sign_z - z) / radius


@jit
def paint(rgb, white, points):
    """Writes rgb (n, 3) into columns 3 to 5 of `points` (n, C), see `feature_extraction_ulip2.paint`."""
    scale = 1 / white  # in float32 the same as the quotient, for all bytes
    for i in range(rgb.shape[0]):
        for channel in range(3):
            points[i, 3 + channel] = min(max(np.float64(rgb[i, channel]) * scale, 0.0), 1.0)


__all__ = ["limits", "paint", "place"]
