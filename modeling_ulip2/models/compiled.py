"""numba for loops: compiled on first use, in one thread without Python's lock; plain Python where it is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

try:
    import numba
except ImportError:
    numba = None  # type: ignore[assignment]

HAS_NUMBA = numba is not None


def jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compiles on first use, and keeps the machine code on disk where numba finds a writable place for it.

    The stored code is renewed when the function's file changes, so constants of other files come in as arguments. Sums
    keep their order and no step is fused, unless `options` say otherwise.
    """
    if numba is None:
        return function
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # neither the file's folder nor the user's cache can be written
        return numba.njit(nogil=True, **options)(function)


__all__ = ["HAS_NUMBA", "jit"]
