"""`ulip2 describe`: short descriptions of the shapes of triplets."""

from __future__ import annotations

from typing import Any

from .shared import add_script


def register(commands: Any) -> str:
    return add_script(commands, "describe", "describing", "describe each shape of triplets by name and colors")
