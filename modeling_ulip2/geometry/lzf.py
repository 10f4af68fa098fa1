"""LZF decompression (Marc Lehmann's liblzf), which PCD uses; its packages need a C compiler to install."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from .errors import MeshError


def decompress(data: np.ndarray, size: int) -> np.ndarray:
    """`size` bytes from LZF-compressed bytes, both (n,) uint8. LZF expands at most 132 times, which bounds `size`.

    Raises:
        MeshError: "corrupt" if the data do not unpack to exactly that many bytes.
    """
    if size > 132 * len(data):
        raise MeshError("corrupt", f"its {len(data)} compressed bytes cannot hold the {size} announced")
    output = np.empty(size, dtype=np.uint8)
    if _compiled()(data, output) != size:
        raise MeshError("corrupt", "its compressed points are damaged")
    return output


@functools.cache
def _compiled() -> Callable[[np.ndarray, np.ndarray], int]:
    try:
        from .compiled import jit
    except ImportError:  # numba is missing: the same function, about a hundred times slower
        return _expand
    return jit(_expand)


def _expand(source: np.ndarray, target: np.ndarray) -> int:
    """Bytes written, or -1 where a command leads out of either array."""
    read, written = 0, 0
    while read < len(source):
        control = int(source[read])
        read += 1
        if control < 32:  # that many bytes and one more as they are
            length = control + 1
            if read + length > len(source) or written + length > len(target):
                return -1
            for i in range(length):
                target[written + i] = source[read + i]
            read += length
        else:  # repeat what was written before
            length = control >> 5
            if length == 7:
                if read >= len(source):
                    return -1
                length += int(source[read])
                read += 1
            if read >= len(source):
                return -1
            start = written - ((control & 31) << 8) - int(source[read]) - 1
            read += 1
            length += 2
            if start < 0 or written + length > len(target):
                return -1
            for i in range(length):  # byte by byte: the two may overlap
                target[written + i] = target[start + i]
        written += length
    return written
