"""What proposals find, whatever they are called: recall of annotated objects by size and category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modeling_ulip2.scenes.evaluation.instances import MIN_REGION_SIZE
from modeling_ulip2.scenes.overlaps import mask_ious, mask_sizes
from modeling_ulip2.scenes.schema import ObjectMasks, Scene

# Intersections over union from which an object counts as found.
RECALL_OVERLAPS = (0.25, 0.5)
# Longest side of an object's box, in meters: below, and not below.
SIZES = {"small": (0.0, 0.4), "medium": (0.4, 1.0), "large": (1.0, np.inf)}


@dataclass(frozen=True)
class RecallResult:
    """The best proposal of each of K objects.

    Attributes:
        categories: what they are.
        extents: (K,) longest side of each one's box, meters.
        best: (K,) intersection over union with the proposal that fits best; 0 where none shares a point.
        proposals: how many there were, over all scenes.
    """

    categories: list[str]
    extents: np.ndarray
    best: np.ndarray
    proposals: int

    def recall(self, overlap: float, objects: np.ndarray | None = None) -> float:
        """Share of the objects (all, or those of a mask (K,)) whose best proposal is at `overlap` or above it."""
        best = self.best if objects is None else self.best[objects]
        return float((best >= overlap).mean()) if len(best) else float("nan")

    @property
    def metrics(self) -> dict[str, float]:
        """`recall25`, `recall50` and the mean of the best intersections over union."""
        found = {f"recall{round(100 * overlap)}": self.recall(overlap) for overlap in RECALL_OVERLAPS}
        return found | {"mean_best_iou": float(self.best.mean()) if len(self.best) else float("nan")}

    @property
    def by_size(self) -> list[dict[str, Any]]:
        """A row for each size that objects have."""
        within = {name: (self.extents >= low) & (self.extents < high) for name, (low, high) in SIZES.items()}
        return [self._row("size", name, objects) for name, objects in within.items() if objects.any()]

    @property
    def by_category(self) -> list[dict[str, Any]]:
        """A row for each category, those of many objects first."""
        names, counts = np.unique(np.array(self.categories, dtype=object), return_counts=True)
        own = np.array(self.categories, dtype=object)
        order = sorted(range(len(names)), key=lambda place: (-counts[place], names[place]))
        return [self._row("category", str(names[place]), own == names[place]) for place in order]

    def _row(self, kind: str, name: str, objects: np.ndarray) -> dict[str, Any]:
        found = {f"recall{round(100 * overlap)}": self.recall(overlap, objects) for overlap in RECALL_OVERLAPS}
        return {kind: name, "objects": int(objects.sum()), **found}


@dataclass
class RecallEvaluation:
    """Gathers the best proposal of each object scene by scene.

    Args:
        ignored: categories that need no proposal (walls, floors).
        min_region_size: points that an object must have, as in `InstanceEvaluation`.
    """

    ignored: Sequence[str] = ()
    min_region_size: int = MIN_REGION_SIZE
    categories: list[str] = field(default_factory=list)
    extents: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    proposals: int = 0

    def add(self, scene: Scene, masks: ObjectMasks) -> None:
        """Adds an annotated scene and what was proposed for it."""
        truth = scene.objects()
        best = mask_ious(truth, masks).max(axis=1).toarray()[:, 0] if len(masks) else np.zeros(len(truth))
        self.proposals += len(masks)
        for number, points, size, iou in zip(truth.ids, truth.points, mask_sizes(truth), best, strict=True):  # type: ignore[arg-type]
            if size < self.min_region_size or scene.categories[number] in self.ignored:
                continue
            self.categories.append(scene.categories[number])
            self.extents.append(float(np.ptp(scene.xyz[points], axis=0).max()))
            self.best.append(float(iou))

    def result(self) -> RecallResult:
        return RecallResult(list(self.categories), np.array(self.extents), np.array(self.best), self.proposals)
