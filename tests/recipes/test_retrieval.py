"""The recipe `retrieval` end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from datasets import load_dataset
from PIL import Image

from modeling_ulip2.evaluation.embeddings import embed_points, load_for_evaluation
from modeling_ulip2.recipes.retrieval import main
from tests.evaluation.world import World, build_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"))


def arguments(world: World, output: Path, *more: str) -> list[str]:
    paths = [
        "--model",
        world.model,
        "--dataset",
        world.dataset,
        "--output_dir",
        output,
        "--split_file",
        world.split_file,
    ]
    return [str(value) for value in [*paths, *more]]


def test_finds_the_nearest_shapes_of_a_text(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    record = main(arguments(world, tmp_path, "--query", "a wooden chair", "lamp", "--top_k", "3"))

    shapes = load_dataset(str(world.dataset), "triplets", split="train").select(range(4, 12))
    model, extractor, tower = load_for_evaluation(world.model)
    cosines = embed_points(model, extractor, shapes) @ tower.encode_text(["a wooden chair"])[0]  # (N,)
    best = cosines.topk(3)
    assert [hit["id"] for hit in record["queries"]["a wooden chair"]] == [
        shapes[i]["id"] for i in best.indices.tolist()
    ]
    assert torch.allclose(torch.tensor([hit["score"] for hit in record["queries"]["a wooden chair"]]), best.values)
    assert all(hit["correct"] is None for hit in record["queries"]["lamp"])  # no labels, no ticks
    out = capsys.readouterr().out
    assert "a wooden chair\n" in out and record["queries"]["lamp"][0]["id"] in out
    assert json.loads((tmp_path / "retrieval.json").read_text())["queries"] == record["queries"]
    assert Image.open(tmp_path / "queries.png").format == "PNG"


def test_measures_the_split(world: World, tmp_path: Path):
    record = main(arguments(world, tmp_path))
    metrics = record["metrics"]
    assert set(metrics) == {"text to shape", "image to shape", "shape to text"}
    assert metrics["image to shape"]["queries"] == metrics["image to shape"]["gallery"] == 8
    # eight test shapes share the five names "lamp 0", "table 0", "chair 1", "lamp 1", "table 1"
    assert metrics["text to shape"]["queries"] == metrics["shape to text"]["gallery"] == 5
    assert metrics["image to shape"]["figures"]["recall_at_1"]["chance"] == pytest.approx(1 / 8)
    assert metrics["image to shape"]["recall_at_10"] == 1  # all eight shapes are among ten
    assert len(record["queries"]) == 5


def test_labels_mark_right_answers(world: World, tmp_path: Path):
    record = main(arguments(world, tmp_path, "--labels_file", str(world.labels_file), "--images", "False"))
    assert set(record["queries"]) == {"chair", "lamp", "table"}
    assert set(record["metrics"]) == {"text to shape", "shape to text"}
    for category, hits in record["queries"].items():
        for hit in hits:
            number = int(hit["id"].removeprefix("made/").removesuffix(".obj"))
            assert hit["correct"] is (None if number % 4 == 3 else hit["name"].startswith(category))
