"""TensorBoard, trackio and wandb get the figures and the pictures of a training, without a network."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_ulip2.recipes import pretraining
from tests.recipes.test_pretraining import options, words
from tests.recipes.test_pretraining import world as world

FIGURES = (
    "text_loss image_loss text_accuracy image_accuracy logit_scale grad_norm samples_per_second learning_rate loss "
).split()
STEPS = (2, 4)  # of the evaluations


def train(world: Path, output: Path, tracker: str) -> list[Path]:
    """The pictures of a training that reports to a tracker."""
    changes = {"report_to": tracker, "eval_strategy": "epoch", "save_strategy": "no", "project": "shapes"}
    pretraining.main(words(options(world, output, **changes)))
    return sorted((output / "retrievals").iterdir())


def test_tensorboard(world, tmp_path, monkeypatch):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    pictures = train(world, tmp_path, "tensorboard")
    assert [path.name for path in pictures] == [f"step-{step:07d}.png" for step in STEPS]
    folder = next(path.parent for path in tmp_path.rglob("events.out.tfevents*"))
    found = events.EventAccumulator(str(folder), size_guidance={events.IMAGES: 0})
    found.Reload()
    scalars = found.Tags()["scalars"]
    assert {f"train/{name}" for name in FIGURES} <= set(scalars)
    assert [event.step for event in found.Scalars("eval/zero_shot_top1")][:2] == list(STEPS)
    images = found.Images("eval/retrievals")
    assert {image.step for image in images} == set(STEPS)
    assert (images[0].width, images[0].height) == Image.open(pictures[0]).size
    assert np.asarray(Image.open(pictures[0]).convert("RGB")).std() > 20, "there is something to see"


def test_trackio(world, tmp_path, monkeypatch):
    trackio = pytest.importorskip("trackio")
    places = {"TRACKIO_DIR": tmp_path / "trackio", "MEDIA_DIR": tmp_path / "trackio" / "media"}
    for module in [own for name, own in sys.modules.items() if name.split(".")[0] == "trackio"]:
        for name, place in places.items():
            if name in vars(module):
                monkeypatch.setattr(module, name, place)
    train(world, tmp_path / "out", "trackio")
    assert trackio.__version__
    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        logged = [json.loads(row[0]) for row in connection.execute("SELECT metrics FROM metrics")]
    names = {name for own in logged for name in own}
    assert {f"train/{name}" for name in FIGURES} <= names and "eval/zero_shot_top1" in names
    assert "eval/retrievals" in names and list((tmp_path / "trackio").rglob("*.png"))


def test_wandb_without_a_network(world, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    train(world, tmp_path / "out", "wandb")
    summary = dict(wandb.run.summary)
    assert {f"train/{name}" for name in FIGURES} <= set(summary) and summary["eval/zero_shot_top1"] >= 0
    assert summary["eval/retrievals"]["_type"] == "image-file"
    folder = Path(wandb.run.dir).parent
    wandb.finish()
    assert list(folder.rglob("*.wandb")) and list(folder.rglob("retrievals*.png"))
