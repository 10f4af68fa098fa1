"""Zero-shot classification as ULIP-2 measures it: a class is the mean of its prompts, the nearest one wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_ulip2.utils.tensors import finite

TOPK = (1, 3, 5)


def zero_shot_logits(point_embeds: Tensor, class_embeds: Tensor) -> Tensor:
    """Cosines of shapes (N, D) and classes (C, D), without a logit scale: (N, C) float32."""
    points = F.normalize(finite(point_embeds, "point_embeds"), dim=-1)  # (N, D)
    classes = F.normalize(finite(class_embeds, "class_embeds"), dim=-1)  # (C, D)
    return points @ classes.T  # (N, C)


@dataclass(frozen=True)
class ZeroShotResult:
    """Ranked predictions of N labeled shapes over C classes, and every figure that follows from them.

    Attributes:
        class_names: C names.
        labels: (N,) int64.
        ranked: (N, K) int64, the K best classes of each shape, best first; K = min(max(topk), C).
        topk: the k of the reported accuracies.
    """

    class_names: list[str]
    labels: Tensor
    ranked: Tensor
    topk: tuple[int, ...] = TOPK

    @classmethod
    def from_logits(
        cls, logits: Tensor, labels: Tensor, class_names: Sequence[str] | None = None, topk: Sequence[int] = TOPK
    ) -> ZeroShotResult:
        """Ranks (N, C) logits. Raises ValueError on NaN, on no shapes, on labels that are not in [0, C)."""
        logits, labels = finite(logits, "logits"), torch.as_tensor(labels, dtype=torch.long, device="cpu")
        num_classes = logits.shape[1]
        if labels.shape != logits.shape[:1]:
            raise ValueError(f"{logits.shape[0]} shapes but labels of shape {tuple(labels.shape)}")
        if len(labels) == 0:
            raise ValueError("there is no labeled shape to evaluate")
        if labels.min() < 0 or labels.max() >= num_classes:
            raise ValueError(f"labels must lie in [0, {num_classes}), got {labels.min()} to {labels.max()}")
        names = list(class_names) if class_names is not None else [str(label) for label in range(num_classes)]
        if len(names) != num_classes:
            raise ValueError(f"{num_classes} classes but {len(names)} class names")
        ranked = logits.topk(min(max(topk), num_classes), dim=1).indices.cpu()  # (N, K)
        return cls(names, labels, ranked, tuple(topk))

    @property
    def class_counts(self) -> Tensor:
        """(C,) shapes of each class."""
        return self.labels.bincount(minlength=len(self.class_names))

    def correct(self, k: int) -> Tensor:
        """(N,) bool: is the label among the k best classes?"""
        return (self.ranked[:, :k] == self.labels[:, None]).any(dim=1)

    def class_accuracy(self, k: int) -> Tensor:
        """(C,) float64 top-k accuracy of each class, NaN where a class has no shape."""
        hits = torch.zeros(len(self.class_names), dtype=torch.double).index_add_(
            0, self.labels, self.correct(k).double()
        )
        return hits / self.class_counts  # 0 / 0 is NaN

    @property
    def micro(self) -> dict[str, float]:
        """Top-k accuracy over shapes, as in the papers: {"top1": ...}."""
        return {f"top{k}": self.correct(k).double().mean().item() for k in self.topk}

    @property
    def class_average(self) -> dict[str, float]:
        """Top-k accuracy averaged over the classes that have shapes: {"top1_class_average": ...}."""
        return {f"top{k}_class_average": self.class_accuracy(k).nanmean().item() for k in self.topk}

    @property
    def metrics(self) -> dict[str, float]:
        """`micro` and `class_average` in one dict; fractions, not per cent."""
        return self.micro | self.class_average

    @property
    def confusion(self) -> Tensor:
        """(C, C) int64: row = true class, column = predicted class."""
        num_classes = len(self.class_names)
        pairs = self.labels * num_classes + self.ranked[:, 0]  # (N,)
        return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """A row for each class that has shapes: name, shapes, accuracies, the class it is most often mistaken for."""
        counts, confusion = self.class_counts, self.confusion.clone().fill_diagonal_(0)
        accuracy = {k: self.class_accuracy(k) for k in self.topk}
        rows = []
        for label in counts.nonzero().flatten().tolist():
            mistakes, other = confusion[label].max(dim=0)
            row: dict[str, Any] = {"class": self.class_names[label], "shapes": int(counts[label])}
            row |= {f"top{k}": accuracy[k][label].item() for k in self.topk}
            row["mistaken_for"] = self.class_names[int(other)] if mistakes else None
            rows.append(row)
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON; the confusion matrix as its non-zero [true, predicted, count] cells."""
        cells = self.confusion.nonzero().tolist()
        return {
            "shapes": len(self.labels),
            "classes": len(self.class_names),
            "classes_with_shapes": int((self.class_counts > 0).sum()),
            **self.metrics,
            "per_class": self.per_class,
            "confusion": [
                [self.class_names[true], self.class_names[predicted], int(self.confusion[true, predicted])]
                for true, predicted in cells
            ],
        }


def zero_shot_metrics(
    point_embeds: Tensor,
    class_embeds: Tensor,
    labels: Tensor | Sequence[int],
    class_names: Sequence[str] | None = None,
    topk: Sequence[int] = TOPK,
) -> ZeroShotResult:
    """Classifies shapes by their nearest class embedding (facts of the protocol: cosine, top-k, micro-averaged).

    Args:
        point_embeds: (N, D) shapes, normalized or not.
        class_embeds: (C, D) from `class_embeddings`.
        labels: (N,) class of each shape.
        class_names: C names for the tables.
        topk: the k to report.
    """
    logits = zero_shot_logits(torch.as_tensor(point_embeds), torch.as_tensor(class_embeds))  # (N, C)
    return ZeroShotResult.from_logits(logits, torch.as_tensor(labels), class_names, topk)
