from __future__ import annotations

import numpy as np
import torch

from modeling_ulip2.scenes.evaluation import RecognitionEvaluation, given_objects
from tests.scenes.evaluation.rooms import room


def test_objects_of_known_classes_with_enough_points_are_measured():
    scene = room(("chair", 120), ("wall", 300), ("table", 99), ("lamp", 100))
    objects, labels = given_objects(scene, ["lamp", "table", "chair"])
    assert objects.ids.tolist() == [0, 3] and labels.tolist() == [2, 0]
    assert np.array_equal(objects.points[1], np.arange(519, 619))
    assert [len(own) for own in given_objects(room(("wall", 200)), ["chair"])] == [0, 0]


def test_objects_of_all_scenes_are_ranked_together():
    classes = torch.eye(6)
    evaluation = RecognitionEvaluation([f"class {i}" for i in range(6)], classes)
    # three chairs, two of them right, and a table that comes second
    evaluation.add(classes[[0, 0]], [0, 0])
    evaluation.add(torch.stack([classes[1], classes[2] + 0.5 * classes[1]]), np.array([0, 1]))
    result = evaluation.result()
    assert result["top1"].value == 0.5 and result["top1"].chance == 1 / 6
    assert result["top1_class_average"].value == (2 / 3 + 0) / 2
    assert result["top5"].value > result["top1"].value
    assert result["top1"].interval[0] <= 0.5 <= result["top1"].interval[1]
