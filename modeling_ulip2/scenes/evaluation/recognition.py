"""Recognition of given instances: what an object of a scan is called, when its points are known.

This is how Uni3D and CLIP2 measure scenes: each annotated object is cut out, embedded and compared with the names of
all classes. Figures stand beside chance, the constant answer, shuffled embeddings and an interval, as those of objects
do (`evaluation.metrics.controls`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from modeling_ulip2.evaluation.metrics.controls import Evaluation, evaluate_zero_shot
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult
from modeling_ulip2.scenes.evaluation.instances import MIN_REGION_SIZE
from modeling_ulip2.scenes.schema import ObjectMasks, Scene

TOPK = (1, 5)


def given_objects(
    scene: Scene, class_names: Sequence[str], min_region_size: int = MIN_REGION_SIZE
) -> tuple[ObjectMasks, np.ndarray]:
    """The annotated objects of a scene that are measured: those of a known class with enough points.

    Returns:
        The objects, and (K,) int64 the class of each.
    """
    places = {name: place for place, name in enumerate(class_names)}
    truth = scene.objects()
    chosen = [
        (points, int(number))
        for points, number in zip(truth.points, truth.ids, strict=True)  # type: ignore[arg-type]
        if scene.categories[number] in places and len(points) >= min_region_size
    ]
    ids = np.array([number for _, number in chosen], dtype=np.int32)
    labels = np.array([places[scene.categories[number]] for number in ids], dtype=np.int64)
    return ObjectMasks([points for points, _ in chosen], ids=ids), labels


@dataclass
class RecognitionEvaluation:
    """Gathers embeddings of given objects scene by scene.

    Args:
        class_names: C names to choose from.
        class_embeds: (C, D) their embeddings.
    """

    class_names: Sequence[str]
    class_embeds: Tensor
    embeds: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    def add(self, embeds: Tensor, labels: Sequence[int] | np.ndarray) -> None:
        """Adds K objects: embeddings (K, D) and classes (K,)."""
        self.embeds.append(torch.as_tensor(embeds).float())
        self.labels.append(torch.as_tensor(np.asarray(labels), dtype=torch.long))

    def result(self, seed: int = 0) -> Evaluation[ZeroShotResult]:
        """Top-1 and top-5, over objects (`top1`) and over classes (`top1_class_average`), with their controls."""
        return evaluate_zero_shot(
            torch.cat(self.embeds), self.class_embeds, torch.cat(self.labels), list(self.class_names), TOPK, seed=seed
        )
