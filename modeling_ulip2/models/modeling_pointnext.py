"""PointNeXt (arXiv 2206.04670), the second point encoder that ULIP-2 was published with.

points -> linear stem -> stages (sample centers, gather the ball around each, convolutions, max over the ball; in the
larger models inverted residual blocks among the centers) -> the same over all centers at once -> two linear layers

Parameters carry the names and shapes of the published checkpoints.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple

from .configuration_pointconv import PointNextConfig
from .configuration_ulip2 import register_point_encoder
from .point_encoder import PointEncoderOutput, PointEncoderPreTrainedModel, check_point_values
from .point_layers import Pointwise, activation, hidden_layers
from .point_ops import FPS_POINTNEXT, ball_query, farthest_point_sample, gather_points
from .transformer_layers import OutputOptions


class PointSet(NamedTuple):
    """Points with features: xyz (B, N, 3) float32, features (B, N, C)."""

    xyz: torch.Tensor
    features: torch.Tensor


class PointNextStem(nn.Module):
    """A linear layer on every point: all input channels, xyz among them, become features."""

    def __init__(self, config: PointNextConfig):
        super().__init__()
        self.convs = nn.ModuleList([Pointwise(nn.Conv1d(config.in_channels, config.channels[0], 1))])

    def forward(self, points: PointSet) -> PointSet:
        return PointSet(points.xyz, self.convs[0](points.features))


class BallGrouping:
    """Gathers the points in the ball around each center: [xyz relative to the center over the radius, features]."""

    def __init__(self, config: PointNextConfig, radius: float):
        self.radius, self.num_neighbors, self.normalize = radius, config.num_neighbors, config.normalize_offsets

    def query(self, centers: torch.Tensor, xyz: torch.Tensor) -> torch.Tensor:
        """(B, S, 3), (B, N, 3) -> (B, S, K) indices."""
        return ball_query(centers, xyz, self.radius, self.num_neighbors)

    def __call__(self, centers: torch.Tensor, points: PointSet) -> torch.Tensor:
        """-> (B, S, K, 3 + C)."""
        ball = self.query(centers, points.xyz)  # (B, S, K)
        offsets = gather_points(points.xyz, ball) - centers.unsqueeze(2)  # (B, S, K, 3)
        if self.normalize:
            offsets = offsets / self.radius
        features = gather_points(points.features, ball)  # (B, S, K, C)
        return torch.cat([offsets.to(features.dtype), features], dim=-1)


class PointNextSetAbstraction(nn.Module):
    """Sampled centers, and features pooled from the ball around each, with a residual connection in PointNeXt-S."""

    def __init__(self, config: PointNextConfig, stage: int, in_channels: int):
        super().__init__()
        out_channels, self.stride = config.channels[stage], config.strides[stage]
        widths = [3 + in_channels] + [out_channels // 2] * (config.sa_layers - 1) + [out_channels]
        self.convs = convolutions(widths, config.hidden_act, act_last=not config.sa_residual)
        self.skipconv = None
        if config.sa_residual and in_channels != out_channels:
            self.skipconv = Pointwise(nn.Conv1d(in_channels, out_channels, 1))
        self.act = activation(config.hidden_act) if config.sa_residual else None
        self.group = BallGrouping(config, config.radii[stage][0])

    def sample(self, xyz: torch.Tensor) -> torch.Tensor:
        """(B, N, 3) -> (B, N // stride) indices of the centers."""
        return farthest_point_sample(xyz, xyz.shape[1] // self.stride, FPS_POINTNEXT)

    def forward(self, points: PointSet) -> PointSet:
        center_index = self.sample(points.xyz)  # (B, S)
        centers = gather_points(points.xyz, center_index)  # (B, S, 3)
        features = self.convs(self.group(centers, points)).max(dim=2).values  # (B, S, out)
        if self.act is not None:
            identity = gather_points(points.features, center_index)  # (B, S, C)
            features = self.act(features + (identity if self.skipconv is None else self.skipconv(identity)))
        return PointSet(centers, features)


class PointNextGlobalAbstraction(nn.Module):
    """The last stage: all centers as one group, coordinates as they are."""

    def __init__(self, config: PointNextConfig, in_channels: int):
        super().__init__()
        out_channels = config.channels[-1]
        widths = [3 + in_channels] + [out_channels] * config.sa_layers
        self.convs = convolutions(widths, config.hidden_act)

    def forward(self, points: PointSet) -> torch.Tensor:
        """-> (B, out)."""
        values = torch.cat([points.xyz.to(points.features.dtype), points.features], dim=-1)  # (B, S, 3 + C)
        return self.convs(values).max(dim=1).values


class PointNextLocalAggregation(nn.Module):
    """One convolution over the ball around every point, and the maximum."""

    def __init__(self, config: PointNextConfig, radius: float, channels: int):
        super().__init__()
        self.convs = convolutions([3 + channels, channels], config.hidden_act)
        self.group = BallGrouping(config, radius)

    def forward(self, points: PointSet) -> torch.Tensor:
        return self.convs(self.group(points.xyz, points)).max(dim=2).values  # (B, N, C)


class PointNextBlock(nn.Module):
    """Inverted residual block (PointNeXt, section 3.2.2): neighbors first, then two layers, wide in between."""

    def __init__(self, config: PointNextConfig, radius: float, channels: int):
        super().__init__()
        self.convs = PointNextLocalAggregation(config, radius, channels)
        widths = [channels, config.expansion * channels, channels]
        self.pwconv = convolutions(widths, config.hidden_act, act_last=False, conv=nn.Conv1d)
        self.act = activation(config.hidden_act)

    def forward(self, points: PointSet) -> PointSet:
        return PointSet(points.xyz, self.act(self.pwconv(self.convs(points)) + points.features))


def convolutions(
    widths: list[int], act: str, act_last: bool = True, conv: type[nn.Conv1d | nn.Conv2d] = nn.Conv2d
) -> nn.Sequential:
    """Convolutions without bias from width to width, each followed by BatchNorm and activation."""
    layers = nn.Sequential()
    for i, (width_in, width_out) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        layer = Pointwise(conv(width_in, width_out, 1, bias=False), nn.BatchNorm1d(width_out))
        if act_last or i < len(widths) - 2:
            layer.append(activation(act))
        layers.append(layer)
    return layers


class PointNextStages(nn.Module):
    """The stages; a module of its own only because published weights are named `encoder.encoder.<stage>.<layer>`."""

    def __init__(self, config: PointNextConfig):
        super().__init__()
        self.encoder: Any = nn.ModuleList()
        width = config.in_channels
        for stage, channels in enumerate(config.channels):
            first: nn.Module
            if stage == len(config.strides) - 1:
                first = PointNextGlobalAbstraction(config, width)
            elif config.strides[stage] == 1:
                first = PointNextStem(config)
            else:
                first = PointNextSetAbstraction(config, stage, width)
            rest = [PointNextBlock(config, radius, channels) for radius in config.radii[stage][1:]]
            self.encoder.append(nn.ModuleList([first, *rest]))
            width = channels


class PointNextHead(nn.Module):
    """The layers behind the pooling, without the one that would give class logits."""

    def __init__(self, config: PointNextConfig):
        super().__init__()
        self.head = nn.Sequential()
        widths = [config.channels[-1], *config.head_dims]
        for *layer, dropout in hidden_layers(widths, config.head_dropout, config.hidden_act, bias=False):
            self.head.extend([nn.Sequential(*layer), dropout])

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.head(pooled)


class PointNextModel(PointEncoderPreTrainedModel):
    """PointNeXt encoder with the head that ULIP uses (it ends before the classification layer).

    Example:
        >>> import torch
        >>> from modeling_ulip2 import PointNextConfig, PointNextModel
        >>> model = PointNextModel(PointNextConfig()).eval()
        >>> output = model(torch.rand(2, 1024, 4))  # xyz and height of 2 clouds
        >>> list(output.tokens.shape), list(output.pooled.shape), list(output.centers.shape)
        ([2, 64, 512], [2, 256], [2, 64, 3])
    """

    config_class = PointNextConfig
    _no_split_modules = ["PointNextBlock", "PointNextGlobalAbstraction", "PointNextSetAbstraction", "PointNextStem"]

    def __init__(self, config: PointNextConfig):
        super().__init__(config)
        self.encoder = PointNextStages(config)
        self.prediction = PointNextHead(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        point_values: torch.Tensor,
        **options: Unpack[OutputOptions],
    ) -> PointEncoderOutput:
        """Encodes clouds.

        Args:
            point_values: (B, N, in_channels) float32: xyz in the unit sphere (y up), then further channels; in the
                published model one, the height y - min(y) (`Ulip2FeatureExtractor(in_channels=4)`).
            output_hidden_states: also return the features of every stage but the last, (B, N / strides, C) each.
            output_attentions: must be False.

        Returns:
            PointEncoderOutput with tokens (B, S, C) and centers (B, S, 3) before the last pooling, and pooled (B, D).

        Raises:
            ValueError: wrong shape or dtype, too few points to leave one after all strides, or values that are NaN or
                infinite.
        """
        config = self.config
        requested = self.requested_outputs(**options)
        check_point_values(point_values, config.in_channels, config.min_points, setting="the product of the strides")
        points = PointSet(point_values[..., :3].float(), point_values.to(self.dtype))
        recorded: list[torch.Tensor] | None = [] if requested["output_hidden_states"] else None
        *stages, (pool,) = self.encoder.encoder
        for stage in stages:
            for layer in stage:
                points = layer(points)
            if recorded is not None:
                recorded.append(points.features)
        return PointEncoderOutput(
            tokens=points.features,
            pooled=self.prediction(pool(points)),
            centers=points.xyz,
            hidden_states=None if recorded is None else tuple(recorded),
        )


register_point_encoder(PointNextConfig.model_type, PointNextConfig, PointNextModel)
PointNextModel.register_for_auto_class("AutoModel")

__all__ = ["PointNextModel"]
