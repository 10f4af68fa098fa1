"""The loop of the augmentation compiled by numba: the same values as in NumPy, to the last digit."""

from __future__ import annotations

import numpy as np

from modeling_ulip2.models.compiled import jit


@jit
def dropped_and_moved(points, dropped, matrix, offset):
    """See `augmentation.dropped_and_moved`."""
    changed = np.empty_like(points)
    xx, xy, xz = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    yx, yy, yz = matrix[1, 0], matrix[1, 1], matrix[1, 2]
    zx, zy, zz = matrix[2, 0], matrix[2, 1], matrix[2, 2]
    sx, sy, sz = offset[0], offset[1], offset[2]
    for i in range(points.shape[0]):
        source = np.uintp(i) * np.uintp(not dropped[i])  # no branch, which could not be foretold
        x, y, z = np.float64(points[source, 0]), np.float64(points[source, 1]), np.float64(points[source, 2])
        changed[i, 0] = x * xx + y * yx + z * zx + sx
        changed[i, 1] = x * xy + y * yy + z * zy + sy
        changed[i, 2] = x * xz + y * yz + z * zz + sz
        for channel in range(3, points.shape[1]):
            changed[i, channel] = points[source, channel]
    return changed


__all__ = ["dropped_and_moved"]
