"""The frozen image-text tower, loaded once per process and shared by the stages that need it."""

from __future__ import annotations

from functools import cache
from typing import Any

from modeling_ulip2.towers import Tower, load_tower


@cache
def shared_tower(name: str, device: str | None = None) -> Tower:
    """The tower of that name or folder.

    Raises:
        OSError: there is none, or it cannot be fetched.
    """
    try:
        return load_tower(name, device=device)
    except OSError as error:
        raise OSError(
            f"cannot load the tower {name!r}: {str(error).splitlines()[0]} Without the hub, build the offline pair "
            "with `python -m modeling_ulip2.towers.conse DIR` and pass --tower DIR."
        ) from error


def describe_tower(tower: Tower) -> dict[str, Any]:
    return {"tower": tower.name, "model_type": tower.model.config.model_type, "fingerprint": tower.fingerprint}
