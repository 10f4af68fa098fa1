"""PPAT, OpenShape's point patch transformer (arXiv 2305.10764, called "PointBERT" there).

points -> balls around sampled centers -> one token per ball (PointNet set abstraction) -> transformer -> CLS

Parameters carry the names and shapes of the published checkpoints; their last layer, `proj`, is the projection of
`Ulip2PointModelWithProjection` here.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple

from .configuration_ulip2 import PpatConfig, register_point_encoder
from .point_encoder import PointEncoderOutput, PointTransformerPreTrainedModel, check_point_values
from .point_layers import pointwise, sampling_starts
from .point_ops import FPS_PPAT, ball_query, farthest_point_sample, gather_points
from .transformer_layers import OutputOptions, PreNormBlock, SelfAttention


class PpatSetAbstraction(nn.Module):
    """A ball of points -> one token: every point through an MLP, then the maximum over the ball."""

    def __init__(self, config: PpatConfig):
        super().__init__()
        widths = [3 + config.in_channels, 64, 64, config.set_abstraction_dim]
        self.mlp_convs = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(widths[:-1], widths[1:], strict=True))
        self.mlp_bns = nn.ModuleList(nn.BatchNorm1d(width) for width in widths[1:])

    def forward(self, neighborhood: torch.Tensor) -> torch.Tensor:
        """(B, G, M, 3 + in_channels) -> (B, G, set_abstraction_dim)."""
        values = neighborhood.to(next(self.parameters()).dtype)
        for conv, norm in zip(self.mlp_convs, self.mlp_bns, strict=True):
            values = pointwise(values, conv, norm).relu()  # (B, G, M, width)
        return values.max(dim=2).values


class PpatLift(nn.Sequential):
    """1x1 convolution and LayerNorm; between them lies nothing where the published code transposes."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(B, G, 3 + set_abstraction_dim) -> (B, G, C)."""
        conv, _, norm = self
        return norm(pointwise(values, conv))


def group_balls(
    point_values: torch.Tensor, num_groups: int, radius: float, group_size: int, start: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cuts clouds (B, N, C) into balls: sampled centers, the first points within `radius` of each.

    Runs in float32 whatever the autocast state. A row is [xyz relative to the center, all columns of the point].

    Returns:
        neighborhood (B, G, M, 3 + C), centers (B, G, 3), indices of the centers (B, G), of the balls (B, G, M).
    """
    with torch.autocast(point_values.device.type, enabled=False):
        point_values = point_values.float()
        xyz = point_values[..., :3]  # (B, N, 3)
        center_index = farthest_point_sample(xyz, num_groups, FPS_PPAT, start=start)  # (B, G)
        centers = gather_points(xyz, center_index)  # (B, G, 3)
        ball_index = ball_query(centers, xyz, radius, group_size, include_boundary=True)  # (B, G, M)
        points = gather_points(point_values, ball_index)  # (B, G, M, C)
        return torch.cat([points[..., :3] - centers.unsqueeze(2), points], dim=-1), centers, center_index, ball_index


class PpatAttention(SelfAttention):
    """Self-attention; its logits may get a learned function of the offset between two centers."""

    def __init__(self, config: PpatConfig):
        super().__init__(config, config.num_attention_heads, config.head_dim)
        inner = config.num_attention_heads * config.head_dim
        self.to_qkv = nn.Linear(config.hidden_size, 3 * inner, bias=False)
        one_head_as_wide = config.num_attention_heads == 1 and inner == config.hidden_size
        self.to_out = nn.Sequential() if one_head_as_wide else nn.Sequential(nn.Linear(inner, config.hidden_size))
        if config.relative_position_bias:
            self.pe = nn.Sequential(nn.Conv2d(3, 64, 1), nn.ReLU(), nn.Conv2d(64, 1, 1))

    def forward(
        self, hidden_states: torch.Tensor, offsets: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """hidden_states (B, T, C), offsets between the centers (B, T, T, 3) or None."""
        query, key, value = self.to_qkv(hidden_states).chunk(3, dim=-1)  # (B, T, heads * head_dim) each
        bias = None
        if offsets is not None:
            first, activation, second = self.pe
            bias = pointwise(activation(pointwise(offsets.to(query.dtype), first)), second)  # (B, T, T, 1)
            bias = (bias * self.scaling).permute(0, 3, 1, 2).to(query.dtype)  # (B, 1, T, T): scaled like the logits
        attended, weights = self.attend(query, key, value, bias)
        return self.to_out(attended), weights  # (B, T, C)


class PpatFeedForward(nn.Module):
    """GELU MLP; the gaps in its numbering are where the published code has activation and dropout."""

    def __init__(self, config: PpatConfig):
        super().__init__()
        wide, narrow = config.intermediate_size, config.hidden_size
        self.net = nn.Sequential(nn.Linear(narrow, wide), nn.GELU(), nn.Identity(), nn.Linear(wide, narrow))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.net(hidden_states)


class PpatPreNorm(nn.Module):
    """A LayerNorm and the branch behind it."""

    def __init__(self, config: PpatConfig, branch: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.fn = branch


class PpatBlock(PreNormBlock):
    """Published weights call the branches 0 (attention) and 1 (MLP)."""

    def __init__(self, config: PpatConfig):
        super().__init__()
        self.add_module("0", PpatPreNorm(config, PpatAttention(config)))
        self.add_module("1", PpatPreNorm(config, PpatFeedForward(config)))

    def branches(self) -> tuple[Any, Any, Any, Any]:
        children: Any = self.children()
        attention, feed_forward = children
        return attention.norm, attention.fn, feed_forward.norm, feed_forward.fn


class PpatTransformer(nn.Module):
    """The blocks; a module of its own only because published weights are named `transformer.layers.<i>`."""

    def __init__(self, config: PpatConfig):
        super().__init__()
        self.layers = nn.ModuleList(PpatBlock(config) for _ in range(config.num_hidden_layers))


class PpatPreTrainedModel(PointTransformerPreTrainedModel):
    config_class = PpatConfig
    _no_split_modules = ["PpatBlock", "PpatLift", "PpatSetAbstraction"]
    # it takes no bias of the logits
    _supports_flash_attn = False

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As published: torch's defaults, and a CLS token from a standard normal."""
        if isinstance(module, PpatModel):
            init.normal_(module.cls_token)
        else:
            super()._init_weights(module)


class PpatModel(PpatPreTrainedModel):
    """OpenShape's point patch transformer.

    Sampling starts at a random point in training, as published, and at point 0 in evaluation, so that a cloud always
    has the same embedding.

    Example:
        >>> import torch
        >>> from modeling_ulip2 import PpatConfig, PpatModel
        >>> model = PpatModel(PpatConfig(num_hidden_layers=2, num_groups=64)).eval()
        >>> output = model(torch.rand(2, 1024, 6))  # xyz and rgb of 2 clouds
        >>> list(output.tokens.shape), list(output.pooled.shape), list(output.centers.shape)
        ([2, 64, 512], [2, 512], [2, 64, 3])
    """

    def __init__(self, config: PpatConfig):
        super().__init__(config)
        self.sa = PpatSetAbstraction(config)
        self.lift = PpatLift(
            nn.Conv1d(config.set_abstraction_dim + 3, config.hidden_size, 1),
            nn.Identity(),
            nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
        )
        self.cls_token = nn.Parameter(torch.zeros(config.hidden_size))
        self.transformer = PpatTransformer(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        point_values: torch.Tensor,
        generator: torch.Generator | None = None,
        start_indices: torch.Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> PointEncoderOutput:
        """Encodes clouds.

        Args:
            point_values: (B, N, in_channels) float32, xyz in the unit sphere, then rgb in [0, 1]. The published
                ViT-bigG weights want y and z exchanged (`Ulip2FeatureExtractor(axes="xzy")`). With fewer points than
                groups, centers repeat.
            output_hidden_states: also return the input of the first block and the output of every block.
            output_attentions: also return attention weights (needs `attn_implementation="eager"`).
            generator: draws the random starts of the sampling, in evaluation too.
            start_indices: (1, B) first center of every cloud, instead of a draw.

        Returns:
            PointEncoderOutput with tokens (B, G, C), pooled (B, C) and centers (B, G, 3). As published, no norm
            follows the last block.

        Raises:
            ValueError: wrong shape or dtype, or values that are NaN or infinite.
        """
        config = self.config
        check_point_values(point_values, config.in_channels, min_points=1)
        requested: Any = self.requested_outputs(**options)
        batch, num_points, _ = point_values.shape
        num_groups = config.num_groups - (config.patch_dropout if self.training else 0)
        # as published, the last point never comes first
        starts = sampling_starts([max(1, num_points - 1)], batch, self.training, generator, start_indices)  # (1, B)
        neighborhood, centers, _, _ = group_balls(
            point_values, num_groups, config.group_radius, config.group_size, starts[0].to(point_values.device)
        )
        tokens = self.sa(neighborhood)  # (B, G, set_abstraction_dim)
        tokens = self.lift(torch.cat([centers.to(tokens.dtype), tokens], dim=-1))  # (B, G, C)
        cls = self.cls_token.to(tokens.dtype).expand(batch, 1, -1)  # (B, 1, C)
        hidden_states = torch.cat([cls, tokens], dim=1)  # (B, G+1, C)
        offsets = None
        if config.relative_position_bias:
            places = F.pad(centers, (0, 0, 1, 0))  # (B, G+1, 3): CLS lies at the origin
            offsets = places.unsqueeze(2) - places.unsqueeze(1)  # (B, G+1, G+1, 3)
        return self.encode(self.transformer.layers, hidden_states, offsets, centers=centers, **requested)


register_point_encoder(PpatConfig.model_type, PpatConfig, PpatModel)
PpatModel.register_for_auto_class("AutoModel")

__all__ = ["PpatModel", "PpatPreTrainedModel"]
