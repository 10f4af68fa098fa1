"""Tables of captions beside their controls, and the picture of shapes with what is said of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_ulip2.evaluation.captions import caption_report
from modeling_ulip2.evaluation.captions.caption_report import (
    caption_table,
    cider_interval,
    group_table,
    score_systems,
)
from modeling_ulip2.evaluation.reports.sheets import Described, description_sheet

REFERENCES = {"a": ["a red chair"], "b": ["a blue table"], "c": ["a green lamp"]}
SYSTEMS = {
    "model": {"a": "a red chair", "b": "a blue chair", "c": "a lamp"},
    "no points": dict.fromkeys("abc", "a thing"),
}


@pytest.fixture
def scores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(caption_report, "java_is_available", lambda: False)
    monkeypatch.setattr("modeling_ulip2.evaluation.captions.scores.java_is_available", lambda: False)
    embeds = {name: torch.eye(3)[row] for row, name in enumerate("abc")}

    def encode(texts: list[str]) -> torch.Tensor:
        return torch.stack([embeds["a"] if "chair" in text else embeds["b"] + embeds["c"] for text in texts])

    return score_systems(SYSTEMS, REFERENCES, encode, embeds, tokenizer="regex")


def test_every_figure_of_every_system(scores) -> None:
    model = scores["model"].metrics
    assert model["point_score"] == pytest.approx((1 + 0 + 2**-0.5) / 3)
    assert model["sentence_similarity"] == pytest.approx((1 + 0 + 1) / 3)
    low, high = cider_interval(scores["model"])
    assert low < model["cider"] < high and "view_score" not in model
    table = caption_table(scores)
    assert table[0].startswith("| captions | BLEU-1 | BLEU-2 | BLEU-3 | BLEU-4 | ROUGE-L | CIDEr |")
    assert len([line for line in table if line]) == 4 and f"| {100 * model['rouge_l']:.1f} |" in table[2]
    assert "no Java" in scores["model"].left_out["meteor"]


def test_one_figure_of_groups_of_shapes(scores) -> None:
    table = group_table(scores, {"furniture": ["a", "b"], "lamps": ["c"]}, "point_score")
    assert table[0] == "| caption to points of captions | furniture (2) | lamps (1) |"
    assert table[2] == "| model | 50.0 | 70.7 |"
    with pytest.raises(ValueError, match="none of these ids"):
        group_table(scores, {"nothing": ["z"]})


def test_a_sheet_of_descriptions(tmp_path: Path) -> None:
    views = [np.full((32, 32, 3), 40 * shade, dtype=np.uint8) for shade in range(6)]
    shapes = [Described(view, "" if number else "a chair " * 30, "a red chair") for number, view in enumerate(views)]
    sheet = Image.open(description_sheet(tmp_path / "sheet.png", shapes, "Shapes", columns=4))
    wide = Image.open(description_sheet(tmp_path / "wide.png", shapes[:4], columns=4))
    assert sheet.width == wide.width and sheet.height > 1.8 * wide.height
    with pytest.raises(ValueError, match="at least one shape"):
        description_sheet(tmp_path / "none.png", [])
