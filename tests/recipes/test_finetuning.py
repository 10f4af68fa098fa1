"""The whole command on fabricated shapes: learns, sums up, skips what is done, goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel

from modeling_ulip2 import Ulip2FeatureExtractor, Ulip2ForPointCloudClassification
from modeling_ulip2.recipes import finetuning
from modeling_ulip2.training.classification import ClassificationTrainer
from tests.evaluation.world import CATEGORIES
from tests.training.world import ENCODER, tiny_model, triplet_rows, write_dataset

ROOT = Path(__file__).parents[2]
SIZES = [f"{name}={value}" for name, value in ENCODER.items()]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 triplets of three categories, a split, and a pre-trained folder."""
    folder = tmp_path_factory.mktemp("finetune")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
        write_dataset(folder / "dataset", shapes=24)
        ids = [row["id"] for row in triplet_rows(24)]
        (folder / "split.json").write_text(json.dumps({"train": ids[:15], "test": ids[15:]}))
        lines = [f"{name},{CATEGORIES[index % 3]}" for index, name in enumerate(ids)]
        (folder / "labels.csv").write_text("\n".join(["path,category", *lines]))
        tiny_model().save_pretrained(folder / "model")
        Ulip2FeatureExtractor(num_points=64).save_pretrained(folder / "model")
        yield folder


def words(world: Path, output: Path, **changes: Any) -> list[str]:
    options = {
        "dataset": world / "dataset",
        "labels_file": world / "labels.csv",
        "split_file": world / "split.json",
        "output_dir": output,
        "model_name_or_path": world / "model",
        "num_train_epochs": 6,
        "learning_rate": 3e-3,
        "per_device_train_batch_size": 5,
        "rotate_y": False,
        "max_dropout": 0.2,
        "use_cpu": True,
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "disable_tqdm": True,
        "report_to": "none",
    }
    given = {name: value for name, value in (options | changes).items() if value is not None}
    return [
        word
        for name, value in given.items()
        for word in (f"--{name}", *map(str, value if isinstance(value, list) else [value]))
    ]


def test_all_kinds_of_runs_and_their_summary(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = {
        "initializations": ["pretrained", "scratch"],
        "methods": ["finetune", "linear_probe"],
        "shots": [0, 2],
        "seeds": [0, 1],
        "votes": 3,
        "num_train_epochs": 4,
        "save_strategy": "no",
    }
    results = finetuning.main(words(world, tmp_path / "out", **settings))
    kinds = [(r["initialization"], r["method"], r["shots"], r["seed"]) for r in results]
    # a probe of all clouds on pre-trained weights draws nothing: one seed of it is enough
    assert len(kinds) == len(set(kinds)) == 15 and ("pretrained", "linear_probe", 0, 1) not in kinds
    for result in results:
        assert result["test_clouds"] == 9 and result["train_clouds"] == (6 if result["shots"] else 15)
        assert 0 <= result["class_average_accuracy"] <= 1
        assert ("voted_accuracy" in result) == ("best_epoch_accuracy" in result) == (result["method"] == "finetune")
    probes = [r["accuracy"] for r in results if r["method"] == "linear_probe" and not r["shots"]]
    assert min(probes) > 0.6, "proportions and color tell the category"
    table = (tmp_path / "out" / "results.md").read_text()
    assert table.count("| pretrained |") == table.count("| scratch |") == 4 and "±" in table
    assert "15 training and 9 test clouds of 3 classes" in table
    assert table.splitlines()[2] in capsys.readouterr().out
    folder = tmp_path / "out" / "pretrained-finetune-all-seed_0"
    model = AutoModel.from_pretrained(folder)
    assert type(model) is Ulip2ForPointCloudClassification
    assert list(model.config.id2label.values()) == sorted(CATEGORIES)
    assert "finetune on 15 clouds of dataset, from model, seed 0." in (folder / "README.md").read_text()
    probe = AutoModel.from_pretrained(tmp_path / "out" / "pretrained-linear_probe-all-seed_0")
    encoder = tiny_model().point_model.state_dict()
    assert all(torch.equal(value, encoder[name]) for name, value in probe.point_model.state_dict().items())
    assert len(probe.classifier) == 1


def test_it_learns_from_scratch_skips_what_is_done_and_goes_on(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = words(world, tmp_path / "out", model_name_or_path=None, num_points=64) + ["--point_config", *SIZES]
    steps: list[int] = []

    def stop_in_the_middle(self: ClassificationTrainer, *arguments: Any, **kwargs: Any) -> torch.Tensor:
        steps.append(self.state.global_step)
        if self.state.global_step == 7:
            raise KeyboardInterrupt
        return training_step(self, *arguments, **kwargs)

    training_step = ClassificationTrainer.training_step
    monkeypatch.setattr(ClassificationTrainer, "training_step", stop_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        finetuning.main(options)
    folder = tmp_path / "out" / "scratch-finetune-all-seed_0"
    assert not (folder / "result.json").exists()
    monkeypatch.setattr(ClassificationTrainer, "training_step", training_step)
    (result,) = finetuning.main(options)
    # the training went on from the checkpoint of the second epoch and ended as an unbroken one does
    history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    assert [entry["epoch"] for entry in history if "eval_accuracy" in entry] == [1, 2, 3, 4, 5, 6]
    assert result["accuracy"] >= 7 / 9 and result["initialization"] == "scratch"
    assert not list(folder.glob("checkpoint-*"))
    (straight,) = finetuning.main([*options, "--output_dir", str(tmp_path / "straight")])
    assert straight["accuracy"] == result["accuracy"] and straight["best_epoch"] == result["best_epoch"]

    def refuse(*arguments: Any, **kwargs: Any) -> None:
        raise AssertionError("the run is done")

    monkeypatch.setattr(ClassificationTrainer, "train", refuse)
    assert finetuning.main(options) == [result]
    with pytest.raises(ValueError, match="other settings .*layer_decay 1.0 -> 0.5"):
        finetuning.main([*options, "--layer_decay", "0.5"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["probing"]}, "probing: known are finetune and linear_probe"),
        (
            {
                "initializations": ["pretrained"],
                "model_name_or_path": None,
                "point_config": ["model_type=ulip2_pointnext"],
            },
            "--point_config has no weights",
        ),
        ({"split_file": None}, "need a --split_file"),
        ({"shots": [9]}, "3 classes have fewer than 9 training clouds"),
        ({"votes": 0}, "--votes at least 1"),
    ],
)
def test_wrong_options_are_told(world: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finetuning.main(words(world, tmp_path / "out", **changes))


@pytest.mark.parametrize("name", ["pointnext_s_scanobjectnn", "pointbert_scanobjectnn", "quickstart"])
def test_the_recipes_are_read(name: str, tmp_path: Path) -> None:
    path = ROOT / "examples" / "configs" / f"finetune_{name}.yaml"
    argv = ["--config", str(path), "--dataset", "x", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    options = finetuning.parse_arguments(argv)
    model, extractor = finetuning.build_model(finetuning.Run("scratch", "finetune", 0, 0), ["a"] * 15, options)
    expected = {"pointnext_s_scanobjectnn": 1_367_119, "pointbert_scanobjectnn": 21_858_816 + 769 * 256 + 257 * 15}
    assert model.num_parameters() == expected.get(name, model.num_parameters())
    assert extractor.in_channels == model.config.point_config.in_channels
