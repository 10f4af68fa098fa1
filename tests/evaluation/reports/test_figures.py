from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from modeling_ulip2.evaluation.metrics.zero_shot import zero_shot_metrics
from modeling_ulip2.evaluation.reports.figures import (
    LINES,
    CurvePanel,
    _curve_name,
    _order_by_similarity,
    _series,
    confusion_matrix,
    loss_curves,
    robustness_curves,
)
from tests.evaluation.reports.drawn import has_color, pixels


def test_an_empty_log_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="no loss"):
        loss_curves(tmp_path / "x.png", [{"step": 1, "learning_rate": 1e-3}])


@pytest.mark.parametrize("num_classes", [2, 45, 120])
def test_confusion_matrix_of_any_size(num_classes: int, tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    classes = torch.randn(num_classes, 8, generator=generator)
    labels = torch.randint(0, num_classes, (150,), generator=generator)
    points = classes[labels] + torch.randn(150, 8, generator=generator)
    result = zero_shot_metrics(points, classes, labels, [f"class number {label}" for label in range(num_classes)])
    ordered = pixels(confusion_matrix(tmp_path / "a.png", result, classes, "Title"))
    plain = pixels(confusion_matrix(tmp_path / "b.png", result))
    assert max(ordered.shape) < 2200  # at most 60 classes are drawn
    assert ordered.min() < 60 and plain.min() < 60


def test_similar_classes_stand_side_by_side():
    names = list(range(12))
    random.Random(0).shuffle(names)
    centers = torch.eye(3, 8)
    noise = 0.05 * torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    embeds = torch.stack([centers[name % 3] for name in names]) + noise
    order = [names[place] % 3 for place in _order_by_similarity(embeds)]
    assert sorted(order) == [0] * 4 + [1] * 4 + [2] * 4
    assert sum(a != b for a, b in zip(order, order[1:], strict=False)) == 2


def test_log_history_is_split_into_losses_and_accuracies(tmp_path: Path):
    history: list[dict[str, float]] = [
        {"step": 10, "loss": 3.0, "loss_point_text": 1.0, "learning_rate": 1e-3, "grad_norm": float("nan")},
        {"step": 20, "loss": 2.0, "loss_point_text": 0.5},
        {"step": 20, "eval_loss": 2.5, "eval_runtime": 3.0},
        {"step": 20, "eval_zero_shot_top1": 0.3, "eval_zero_shot_top5": 0.6, "eval_zero_shot_top1_class_average": 0.2},
        {"step": 20, "eval_text_to_shape_recall_at_5": 0.4},
        {"step": 20, "train_runtime": 5.0, "train_loss": 2.5, "total_flos": 0.0},
    ]
    losses, scores = _series(history)
    assert losses == {
        "loss": [(10, 3.0), (20, 2.0)],
        "loss_point_text": [(10, 1.0), (20, 0.5)],
        "eval_loss": [(20, 2.5)],
    }
    assert scores == {"eval_zero_shot_top1": [(20, 0.3)], "eval_zero_shot_top5": [(20, 0.6)]}
    assert _series([history[4]])[1] == {"eval_text_to_shape_recall_at_5": [(20, 0.4)]}
    both = pixels(loss_curves(tmp_path / "both.png", history, "Title"))
    one = pixels(loss_curves(tmp_path / "one.png", history[:2]))
    assert both.shape[1] > 1.5 * one.shape[1]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("loss", "training loss"),
        ("loss_point_text", "training loss, point text"),
        ("eval_loss", "held-out loss"),
        ("eval_zero_shot_top1", "zero-shot top-1"),
        ("eval_top5", "top-5"),
        ("eval_text_to_shape_recall_at_5", "text to shape R@5"),
    ],
)
def test_curves_have_readable_names(key: str, name: str):
    assert _curve_name(key) == name


def test_robustness_curves_draw_every_model_in_every_panel(tmp_path: Path):
    line = [(0.6, 0.5, 0.7), (0.4, 0.3, 0.5), (0.1, 0.0, 0.2)]
    panels = [CurvePanel(f"kind {k}", "level", ["0", "1", "2"], {"a": line, "b": line[::-1]}) for k in range(5)]
    path = robustness_curves(tmp_path / "curves.png", panels, chance=0.05, title="Title")
    assert has_color(path, LINES[0]) and has_color(path, LINES[1]) and not has_color(path, LINES[2])
    height, width = pixels(path).shape[:2]
    one = pixels(robustness_curves(tmp_path / "one.png", panels[:1], chance=0.05)).shape[:2]
    assert width > 3 * one[1] and height > 1.5 * one[0], "five panels stand in two rows"
    with pytest.raises(ValueError, match="at least one corruption"):
        robustness_curves(tmp_path / "none.png", [], chance=0.5)
