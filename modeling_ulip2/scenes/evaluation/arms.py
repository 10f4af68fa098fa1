"""One way to name objects, measured by all protocols, and the controls that stand beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult
from modeling_ulip2.scenes.evaluation.instances import InstanceEvaluation, SceneOverlaps
from modeling_ulip2.scenes.evaluation.recognition import TOPK
from modeling_ulip2.scenes.evaluation.semantics import SemanticEvaluation, point_labels
from modeling_ulip2.scenes.naming import centered, select
from modeling_ulip2.scenes.schema import ObjectMasks
from modeling_ulip2.scenes.suppression import suppress

# How often a control is drawn; its figures are means.
DRAWS = 5


@dataclass(frozen=True)
class SceneTruth:
    """What is known of a scene, for all arms.

    Attributes:
        object_labels: (K,) class of each annotated object, -1 for one of no class.
        given: what the measured objects share with themselves.
        given_labels: (M,) their classes.
        proposals, found: what was proposed, and what it shares with the objects.
        point_labels: (N,) semantic class of each point, -1 for one that does not count.
        structure: (P,) semantic class of a proposal that is a part of the room, which needs no name; -1 for others.
    """

    object_labels: np.ndarray
    given: SceneOverlaps
    given_labels: np.ndarray
    proposals: ObjectMasks
    found: SceneOverlaps
    point_labels: np.ndarray
    structure: np.ndarray


class Arm:
    """A row of the table.

    Args:
        class_names: C classes of objects.
        structure_names: S classes of points alone, such as walls; their semantic classes are C to C + S - 1.
        min_region_size: see `InstanceEvaluation`.
        change: control: "shuffled" gives each mask the scores of another mask of its scene, "chance" random scores;
            None: the scores as they are.
        seed: of the control.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        structure_names: Sequence[str],
        min_region_size: int,
        change: str | None = None,
        seed: int = 0,
    ):
        if change not in (None, "shuffled", "chance"):
            raise ValueError(f"change must be 'shuffled', 'chance' or None, not {change!r}")
        self.class_names, self.change = list(class_names), change
        self.rng = np.random.default_rng(seed)
        draws = 1 if change is None else DRAWS
        self.logits: list[list[Tensor]] = [[] for _ in range(draws)]
        self.labels: list[np.ndarray] = []
        self.given = [InstanceEvaluation(self.class_names, min_region_size) for _ in range(draws)]
        self.proposed = [InstanceEvaluation(self.class_names, min_region_size) for _ in range(draws)]
        self.semantic = [SemanticEvaluation([*self.class_names, *structure_names]) for _ in range(draws)]

    def add(self, truth: SceneTruth, given: Tensor, proposed: Tensor | None) -> None:
        """Adds a scene.

        Args:
            given: (M, C) scores of the given objects, such as cosines times a logit scale.
            proposed: (P, C + O) scores of the proposals; None: they are not measured.
        """
        self.labels.append(truth.given_labels)
        for draw in range(len(self.given)):
            logits = self._changed(given)
            self.logits[draw].append(logits)
            self.given[draw].add(truth.given, truth.object_labels, *surest(logits, len(self.class_names)))
            if proposed is None:
                continue
            labels, scores = named(self._changed(proposed), truth.proposals, self.class_names)
            self.proposed[draw].add(truth.found, truth.object_labels, labels, scores)
            labels = np.where(truth.structure >= 0, truth.structure, labels)
            # a named object covers the wall or floor that it was taken from
            scores = np.where(truth.structure >= 0, 0.0, scores)
            self.semantic[draw].add(
                truth.point_labels, point_labels(len(truth.point_labels), truth.proposals, labels, scores)
            )

    def recognition(self, draw: int = 0) -> ZeroShotResult:
        """Recognition of the given objects of all scenes."""
        labels = torch.from_numpy(np.concatenate(self.labels))
        return ZeroShotResult.from_logits(torch.cat(self.logits[draw]), labels, self.class_names, TOPK)

    def metrics(self) -> dict[str, float]:
        """All figures, means over the draws; those of proposals where they were measured."""
        rows = []
        for draw in range(len(self.given)):
            row = dict(self.recognition(draw).metrics)
            row |= {f"given_{name}": value for name, value in self.given[draw].result().metrics.items()}
            if self.proposed[draw].scenes:
                row |= {f"proposed_{name}": value for name, value in self.proposed[draw].result().metrics.items()}
                row["miou"] = self.semantic[draw].result().metrics["miou"]
            rows.append(row)
        return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

    def _changed(self, logits: Tensor) -> Tensor:
        if self.change == "shuffled":
            return logits[torch.from_numpy(self.rng.permutation(len(logits)))]
        if self.change == "chance":
            return torch.from_numpy(self.rng.standard_normal(tuple(logits.shape)))
        return logits


def surest(logits: Tensor, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The class of the highest score of each mask, -1 where a word for other things is higher; softmax as confidence.

    Args:
        logits: (P, C + O).
        num_classes: C.

    Returns:
        (P,) int64 and (P,) float64.
    """
    if not len(logits):
        return np.empty(0, np.int64), np.empty(0)
    best = logits.softmax(dim=1).max(dim=1)
    labels = best.indices.numpy()
    return np.where(labels < num_classes, labels, -1), best.values.numpy().astype(np.float64)


def named(logits: Tensor, masks: ObjectMasks, class_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Names of a scene's proposals as `naming.name_objects` gives them: `surest` of the centered scores, times the
    masks' own scores, suppressed.

    Args:
        logits: (P, C + O); floors, walls and ceilings among the masks get no name.

    Returns:
        (P,) int64 classes, -1 for a mask without a name or one that another mask shows better, and (P,) float64.
    """
    labels, shares = surest(centered(logits), len(class_names))
    scores = shares * np.asarray(masks.scores, dtype=np.float64)
    kinds = masks.kinds or [""] * len(masks)
    chosen = [mask for mask, label in enumerate(labels) if label >= 0 and not kinds[mask]]
    left = suppress(select(masks, chosen), [class_names[labels[mask]] for mask in chosen], scores[chosen])
    kept = np.full(len(masks), -1, dtype=np.int64)
    for place in left:
        kept[chosen[place]] = labels[chosen[place]]
    return kept, scores
