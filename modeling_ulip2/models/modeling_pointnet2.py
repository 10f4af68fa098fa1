"""PointNet++ (arXiv 1706.02413), single-scale and multi-scale grouping, as a point encoder of ULIP.

points -> (sample centers, gather the ball around each, shared MLP, max over the ball), twice -> the same over all
points at once -> two linear layers

Parameters carry the names and shapes of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple

from .configuration_pointconv import PointNet2Config
from .configuration_ulip2 import register_point_encoder
from .point_encoder import PointEncoderOutput, PointEncoderPreTrainedModel, check_point_values
from .point_layers import hidden_layers, pointwise, sampling_starts
from .point_ops import FPS_LOWEST_INDEX, ball_query, farthest_point_sample, gather_points
from .transformer_layers import OutputOptions


class Abstraction(NamedTuple):
    """What a level gives: centers, their features, and the indices that chose them and the points of their balls."""

    centers: torch.Tensor  # (B, S, 3)
    features: torch.Tensor  # (B, S, C)
    center_index: torch.Tensor  # (B, S)
    ball_index: list[torch.Tensor]  # (B, S, K) for every scale


def shared_mlp(in_channels: int, widths: Sequence[int]) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Convolutions and the norms behind them."""
    channels = [in_channels, *widths]
    convs = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in zip(channels[:-1], channels[1:], strict=True))
    return convs, nn.ModuleList(nn.BatchNorm1d(width) for width in widths)


def apply_shared_mlp(values: torch.Tensor, convs: Any, norms: Any) -> torch.Tensor:
    """(B, S, K, in) -> (B, S, out): every point through the layers, then the maximum over the K points."""
    values = values.to(convs[0].weight.dtype)
    for conv, norm in zip(convs, norms, strict=True):
        values = pointwise(values, conv, norm).relu_()  # (B, S, K, width)
    return values.max(dim=2).values


class PointNet2SetAbstraction(nn.Module):
    """Sampled centers and what lies in the ball around each, at one scale ("SSG") or at several ("MSG").

    A row is [xyz relative to the center, features] at one scale and [features, xyz] at several, and parameters are
    named differently: both as published.
    """

    def __init__(self, config: PointNet2Config, level: int, in_channels: int):
        super().__init__()
        self.num_centers = config.num_centers[level]
        self.radii, self.num_neighbors = config.radii[level], config.num_neighbors[level]
        self.multi_scale = config.multi_scale
        scales = [shared_mlp(3 + in_channels, widths) for widths in config.mlp_dims[level]]
        if config.multi_scale:
            self.conv_blocks = nn.ModuleList(convs for convs, _ in scales)
            self.bn_blocks = nn.ModuleList(norms for _, norms in scales)
        else:
            ((self.mlp_convs, self.mlp_bns),) = scales

    def forward(self, xyz: torch.Tensor, features: torch.Tensor | None, start: torch.Tensor) -> Abstraction:
        """xyz (B, N, 3) float32, features (B, N, C) or None, start (B,) first center of every cloud."""
        center_index = farthest_point_sample(xyz, self.num_centers, FPS_LOWEST_INDEX, start=start)  # (B, S)
        centers = gather_points(xyz, center_index)  # (B, S, 3)
        convs = self.conv_blocks if self.multi_scale else [self.mlp_convs]
        norms = self.bn_blocks if self.multi_scale else [self.mlp_bns]
        pooled, balls = [], []
        for radius, k, conv, norm in zip(self.radii, self.num_neighbors, convs, norms, strict=True):
            ball = ball_query(centers, xyz, radius, k, include_boundary=True)  # (B, S, K)
            rows = [gather_points(xyz, ball) - centers.unsqueeze(2)]  # (B, S, K, 3)
            if features is not None:
                rows.append(gather_points(features, ball))  # (B, S, K, C)
            values = torch.cat(rows[::-1] if self.multi_scale else rows, dim=-1)  # (B, S, K, 3 + C)
            pooled.append(apply_shared_mlp(values, conv, norm))
            balls.append(ball)
        return Abstraction(centers, torch.cat(pooled, dim=-1), center_index, balls)


class PointNet2GlobalAbstraction(nn.Module):
    """The last level: all centers as one group, coordinates as they are."""

    def __init__(self, in_channels: int, widths: Sequence[int]):
        super().__init__()
        self.mlp_convs, self.mlp_bns = shared_mlp(3 + in_channels, widths)

    def forward(self, xyz: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """(B, N, 3), (B, N, C) -> (B, out)."""
        values = torch.cat([xyz, features], dim=-1).unsqueeze(1)  # (B, 1, N, 3 + C)
        return apply_shared_mlp(values, self.mlp_convs, self.mlp_bns).squeeze(1)


class PointNet2Model(PointEncoderPreTrainedModel):
    """PointNet++ encoder (PointNet++, section 3; ULIP's variant ends before the classification layer).

    Sampling starts at a random point in training, as published, and at point 0 in evaluation, so that a cloud always
    has the same embedding.

    Example:
        >>> import torch
        >>> from modeling_ulip2 import PointNet2Config, PointNet2Model
        >>> model = PointNet2Model(PointNet2Config()).eval()
        >>> output = model(torch.rand(2, 1024, 3))  # xyz of 2 clouds
        >>> list(output.tokens.shape), list(output.pooled.shape), list(output.centers.shape)
        ([2, 128, 256], [2, 256], [2, 128, 3])
    """

    config_class = PointNet2Config
    _no_split_modules = ["PointNet2GlobalAbstraction", "PointNet2SetAbstraction"]

    def __init__(self, config: PointNet2Config):
        super().__init__(config)
        channels = config.in_channels - 3
        self.levels = len(config.num_centers)
        for level in range(self.levels):
            self.add_module(f"sa{level + 1}", PointNet2SetAbstraction(config, level, channels))
            channels = sum(widths[-1] for widths in config.mlp_dims[level])
        self.add_module(f"sa{self.levels + 1}", PointNet2GlobalAbstraction(channels, config.global_dims))
        head = hidden_layers([config.global_dims[-1], *config.head_dims], config.head_dropout)
        for number, (linear, norm, _, dropout) in enumerate(head, start=1):
            self.add_module(f"fc{number}", linear)
            self.add_module(f"bn{number}", norm)
            self.add_module(f"drop{number}", dropout)
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
            point_values: (B, N, in_channels) float32, xyz in the unit sphere (y up), then further channels. With fewer
                points than centers, centers repeat.
            output_hidden_states: also return the features of every level, (B, S, C) each.
            output_attentions: must be False.
            generator: draws random starts of the sampling, in evaluation too.
            start_indices: (levels, B) first sample of every level and cloud, instead of a draw.

        Returns:
            PointEncoderOutput with tokens (B, S, C) and centers (B, S, 3) of the last sampled level, and pooled
            (B, D).

        Raises:
            ValueError: wrong shape or dtype, or values that are NaN or infinite.
        """
        config = self.config
        requested = self.requested_outputs(**options)
        check_point_values(point_values, config.in_channels, 1, setting="the minimum")
        batch, num_points, _ = point_values.shape
        sizes = [num_points, *config.num_centers[:-1]]
        starts = sampling_starts(sizes, batch, self.training, generator, start_indices)  # (levels, B)
        xyz = point_values[..., :3].float()  # (B, N, 3)
        features = point_values[..., 3:] if config.in_channels > 3 else None  # (B, N, C)
        recorded: list[torch.Tensor] | None = [] if requested["output_hidden_states"] else None
        for level, start in enumerate(starts.unbind(0)):
            xyz, features, _, _ = self.get_submodule(f"sa{level + 1}")(xyz, features, start)
            if recorded is not None:
                recorded.append(features)
        pooled = self.get_submodule(f"sa{self.levels + 1}")(xyz, features)  # (B, global width)
        for number in (1, 2):
            linear, norm, dropout = (self.get_submodule(f"{layer}{number}") for layer in ("fc", "bn", "drop"))
            pooled = dropout(norm(linear(pooled)).relu())  # (B, D)
        return PointEncoderOutput(
            tokens=features,
            pooled=pooled,
            centers=xyz,
            hidden_states=None if recorded is None else tuple(recorded),
        )


register_point_encoder(PointNet2Config.model_type, PointNet2Config, PointNet2Model)
PointNet2Model.register_for_auto_class("AutoModel")

__all__ = ["PointNet2Model"]
