"""The frozen image-text tower, loaded once per process and shared by the stages that need it."""

from __future__ import annotations

from functools import cache
from typing import Any

from modeling_ulip2.towers import Tower, load_tower


@cache
def shared_tower(name: str, device: str | None = None) -> Tower:
    return load_tower(name, device=device)


def describe_tower(tower: Tower) -> dict[str, Any]:
    return {"tower": tower.name, "model_type": tower.model.config.model_type, "fingerprint": tower.fingerprint}
