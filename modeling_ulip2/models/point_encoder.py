"""What every point encoder is: its output, the check of its input, and the base class of its model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput

from .model_card import ModelCardMixin
from .transformer_layers import OutputOptions, check_attention_output, requested_outputs, run_blocks


@dataclass
class PointEncoderOutput(ModelOutput):
    """What every point encoder returns.

    tokens: (B, G, C) one feature per patch.
    pooled: (B, D) one feature per cloud.
    centers: (B, G, 3) where the patches lie, in the coordinates of the input.
    hidden_states: with `output_hidden_states`, of a transformer the input of the first block and the output of every
        block, (B, G + 1, C) each, CLS first; of a convolutional encoder the features of every stage, (B, S, C) each.
    attentions: with `output_attentions`, (B, heads, G + 1, G + 1) for every block.
    """

    tokens: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    centers: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class PointEncoderPreTrainedModel(ModelCardMixin, PreTrainedModel):
    """Base of the point encoders. Weights start as torch makes them, as in the published code."""

    base_model_prefix = "point_model"
    main_input_name = "point_values"
    input_modalities = ("point",)  # type: ignore[assignment]
    # an encoder without attention has nothing to dispatch: whatever a model around it asks for is fine
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    has_attention = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            bound = module.weight[0].numel() ** -0.5
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        else:
            super()._init_weights(module)

    def requested_outputs(self, **options: Unpack[OutputOptions]) -> dict[str, bool]:
        """`output_hidden_states` and `output_attentions` of a call, with the configuration's where they are None.

        Raises:
            ValueError: attention weights are asked of an encoder or an implementation that has none.
        """
        requested = requested_outputs(self.config, **options)
        if requested["output_attentions"] and not self.has_attention:
            raise ValueError(f"{type(self).__name__} has no attention: output_attentions must be False.")
        check_attention_output(self.config, requested["output_attentions"])
        return requested


class PointTransformerPreTrainedModel(PointEncoderPreTrainedModel):
    """Base of the point encoders that are transformers."""

    supports_gradient_checkpointing = True
    has_attention = True

    def encode(
        self,
        blocks: Iterable[Any],
        hidden_states: torch.Tensor,
        *context: Any,
        norm: nn.Module | None = None,
        centers: torch.Tensor,
        **requested: Any,
    ) -> PointEncoderOutput:
        """CLS and patch tokens (B, 1 + G, C) through the blocks and the last norm; pooled is CLS.

        Args:
            context: what every block gets beside the tokens.
            norm: of all tokens behind the last block.
            centers: (B, G, 3) of the patches.
            requested: see `requested_outputs`.
        """
        run: Any = run_blocks(blocks, hidden_states, *context, **requested)
        hidden_states = run.last_hidden_state if norm is None else norm(run.last_hidden_state)
        cls, tokens = hidden_states[:, 0], hidden_states[:, 1:]
        return PointEncoderOutput(tokens, cls, centers, run.hidden_states, run.attentions)


def check_point_values(
    point_values: torch.Tensor, in_channels: int, min_points: int, setting: str = "group_size"
) -> None:
    """Raises ValueError unless `point_values` is a finite floating (B, N, in_channels) with N >= min_points.

    `setting` says in the message where `min_points` comes from.
    """
    if not isinstance(point_values, torch.Tensor) or not point_values.is_floating_point():
        kind = point_values.dtype if isinstance(point_values, torch.Tensor) else type(point_values).__name__
        raise ValueError(f"point_values must be a floating tensor, got {kind}.")
    if point_values.ndim != 3 or point_values.shape[-1] != in_channels:
        hint = ""
        if point_values.ndim == 3 and (point_values.shape[-1], in_channels) == (3, 6):
            hint = " The encoder expects rgb after xyz; without color append 0.4 gray, as the feature extractor does."
        raise ValueError(
            f"point_values must have shape (batch, points, {in_channels}), got {tuple(point_values.shape)}.{hint}"
        )
    if point_values.shape[1] < min_points:
        raise ValueError(
            f"point_values has {point_values.shape[1]} points per cloud, fewer than {setting} = {min_points}. Sample "
            "more points from the surface, or repeat points."
        )
    if not torch.compiler.is_compiling():
        finite = point_values.isfinite().flatten(1).all(dim=1)  # (B,)
        if not finite.all():
            clouds = (~finite).nonzero().flatten().tolist()
            raise ValueError(f"point_values holds NaN or infinite values in the clouds {clouds[:10]} of the batch.")


__all__ = [
    "PointEncoderOutput",
    "PointEncoderPreTrainedModel",
    "PointTransformerPreTrainedModel",
    "check_point_values",
]
