"""`ulip2 convert-triplets`: published triplets as a dataset."""

from __future__ import annotations

from typing import Any

from .shared import add_script


def register(commands: Any) -> str:
    return add_script(commands, "convert-triplets", "releases.convert", "make a dataset of released triplets")
