"""Checks of tensors that several parts make before they compute with them."""

from __future__ import annotations

import torch
from torch import Tensor


def finite(embeds: Tensor, what: str) -> Tensor:
    """`embeds` (N, D) as float32. Raises ValueError on another shape, and on NaN or inf: a NaN would rank first."""
    embeds = torch.as_tensor(embeds).float()
    if embeds.ndim != 2:
        raise ValueError(f"{what} must be a matrix, got shape {tuple(embeds.shape)}")
    bad = (~embeds.isfinite()).any(dim=1).nonzero().flatten()
    if len(bad):
        raise ValueError(f"{what} has NaN or inf in {len(bad)} of {len(embeds)} rows, first in row {bad[0].item()}")
    return embeds
