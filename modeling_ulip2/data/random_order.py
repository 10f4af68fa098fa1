"""A random order of points, as NumPy's `Generator.shuffle` draws it, but in less time where numba is installed."""

from __future__ import annotations

import sys

import numpy as np

# Each place of a shuffle takes 1.39 draws of 32 bits in the mean, and at most 1.5 where all of them are counted.
_WORDS_PER_PLACE = 0.75


def random_order(number: int, rng: np.random.Generator) -> np.ndarray:
    """The numbers below `number` in random order: what `rng.shuffle` makes of them, and `rng` goes on as after it."""
    from modeling_ulip2.models.compiled import HAS_NUMBA

    bits, little = rng.bit_generator, sys.byteorder == "little"
    if HAS_NUMBA and little and isinstance(bits, np.random.PCG64) and 1 < number <= np.iinfo(np.int32).max:
        return _shuffled(number, bits)
    order = np.arange(number)
    rng.shuffle(order)
    return order


def take_rows(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """`values[chosen]` of values (n, C) and indices (m,) in range, in any order of memory."""
    from modeling_ulip2.models.compiled import HAS_NUMBA

    whole = values.dtype.kind in "fiu" and values.flags.c_contiguous and values.dtype.isnative
    if not (HAS_NUMBA and whole and values.ndim == 2 and values.shape[1] == 3):
        return values.take(chosen, axis=0)
    from modeling_ulip2.data.random_order_numba import take_columns, take_rows

    if values.dtype == np.float16:  # which numba does not know
        return take_columns(values.view(np.uint16), chosen).view(np.float16).T
    # coordinates as the feature extractor goes through them
    return take_columns(values, chosen).T if values.dtype.kind == "f" else take_rows(values, chosen)


def _shuffled(number: int, bits: np.random.PCG64) -> np.ndarray:
    """(number,) int32. PCG64 draws words of 64 bits; who asks for 32 gets the low half, and the high half next."""
    from modeling_ulip2.data.random_order_numba import shuffle_on

    order, last = np.arange(number, dtype=np.int32), number - 1
    state = bits.state
    if state["has_uint32"]:
        last, _ = shuffle_on(order, last, np.array([state["uinteger"]], dtype=np.uint32))
        state["has_uint32"] = 0
    while last > 0:
        words = np.asarray(bits.random_raw(int(_WORDS_PER_PLACE * (last + 1)) + 64))
        last, used = shuffle_on(order, last, words.view(np.uint32))
        if last == 0:
            needed = (used + 1) // 2
            bits.advance(needed - len(words))  # back to behind the last word that was needed
            state = bits.state
            if used % 2:
                state["has_uint32"], state["uinteger"] = 1, int(words[needed - 1] >> np.uint64(32))
    bits.state = state
    return order


__all__ = ["random_order", "take_rows"]
