"""`ulip2 merge`: one triplets dataset of several."""

from __future__ import annotations

from typing import Any

from .shared import add_script


def register(commands: Any) -> str:
    return add_script(commands, "merge", "merging", "make one triplets dataset of several")
