"""Which checkpoints of a run a stop has left whole."""

from __future__ import annotations

import json
import logging
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer import SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

logger = logging.getLogger(__name__)

# Files that torch writes, which are archives with their table of contents at the end.
ARCHIVES = ("*.pt", "*.pth", "*.bin")


def last_checkpoint(output_dir: Path) -> Path | None:
    """The last checkpoint in a folder that was saved whole; later ones are logged."""
    found = [path for path in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(found, key=lambda own: int(own.name.rpartition("-")[2]), reverse=True):
        if is_whole_checkpoint(path):
            return path
        logger.warning(f"{path} was not saved whole, or is being removed: not used")
    return None


def is_whole_checkpoint(folder: Path) -> bool:
    """Does a folder hold weights, state of the optimizer, schedule and random state, each of them whole?

    `Trainer` writes the state last; where a stop came while files were written or removed, it is missing, or the ends
    of others are.
    """
    if not is_whole_json(folder / TRAINER_STATE_NAME) or not (folder / SCHEDULER_NAME).is_file():
        return False
    if not any(folder.glob("optimizer*")) or not any(folder.glob("rng_state*.pth")):
        return False
    weights = list(folder.rglob("*.safetensors"))
    archives = [path for pattern in ARCHIVES for path in folder.rglob(pattern)]
    sharded = any(folder.glob("pytorch_model_fsdp*"))
    return bool(weights or sharded) and all(map(_is_whole_tensors, weights)) and all(map(zipfile.is_zipfile, archives))


def is_whole_json(path: Path) -> bool:
    """Is there a JSON file, and does it end where it should?"""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True


def _is_whole_tensors(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt"):  # compares the size with what the header tells
            return True
    except (OSError, SafetensorError):
        return False
