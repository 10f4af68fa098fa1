"""The recipes `captioner_training` and `captioning`, from triplets to measured captions."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

from modeling_ulip2 import Ulip2CaptioningProcessor, Ulip2ForConditionalGeneration
from modeling_ulip2.data.pairs import CAPTIONS_CONFIG, write_pairs
from modeling_ulip2.evaluation.captions.generation import nearest_captions, shuffled_captions
from modeling_ulip2.evaluation.captions.verdict import CAPTIONER_REPORT, captioner_verdict
from modeling_ulip2.recipes import captioner_training, captioning
from modeling_ulip2.training.word_alignment import steps_of_pass
from tests.evaluation.world import CATEGORIES, World, build_world
from tests.models import captioning_world as captioners

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("captioning")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", folder / "datasets")
        built = build_world(folder, shapes=24)
        _, language = captioners.save_parts(folder / "parts")
        rows = [{"id": f"made/{i:02d}.obj", "captions": [f"a red {CATEGORIES[i % 3]}"]} for i in range(24)]
        write_pairs(folder / "texts", CAPTIONS_CONFIG, rows, [], "Texts", "")
        yield built, language, folder


def words(given: dict[str, Any]) -> list[str]:
    return [word for name, value in given.items() if value is not None for word in (f"--{name}", str(value))]


def options(world: tuple[World, str, Path], output: Path, **changes: Any) -> list[str]:
    built, language, folder = world
    given = {
        "point_model": built.model,
        "language_model": language,
        "dataset": built.dataset,
        "texts": folder / "texts",
        "split_file": built.split_file,
        "output_dir": output,
        "connector": "mlp",
        "compression": "resample",
        "point_feature_type": "embeds",
        "num_query_tokens": 2,
        "connector_hidden_size": 16,
        "prompt": "describe the 3d model",
        "feature_cache": folder / "cache",
        "per_device_train_batch_size": 4,
        "max_steps": 8,
        "learning_rate": 0.02,
        "warmup_steps": 0,
        "logging_steps": 1,
        "save_steps": 4,
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return words(given | changes)


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "model"
    metrics = captioner_training.main(options(world, output, lora_r=2))
    assert metrics["eval_loss"] > 0
    return output


def curve(output: Path) -> list[float]:
    state = json.loads((output / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def test_training_lowers_the_loss_and_leaves_connector_and_adapter(trained: Path) -> None:
    losses = curve(trained)
    assert len(losses) == 8 and sum(losses[-3:]) < 0.8 * sum(losses[:3])
    with safe_open(trained / "model.safetensors", framework="pt") as file:
        names = set(file.keys())
    assert {name.split(".")[0] for name in names} == {"connector", "language_model"}
    assert all("lora" in name for name in names if name.startswith("language_model"))
    processor = Ulip2CaptioningProcessor.from_pretrained(trained)
    assert Ulip2ForConditionalGeneration.from_pretrained(trained).config.num_query_tokens == 2
    assert processor.num_query_tokens == 2


def test_a_run_goes_on_from_its_checkpoint(world, trained: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    captioner_training.main(options(world, output, lora_r=2))
    (output / "checkpoint-8" / "trainer_state.json").unlink()  # stopped while it was saved
    captioner_training.main(options(world, output, lora_r=2))
    assert curve(output) == pytest.approx(curve(trained), abs=1e-4)
    with pytest.raises(ValueError, match=r"other settings \(.*learning_rate 0.02 -> 0.5"):
        captioner_training.main(options(world, output, lora_r=2, learning_rate=0.5))


def test_stage_2_starts_from_stage_1_and_adds_an_adapter(world, tmp_path: Path) -> None:
    captioner_training.main(options(world, tmp_path / "one", max_steps=2, chat_template="plain"))
    changes = {"model_name_or_path": tmp_path / "one", "point_model": None, "language_model": None}
    captioner_training.main(options(world, tmp_path / "two", max_steps=2, lora_r=2, **changes))
    model = Ulip2ForConditionalGeneration.from_pretrained(tmp_path / "two")
    assert model.config.lora_config["r"] == 2 and model.config.lora_config["lora_alpha"] == 4
    # the template of stage 1 came along
    one, two = (Ulip2CaptioningProcessor.from_pretrained(tmp_path / name) for name in ("one", "two"))
    assert one.chat_template == two.chat_template == captioner_training.PLAIN_TEMPLATE


def test_on_clouds_that_are_augmented_and_captions_of_the_triplets(world, tmp_path: Path) -> None:
    changes = {"texts": None, "use_features": False, "augment": True, "max_steps": 2, "top_k": 1}
    metrics = captioner_training.main(options(world, tmp_path / "model", **changes))
    assert metrics["eval_loss"] > 0
    with pytest.raises(ValueError, match="needs --use_features false"):
        captioner_training.main(options(world, tmp_path / "other", augment=True))
    with pytest.raises(ValueError, match="needs --language_model"):
        captioner_training.main(options(world, tmp_path / "other", language_model=None))


def test_the_small_run_is_as_long_on_any_collection(tmp_path: Path) -> None:
    """Its 48 steps on the quickstart's 649 shapes taught it nothing but the most frequent caption."""
    config = ROOT / "examples" / "configs" / "captioning.yaml"
    given = ["--config", str(config), "--dataset", "d", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    model_args, _, _, args, _ = captioner_training.parse_arguments(given)
    assert args.max_steps >= 140 and model_args.align_epochs == 0
    for texts in (10, 649, 1892):
        steps = captioner_training.alignment_passes(model_args, texts) * steps_of_pass(texts)
        assert 360 <= steps < 360 + steps_of_pass(texts)
    model_args.align_epochs = 3
    with pytest.raises(ValueError, match="say the same"):
        captioner_training.alignment_passes(model_args, 649)


def test_beginners_run_of_a_few_steps(world, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The published warm-up is longer than the run, and the split has no test shapes."""
    split = json.loads(world[0].split_file.read_text())
    (tmp_path / "split.json").write_text(json.dumps({"train": split["train"], "test": []}))
    changes = {"max_steps": 3, "warmup_steps": 1000, "split_file": tmp_path / "split.json", "eval_strategy": "steps"}
    assert captioner_training.main(options(world, tmp_path / "model", align_steps=1, **changes)) == {}
    assert "does not fit into 3" in caplog.text and "no held-out rows" in caplog.text
    state = json.loads((tmp_path / "model" / "trainer_state.json").read_text())
    assert max(entry["learning_rate"] for entry in state["log_history"] if "learning_rate" in entry) > 0.015


@pytest.mark.parametrize("name", ["captioning", "x_instructblip"])
def test_the_configurations_in_the_repository_are_valid(name: str, tmp_path: Path) -> None:
    config = ROOT / "examples" / "configs" / f"{name}.yaml"
    given = ["--dataset", "d", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    given += ["--bf16", "false"] if "bf16" in yaml.safe_load(config.read_text()) else []
    model_args, _, _, args, _ = captioner_training.parse_arguments(["--config", str(config), *given])
    assert args.learning_rate > 0 and model_args.connector_config()["num_query_tokens"] > 0
    if name == "x_instructblip":
        published = (args.learning_rate, args.warmup_steps, args.weight_decay, args.max_steps)
        assert published == (1e-5, 1000, 0.05, 65_000) and model_args.lora_config() is None


def measure(world: tuple[World, str, Path], output: Path, **changes: Any) -> dict[str, Any]:
    built, _, folder = world
    given = {
        "dataset": built.dataset,
        "texts": folder / "texts",
        "split_file": built.split_file,
        "output_dir": output,
        "prompt": "describe the 3d model",
        "num_beams": 2,
        "min_new_tokens": 1,
        "max_new_tokens": 4,
        "tokenizer": "regex",
        "feature_cache": folder / "cache",
        "sheet_shapes": 6,
    }
    return captioning.main(words(given | changes))


def test_captions_are_measured_beside_their_controls(world, trained: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("modeling_ulip2.evaluation.captions.caption_report.java_is_available", lambda: False)
    monkeypatch.setattr("modeling_ulip2.evaluation.captions.scores.java_is_available", lambda: False)
    record = measure(world, tmp_path / "out", model=trained)
    assert set(record["systems"]) == {"model", "shuffled points", "no points", "nearest training caption"}
    figures = record["systems"]["model"]["metrics"]
    assert {"bleu_4", "rouge_l", "cider", "sentence_similarity", "point_score", "view_score"} <= set(figures)
    rows = [json.loads(line) for line in (tmp_path / "out" / "controls.jsonl").read_text().splitlines()]
    split = json.loads(world[0].split_file.read_text())
    assert [row["id"] for row in rows] == split["test"] and {row["nearest_id"] for row in rows} <= set(split["train"])
    assert len({row["no points"]["caption"] for row in rows}) == 1
    made = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in made] == [row["model"]["caption"] for row in rows]
    report = (tmp_path / "out" / "report.md").read_text()
    assert "| model |" in report and "tokenizer `regex`" in report
    told = record["captioner_verdict"]
    assert told["shapes"] == 16 and told["weights"] == json.loads((trained / CAPTIONER_REPORT).read_text())["weights"]
    assert (tmp_path / "out" / CAPTIONER_REPORT).read_text() == (trained / CAPTIONER_REPORT).read_text()
    assert Image.open(tmp_path / "out" / "captions.png").format == "PNG"

    # a stopped run goes on behind the last whole line
    lines = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "out" / "predictions.jsonl").write_text("".join(lines[:5]) + lines[5][:9])
    again = measure(world, tmp_path / "out", model=trained)
    assert again["systems"] == record["systems"]
    with pytest.raises(ValueError, match="captions of another run .num_beams 2 -> 1"):
        measure(world, tmp_path / "out", model=trained, num_beams=1)

    # and captions from elsewhere are measured alike
    (tmp_path / "mine.jsonl").write_text("".join(lines))
    mine = measure(world, tmp_path / "mine", predictions=tmp_path / "mine.jsonl", point_model=world[0].model)
    assert mine["systems"]["given captions"] == record["systems"]["model"]
    (tmp_path / "mine.jsonl").write_text("".join(lines[1:]))
    with pytest.raises(ValueError, match="lacks 1 of 16 shapes"):
        measure(world, tmp_path / "less", predictions=tmp_path / "mine.jsonl")
    with pytest.raises(ValueError, match="either --model or --predictions"):
        measure(world, tmp_path / "none")


def lookup(
    said_of: dict[str, str], model: Any, processor: Any, ids: list[str], *rest: Any, **kw: Any
) -> dict[str, str]:
    """In place of `generate_captions`."""
    return {name: said_of[name] for name in ids}


def test_a_captioner_that_says_one_thing_of_all_is_told_so_everywhere(
    world, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("modeling_ulip2.evaluation.captions.caption_report.java_is_available", lambda: False)
    monkeypatch.setattr("modeling_ulip2.evaluation.captions.scores.java_is_available", lambda: False)
    model = shutil.copytree(trained, tmp_path / "model")
    status: list[int] = []
    for caption, name in ((None, "honest"), ("a red chair", "constant")):
        said_of = {f"made/{i:02d}.obj": caption or f"a red {CATEGORIES[i % 3]}" for i in range(24)}
        monkeypatch.setattr(captioning, "generate_captions", partial(lookup, said_of))
        built, _, folder = world
        given = {"model": model, "dataset": built.dataset, "texts": folder / "texts", "split_file": built.split_file}
        given |= {"output_dir": tmp_path / name, "tokenizer": "regex", "views": False, "max_new_tokens": 4}
        given |= {"num_beams": 1, "min_new_tokens": 1, "feature_cache": folder / "cache"}
        status.append(captioning.command(words(given)))
        told = json.loads((tmp_path / name / "metrics.json").read_text())["captioner_verdict"]
        report, said = (tmp_path / name / "report.md").read_text(), capsys.readouterr().err
        unfit = caption is not None
        assert told["fit"] is not unfit and ("**Warning" in report) is unfit
        assert ("not worth showing" in said) is unfit and (captioner_verdict(model) is not None) is unfit
        assert ("not worth showing" in (model / "README.md").read_text()) is unfit
    assert status == [0, captioning.UNFIT]
    assert "'a red chair' of 16 of 16" in (captioner_verdict(model) or "")


def test_controls() -> None:
    own = {name: f"caption {name}" for name in "abcdefg"}
    exchanged = shuffled_captions(own, seed=3)
    assert list(sorted(exchanged)) == list(own) and sorted(exchanged.values()) == sorted(own.values())
    assert all(exchanged[name] != own[name] for name in own) and exchanged != shuffled_captions(own, seed=4)
    with pytest.raises(ValueError, match="two shapes"):
        shuffled_captions({"a": "x"})
    embeds = {"x": torch.tensor([3.0, 0.1]), "y": torch.tensor([0.0, 1.0]), "z": torch.tensor([1.0, 0.0])}
    captions, nearest = nearest_captions({"a": torch.tensor([1.0, 0.0])}, embeds, {"x": "an x", "y": "a y"})
    assert captions == {"a": "an x"} and nearest == {"a": "x"}  # z is nearer and has no caption
    with pytest.raises(ValueError, match="no training shape"):
        nearest_captions({"a": torch.tensor([1.0, 0.0])}, embeds, {})
