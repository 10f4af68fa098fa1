"""Stages without models, for the tests of the engine; spawned workers import them from here."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from modeling_ulip2.building.stages.base import Batch, RowStage, Stage, alive
from modeling_ulip2.data.schema import Row
from modeling_ulip2.utils import files

NUM_POINTS, DIM = 8, 4


class MakeRow(RowStage):
    """Rows without meshes; leaves a file of each object's id that holds the process and the GPUs that it sees.

    An object called "kill" kills its worker; "kill once" does so the first time only. "hang" takes for ever, "hold"
    until the test leaves a file "go".
    """

    def __init__(self, scratch: str) -> None:
        self.scratch = Path(scratch)

    def process(self, row: Row) -> Row:
        if row["name"] == "bad":
            raise ValueError("a bad object")
        marker = self.scratch / row["id"]
        first = not marker.exists()
        write_marker(marker)
        if row["name"] == "kill" or (row["name"] == "kill once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if row["name"] == "hang":
            time.sleep(3600)
        if row["name"] == "hold":
            wait_for(self.scratch / "go")
        return {
            "xyz": np.full((NUM_POINTS, 3), float(row["id"]), np.float16),
            "rgb": np.zeros((NUM_POINTS, 3), np.uint8),
            "views": [],
            "azimuths": [],
            "elevations": [],
            "distances": [],
            "shifts": [],
            "fov": 40.0,
            "size": 16,
            "target": [0.0, 0.0, 0.0],
            "captions": [[row["name"]]],
            "caption_scores": [[0.5]],
            "image_embeds": np.zeros((1, DIM), np.float16),
            "text_embeds": [np.zeros((1, DIM), np.float16)],
            "warnings": [],
        }


def write_marker(path: Path) -> None:
    partial = path.with_suffix(f".{os.getpid()}")
    partial.write_text(f"{os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}")
    partial.replace(path)


def wait_for(path: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path.name} never came")
        time.sleep(0.01)


class Model(Stage):
    """A stage that wants a GPU; leaves a file of its process, as `MakeRow` does.

    At an object called "await N" it waits until object N was made, and writes down how many were by then.
    """

    batch_size = 2
    on_gpu = True

    def __init__(self, scratch: str) -> None:
        self.scratch = Path(scratch)

    def describe(self) -> dict[str, str]:
        return {"model": "toy"}

    def __call__(self, batch: Batch) -> Batch:
        write_marker(self.scratch / f"model-{os.getpid()}")
        for name in batch["name"]:
            if name.startswith("await "):
                wait_for(self.scratch / name.split()[1])
                made = [path for path in self.scratch.iterdir() if path.name.isdigit()]
                (self.scratch / "made").write_text(str(len(made)))
        return batch


class FullDisk(Stage):
    """The disk of its worker is full from now on."""

    def __init__(self) -> None:
        files.os = SimpleNamespace(getpid=os.getpid, fsync=self.refuse)  # type: ignore[attr-defined]

    def refuse(self, file: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __call__(self, batch: Batch) -> Batch:
        return batch


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
