"""The contrastive loss on held-out shapes, such that two evaluations can be compared."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def held_out_loss(
    point_embeds: Tensor, partners: Sequence[Tensor], logit_scale: float, candidates: int
) -> tuple[float, int]:
    """The training's loss (`contrastive_loss`), in which every shape counts once and has equally many negatives.

    The loss grows with the number of negatives (a blind model has 2 ln B), so a mean over batches of which the last is
    smaller is no figure of anything. Here shapes are compared in groups of `candidates` in their order; the last group
    is filled up with the first shapes, which serve as negatives there and are not counted again. The number of
    processes and the rest of the division change nothing.

    Args:
        point_embeds: (N, D), of unit length.
        partners: texts, images or both, (N, D) each, of unit length; row i belongs to shape i.
        logit_scale: factor of the cosines.
        candidates: shapes in a group.

    Returns:
        The loss, and how many shapes each was compared with, itself included: `candidates`, or N if that is less.
    """
    count = len(point_embeds)
    if not count or not partners:
        raise ValueError("there is nothing to compare: no shapes, or neither texts nor images")
    size, total = min(candidates, count), torch.zeros((), dtype=torch.double)
    target = torch.arange(size)
    for start in range(0, count, size):
        rows, own = torch.arange(start, start + size) % count, min(size, count - start)
        for embeds in partners:
            logits = logit_scale * point_embeds[rows].float() @ embeds[rows].float().T  # (size, size)
            for way in (logits, logits.T):
                total += F.cross_entropy(way, target, reduction="none")[:own].double().sum() / 2
    return float(total / count), size
