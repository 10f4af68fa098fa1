"""Average precision of named masks, by the rules of ScanNet's benchmark (`evaluate_semantic_instance.py`).

The rules, in our words:

- A prediction is a mask, a class and a confidence. One of fewer than 100 points is left out.
- The ground truth of a class are its annotated objects. Objects of fewer than 100 points, and groups (an annotation
  that covers several objects), need not be found, and finding them is no mistake.
- A point of no class that is evaluated (walls, what was not annotated) is void.
- An object is found by a prediction of its class whose intersection over union is above the threshold. A prediction
  finds one object. Of several predictions of one object the surest counts; the others are false positives.
- A prediction that finds nothing is a false positive, unless the share of its points that are void, or belong to
  groups or small objects of its class, is above the threshold: then it does not count.
- The curve of precision over recall has a point for each confidence, over all scenes at once, and ends at precision 1
  and recall 0. Its area is the sum of the precisions, each times half the distance between the recalls around it.
- A class without an object in any scene has no figure (NaN) and is left out of means. A class that has objects and no
  prediction has 0.
- AP is the mean over the thresholds 0.5, 0.55 … 0.9: the published program stops there, where the benchmark's text
  says 0.95. AP50 and AP25 are those at 0.5 and 0.25.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modeling_ulip2.scenes.overlaps import mask_sizes, shared_points
from modeling_ulip2.scenes.schema import ObjectMasks, Scene

# Intersections over union above which an object is found; AP is the mean over the first nine.
OVERLAPS = (*np.arange(0.5, 0.95, 0.05).tolist(), 0.25)
# Points that an object or a prediction must have.
MIN_REGION_SIZE = 100


@dataclass(frozen=True)
class ClassMatches:
    """What predictions and annotated objects of one class share in one scene.

    Attributes:
        truth_sizes: (G,) points of each object.
        groups: (G,) bool, is it a group of several objects?
        sizes, scores, void: (P,) points of each prediction, its confidence, its points of no class.
        pairs: (M, 2) object and prediction that share points, by object, then by prediction.
        shared: (M,) how many.
    """

    truth_sizes: np.ndarray
    groups: np.ndarray
    sizes: np.ndarray
    scores: np.ndarray
    void: np.ndarray
    pairs: np.ndarray
    shared: np.ndarray


@dataclass(frozen=True)
class InstanceResult:
    """Average precision of C classes at T thresholds; fractions, NaN for a class without objects.

    Attributes:
        class_names: C names.
        overlaps: T thresholds.
        table: (C, T) float64.
        objects: (C,) objects to be found, over all scenes.
    """

    class_names: list[str]
    overlaps: tuple[float, ...]
    table: np.ndarray
    objects: np.ndarray

    def at(self, overlap: float) -> np.ndarray:
        """(C,) average precision of each class at one threshold."""
        (places,) = np.nonzero(np.isclose(self.overlaps, overlap))
        if not len(places):
            raise ValueError(f"nothing was measured at an overlap of {overlap}: {self.overlaps}")
        return self.table[:, places[0]]

    @property
    def class_ap(self) -> np.ndarray:
        """(C,) mean over all thresholds but 0.25."""
        return self.table[:, ~np.isclose(self.overlaps, 0.25)].mean(axis=1)

    @property
    def metrics(self) -> dict[str, float]:
        """`ap`, `ap50` and `ap25`: means over the classes that have objects; NaN where none has."""
        columns = {"ap": self.class_ap, "ap50": self.at(0.5), "ap25": self.at(0.25)}
        return {name: _mean_of_known(values) for name, values in columns.items()}

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """A row for each class that has objects: name, objects, figures."""
        columns = {"ap": self.class_ap, "ap50": self.at(0.5), "ap25": self.at(0.25)}
        return [
            {"class": self.class_names[own], "objects": int(self.objects[own])}
            | {name: float(values[own]) for name, values in columns.items()}
            for own in np.flatnonzero(self.objects)
        ]


@dataclass(frozen=True)
class SceneOverlaps:
    """What masks share with the annotated objects of a scene; of the scene itself nothing is kept.

    Attributes:
        num_objects: annotated objects, with or without points.
        ids: (G,) those that have points.
        truth_sizes, sizes: (G,) and (P,) points of objects and masks.
        truths, masks, shared: (M,) object (a place in `ids`), mask, and how many points they share.
        scores: (P,) confidences of the masks.
    """

    num_objects: int
    ids: np.ndarray
    truth_sizes: np.ndarray
    sizes: np.ndarray
    truths: np.ndarray
    masks: np.ndarray
    shared: np.ndarray
    scores: np.ndarray

    @classmethod
    def of(cls, scene: Scene, masks: ObjectMasks) -> SceneOverlaps:
        """Raises ValueError on a scene without annotation."""
        truth = scene.objects()
        shared = shared_points(truth, masks).tocoo()  # (G, P)
        return cls(
            len(scene.categories),
            np.asarray(truth.ids),
            mask_sizes(truth),
            mask_sizes(masks),
            shared.row,
            shared.col,
            shared.data,
            np.asarray(masks.scores, dtype=np.float64),
        )

    def __len__(self) -> int:
        return len(self.sizes)


@dataclass
class InstanceEvaluation:
    """Gathers predictions scene by scene, so that no scene stays in memory, and judges them all at once.

    Args:
        class_names: what is evaluated; all other categories are void. One name of any kind for masks without class.
        min_region_size: points that an object or a prediction must have.
        overlaps: thresholds.
    """

    class_names: Sequence[str]
    min_region_size: int = MIN_REGION_SIZE
    overlaps: Sequence[float] = OVERLAPS
    scenes: list[list[ClassMatches]] = field(default_factory=list)

    def add(
        self,
        found: SceneOverlaps,
        labels: Sequence[int] | np.ndarray,
        mask_labels: Sequence[int] | np.ndarray,
        scores: Sequence[float] | np.ndarray | None = None,
        groups: Sequence[bool] | None = None,
    ) -> None:
        """Adds the predictions in a scene.

        Args:
            found: `SceneOverlaps.of` the scene and P predictions.
            labels: class of each annotated object, an index into `class_names`; -1: void.
            mask_labels: class of each prediction; -1: it is left out.
            scores: confidence of each prediction; default: that of its mask.
            groups: which annotated objects are several under one annotation; default: none.

        Raises:
            ValueError: lengths that do not agree, a label beyond the classes, or a score that is not finite.
        """
        object_labels = _labels(labels, found.num_objects, len(self.class_names), "labels")
        own_labels = _labels(mask_labels, len(found), len(self.class_names), "mask_labels")
        own_scores = np.asarray(found.scores if scores is None else scores, dtype=np.float64)
        if own_scores.shape != (len(found),) or not np.isfinite(own_scores).all():
            raise ValueError(f"scores must be {len(found)} finite numbers, one per mask")
        is_group = np.zeros(found.num_objects, bool) if groups is None else np.asarray(groups, dtype=bool)
        if is_group.shape != (found.num_objects,):
            raise ValueError(f"groups must be {found.num_objects} truth values, one per annotated object")
        truth_labels = object_labels[found.ids]  # (G,)
        known = truth_labels[found.truths] >= 0
        in_classes = np.bincount(found.masks[known], found.shared[known], minlength=len(found)).astype(np.int64)
        void = found.sizes - in_classes
        matches = []
        for label in range(len(self.class_names)):
            rows = np.flatnonzero(truth_labels == label)
            columns = np.flatnonzero((own_labels == label) & (found.sizes >= max(self.min_region_size, 1)))
            within = np.isin(found.truths, rows) & np.isin(found.masks, columns)
            pairs = np.stack(
                [np.searchsorted(rows, found.truths[within]), np.searchsorted(columns, found.masks[within])], axis=1
            )  # (M, 2)
            order = np.lexsort((pairs[:, 1], pairs[:, 0]))
            matches.append(
                ClassMatches(
                    found.truth_sizes[rows],
                    is_group[found.ids[rows]],
                    found.sizes[columns],
                    own_scores[columns],
                    void[columns],
                    pairs[order],
                    found.shared[within][order],
                )
            )
        self.scenes.append(matches)

    def result(self) -> InstanceResult:
        """Average precision over all scenes that were added."""
        names = list(self.class_names)
        table = np.full((len(names), len(self.overlaps)), np.nan)
        objects = np.zeros(len(names), dtype=np.int64)
        for label in range(len(names)):
            matches = [scene[label] for scene in self.scenes]
            objects[label] = sum(int(_counted(own, self.min_region_size).sum()) for own in matches)
            for place, overlap in enumerate(self.overlaps):
                table[label, place] = average_precision(matches, overlap, self.min_region_size)
        return InstanceResult(names, tuple(self.overlaps), table, objects)


def average_precision(
    matches: Sequence[ClassMatches], overlap: float, min_region_size: int = MIN_REGION_SIZE
) -> float:
    """Area under the curve of one class at one threshold, over all scenes; NaN where it has no object."""
    if not any(_counted(own, min_region_size).any() for own in matches):
        return float("nan")
    events = [_judge(own, overlap, min_region_size) for own in matches]
    right = np.concatenate([own for own, _, _ in events])  # (E,) bool
    scores = np.concatenate([own for _, own, _ in events])  # (E,)
    return area_under_curve(right, scores, sum(missed for _, _, missed in events))


def area_under_curve(right: np.ndarray, scores: np.ndarray, missed: int) -> float:
    """Area under precision over recall of predictions that are right or not, in ScanNet's way.

    Args:
        right: (E,) bool.
        scores: (E,) confidences.
        missed: objects that no prediction found.
    """
    if not right.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    right, scores = right[order], scores[order]
    last = np.append(scores[1:] != scores[:-1], True)  # predictions of one confidence come together
    found, named = np.cumsum(right)[last], (np.flatnonzero(last) + 1)
    precision = np.concatenate([[1.0], found / named])  # from sure to unsure, from recall 0 on
    recall = np.concatenate([[0.0], found / (right.sum() + missed)])
    around = np.concatenate([[0.0], recall, recall[-1:]])
    return float(precision @ (around[2:] - around[:-2]) / 2)


def _judge(own: ClassMatches, overlap: float, min_region_size: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Which predictions of a scene are right, their confidences, and how many objects none of them found."""
    counted = _counted(own, min_region_size)  # (G,)
    truths, predictions = own.pairs.T
    iou = own.shared / (own.truth_sizes[truths] + own.sizes[predictions] - own.shared)  # (M,)
    matched = iou > overlap
    best: dict[int, float] = {}
    repeated: list[float] = []
    taken: set[int] = set()
    for truth, prediction in own.pairs[matched].tolist():
        if not counted[truth] or prediction in taken:
            continue
        score = float(own.scores[prediction])
        if truth in best:
            repeated.append(min(score, best[truth]))
            best[truth] = max(score, best[truth])
        else:
            best[truth] = score
            taken.add(prediction)
    lost = np.ones(len(own.sizes), dtype=bool)
    lost[predictions[matched]] = False  # they found an object, be it a small one
    excused = ~counted[truths]
    ignored = own.void + np.bincount(predictions[excused], own.shared[excused], minlength=len(own.sizes))
    wrong = own.scores[lost & (ignored / own.sizes <= overlap)]
    right = np.arange(len(best) + len(repeated) + len(wrong)) < len(best)
    return right, np.concatenate([list(best.values()), repeated, wrong]), int(counted.sum()) - len(best)


def _counted(own: ClassMatches, min_region_size: int) -> np.ndarray:
    """(G,) bool: which objects must be found."""
    return ~own.groups & (own.truth_sizes >= min_region_size)


def _labels(labels: Sequence[int] | np.ndarray, count: int, classes: int, name: str) -> np.ndarray:
    found = np.asarray(labels, dtype=np.int64)
    if found.shape != (count,):
        raise ValueError(f"{name} must be {count} classes, one per object, and has the shape {found.shape}")
    if count and (found.min() < -1 or found.max() >= classes):
        raise ValueError(f"{name} must lie between -1 and {classes - 1}, and run from {found.min()} to {found.max()}")
    return found


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
