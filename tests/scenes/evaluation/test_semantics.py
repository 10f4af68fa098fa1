from __future__ import annotations

import math

import numpy as np
import pytest

from modeling_ulip2.scenes.evaluation import SemanticEvaluation, point_labels
from tests.scenes.evaluation.rooms import masks


def test_iou_of_a_confusion_that_was_written_down():
    evaluation = SemanticEvaluation(["chair", "table", "lamp"])
    #                 chair x 4     table x 3  void x 2
    labels = np.array([0, 0, 0, 0, 1, 1, 1, -1, -1])
    evaluation.add(labels, np.array([0, 0, 0, 1, 1, 2, -1, 0, 1]))
    result = evaluation.result()
    # chair 3 / 4; table 1 / (3 + 1); the lamp was named but is nowhere; what is said of void counts for nothing
    assert result.class_iou[:2].tolist() == pytest.approx([3 / 4, 1 / 4]) and math.isnan(result.class_iou[2])
    assert result.metrics == pytest.approx({"miou": 1 / 2, "accuracy": 4 / 7, "mean_accuracy": (3 / 4 + 1 / 3) / 2})
    assert result.per_class[1] == {"class": "table", "points": 3, "iou": pytest.approx(1 / 4)}


def test_scenes_add_up_and_nothing_has_no_figure():
    evaluation = SemanticEvaluation(["a", "b"])
    assert math.isnan(evaluation.result().metrics["miou"])
    evaluation.add(np.array([0, 0]), np.array([0, 0]))
    evaluation.add(np.array([0, 1]), np.array([1, 1]))
    assert evaluation.result().class_iou.tolist() == pytest.approx([2 / 3, 1 / 2])


def test_labels_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match="predicted must lie between -1 and 0"):
        SemanticEvaluation(["a"]).add(np.array([0]), np.array([1]))
    with pytest.raises(ValueError, match="do not fit"):
        SemanticEvaluation(["a"]).add(np.array([0]), np.array([0, 0]))


def test_a_point_has_the_class_of_the_surest_mask_that_holds_it():
    found = masks([0, 1, 2, 3], [2, 3], [3, 4], [5], scores=[0.5, 0.9, 0.7, 1.0])
    assert point_labels(7, found, [0, 1, 2, -1]).tolist() == [0, 0, 1, 1, 2, -1, -1]
    # of equally sure ones the smaller, then the first
    assert point_labels(4, masks([0, 1, 2], [1, 2], [1, 2]), [0, 1, 2]).tolist() == [0, 1, 1, -1]
    assert point_labels(3, masks(), []).tolist() == [-1, -1, -1]
