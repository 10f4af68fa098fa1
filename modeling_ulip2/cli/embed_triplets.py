"""`ulip2 embed-triplets`: a tower's embeddings for triplets that are there already."""

from __future__ import annotations

from typing import Any

from .shared import add_script


def register(commands: Any) -> str:
    return add_script(commands, "embed-triplets", "embedding", "add a tower's embeddings to triplets")
