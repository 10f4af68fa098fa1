"""Average precision by ScanNet's rules: values computed by hand, and a second program for what is random."""

from __future__ import annotations

import math

import numpy as np
import pytest

from modeling_ulip2.scenes import ObjectMasks, Scene
from modeling_ulip2.scenes.evaluation import OVERLAPS, InstanceEvaluation, SceneOverlaps
from modeling_ulip2.scenes.evaluation.instances import area_under_curve
from tests.scenes.evaluation.rooms import masks, room

HIGH = OVERLAPS[:-1]


def judged(scene: Scene, found: ObjectMasks, labels=None, truth=None, classes=("chair",), **options):
    """The result for one scene whose objects and predictions are of the first class unless it is said otherwise."""
    evaluation = InstanceEvaluation(classes, options.pop("min_region_size", 100))
    truth = [0] * len(scene.categories) if truth is None else truth
    evaluation.add(SceneOverlaps.of(scene, found), truth, [0] * len(found) if labels is None else labels, **options)
    return evaluation.result()


def test_thresholds_are_those_of_the_published_program():
    assert len(HIGH) == 9
    np.testing.assert_allclose(HIGH, [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9])
    assert OVERLAPS[-1] == 0.25


def test_perfect_masks_have_precision_one():
    result = judged(room(("a", 200), ("b", 200)), masks(range(200), range(200, 400), scores=[0.9, 0.2]))
    assert result.metrics == {"ap": 1, "ap50": 1, "ap25": 1}
    assert result.per_class == [{"class": "chair", "objects": 2, "ap": 1.0, "ap50": 1.0, "ap25": 1.0}]


def test_an_overlap_of_one_half_is_not_above_one_half():
    result = judged(room(("a", 200), ("b", 200)), masks(range(200), range(200, 300), scores=[0.9, 0.8]))
    # at 0.5: right, then wrong, one missed: recall 0, 1/2, 1/2; 1 * 1/4 + 1 * 1/4 + 1/2 * 0
    assert result.metrics == pytest.approx({"ap": 0.5, "ap50": 0.5, "ap25": 1})


def test_a_mistake_that_is_surer_costs_what_the_convolution_says():
    scene = room(("a", 200), ("a wall", 200))
    evaluation = InstanceEvaluation(["chair", "wall"])
    found = masks(range(200), range(200, 400), scores=[0.8, 0.9])
    evaluation.add(SceneOverlaps.of(scene, found), [0, 1], [0, 0])
    # precision 0, then 1/2; recall 0, 0, 1: 1 * 0 + 0 * 1/2 + 1/2 * 1/2
    assert evaluation.result().at(0.5)[0] == pytest.approx(0.25)


@pytest.mark.parametrize("scores, expected", [((0.6, 0.9), 1.0), ((0.9, 0.6), 1.0), ((0.9, 0.9), 0.75)])
def test_of_two_predictions_of_one_object_the_less_sure_is_a_false_positive(scores, expected):
    """Equally sure ones are one point of the curve: precision 1/2 at recall 1, 1/2 * 1 + 1/2 * 1/2."""
    result = judged(room(("a", 200)), masks(range(200), range(150), scores=scores))
    assert result.at(0.5)[0] == pytest.approx(expected)


def test_ap_is_the_mean_over_the_nine_thresholds():
    # the surer one has an overlap of 0.75: it is right at five thresholds, and a surer mistake (1/4) at four
    result = judged(room(("a", 200)), masks(range(200), range(150), scores=[0.6, 0.9]))
    assert result.table[0].tolist() == pytest.approx([1] * 5 + [0.25] * 4 + [1])
    assert result.metrics["ap"] == pytest.approx((5 + 4 / 4) / 9)


def test_one_prediction_finds_one_object():
    result = judged(room(("a", 100), ("b", 100)), masks(range(200)))
    assert result.at(0.25)[0] == pytest.approx(0.5)  # recall 1/2 at precision 1
    assert result.at(0.5)[0] == 0


def test_predictions_in_void_do_not_count_while_void_is_above_the_threshold():
    scene = room(("a", 200), ("wall", 80), void=120)
    found = masks(range(200), range(200, 400), scores=[0.5, 0.9])
    as_void = judged(scene, found, truth=[0, -1])
    assert as_void.table[0].tolist() == [1] * 10  # all of it is void
    # 0.6 of its points are: not above 0.6
    in_part = judged(scene, found, [0, 0], truth=[0, 1], classes=("chair", "wall"))
    assert in_part.table[0].tolist() == pytest.approx([1, 1] + [0.25] * 7 + [1])


def test_groups_and_small_objects_need_not_be_found_and_excuse_those_who_find_them():
    scene = room(("a", 200), ("a", 300), ("a", 60), void=50)
    found = masks(range(200), range(200, 420), range(500, 610), scores=[0.5, 0.9, 0.8])
    # the second prediction has an overlap of 0.73 with the group, the third one of 0.55 with the small object
    result = judged(scene, found, groups=[False, True, False])
    assert result.objects.tolist() == [1]
    assert result.table[0].tolist() == [1] * 10
    # the group is an object: missed above 0.73, and its finder is excused no longer
    counted = judged(scene, found)
    assert counted.objects.tolist() == [2]
    assert counted.at(0.5)[0] == 1
    assert counted.at(0.75)[0] == pytest.approx(0.5 * (1 / 2) * (1 / 2) * 1)


def test_predictions_of_few_points_are_left_out():
    scene = room(("a", 200), ("wall", 99))
    found = masks(range(200), range(200, 299), scores=[0.5, 0.9])
    assert judged(scene, found, truth=[0, 1], classes=("chair", "wall")).at(0.5)[0] == 1
    smaller = judged(scene, found, truth=[0, 1], classes=("chair", "wall"), min_region_size=50)
    assert smaller.at(0.5)[0] == pytest.approx(0.25)


def test_classes_without_objects_have_no_figure_and_are_left_out_of_means():
    scene = room(("a", 200), ("b", 200), void=0)
    found = masks(range(200), range(200), scores=[0.9, 0.8])
    result = judged(scene, found, [0, 2], truth=[0, 1], classes=("chair", "table", "lamp"))
    assert result.at(0.5)[:2].tolist() == [1, 0]  # nobody looked for the table
    assert math.isnan(result.at(0.5)[2])
    assert result.metrics["ap50"] == pytest.approx(0.5)
    assert [row["class"] for row in result.per_class] == ["chair", "table"]


def test_without_a_single_class_there_is_no_figure():
    assert all(math.isnan(value) for value in judged(room(void=300), masks(range(200))).metrics.values())
    nothing = judged(room(("a", 200)), masks())
    assert nothing.metrics == {"ap": 0, "ap50": 0, "ap25": 0}
    # all predictions are excused: nothing is on the curve
    assert judged(room(("a", 200), void=200), masks(range(200, 400))).metrics == {"ap": 0, "ap50": 0, "ap25": 0}


def test_scenes_share_one_curve():
    evaluation = InstanceEvaluation(["chair"])
    evaluation.add(SceneOverlaps.of(room(("a", 200)), masks(range(200), scores=[0.3])), [0], [0])
    evaluation.add(SceneOverlaps.of(room(("a", 200), ("b", 200)), masks(range(100), scores=[0.6])), [0, -1], [0])
    # a surer mistake in the other scene: precision 0, 1/2 at recall 0, 1/2
    assert evaluation.result().at(0.5)[0] == pytest.approx(1 / 2 * 1 / 4)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"truth": [0]}, "labels must be 2 classes"),
        ({"truth": [0, 1]}, "labels must lie between -1 and 0"),
        ({"labels": [0, -2]}, "mask_labels must lie"),
        ({"scores": [0.5, float("nan")]}, "2 finite numbers"),
        ({"groups": [True]}, "2 truth values"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        judged(room(("a", 200), ("b", 200)), masks(range(200), range(200)), **change)


def test_a_scene_without_annotation_is_refused():
    scene = Scene("bare", np.zeros((5, 3), np.float32))
    with pytest.raises(ValueError, match="no annotation"):
        judged(scene, masks(range(5)))


def test_area_of_known_curves():
    right, scores = np.array([True, False, True]), np.array([0.9, 0.5, 0.1])
    # precision 1, 1, 1/2, 2/3; recall 0, 1/2, 1/2, 1: 1 * 1/4 + 1 * 1/4 + 1/2 * 1/4 + 2/3 * 1/4
    assert area_under_curve(right, scores, 0) == pytest.approx((1 + 1 + 1 / 2 + 2 / 3) / 4)
    assert area_under_curve(np.zeros(3, bool), scores, 2) == 0


def densely(scenes, classes: int, overlap: float, least: int) -> list[float]:
    """The same rules in another way: truth tables of points, and a sum over the curve from its unsure end."""
    figures = []
    for label in range(classes):
        outcomes, missed, objects = [], 0, 0
        for instance, truth, found, labels, scores in scenes:
            void = np.isin(instance, np.flatnonzero(truth < 0)) | (instance < 0)
            tables = [(instance == own) for own in np.flatnonzero(truth == label)]
            own = [
                (mask, score)
                for mask, score, of in zip(found, scores, labels, strict=True)
                if of == label and mask.sum() >= least
            ]
            finders: dict[int, list[float]] = {}
            used, near = set(), set()
            for place, table in enumerate(tables):
                for number, (mask, score) in enumerate(own):
                    if (table & mask).sum() / (table | mask).sum() <= overlap:
                        continue
                    near.add(number)
                    if table.sum() >= least and number not in used:
                        if place not in finders:
                            used.add(number)
                        finders.setdefault(place, []).append(score)
                if table.sum() >= least:
                    objects += 1
                    missed += place not in finders
            for scored in finders.values():
                outcomes += [(score, rank == 0) for rank, score in enumerate(sorted(scored, reverse=True))]
            for number, (mask, score) in enumerate(own):
                small = sum(((table & mask).sum() for table in tables if table.sum() < least), 0)
                if number not in near and ((void & mask).sum() + small) / mask.sum() <= overlap:
                    outcomes.append((score, False))
        if not objects:
            figures.append(math.nan)
            continue
        points = [(1.0, 0.0)]
        for threshold in sorted({score for score, _ in outcomes}, reverse=True):
            kept = [right for score, right in outcomes if score >= threshold]
            everything = sum(right for _, right in outcomes) + missed
            points.append((sum(kept) / len(kept), sum(kept) / everything))
        recall = [0.0, *(own for _, own in points), points[-1][1]]
        figures.append(sum(own * (recall[i + 2] - recall[i]) / 2 for i, (own, _) in enumerate(points)))
    return figures


@pytest.mark.parametrize("seed", range(6))
def test_random_scenes_have_the_figures_of_a_second_program(seed):
    rng = np.random.default_rng(seed)
    evaluation, scenes = InstanceEvaluation(["a", "b", "c", "d"], min_region_size=8), []
    for _ in range(3):
        instance = np.repeat(rng.integers(-1, 8, size=20), rng.integers(2, 12, size=20)).astype(np.int32)
        scene = Scene("r", np.zeros((len(instance), 3), np.float32), instance=instance, categories=list("abcdefgh"))
        truth = rng.integers(-1, 3, size=8)  # the fourth class has no object
        found, labels = [], []
        for _ in range(25):
            table = instance == rng.integers(-1, 8)
            table = np.where(rng.random(len(table)) < rng.choice([0, 0.1, 0.3]), ~table, table)
            if table.any():
                found.append(table)
                labels.append(rng.integers(-1, 4))
        scores = rng.choice([0.1, 0.2, 0.3, 0.5, 0.8, 0.9], size=len(found))
        scenes.append((instance, truth, found, labels, scores))
        indices = ObjectMasks([np.flatnonzero(own).astype(np.int32) for own in found])
        evaluation.add(SceneOverlaps.of(scene, indices), truth, labels, scores)
    result = evaluation.result()
    for place, overlap in enumerate(result.overlaps):
        np.testing.assert_allclose(result.table[:, place], densely(scenes, 4, overlap, 8), atol=1e-12)
    assert np.nanmax(result.table) > 0.05
