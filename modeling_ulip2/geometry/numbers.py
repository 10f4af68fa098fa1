"""Numbers in text, parsed at once."""

from __future__ import annotations

import re
import warnings

import numpy as np

# How Microsoft's old runtime prints what is no number.
_NO_NUMBER = re.compile(rb"[-+]?\d+\.#(?:IND|QNAN|SNAN|INF)\w*", re.IGNORECASE)


def without_no_numbers(text: bytes) -> bytes:
    """A text in which `nan` stands for `-1.#IND00` and its like, whose # other formats take for a comment."""
    return _NO_NUMBER.sub(b"nan", text) if b".#" in text else text


def parse_numbers(text: bytes) -> np.ndarray | None:
    """(N,) float64 of all numbers in a text, which whitespace separates; None if anything else stands among them."""
    if not text.strip():
        return np.zeros(0)
    text = without_no_numbers(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how older NumPy reports an unreadable word
        try:
            # Unlike a list of words, this takes no more memory than its result.
            return np.fromstring(text.decode("ascii"), sep=" ")
        except (ValueError, DeprecationWarning):
            return None


def is_number(word: bytes) -> bool:
    """Whether `parse_numbers` reads a word."""
    values = parse_numbers(word)
    return values is not None and len(values) == 1


def ranges(starts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """start, start + 1, ..., `count` numbers from each start, joined."""
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(starts, counts) + within
