"""Running a model on batches of prepared clouds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# What a cloud can become: the vector in the shared space, the encoder's own vector, one vector per patch, a
# classifier's logits, or what a captioner's connector reads.
FEATURE_KINDS = ("embeds", "pooled", "tokens", "logits", "connector")


def made_features(model: Any) -> tuple[str, ...]:
    """Those of `FEATURE_KINDS` that a model makes, its usual one first."""
    if hasattr(model, "connector"):
        return ("connector",)
    if hasattr(model, "point_projection") or hasattr(model, "get_point_features"):
        return ("embeds", "pooled", "tokens")
    return ("pooled", "tokens", "logits") if hasattr(model, "classifier") else ("pooled", "tokens")


def choose_features(model: Any, features: str | None = None) -> str:
    """`features` itself, or by default what the model usually makes.

    Raises:
        ValueError: the model does not make them.
    """
    made = made_features(model)
    if features is None:
        return made[0]
    if features not in FEATURE_KINDS:
        raise ValueError(f"features must be one of {', '.join(FEATURE_KINDS)}, got {features!r}.")
    if features not in made:
        lacks = "has no projection into a shared space" if features == "embeds" else f"makes no {features}"
        raise ValueError(f"{type(model).__name__} {lacks}: ask for features={made[0]!r}.")
    return features


def check_evaluating(model: Any) -> None:
    """Raises ValueError for a model in training mode."""
    if getattr(model, "training", False):
        raise ValueError(
            "the model is in training mode, so BatchNorm would mix the clouds of a batch; call model.eval()"
        )


def encode_points(model: Any, point_values: Tensor, features: str | None = None) -> Tensor:
    """Runs any model of this package on clouds (B, N, C).

    Args:
        model: a `Ulip2Model`, `Ulip2PointModelWithProjection`, `Ulip2PointModel`, point encoder, classifier or
            captioner, in evaluation mode.
        features: see `FEATURE_KINDS` and `choose_features`.

    Returns:
        "embeds" (B, projection_dim) of unit length, "pooled" (B, D), "tokens" (B, G, C), "logits" (B, num_labels) or
        "connector" (B, G, point_hidden_size), float32.

    Raises:
        ValueError: the model is in training mode, or does not make them.
    """
    features = choose_features(model, features)
    check_evaluating(model)
    if features == "connector":
        return model.get_point_features(point_values).pooler_output.float()
    if features == "logits":
        return model(point_values).logits.float()
    if features == "embeds" and hasattr(model, "get_point_features"):
        return F.normalize(model.get_point_features(point_values).pooler_output.float(), dim=-1)
    encoded = getattr(model, "point_model", model)(point_values)
    if features == "embeds":
        return F.normalize(model.point_projection(encoded.pooled).float(), dim=-1)
    return encoded[features].float()


def in_batches(
    clouds: Sequence[np.ndarray | Tensor] | Tensor, device: torch.device | str, encode: Callable[[Tensor], Tensor]
) -> Tensor:
    """Calls `encode`, which takes clouds (B, N, C), on a list of clouds (N, C) of any sizes; returns rows on the CPU.

    Clouds of one size go together, since padding would be points.
    """
    sizes: dict[torch.Size, list[int]] = {}
    tensors = [torch.as_tensor(cloud) for cloud in clouds]
    for place, tensor in enumerate(tensors):
        sizes.setdefault(tensor.shape, []).append(place)
    order = [place for places in sizes.values() for place in places]
    groups = [torch.stack([tensors[place] for place in places]) for places in sizes.values()]
    rows = torch.cat([encode(values.to(device, non_blocking=True)).cpu() for values in groups])  # (B, …)
    return rows[torch.tensor(order).argsort()] if len(groups) > 1 else rows
