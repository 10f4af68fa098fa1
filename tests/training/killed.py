"""A training that is killed as by `kill -9`: `killed.py WHERE COUNT OPTIONS OF ulip2 pretrain…`.

WHERE: `step`: within a step; `weights`, `optimizer`, `random`, `state`: when that file of a checkpoint is half
written; `rotation`: when an old checkpoint is half removed; `never`. COUNT: at the so-many-th time, from 1.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets.config
import torch
from transformers import Trainer, TrainerState, modeling_utils

from modeling_ulip2.recipes import pretraining
from modeling_ulip2.training import trainer


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def cut(path: str | Path) -> None:
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: len(content) // 2])


def replace(owner: Any, name: str, count: int, deed: Callable[..., Any], counts: Callable[..., bool]) -> None:
    """The `count`-th call of `owner.name` that counts does its work, then the deed, and then the process is dead."""
    real, calls = getattr(owner, name), 0

    def replaced(*arguments: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += counts(*arguments, **kwargs)
        last = calls == count and counts(*arguments, **kwargs)
        if last and owner is shutil:
            deed(*arguments, **kwargs)
            die()
        result = real(*arguments, **kwargs)
        if last:
            deed(*arguments, **kwargs)
            die()
        return result

    setattr(owner, name, replaced)


def main(where: str, count: int, options: list[str]) -> None:
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
    if where == "step":
        replace(trainer.Ulip2Trainer, "training_step", count, lambda *_, **__: None, lambda *_, **__: True)
    elif where == "weights":
        saved = lambda tensors, path, **_: "checkpoint-" in str(path)  # noqa: E731
        replace(modeling_utils, "safe_save_file", count, lambda tensors, path, **_: cut(path), saved)
    elif where in ("optimizer", "random"):
        name = {"optimizer": "optimizer.pt", "random": "rng_state"}[where]
        own = lambda value, path, *_, **__: name in str(path)  # noqa: E731
        replace(torch, "save", count, lambda value, path, *_, **__: cut(path), own)
    elif where == "state":
        replace(TrainerState, "save_to_json", count, lambda self, path: cut(path), lambda *_: True)
    elif where == "rotation":
        half = lambda path, **_: (Path(path) / "optimizer.pt").unlink()  # noqa: E731
        replace(shutil, "rmtree", count, half, lambda path, **_: "checkpoint-" in str(path))
    assert issubclass(trainer.Ulip2Trainer, Trainer)
    pretraining.main(options)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
