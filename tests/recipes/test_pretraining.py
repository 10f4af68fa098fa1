from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModel, AutoProcessor

from modeling_ulip2 import Ulip2Model, Ulip2Processor
from modeling_ulip2.recipes import pretraining
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.towers import load_tower
from tests.evaluation.world import CATEGORIES
from tests.towers.world import save_conse, save_open_clip
from tests.training.world import ENCODER, add_features, triplet_rows, write_dataset, write_tower

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "pretrain.py"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """A folder with dataset, tower, split and labels; the datasets cache lies in it too."""
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
        patch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)
        write_tower(folder / "tower")
        write_dataset(folder / "dataset", shapes=24)
        add_features(folder / "dataset", load_tower(folder / "tower"), folder / "made")
        write_dataset(folder / "with_depth", shapes=8, depth=True, seed=1)
        write_dataset(folder / "with_features", shapes=24)
        add_features(folder / "with_features", load_tower(folder / "tower"), folder / "made", beside=True)
        ids = [row["id"] for row in triplet_rows(24)]
        (folder / "split.json").write_text(json.dumps({"train": ids[:16], "test": ids[16:]}))
        with open(folder / "labels.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["path", "category"])
            writer.writerows([name, CATEGORIES[index % 3]] for index, name in enumerate(ids))
        yield folder


def options(world: Path, output: Path, **changes: Any) -> dict[str, Any]:
    sizes = ENCODER | {"num_points": 64}
    return (
        sizes
        | {
            "dataset": world / "dataset",
            "tower": world / "tower",
            "split_file": world / "split.json",
            "labels_file": world / "labels.csv",
            "feature_cache": world / "cache",
            "output_dir": output,
            "num_train_epochs": 2,
            "warmup_epochs": 0.5,
            "per_device_train_batch_size": 8,
            "logging_steps": 1,
            "save_strategy": "epoch",
            "use_cpu": True,
            "disable_tqdm": True,
            "seed": 3,
        }
        | changes
    )


def words(given: dict[str, Any]) -> list[str]:
    return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]


def curve(output: Path) -> list[float]:
    state = json.loads((output / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def test_a_run_leaves_a_model_that_auto_classes_load(world, tmp_path, caplog):
    metrics = pretraining.main(words(options(world, tmp_path / "out", eval_strategy="epoch")))
    assert {"eval_loss", "eval_zero_shot_top1", "eval_text_to_shape_recall_at_1"} <= set(metrics)
    assert "using the dataset's own features" in caplog.text
    # no embeddings of shapes: those of the categories are kept for the next training
    assert all(path.name.startswith("classes-") for path in (world / "cache").iterdir())
    model, processor = AutoModel.from_pretrained(tmp_path / "out"), AutoProcessor.from_pretrained(tmp_path / "out")
    assert isinstance(model, Ulip2Model) and isinstance(processor, Ulip2Processor)
    assert model.config.clip_name_or_path == str(world / "tower") and model.config.point_config.hidden_size == 16
    assert processor.feature_extractor.num_points == 64
    assert not hasattr(model.config, "eos_token_id") or model.config.eos_token_id is None
    checkpoint = tmp_path / "out" / "checkpoint-4"
    assert isinstance(AutoProcessor.from_pretrained(checkpoint), Ulip2Processor)
    inputs = processor(point_clouds=torch.rand(80, 3), text=["a chair"])
    with torch.no_grad():
        assert model(**inputs).logits_per_point_text.shape == (1, 1)
    assert len(curve(tmp_path / "out")) == 4
    saved = json.loads((tmp_path / "out" / "eval_results.json").read_text())
    assert saved["eval_zero_shot_top1"] == metrics["eval_zero_shot_top1"]


def test_a_second_run_changes_nothing_and_another_is_refused(world, tmp_path):
    given = options(world, tmp_path / "out")
    first = pretraining.main(words(given))
    weights, losses = (tmp_path / "out" / "model.safetensors").read_bytes(), curve(tmp_path / "out")
    record = {path.name: path.read_text() for path in (tmp_path / "out").glob("*.json")}
    again = pretraining.main(words(given))
    assert {path.name: path.read_text() for path in (tmp_path / "out").glob("*.json")} == record
    assert json.loads(record["train_results.json"])["train_loss"] > 0
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights and curve(tmp_path / "out") == losses
    assert again["eval_loss"] == first["eval_loss"]
    with pytest.raises(ValueError, match=r"another run|other settings \(learning_rate 0.003 -> 0.1\)"):
        pretraining.main(words(given | {"learning_rate": 0.1}))
    (tmp_path / "out" / pretraining.RUN_FILE).unlink()
    with pytest.raises(ValueError, match="did not write"):
        pretraining.main(words(given))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights


def test_a_run_goes_on_from_the_last_whole_checkpoint(world, tmp_path, caplog):
    given = options(world, tmp_path / "out", save_total_limit=None)
    pretraining.main(words(given))
    losses = curve(tmp_path / "out")
    # killed while it wrote the second checkpoint
    (tmp_path / "out" / "checkpoint-4" / "trainer_state.json").unlink()
    (tmp_path / "out" / "checkpoint-4" / "optimizer.pt").write_bytes(b"")
    pretraining.main(words(given))
    assert f"going on from {tmp_path / 'out' / 'checkpoint-2'}" in caplog.text
    assert curve(tmp_path / "out") == pytest.approx(losses, abs=1e-6)


def test_options_come_from_yaml_and_the_command_line_wins(world, tmp_path):
    given = options(world, tmp_path / "out")
    given = {name: str(value) if isinstance(value, Path) else value for name, value in given.items()}
    given |= {"learning_rate": "2e-3", "rotate_y": False, "max_dropout": 0.5}
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(given))
    model_args, data_args, augmentation, args, _ = pretraining.parse_arguments(["--config", str(path), "--top_k", "2"])
    assert args.learning_rate == 2e-3 and args.num_train_epochs == 2 and data_args.top_k == 2
    assert model_args.hidden_size == 16 and augmentation.max_dropout == 0.5 and augmentation.rotate_y is False
    *_, args, _ = pretraining.parse_arguments(["--config", str(path), "--num_train_epochs", "5"])
    assert args.num_train_epochs == 5
    path.write_text("learning_rat: 1\n")
    with pytest.raises(ValueError, match="unknown options learning_rat"):
        pretraining.parse_arguments(["--config", str(path)])
    path.write_text("- a\n")
    with pytest.raises(ValueError, match="must map"):
        pretraining.parse_arguments(["--config", str(path)])


@pytest.mark.parametrize(
    "name",
    "quickstart small_objects small_objects_turned small_objects_decay ablations ulip2_objaverse_shapenet "
    "ulip2_shapenet ulip1_shapenet".split(),
)
def test_the_configurations_in_the_repository_are_valid(name, world, tmp_path):
    config = ROOT / "examples" / "configs" / f"{name}.yaml"
    given = ["--dataset", str(world / "dataset"), "--tower", str(world / "tower"), "--output_dir", str(tmp_path)]
    model_args, data_args, _, args, _ = pretraining.parse_arguments(
        ["--config", str(config), "--use_cpu", "True", *given]
    )
    tower = load_tower(world / "tower")
    assert tower.dim == 24
    with torch.device("meta"):
        processor, model = pretraining.build_model(model_args, data_args, tower, HubArguments())
    assert args.learning_rate > 0 and processor.feature_extractor.in_channels == model.config.point_config.in_channels


def test_from_given_weights_on_raw_rows_with_depth_and_another_evaluation_set(world, tmp_path):
    pretraining.main(words(options(world, tmp_path / "first", num_train_epochs=1)))
    sizes = dict.fromkeys(ENCODER)
    changes = {
        "model_name_or_path": tmp_path / "first",
        "dataset": world / "with_depth",
        "split_file": None,
        "eval_dataset": world / "dataset",
        "use_features": False,
        "use_depth": True,
        "top_k": 2,
        "per_device_train_batch_size": 4,
        "num_train_epochs": 1,
        "eval_strategy": "no",
    }
    # the evaluation set has no depth views, which evaluation does not need
    metrics = pretraining.main(words(options(world, tmp_path / "second", **(sizes | changes))))
    assert metrics["eval_zero_shot_top1"] >= 0 and len(curve(tmp_path / "second")) == 2
    first, second = (Ulip2Model.from_pretrained(tmp_path / name).state_dict() for name in ("first", "second"))
    assert set(first) == set(second) and not any(name.startswith("clip_model") for name in second)
    with pytest.raises(ValueError, match="hidden_size: sizes are fixed"):
        pretraining.main(words(options(world, tmp_path / "third", **(sizes | changes | {"hidden_size": 32}))))


def test_streaming(world, tmp_path, caplog):
    changes = {"streaming": True, "max_steps": 3, "shuffle_buffer": 0, "dataset": world / "with_features"}
    losses = []
    for use_features in (True, False):
        output = tmp_path / f"features_{use_features}"
        pretraining.main(words(options(world, output, use_features=use_features, **changes)))
        losses.append(curve(output))
    assert ("using the dataset's own features" in caplog.text) and len(losses[0]) == 3
    # stored in half precision, or computed by the tower on the way
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    with pytest.raises(ValueError, match="--streaming needs --max_steps"):
        pretraining.main(words(options(world, tmp_path / "other", **(changes | {"max_steps": -1}))))


@pytest.mark.parametrize("streaming", [False, True])
def test_several_datasets_are_mixed(world, tmp_path, caplog, streaming):
    """24 and 8 shapes, of which the second has depth views and the first features; the ids are the same."""
    (tmp_path / "pairs.csv").write_text("a,b,kind\nmade/00.obj,made/01.obj,copy\nmade/02.obj,made/03.obj,variant\n")
    weights = ["--dataset_weights", "1", "3"]
    changes: dict[str, Any] = {"dataset": None, "split_file": None, "labels_file": None, "num_train_epochs": 1}
    if streaming:
        changes |= {"streaming": True, "max_steps": 3}
    else:
        changes |= {"near_duplicates": tmp_path / "pairs.csv", "near_duplicate_kinds": "copy"}
    given = ["--dataset", str(world / "dataset"), str(world / "with_depth"), *weights]
    output = tmp_path / "out"
    pretraining.main([*given, *words(options(world, output, **changes))])
    assert len(curve(output)) == (3 if streaming else 4) and torch.tensor(curve(output)).isfinite().all()
    if not streaming:
        assert "32 shapes in 23 groups" in caplog.text
    with pytest.raises(ValueError, match="2 datasets need as many positive weights"):
        pretraining.main([*given, "4", *words(options(world, tmp_path / "other", **changes))])
    with pytest.raises(ValueError, match="a stream does not know what comes"):
        changes |= {"streaming": True, "max_steps": 3, "distinct_in_batch": True}
        pretraining.main([*given, *words(options(world, tmp_path / "third", **changes))])


def test_held_out_rows_of_several_datasets_are_joined(world, tmp_path):
    changes = {"dataset": None, "num_train_epochs": 1}
    given = ["--dataset", str(world / "dataset"), str(world / "with_features")]
    metrics = pretraining.main([*given, *words(options(world, tmp_path / "out", **changes))])
    assert metrics["eval_loss_candidates"] == 16 and len(curve(tmp_path / "out")) == 4


def test_the_loss_is_a_choice(world, tmp_path):
    changes = {"loss_type": "siglip", "text_loss_weight": 0.5, "loss_chunk_size": 3, "num_train_epochs": 1}
    pretraining.main(words(options(world, tmp_path / "out", gradient_accumulation_steps=2, **changes)))
    model = Ulip2Model.from_pretrained(tmp_path / "out")
    assert model.logit_bias is not None and model.config.text_loss_weight == 0.5
    logged = json.loads((tmp_path / "out" / "trainer_state.json").read_text())["log_history"][0]
    assert logged["loss"] == pytest.approx(0.5 * logged["text_loss"] + logged["image_loss"], rel=1e-3)
    with pytest.raises(ValueError, match="text_loss_weight and image_loss_weight"):
        pretraining.main(words(options(world, tmp_path / "b", text_loss_weight=0, image_loss_weight=0)))


def test_bad_input(world, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing: no such folder"):
        pretraining.main(words(options(world, tmp_path / "a", dataset=tmp_path / "missing")))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        pretraining.main(words(options(world, tmp_path / "file" / "out")))
    with pytest.raises(ValueError, match="16 training shapes do not fill one batch of 64"):
        pretraining.main(words(options(world, tmp_path / "b", per_device_train_batch_size=64)))


def test_two_processes_learn_what_one_learns(world, tmp_path):
    """The global batch is the same, so are losses, embeddings and metrics."""
    changes = {"num_train_epochs": 3, "top_k": 2, "use_cpu": None, "eval_strategy": "epoch"}
    environment = os.environ | {
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(world / "datasets"),
        "PYTHONPATH": str(ROOT),
    }
    two = options(world, tmp_path / "two", per_device_train_batch_size=4, **changes)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = subprocess.run(
        [*launcher, str(SCRIPT), *words(two)], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr[-4000:]
    one = pretraining.main(words(options(world, tmp_path / "one", **(changes | {"use_cpu": True}))))
    assert len(curve(tmp_path / "one")) == 6
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), abs=2e-4)
    # not the weights: a bias before BatchNorm changes nothing, and AdamW turns its rounding errors into steps
    clouds = torch.rand(4, 64, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        single, double = (Ulip2Model.from_pretrained(tmp_path / name)(clouds).point_embeds for name in ("one", "two"))
    torch.testing.assert_close(double, single, atol=2e-3, rtol=0)
    other = json.loads((tmp_path / "two" / "eval_results.json").read_text())
    for name in ("eval_zero_shot_top1", "eval_text_to_shape_median_rank"):
        assert other[name] == pytest.approx(one[name], abs=0.13 if "top1" in name else 2)


@pytest.mark.parametrize("kind", ["conse", "open_clip"])
def test_the_tower_runs_in_training_whatever_its_kind(world: Path, tmp_path: Path, kind: str) -> None:
    """Towers whose tokenizer makes more than ids and a mask, and towers that another library loads."""
    reference = str(save_conse(tmp_path / "conse"))
    if kind == "open_clip":
        pytest.importorskip("open_clip")
        reference = f"open_clip:{save_open_clip(tmp_path / 'open_clip')}"
    changes = {"tower": reference, "use_features": False, "num_train_epochs": 1, "eval_strategy": "no"}
    changes |= {"split_file": None, "labels_file": None}
    pretraining.main(words(options(world, tmp_path / "model", **changes)))
    assert torch.tensor(curve(tmp_path / "model")).isfinite().all()
    model = Ulip2Model.from_pretrained(tmp_path / "model")
    inputs = Ulip2Processor.from_pretrained(tmp_path / "model")(text=["a red chair"])
    expected = load_tower(reference, device="cpu").encode_text(["a red chair"])
    torch.testing.assert_close(model(**inputs).text_embeds, expected, atol=1e-5, rtol=1e-4)
