"""How many cores there are to use."""

from __future__ import annotations

import os


def available_cores() -> int:
    """The cores that this process may run on, at least 1."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
