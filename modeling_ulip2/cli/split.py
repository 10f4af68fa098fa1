"""`ulip2 split`: shapes to train on and shapes to test on."""

from __future__ import annotations

from typing import Any

from .shared import add_script


def register(commands: Any) -> str:
    return add_script(commands, "split", "splitting", "divide triplets into training and test ids")
