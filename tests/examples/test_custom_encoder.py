"""`examples/custom_encoder.py`: an encoder of one's own, from registration to a checkpoint that loads."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoProcessor, pipeline

from examples.custom_encoder import DeepSetsConfig, DeepSetsModel, main
from modeling_ulip2 import PointBertConfig, Ulip2Model, register_point_encoder
from tests.training import world


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("custom")
    settings = {
        "dataset": world.write_dataset(folder / "triplets"),
        "tower": world.write_tower(folder / "tower"),
        "output_dir": folder / "out",
        "hidden_size": 32,
        "num_points": 64,
        "per_device_train_batch_size": 8,
        "learning_rate": 3e-3,
        "warmup_epochs": 0.5,
        "num_train_epochs": 30,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    main([word for name, value in settings.items() for word in (f"--{name}", str(value))])
    return folder / "out"


def test_training_lowers_the_loss(output: Path) -> None:
    history = json.loads((output / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert len(losses) == 60 and sum(losses[-6:]) / 6 < min(losses[0], 2 * math.log(8)) - 0.1  # better than chance


def test_the_checkpoint_loads_and_embeds(output: Path) -> None:
    model = AutoModel.from_pretrained(output)
    assert type(model) is Ulip2Model and type(model.point_model) is DeepSetsModel
    assert model.config.point_config.hidden_size == 32 and AutoProcessor.from_pretrained(output)
    cloud = torch.rand(64, 6, generator=torch.Generator().manual_seed(0)).numpy()
    embeds = pipeline("point-cloud-feature-extraction", model=str(output))(cloud, return_tensors=True)
    assert embeds.shape == (24,) and embeds.norm() == pytest.approx(1)


def test_what_registration_refuses() -> None:
    with pytest.raises(ValueError, match="is 'deep_sets', not 'mine'"):
        register_point_encoder("mine", DeepSetsConfig, DeepSetsModel)

    class Thief(PointBertConfig):
        pass

    # a cell that runs again defines its classes anew
    again = type(DeepSetsConfig.__name__, (DeepSetsConfig,), {"__module__": DeepSetsConfig.__module__})
    register_point_encoder("deep_sets", again, DeepSetsModel)
    register_point_encoder("deep_sets", DeepSetsConfig, DeepSetsModel)
    with pytest.raises(ValueError, match="already registered"):
        register_point_encoder("ulip2_pointbert", Thief)
