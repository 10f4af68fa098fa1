"""Reads published training checkpoints without running what they contain."""

from __future__ import annotations

import argparse
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class PublishedCheckpoint:
    """What a published `.pt` file holds, as far as a model needs it.

    state_dict: tensors by the published names, without the prefix `module.` that distributed training left.
    epoch: number of the epoch, or the string "last"; None where the file does not say.
    args: command-line arguments of the training run.
    """

    state_dict: dict[str, torch.Tensor]
    epoch: int | str | None = None
    args: dict[str, Any] = field(default_factory=dict)


def read_checkpoint(path: str | os.PathLike[str]) -> PublishedCheckpoint:
    """Reads a checkpoint published with ULIP or ULIP-2.

    The files are pickles, which may run any code when loaded. Here an unpickler is used that knows tensors,
    containers, numbers, strings and `argparse.Namespace` (the type of `args`), and refuses everything else.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, no checkpoint, or asks for a class that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file {path}.")
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error:")[2].strip().split("\n")[0] or str(error).split("\n")[0]
        raise ValueError(
            f"{path} was not loaded: it is no torch checkpoint, or holds more than tensors, containers and "
            f"argparse.Namespace ({reason}). Loading such a file could run code of whoever made it."
        ) from error
    except (RuntimeError, EOFError, KeyError, OSError) as error:
        raise ValueError(f"{path} is no torch checkpoint, or is truncated: {error}") from error

    state_dict = content.get("state_dict", content) if isinstance(content, dict) else None
    if not state_dict or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise ValueError(
            f"{path} holds no state_dict: expected a dict of tensors, alone or under the key 'state_dict'."
        )
    if state_dict is content:
        content = {}
    args = content.get("args", {})
    return PublishedCheckpoint(
        state_dict={name.removeprefix("module."): value for name, value in state_dict.items()},
        epoch=content.get("epoch"),
        args=dict(vars(args) if isinstance(args, argparse.Namespace) else args),
    )
