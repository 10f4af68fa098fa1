"""numba for the loops of this folder: compiled on first use, in one thread and without Python's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def jit(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compiles on first use, and keeps the machine code on disk where numba finds a writable place for it.

    The stored code is renewed when the function's file changes, so constants of other files come in as arguments.
    """
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(nogil=True, **options)(function)
