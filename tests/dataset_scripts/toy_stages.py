"""Stages without models, for the tests of the engine; spawned workers import them from here."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
from stages.base import Batch, Row, RowStage, Stage, alive

NUM_POINTS, DIM = 8, 4


class MakeRow(RowStage):
    """Rows without meshes. An object called "kill" kills its worker; "kill once" does so the first time only."""

    def __init__(self, scratch: str) -> None:
        self.scratch = Path(scratch)

    def process(self, row: Row) -> Row:
        if row["name"] == "bad":
            raise ValueError("a bad object")
        marker = self.scratch / row["id"]
        if row["name"] == "kill" or (row["name"] == "kill once" and not marker.exists()):
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if row["name"] == "wait":
            marker.touch()
            time.sleep(60)
        return {
            "xyz": np.full((NUM_POINTS, 3), float(row["id"]), np.float16),
            "rgb": np.zeros((NUM_POINTS, 3), np.uint8),
            "views": [],
            "azimuths": [],
            "elevations": [],
            "captions": [[row["name"]]],
            "caption_scores": [[0.5]],
            "image_embeds": np.zeros((1, DIM), np.float16),
            "text_embeds": [np.zeros((1, DIM), np.float16)],
            "warnings": [],
        }


class Whole(Stage):
    """Sees a whole shard at once; kills its worker where the shard has an object called "kill whole"."""

    batch_size = None

    def describe(self) -> dict[str, str]:
        return {"fingerprint": "toy"}

    def __call__(self, batch: Batch) -> Batch:
        if any(batch["name"][i] == "kill whole" for i in alive(batch)):
            os.kill(os.getpid(), signal.SIGKILL)
        return batch


class Unmakeable(Stage):
    def __init__(self) -> None:
        raise OSError("there is no tower like that")
