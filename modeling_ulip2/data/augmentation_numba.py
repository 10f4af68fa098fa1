"""The loop of the augmentation compiled by numba: the same values as in NumPy, to the last digit."""

from __future__ import annotations

import numpy as np

from modeling_ulip2.models.compiled import jit


@jit
def drop_and_move(points, dropped, matrix, offset):
    """See `augmentation.drop_and_move`."""
    number = points.shape[0]
    # the kept ones from the front, the dropped ones from the back: no branch, which could not be foretold
    places, kept, gone = np.empty(number + 1, np.int64), 0, number
    for i in range(number):
        places[np.uintp(kept)] = i
        places[np.uintp(gone)] = i
        kept += int(not dropped[i])
        gone -= int(dropped[i])
    if number == 0:
        return
    first = points[0].copy()
    xx, xy, xz = matrix[0, 0], matrix[0, 1], matrix[0, 2]
    yx, yy, yz = matrix[1, 0], matrix[1, 1], matrix[1, 2]
    zx, zy, zz = matrix[2, 0], matrix[2, 1], matrix[2, 2]
    sx, sy, sz = offset[0], offset[1], offset[2]
    for k in range(kept):
        place = np.uintp(places[k])
        x, y, z = np.float64(points[place, 0]), np.float64(points[place, 1]), np.float64(points[place, 2])
        points[place, 0] = x * xx + y * yx + z * zx + sx
        points[place, 1] = x * xy + y * yy + z * zy + sy
        points[place, 2] = x * xz + y * yz + z * zz + sz
    x, y, z = np.float64(first[0]), np.float64(first[1]), np.float64(first[2])
    first[0] = x * xx + y * yx + z * zx + sx
    first[1] = x * xy + y * yy + z * zy + sy
    first[2] = x * xz + y * yz + z * zz + sz
    for k in range(gone + 1, number + 1):
        place = np.uintp(places[k])
        points[place, 0], points[place, 1], points[place, 2] = first[0], first[1], first[2]
        for channel in range(3, points.shape[1]):
            points[place, channel] = first[channel]


__all__ = ["drop_and_move"]
