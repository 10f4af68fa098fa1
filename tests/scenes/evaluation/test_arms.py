"""All protocols of one way to name objects, and that the controls fall to what ignores the objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_ulip2.scenes import ObjectMasks
from modeling_ulip2.scenes.evaluation import SceneOverlaps, given_objects
from modeling_ulip2.scenes.evaluation.arms import Arm, SceneTruth, surest
from tests.scenes.evaluation.rooms import room

CLASSES = ["bed", "chair", "lamp", "table"]


def truth_of(scene, proposals: ObjectMasks, kinds: list[str]) -> SceneTruth:
    places = {name: place for place, name in enumerate([*CLASSES, "wall"])}
    semantic = np.array([places[name] for name in scene.categories])
    given, labels = given_objects(scene, CLASSES)
    return SceneTruth(
        np.where(semantic < len(CLASSES), semantic, -1),
        SceneOverlaps.of(scene, given),
        labels,
        proposals,
        SceneOverlaps.of(scene, proposals),
        np.append(semantic, -1)[scene.instance],
        np.array([places.get(kind, -1) for kind in kinds]),
    )


def perfect(labels: np.ndarray, others: int = 0) -> torch.Tensor:
    return 20 * torch.nn.functional.one_hot(torch.from_numpy(labels), len(CLASSES) + others).float()


def arms_after(scenes: int, **logits) -> dict[str, Arm]:
    arms = {name: Arm(CLASSES, ["wall"], 100, name) for name in ("shuffled", "chance")}
    arms["own"] = Arm(CLASSES, ["wall"], 100)
    rng = np.random.default_rng(0)
    for _ in range(scenes):
        names = [*rng.permutation(CLASSES), *rng.choice(CLASSES, 4), "wall"]
        scene = room(*((str(name), int(rng.integers(100, 400))) for name in names))
        objects = scene.objects()
        truth = truth_of(scene, objects, ["wall" if name == "wall" else "" for name in names])
        labels = np.array([CLASSES.index(name) for name in names[:-1]])
        proposed = np.append(labels, 0)  # of the wall, which needs no name
        for arm in arms.values():
            arm.add(truth, perfect(labels), perfect(proposed, others=2))
    return arms


def test_perfect_names_of_perfect_masks_have_all_figures_at_one_and_controls_have_not():
    arms = arms_after(6)
    assert set(arms["own"].metrics().values()) == {1.0}
    chance, shuffled = arms["chance"].metrics(), arms["shuffled"].metrics()
    assert chance["top1"] == pytest.approx(1 / 4, abs=0.12) and chance["top5"] == 1
    assert 0.1 < shuffled["top1"] < 0.5
    for control in (chance, shuffled):
        assert control["given_ap50"] < 0.5 and control["proposed_ap50"] < 0.5 and control["miou"] < 0.6
    assert set(chance) == set(shuffled) == set(arms["own"].metrics())


def test_what_is_called_something_else_is_no_prediction():
    scene = room(("chair", 200), ("table", 200), ("wall", 300))
    masks = scene.objects()
    truth = truth_of(scene, masks, ["", "", "wall"])
    arm = Arm(CLASSES, ["wall"], 100)
    other = torch.tensor([[0.0, 5, 0, 0, 9], [0, 0, 0, 5, 1], [0, 0, 0, 0, 9]])
    arm.add(truth, perfect(np.array([1, 3])), other)
    metrics = arm.metrics()
    assert metrics["given_ap50"] == 1 and metrics["proposed_ap50"] == 0.5  # the chair was not found
    assert metrics["miou"] == pytest.approx((0 + 1 + 1) / 3)  # of chair, table and wall


def test_without_proposals_their_figures_are_left_out():
    scene = room(("chair", 200))
    arm = Arm(CLASSES, [], 100)
    arm.add(truth_of(scene, ObjectMasks([]), []), perfect(np.array([1])), None)
    assert set(arm.metrics()) == {
        "top1", "top5", "top1_class_average", "top5_class_average", "given_ap", "given_ap50", "given_ap25"
    }  # fmt: skip


def test_controls_are_reproducible_and_named():
    assert arms_after(2)["chance"].metrics() == arms_after(2)["chance"].metrics()
    with pytest.raises(ValueError, match="shuffled"):
        Arm(CLASSES, [], 100, "guess")


def test_no_mask_at_all():
    labels, scores = surest(torch.empty(0, 6), 4)
    assert labels.shape == scores.shape == (0,)
