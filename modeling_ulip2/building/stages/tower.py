"""The frozen image-text tower, loaded once per process and shared by the stages that need it."""

from __future__ import annotations

import argparse
from functools import cache
from typing import TYPE_CHECKING, Any

from modeling_ulip2.utils.command_line import hub_options

from .base import Stage

if TYPE_CHECKING:  # torch takes seconds, and the command line needs the names alone
    import torch

    from modeling_ulip2.towers import Tower

DTYPES = ("auto", "float32", "bfloat16")
# Options of `from_pretrained` with their values, such as a token: what a cache can have as its key.
HubPairs = tuple[tuple[str, str], ...]


def hub_pairs(args: argparse.Namespace, *names: str) -> HubPairs:
    """Those of the options `names` of a hub name that a command line gives."""
    return tuple((name, value) for name, value in hub_options(args).items() if name in names)


@cache
def shared_tower(name: str, device: str | None = None, dtype: str = "float32", hub: HubPairs = ()) -> Tower:
    """The tower of that name or folder.

    Args:
        dtype: one of `DTYPES`.
        hub: what `hub_pairs` makes of the options of a hub name.

    Raises:
        OSError: there is none, or it cannot be fetched.
    """
    from modeling_ulip2.towers import load_tower

    try:
        return load_tower(name, device=device, dtype=resolve_dtype(dtype, device), **dict(hub))
    except OSError as error:
        raise OSError(
            f"cannot load the tower {name!r}: {str(error).splitlines()[0]} Without the hub, build the offline pair "
            "with `python -m modeling_ulip2.towers.conse DIR` and pass --tower DIR; or build without a "
            "tower: --captioner metadata --no-ranking --no-features."
        ) from error


def resolve_dtype(dtype: str, device: str | None = None) -> torch.dtype:
    """ "auto" is bfloat16 where the device computes in it, which is about twice as fast, and float32 elsewhere."""
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)
    if torch.cuda.is_available() if device is None else device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported()
    else:
        # the question has a public answer since torch 2.10; an older version stays with float32
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        native = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return torch.bfloat16 if native else torch.float32


def describe_tower(tower: Tower) -> dict[str, Any]:
    """What the manifest says about a tower."""
    return {
        "tower": tower.name,
        "model_type": tower.model_type,
        "fingerprint": tower.fingerprint,
        "dtype": str(tower.dtype).removeprefix("torch."),
    }


class TowerStage(Stage):
    """A stage that asks the tower `tower`."""

    on_gpu = True

    def __init__(self, tower: str, device: str | None = None, dtype: str = "float32", hub: HubPairs = ()) -> None:
        self.tower = shared_tower(tower, device, dtype, hub)

    def describe(self) -> dict[str, Any]:
        return describe_tower(self.tower)
