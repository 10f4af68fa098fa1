"""The figures of a checkpoint's card, on a small world: each test by itself, as stored, turned, and by the tower."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from examples import checkpoint_figures
from modeling_ulip2 import Ulip2Model
from tests.evaluation.world import CATEGORIES, build_model
from tests.training.world import tiny_processor, triplet_rows, write_dataset, write_tower


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    write_tower(tmp_path / "tower")
    model: Ulip2Model = build_model(tmp_path / "tower")
    model.save_pretrained(tmp_path / "model")
    tiny_processor().save_pretrained(tmp_path / "model")
    write_dataset(tmp_path / "a", shapes=9)
    ids = [row["id"] for row in triplet_rows(9)]
    tests = {"held-out objects": ids[3:9], "held-out categories": ids[:3], "names": ["sofa"]}
    (tmp_path / "model" / "split.json").write_text(json.dumps({"train": ["x"], "test": ids, "tests": tests}))
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        rows = [[name, CATEGORIES[index % 3]] for index, name in enumerate(ids) if index != 4]
        csv.writer(file).writerows([["path", "category"], *rows])
    captions = [json.dumps({"id": name, "short": f"number {index}", "long": "no"}) for index, name in enumerate(ids)]
    (tmp_path / "captions.jsonl").write_text("\n".join(captions))
    words = ["--model", tmp_path / "model", "--dataset", tmp_path / "a", "--output_dir", tmp_path / "out"]
    words += ["--captions", tmp_path / "captions.jsonl", "--labels_file", tmp_path / "labels.csv"]
    return [str(word) for word in words]


def test_each_test_has_its_figures_beside_chance_and_control(arguments: list[str], tmp_path: Path) -> None:
    found = checkpoint_figures.main(arguments)
    assert found == json.loads((tmp_path / "out" / "figures.json").read_text())
    assert list(found) == ["held-out objects", "held-out categories"]
    objects = found["held-out objects"]
    assert (objects["shapes"], objects["labeled"], objects["classes"]) == (6, 5, 3)
    rows = ("points", "points, turned", "image tower, all views")
    for row in rows:
        assert objects[row]["top1"]["chance"] == pytest.approx(1 / 3)
        assert objects[row]["recall_at_1"]["chance"] == pytest.approx(1 / 6)
        assert {"value", "interval", "control"} <= set(objects[row]["recall_at_10"])
    table = (tmp_path / "out" / "figures.md").read_text().splitlines()
    assert sum(line.startswith("| held-out") for line in table) == 2 * len(rows) and "6, 3 categories" in table[2]
    alone = checkpoint_figures.main([*arguments, "--image_tower", "false"])
    assert "image tower, all views" not in alone["held-out objects"]
    assert alone["held-out objects"]["points"] == objects["points"]


def test_a_turn_keeps_height_and_radius() -> None:
    clouds = [{"id": str(index), "xyz": np.random.default_rng(index).random((20, 3)), "rgb": None} for index in (0, 1)]
    turned = checkpoint_figures.turned(clouds, 0)
    for before, after in zip(clouds, turned, strict=True):
        np.testing.assert_allclose(after["xyz"][:, 1], before["xyz"][:, 1], rtol=1e-6)
        np.testing.assert_allclose(np.hypot(*after["xyz"][:, ::2].T), np.hypot(*before["xyz"][:, ::2].T), rtol=1e-5)
        assert np.abs(after["xyz"] - before["xyz"]).max() > 0.1 and after["id"] == before["id"]
