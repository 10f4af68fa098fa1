"""`ulip2 publish`: triplets, scenes and search indexes on the hub."""

from __future__ import annotations

from typing import Any

from .shared import add_script


def register(commands: Any) -> str:
    return add_script(commands, "publish", "publishing.dataset", "put triplets, scenes or an index on the hub")
