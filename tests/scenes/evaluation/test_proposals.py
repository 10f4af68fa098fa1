from __future__ import annotations

import math

import pytest

from modeling_ulip2.scenes.evaluation import RecallEvaluation
from tests.scenes.evaluation.rooms import masks, room


def test_recall_by_size_and_category():
    # points lie 1 cm apart: boxes of 1.99, 0.99 and 0.29 m
    scene = room(("chair", 200), ("chair", 100), ("lamp", 30), ("wall", 200), ("cup", 9))
    found = masks(range(150), range(200, 240), range(300, 310), range(330, 530))
    evaluation = RecallEvaluation(ignored=["wall"], min_region_size=10)
    evaluation.add(scene, found)
    result = evaluation.result()
    assert result.proposals == 4 and result.categories == ["chair", "chair", "lamp"]
    assert result.best.tolist() == pytest.approx([0.75, 0.4, 1 / 3])
    assert result.metrics == pytest.approx(
        {"recall25": 1, "recall50": 1 / 3, "mean_best_iou": (0.75 + 0.4 + 1 / 3) / 3}
    )
    assert result.by_size == [
        {"size": "small", "objects": 1, "recall25": 1.0, "recall50": 0.0},
        {"size": "medium", "objects": 1, "recall25": 1.0, "recall50": 0.0},
        {"size": "large", "objects": 1, "recall25": 1.0, "recall50": 1.0},
    ]
    assert [(row["category"], row["objects"], row["recall50"]) for row in result.by_category] == [
        ("chair", 2, 0.5),
        ("lamp", 1, 0.0),
    ]


def test_without_proposals_nothing_is_found_and_without_objects_there_is_no_recall():
    evaluation = RecallEvaluation()
    evaluation.add(room(void=10), masks(range(5)))
    assert math.isnan(evaluation.result().recall(0.5))
    evaluation.add(room(("chair", 200)), masks())
    assert evaluation.result().metrics == {"recall25": 0, "recall50": 0, "mean_best_iou": 0}
