"""`ulip2 inspect`: a report on triplets."""

from __future__ import annotations

from typing import Any

from .shared import add_script


def register(commands: Any) -> str:
    return add_script(commands, "inspect", "inspection.inspect", "look triplets over and report what is wrong")
