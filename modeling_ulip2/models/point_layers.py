"""What the layers of the point encoders share: 1x1 convolutions with BatchNorm, hidden layers, sampling starts.

Their layers are 1x1 convolutions with BatchNorm and carry the names and shapes of the published weights. Computed
channels last, such a layer is a product of rows with a matrix, with no transposition between gathering and pooling.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN

from .private_apis import weights_at_hand


def fold_batch_norm(conv: Any, norm: Any = None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weight (out, in) and bias (out,) of a 1x1 convolution, with the BatchNorm behind it folded in.

    A BatchNorm in training is not folded: `normed` applies it to the product.
    """
    with weights_at_hand(conv):
        weight, bias = conv.weight.flatten(1), conv.bias
    if norm is None or norm.training:
        return weight, bias
    with weights_at_hand(norm):
        scale = norm.weight.float() * torch.rsqrt(norm.running_var.float() + norm.eps)  # (out,)
        centered = -norm.running_mean.float() if bias is None else bias.float() - norm.running_mean.float()
        folded = scale * centered + norm.bias.float()  # (out,)
    return (weight * scale[:, None]).to(weight.dtype), folded.to(weight.dtype)


def normed(values: torch.Tensor, norm: Any) -> torch.Tensor:
    """(..., C), by a BatchNorm in training; otherwise as they are, since `fold_batch_norm` has taken it in."""
    return values if norm is None or not norm.training else norm(values.flatten(0, -2)).view_as(values)


@contextlib.contextmanager
def without_statistics(*norms: Any) -> Iterator[None]:
    """BatchNorms in training leave their running statistics alone: what is computed again must not count twice."""
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked


def pointwise(values: torch.Tensor, conv: Any, norm: Any = None) -> torch.Tensor:
    """A 1x1 convolution and the BatchNorm behind it, applied to the last axis.

    Outside training the BatchNorm is folded into the product.

    Args:
        values: (..., in).
        conv: `nn.Conv1d` or `nn.Conv2d` with kernel size 1.
        norm: the BatchNorm, or None.

    Returns:
        (..., out).
    """
    return normed(F.linear(values, *fold_batch_norm(conv, norm)), norm)  # (..., out)


class Pointwise(nn.Sequential):
    """1x1 convolutions, BatchNorms and activations in a row, applied to the last axis: (..., in) -> (..., out)."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            if isinstance(layer, (nn.Conv1d, nn.Conv2d)):
                norm = layers.pop(0) if layers and isinstance(layers[0], nn.modules.batchnorm._BatchNorm) else None
                values = pointwise(values, layer, norm)
            else:
                values = layer(values)
        return values


def activation(name: str) -> nn.Module:
    """The activation called `name` in transformers; it may overwrite its input."""
    return nn.ReLU(inplace=True) if name == "relu" else ACT2FN[name]


def hidden_layers(
    widths: Sequence[int], dropout: float | Sequence[float], act: str = "relu", bias: bool = True, norm: bool = True
) -> Iterator[list[nn.Module]]:
    """Fully connected layers from width to width: linear, BatchNorm, activation and dropout of each.

    The encoders that end in such layers, and the classification head, register them under their published names.

    Args:
        widths: channels before the first layer and behind every layer.
        dropout: behind each layer, or one for all.
        act: name of the activation in transformers.
        bias: of the linear layers.
        norm: whether there is a BatchNorm.
    """
    pairs = list(itertools.pairwise(widths))
    rates = dropout if isinstance(dropout, Sequence) else [dropout] * len(pairs)
    for (width_in, width_out), rate in zip(pairs, rates, strict=True):
        norms = [nn.BatchNorm1d(width_out)] if norm else []
        yield [nn.Linear(width_in, width_out, bias=bias), *norms, activation(act), nn.Dropout(rate)]


def sampling_starts(
    num_points: Sequence[int],
    batch: int,
    random: bool,
    generator: torch.Generator | None = None,
    starts: torch.Tensor | None = None,
) -> torch.Tensor:
    """First samples for encoders that sample farthest points repeatedly, from a random start while they train.

    Args:
        num_points: how many points each of the samplings chooses from.
        batch: number of clouds.
        random: draw uniformly; otherwise every sampling starts at point 0.
        generator: draw with this one, on its own device. Default: torch's CPU generator, so that a seed gives the same
            starts on every device.
        starts: (samplings, batch) integers that the caller has chosen.

    Returns:
        (samplings, batch) int64. Draws follow the published code: one of size `batch` for each sampling, in order.

    Raises:
        ValueError: `starts` has another shape.
    """
    if starts is not None:
        if starts.shape != (len(num_points), batch):
            raise ValueError(
                f"start_indices must have shape ({len(num_points)}, {batch}), one row for each sampling and one "
                f"column for each cloud, got {tuple(starts.shape)}."
            )
        return starts
    if not random and generator is None:
        return torch.zeros(len(num_points), batch, dtype=torch.int64)
    # a compiler knows the draw without a generator for sizes that vary, the one with `generator=None` not
    how: dict[str, Any] = {"device": "cpu"}
    if generator is not None:
        how = {"generator": generator, "device": generator.device}
    return torch.stack([torch.randint(0, n, (batch,), **how) for n in num_points])


__all__ = [
    "Pointwise",
    "activation",
    "fold_batch_norm",
    "hidden_layers",
    "normed",
    "pointwise",
    "sampling_starts",
]
