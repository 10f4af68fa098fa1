"""Reads published training checkpoints without running what they contain."""

from __future__ import annotations

import argparse
import os
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

# Under which key published files keep their tensors: ULIP, SLIP and OpenShape; Point-BERT; Uni3D (DeepSpeed).
_CONTAINERS = ("state_dict", "base_model", "module")


@dataclass(frozen=True)
class PublishedCheckpoint:
    """What a published file holds, as far as a model needs it. Tensors may lie in the file until they are used.

    state_dict: tensors by the published names, without the prefix `module.` that distributed training left.
    epoch: number of the epoch, or the string "last"; None where the file does not say.
    args: command-line arguments of the training run.
    name: of the file.
    """

    state_dict: dict[str, torch.Tensor]
    epoch: int | str | None = None
    args: dict[str, Any] = field(default_factory=dict)
    name: str = "the checkpoint"


def read_checkpoint(path: str | os.PathLike[str]) -> PublishedCheckpoint:
    """Reads a published checkpoint (`.pt`, `.pth`, `.bin` or `.safetensors`) without running what it contains.

    Torch files are pickles, which may run any code when loaded. Here an unpickler is used that knows tensors,
    containers, numbers, strings, paths (as strings) and `argparse.Namespace` (the type of `args`), and refuses
    everything else. Tensors are mapped from the file, so that only those that are used take memory.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, no checkpoint (a Git LFS pointer or an error page is named as such), or asks
            for a class that is not allowed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file {path}.")
    _refuse_foreign(path)
    read: Any = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    content: dict[str, Any] = read if isinstance(read, dict) else {}
    state_dict = next((content[key] for key in _CONTAINERS if isinstance(content.get(key), dict)), content)
    if not state_dict or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise ValueError(
            f"{path} holds no state_dict: expected a dict of tensors, alone or under one of the keys "
            f"{', '.join(_CONTAINERS)}."
        )
    state_dict = {name.removeprefix("module."): value for name, value in state_dict.items()}
    if state_dict.keys() == content.keys():
        content = {}
    scale = content.get("logit_scale")  # OpenShape keeps it beside the model
    if isinstance(scale, dict) and len(scale) == 1 and "logit_scale" not in state_dict:
        state_dict["logit_scale"] = next(iter(scale.values()))
    args = content.get("args", {})
    return PublishedCheckpoint(
        state_dict=state_dict,
        epoch=content.get("epoch"),
        args=dict(vars(args) if isinstance(args, argparse.Namespace) else args),
        name=path.name,
    )


def _refuse_foreign(path: Path) -> None:
    try:
        from modeling_ulip2.geometry.foreign import MOST_BYTES, foreign_content
    except ImportError:  # without the extra `mesh`; the reader below still refuses the file, in plainer words
        return
    with path.open("rb") as file:
        foreign = foreign_content(file.read(MOST_BYTES + 1))
    if foreign is not None:
        raise ValueError(f"{path} is {foreign}.")


def _path_as_text(*parts: str) -> str:
    """Stands in for `pathlib.PosixPath`, which some training arguments hold: the text alone is kept."""
    return "/".join(parts)


def _read_pickle(path: Path) -> Any:
    allowed: list[Any] = [
        argparse.Namespace,
        (_path_as_text, "pathlib.PosixPath"),
        (_path_as_text, "pathlib._local.PosixPath"),
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            # what torch wrote before version 1.6 is no zip file and cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        reason = str(error).partition("WeightsUnpickler error:")[2].strip().split("\n")[0] or str(error).split("\n")[0]
        raise ValueError(
            f"{path} was not loaded: it is no torch checkpoint, or holds more than tensors, containers and "
            f"argparse.Namespace ({reason}). Loading such a file could run code of whoever made it."
        ) from error
    except (RuntimeError, EOFError, KeyError, OSError) as error:
        raise ValueError(f"{path} is no torch checkpoint, or is truncated: {error}") from error


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or is truncated: {error}") from error
