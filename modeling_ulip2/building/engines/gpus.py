"""Which GPUs the stages with models get: an engine gives each of their processes its own."""

from __future__ import annotations

import os


def visible_gpus() -> list[str]:
    """The GPUs of this machine that may be used, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    import torch

    count = torch.cuda.device_count()
    return given.split(",")[:count] if given else [str(index) for index in range(count)]


def group_gpus(names: list[str], per_process: int) -> list[str]:
    """Values of CUDA_VISIBLE_DEVICES for processes that get `per_process` GPUs each; those left over stay idle."""
    whole = len(names) - len(names) % per_process
    return [",".join(names[i : i + per_process]) for i in range(0, whole, per_process)]
