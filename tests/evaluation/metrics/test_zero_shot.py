from __future__ import annotations

import json
import math

import pytest
import torch
from torch.nn import functional as F

from modeling_ulip2.evaluation.metrics.zero_shot import (
    ZeroShotResult,
    zero_shot_logits,
    zero_shot_metrics,
)
from modeling_ulip2.towers import prompts
from modeling_ulip2.towers.prompts import class_embeddings

TEMPLATES = ["a {}.", "one {} here", "the {}"]


def letters(texts: list[str]) -> torch.Tensor:
    """An encoder that a test can predict: how often each letter occurs; rows are not normalized."""
    return torch.tensor([[float(text.count(chr(97 + i))) for i in range(26)] for text in texts])


def test_class_embeddings_normalize_average_normalize(monkeypatch: pytest.MonkeyPatch):
    names = ["chair", "lamp", "night stand", "{}"]
    rows = []
    for name in names:
        mean = torch.zeros(26)
        for template in TEMPLATES:
            row = letters([template.replace("{}", name)])[0]
            mean += row / row.norm() / len(TEMPLATES)
        rows.append(mean / mean.norm())
    expected = torch.stack(rows)
    assert torch.allclose(class_embeddings(letters, names, TEMPLATES), expected, atol=1e-6)

    calls: list[int] = []

    def counted(texts: list[str]) -> torch.Tensor:
        calls.append(len(texts))
        return letters(texts)

    monkeypatch.setattr(prompts, "PROMPTS_PER_CALL", 7)
    assert torch.allclose(class_embeddings(counted, names, TEMPLATES), expected, atol=1e-6)
    assert calls == [6, 6]


@pytest.mark.parametrize("template", ["no place", "{} and {}"])
def test_a_template_has_one_place(template: str):
    with pytest.raises(ValueError, match="must have one {}"):
        class_embeddings(letters, ["chair"], [template])
    with pytest.raises(ValueError, match="needs class names"):
        class_embeddings(letters, [], TEMPLATES)


def test_logits_are_cosines_whatever_the_lengths():
    generator = torch.Generator().manual_seed(0)
    points, classes = torch.randn(5, 8, generator=generator), torch.randn(3, 8, generator=generator)
    expected = torch.stack([F.cosine_similarity(point, classes, dim=-1) for point in points])
    assert torch.allclose(zero_shot_logits(100 * points.half().float(), 0.01 * classes), expected, atol=1e-2)
    assert torch.allclose(zero_shot_logits(7 * points, 0.1 * classes), expected, atol=1e-6)


def test_accuracies_by_hand():
    # shape: label, ranking of the four classes
    rankings = [(0, [0, 1, 2, 3]), (0, [1, 0, 2, 3]), (0, [0, 2, 1, 3]), (1, [2, 0, 1, 3]), (3, [0, 1, 2, 3])]
    logits = torch.zeros(5, 4)
    for row, (_, ranking) in enumerate(rankings):
        logits[row, ranking] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    labels = torch.tensor([label for label, _ in rankings])
    result = ZeroShotResult.from_logits(logits, labels, ["bed", "car", "cup", "door"], topk=(1, 2, 3))

    assert result.micro == pytest.approx({"top1": 2 / 5, "top2": 3 / 5, "top3": 4 / 5})
    # "cup" has no shape and does not count
    assert result.class_average == pytest.approx(
        {"top1_class_average": (2 / 3 + 0 + 0) / 3, "top2_class_average": 1 / 3, "top3_class_average": 2 / 3}
    )
    assert result.class_counts.tolist() == [3, 1, 0, 1]
    assert result.confusion.tolist() == [[2, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    assert [row["class"] for row in result.per_class] == ["bed", "car", "door"]
    assert result.per_class[0] == pytest.approx(
        {"class": "bed", "shapes": 3, "top1": 2 / 3, "top2": 1.0, "top3": 1.0, "mistaken_for": "car"}
    )
    assert result.per_class[2]["mistaken_for"] == "bed"
    written = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert written["classes"] == 4 and written["classes_with_shapes"] == 3
    assert ["bed", "car", 1] in written["confusion"] and len(written["confusion"]) == 4


def test_ties_fall_as_in_torch_topk():
    logits = torch.tensor([[0.5, 0.5, 0.5, 0.1]] * 3)
    labels = torch.tensor([0, 1, 2])
    correct = logits.topk(3, dim=1).indices == labels[:, None]
    expected = {f"top{k}": correct[:, :k].any(dim=1).double().mean().item() for k in (1, 3)}
    assert ZeroShotResult.from_logits(logits, labels, topk=(1, 3)).micro == expected


def test_top5_of_three_classes_is_everything():
    result = zero_shot_metrics(torch.eye(3), torch.eye(3).roll(1, 0), [0, 1, 2])
    assert result.micro == {"top1": 0.0, "top3": 1.0, "top5": 1.0}


def test_a_nan_is_an_error_and_never_a_hit():
    points = torch.eye(3)
    points[1, 0] = math.nan
    with pytest.raises(ValueError, match="point_embeds has NaN or inf in 1 of 3 rows, first in row 1"):
        zero_shot_metrics(points, torch.eye(3), [0, 1, 2])
    with pytest.raises(ValueError, match="class_embeds has NaN"):
        zero_shot_metrics(torch.eye(3), points, [0, 1, 2])


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1, 3], r"\[0, 3\), got 0 to 3"), ([-1, 0, 1], "got -1 to 1"), ([0, 1], "3 shapes but labels of shape")],
)
def test_labels_must_fit(labels: list[int], message: str):
    with pytest.raises(ValueError, match=message):
        zero_shot_metrics(torch.eye(3), torch.eye(3), labels)


def test_no_shape_is_an_error():
    with pytest.raises(ValueError, match="no labeled shape"):
        zero_shot_metrics(torch.zeros(0, 3), torch.eye(3), [])
