"""Semantic segmentation: intersection over union of each class in points, by the rules of ScanNet's benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from modeling_ulip2.scenes.schema import ObjectMasks


@dataclass(frozen=True)
class SemanticResult:
    """Points by true and predicted class, over all scenes.

    Attributes:
        class_names: C names.
        confusion: (C, C + 1) int64, row = true class, column = predicted class; the last column: no class.
    """

    class_names: list[str]
    confusion: np.ndarray

    @property
    def class_iou(self) -> np.ndarray:
        """(C,) float64; NaN for a class that no point has. Points of no class count for nothing."""
        hits = np.diagonal(self.confusion)  # (C,)
        truth, named = self.confusion.sum(axis=1), self.confusion.sum(axis=0)[:-1]
        with np.errstate(invalid="ignore"):
            return np.where(truth > 0, hits / (truth + named - hits), np.nan)

    @property
    def metrics(self) -> dict[str, float]:
        """`miou` and `mean_accuracy`, means over the classes that have points, and `accuracy` of all points."""
        truth = self.confusion.sum(axis=1)
        if not truth.any():
            return dict.fromkeys(("miou", "accuracy", "mean_accuracy"), float("nan"))
        present, hits = truth > 0, np.diagonal(self.confusion)
        return {
            "miou": float(self.class_iou[present].mean()),
            "accuracy": float(hits.sum() / truth.sum()),
            "mean_accuracy": float((hits[present] / truth[present]).mean()),
        }

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """A row for each class that has points: name, points, IoU."""
        truth, iou = self.confusion.sum(axis=1), self.class_iou
        return [
            {"class": self.class_names[own], "points": int(truth[own]), "iou": float(iou[own])}
            for own in np.flatnonzero(truth)
        ]


class SemanticEvaluation:
    """Gathers labeled points scene by scene.

    Args:
        class_names: what is evaluated.
    """

    def __init__(self, class_names: Sequence[str]):
        self.class_names = list(class_names)
        self.confusion = np.zeros((len(self.class_names), len(self.class_names) + 1), dtype=np.int64)

    def add(self, labels: np.ndarray, predicted: np.ndarray) -> None:
        """Adds the points of a scene.

        Args:
            labels: (N,) true class of each point; -1: it does not count.
            predicted: (N,) predicted class; -1: none, which is wrong for a point that has a class.
        """
        count = len(self.class_names)
        labels, predicted = np.asarray(labels), np.asarray(predicted)
        if labels.shape != predicted.shape or labels.ndim != 1:
            raise ValueError(f"labels of shape {labels.shape} and predictions of shape {predicted.shape} do not fit")
        for name, values in (("labels", labels), ("predicted", predicted)):
            if len(values) and (values.min() < -1 or values.max() >= count):
                raise ValueError(f"{name} must lie between -1 and {count - 1}")
        known = labels >= 0
        columns = np.where(predicted[known] < 0, count, predicted[known]).astype(np.int64)
        cells = labels[known].astype(np.int64) * (count + 1) + columns
        self.confusion += np.bincount(cells, minlength=self.confusion.size).reshape(self.confusion.shape)

    def result(self) -> SemanticResult:
        return SemanticResult(self.class_names, self.confusion.copy())


def point_labels(
    count: int,
    masks: ObjectMasks,
    labels: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray | None = None,
) -> np.ndarray:
    """(count,) int64: the class of each point by the surest mask that holds it, -1 where none does.

    Of equally sure masks the smallest decides, then the first.

    Args:
        labels: class of each mask; -1: it names no points.
        scores: default: those of `masks`.
    """
    sure = np.asarray(masks.scores if scores is None else scores, dtype=np.float64)
    sizes = np.array([len(own) for own in masks.points], dtype=np.int64)
    found = np.full(count, -1, dtype=np.int64)
    # what is surest is written last
    for mask in np.lexsort((-np.arange(len(masks)), -sizes, sure)):
        if labels[mask] >= 0:
            found[masks.points[mask]] = labels[mask]
    return found
