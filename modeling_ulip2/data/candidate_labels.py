"""Labels to choose from, and their ranking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor


def ranked(logits: Tensor, names: Sequence[str], top_k: int | None = None) -> list[dict[str, Any]]:
    """Softmax of logits (K,) with the names of their classes, best first."""
    scores = logits.float().softmax(dim=-1)  # (K,)
    best = scores.topk(min(top_k or len(scores), len(scores)))
    rows = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [{"score": score, "label": names[index]} for score, index in rows]


def check_top_k(top_k: int | None) -> None:
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")


def check_labels(labels: Any, what: str = "labels") -> tuple[str, ...]:
    """Labels as a tuple. Raises ValueError unless they are names, all different."""
    if isinstance(labels, str):
        raise ValueError(f"{what} is a list of names, not one string: {labels!r}.")
    labels = tuple(labels)
    if not labels:
        raise ValueError(f"{what} is empty: name the classes to choose from.")
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"{what} holds {label!r}, which is no name.")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"{what} names {twice!r} twice: their scores would be halved.")
    return labels
