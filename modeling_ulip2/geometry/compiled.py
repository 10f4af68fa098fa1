"""numba for the loops of this folder, which would take hours without it."""

import numba  # noqa: F401

from modeling_ulip2.models.compiled import jit

__all__ = ["jit"]
