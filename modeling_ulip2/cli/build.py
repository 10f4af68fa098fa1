"""`ulip2 build`: triplets of a folder of meshes."""

from __future__ import annotations

from typing import Any

from .shared import add_script


def register(commands: Any) -> str:
    return add_script(commands, "build", "meshes", "make triplets of a folder of meshes")
