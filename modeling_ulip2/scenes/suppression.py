"""Which of several named masks of the same points stay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modeling_ulip2.scenes.schema import ObjectMasks

SAME_OBJECT = 0.5  # intersection over union from which on two masks are of one object
INSIDE = 0.8  # share of a mask in another from which on it is a part of it
PART = 0.5  # of the score of the whole, which a part of another name needs


def suppress(masks: ObjectMasks, labels: Sequence[str], scores: np.ndarray) -> list[int]:
    """The masks that stay, the surest first.

    In the order of their scores: a mask falls that is nearly one that stays (intersection over union above
    `SAME_OBJECT`). Within another of the same name it is a part, unless it and the other parts explain more: a whole
    stays where its score times its points is at least the sum of those of its parts, so that a chair wins over its
    seat and two chairs over their group. Within one of another name it stays, as a cushion on a chair, if its score is
    at least `PART` of the whole's.

    Args:
        masks: P of them.
        labels: of each.
        scores: (P,).
    """
    from modeling_ulip2.scenes.overlaps import mask_sizes, shared_points  # imports scipy

    shared = shared_points(masks, masks)
    sizes = mask_sizes(masks)
    scores = np.asarray(scores, dtype=np.float64)
    kept: list[int] = []
    for one in np.argsort(-scores, kind="stable").tolist():
        row = slice(shared.indptr[one], shared.indptr[one + 1])
        common = dict(zip(shared.indices[row].tolist(), shared.data[row].tolist(), strict=True))
        touched = [other for other in kept if other in common]
        if any(_falls(one, other, common[other], sizes, labels, scores) for other in touched):
            continue
        parts = [other for other in touched if labels[other] == labels[one] and common[other] > INSIDE * sizes[other]]
        if parts:
            if scores[one] * sizes[one] < sum(scores[part] * sizes[part] for part in parts):
                continue
            kept = [other for other in kept if other not in parts]
        kept.append(one)
    return sorted(kept, key=lambda number: -scores[number])


def _falls(one: int, kept: int, common: int, sizes: np.ndarray, labels: Sequence[str], scores: np.ndarray) -> bool:
    """Whether a mask is not needed beside one that is as sure or surer."""
    within = common > INSIDE * sizes[one]
    if common > SAME_OBJECT * (sizes[one] + sizes[kept] - common):
        # a whole of the same name is weighed against its parts
        return not (labels[one] == labels[kept] and common > INSIDE * sizes[kept] and sizes[one] > sizes[kept])
    if not within:
        return False
    return labels[one] == labels[kept] or scores[one] < PART * scores[kept]
