"""Pictures for whatever follows a training: TensorBoard, trackio, wandb."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import Trainer


def log_picture(trainer: Trainer, name: str, path: Path, step: int) -> list[str]:
    """Shows a picture to each tracker that the trainer reports to; returns their names.

    Only of the process that trackers listen to; the others show nothing.
    """
    shown = []
    for callback in trainer.callback_handler.callbacks:
        kind = type(callback).__name__
        if kind == "TensorBoardCallback" and getattr(callback, "tb_writer", None) is not None:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            callback.tb_writer.add_image(name, pixels, step, dataformats="HWC")
            shown.append("tensorboard")
        elif kind == "WandbCallback" and _running(callback, "_wandb"):
            wandb: Any = callback._wandb
            wandb.log({name: wandb.Image(str(path)), "train/global_step": step})
            shown.append("wandb")
        elif kind == "TrackioCallback" and getattr(callback, "_initialized", False):
            trackio: Any = callback._trackio
            trackio.log({name: trackio.Image(str(path))}, step=step)
            shown.append("trackio")
    return shown


def _running(callback: Any, module: str) -> bool:
    return getattr(getattr(callback, module, None), "run", None) is not None
