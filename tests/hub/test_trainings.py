"""What a training uploads, with every strategy: the model, its card and its figures, and nothing of this machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from transformers import AutoModel

from modeling_ulip2.data.collator import TripletCollator
from modeling_ulip2.data.reading import TripletDataset, read_triplets
from modeling_ulip2.training import Ulip2Trainer, Ulip2TrainingArguments
from tests.evaluation.world import build_tower
from tests.hub.server import LoopbackHub
from tests.training.world import tiny_model, tiny_processor, write_dataset

NAME = "org/boxes"
# Of what a training writes beside a model.
LEFTOVERS = ("optimizer", "scheduler", "rng_state", "training_args", "trainer_state", "runs/", "mine", "sampler")


@pytest.fixture(scope="module")
def triplets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "boxes", shapes=8, files=1)


def train(folder: Path, data: str, **settings: Any) -> Ulip2Trainer:
    """Two steps on eight boxes, pushed as `settings` say."""
    rows = TripletDataset(read_triplets(data))
    model = tiny_model()
    model.set_clip_model(build_tower())
    model.config.clip_name_or_path = "someone/clip"
    (folder / "runs").mkdir(parents=True)
    (folder / "runs/events.out").write_text("a log")
    (folder / "mine.pkl").write_bytes(b"a file of mine")
    (folder / "mine.json").write_text(json.dumps({"place": str(folder)}))
    trainer = Ulip2Trainer(
        model=model,
        args=Ulip2TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=4,
            max_steps=2,
            save_steps=1,
            warmup_steps=0,
            logging_steps=1,
            push_to_hub=True,
            hub_model_id=NAME,
            use_cpu=True,
            report_to="none",
            **settings,
        ),
        data_collator=TripletCollator(tiny_processor(), top_k=1, seed=3),
        train_dataset=rows,
        eval_dataset=rows,
        processing_class=tiny_processor(),
    )
    trainer.train()
    trainer.evaluate()
    trainer.push_to_hub()
    return trainer


@pytest.mark.parametrize("strategy", ["end", "every_save", "checkpoint", "all_checkpoints"])
def test_uploads_of_a_training(strategy: str, loopback_hub: LoopbackHub, triplets: Path, tmp_path: Path) -> None:
    train(tmp_path / "out", str(triplets), hub_strategy=strategy, hub_always_push=True)
    repository = loopback_hub[NAME]
    files = repository.files
    for left in LEFTOVERS:
        assert not [name for name in files if left in name], left
    for name, content in files.items():
        for place in (tmp_path, triplets.parent, Path.home(), Path.cwd()):
            if place != Path("/"):
                assert f"{place}{os.sep}".encode() not in content, (name, place)
    assert {"config.json", "model.safetensors", "README.md", "modeling_ulip2.py", "preprocessor_config.json"} <= {
        *files,
        "preprocessor_config.json",
    }
    inside = {name.split("/")[0] for name in files if "/" in name}
    kept = {"checkpoint": {"last-checkpoint"}, "all_checkpoints": {"checkpoint-1", "checkpoint-2"}}.get(strategy)
    assert inside == (kept or set())
    for folder in kept or ():
        assert {f"{folder}/config.json", f"{folder}/model.safetensors"} <= files.keys()
    if strategy != "end":  # what came on the way was whole, too
        # the folder of a checkpoint is a commit of its own, which may be quicker
        way = [c for c in repository.commits.values() if c.title.startswith("Training in progress")]
        first = next(c for c in way if not c.title.endswith(", checkpoint"))
        assert {"config.json", "README.md", "modeling_ulip2.py"} <= first.files.keys()
    card = ModelCard(files["README.md"].decode())
    assert (card.data.license, card.data.base_model) == ("cc0-1.0", "someone/clip")
    assert "2 steps" in card.text and "CC0 (8)" in card.text and card.data.library_name == "transformers"
    name, results = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert name == card.data.model_name and "loss" in {result.metric_name for result in results}
    card.validate()  # by the hub


def test_the_data_of_the_hub_is_named(loopback_hub: LoopbackHub, triplets: Path, tmp_path: Path) -> None:
    loopback_hub.add("org/triplets", triplets, kind="dataset")
    train(tmp_path / "out", "org/triplets", hub_private_repo=True)
    assert loopback_hub[NAME].private
    card = ModelCard(loopback_hub[NAME].files["README.md"].decode())
    assert card.data.datasets == ["org/triplets"] and "`org/triplets`" in card.text
    model = AutoModel.from_pretrained(NAME)
    assert isinstance(model, torch.nn.Module) and model.config.clip_name_or_path == "someone/clip"
