"""The loops that draw a cloud's points, compiled by numba."""

from __future__ import annotations

import numpy as np

from modeling_ulip2.models.compiled import jit


@jit
def shuffle_on(order, last, draws):
    """Goes on with NumPy's shuffle of `order` (n,), whose places above `last` are done, with `draws` (m,) uint32.

    Returns the place that is next, 0 at the end, and how many draws were used.
    """
    place, used = np.int64(last), 0
    while place > 0 and used < draws.size:
        mask = place
        for shift in (1, 2, 4, 8, 16):
            mask |= mask >> shift
        lowest = (mask >> 1) + 1  # down to here the mask is the same
        while place >= lowest and used < draws.size:
            other = np.int64(draws[np.uintp(used)]) & mask
            used += 1
            # A draw above the place does not count. It changes the place with itself: no branch, which could not be
            # foretold.
            counts = other <= place
            other = other if counts else place
            here = order[np.uintp(place)]
            order[np.uintp(place)] = order[np.uintp(other)]
            order[np.uintp(other)] = here
            place -= np.int64(counts)
    return place, used


@jit
def take_columns(values, chosen):
    """values (n, 3), chosen (m,) indices in range -> (3, m)."""
    columns = np.empty((3, chosen.size), values.dtype)
    for i in range(chosen.size):
        source = np.uintp(chosen[i])
        columns[0, i], columns[1, i], columns[2, i] = values[source, 0], values[source, 1], values[source, 2]
    return columns


@jit
def take_rows(values, chosen):
    """values (n, 3), chosen (m,) indices in range -> (m, 3)."""
    rows = np.empty((chosen.size, 3), values.dtype)
    for i in range(chosen.size):
        source = np.uintp(chosen[i])
        rows[i, 0], rows[i, 1], rows[i, 2] = values[source, 0], values[source, 1], values[source, 2]
    return rows


__all__ = ["shuffle_on", "take_columns", "take_rows"]
