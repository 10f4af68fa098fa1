"""What the convolutional point encoders (PointNeXt, PointNet++, PointMLP) share.

Their layers are 1x1 convolutions with BatchNorm and carry the names and shapes of the published weights. Computed
channels last, such a layer is a product of rows with a matrix, with no transposition between gathering and pooling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN

from .model_card import ModelCardMixin


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
    weight, bias = conv.weight.flatten(1), conv.bias  # (out, in), (out,)
    fold = norm is not None and not norm.training
    if fold:
        scale = norm.weight.float() * torch.rsqrt(norm.running_var.float() + norm.eps)  # (out,)
        shift = norm.bias.float() - scale * norm.running_mean.float()
        bias = (shift if bias is None else shift + scale * bias.float()).to(weight.dtype)
        weight = (scale[:, None] * weight).to(weight.dtype)
    values = F.linear(values, weight, bias)  # (..., out)
    if norm is None or fold:
        return values
    return norm(values.flatten(0, -2)).view_as(values)


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
    device = generator.device if generator is not None else torch.device("cpu")
    return torch.stack([torch.randint(0, n, (batch,), generator=generator, device=device) for n in num_points])


def refuse_attentions(model: PreTrainedModel, output_attentions: bool) -> None:
    """Raises ValueError if attention weights are asked of an encoder that has none."""
    if output_attentions:
        raise ValueError(f"{type(model).__name__} has no attention: output_attentions must be False.")


class PointConvPreTrainedModel(ModelCardMixin, PreTrainedModel):
    """Base of the convolutional encoders: weights start as torch makes them, as in the published code."""

    base_model_prefix = "point_model"
    main_input_name = "point_values"
    input_modalities = ("point",)  # type: ignore[assignment]
    # no attention to dispatch: whatever a model around the encoder asks for is fine
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            bound = module.weight[0].numel() ** -0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        else:
            super()._init_weights(module)
