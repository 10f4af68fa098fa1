"""Numbers in text, parsed at once."""

from __future__ import annotations

import warnings

import numpy as np


def parse_numbers(text: bytes) -> np.ndarray | None:
    """(N,) float64 of all numbers in a text, which whitespace separates; None if anything else stands among them."""
    if not text.strip():
        return np.zeros(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how older NumPy reports an unreadable word
        try:
            # Unlike a list of words, this takes no more memory than its result.
            return np.fromstring(text.decode("ascii"), sep=" ")
        except (ValueError, DeprecationWarning):
            return None
