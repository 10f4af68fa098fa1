"""PointMLP (arXiv 2202.07123) and its smaller sister PointMLP-elite, as point encoders of ULIP.

points -> features -> stages (sample centers, gather the nearest points of each, normalize, residual layers on every
neighbor, max, residual layers on every center) -> max over the centers -> two linear layers

Parameters carry the names and shapes of the published checkpoints. Unlike the other encoders, this one computes
channels first, as published: its features grow so large that any other order of summation shows.
"""

from __future__ import annotations

import itertools

import torch
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple

from .configuration_pointconv import PointMLPConfig
from .configuration_ulip2 import register_point_encoder
from .point_encoder import PointEncoderOutput, PointEncoderPreTrainedModel, check_point_values
from .point_layers import activation, hidden_layers, sampling_starts
from .point_ops import FPS_LOWEST_INDEX, farthest_point_sample, gather_points, nearest_neighbors
from .transformer_layers import OutputOptions

# Keeps the division by the spread of a cloud's neighborhoods finite.
SPREAD_EPS = 1e-5


class PointMLPLayer(nn.Module):
    """Convolution, BatchNorm, activation; a module of its own only because published weights are named `net.<i>`."""

    def __init__(self, config: PointMLPConfig, in_channels: int, out_channels: int):
        super().__init__()
        conv = nn.Conv1d(in_channels, out_channels, 1, bias=config.use_bias)
        self.net = nn.Sequential(conv, nn.BatchNorm1d(out_channels), activation(config.hidden_act))

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(M, in, K) -> (M, out, K)."""
        return self.net(values)


class PointMLPResidual(nn.Module):
    """Two layers with a residual connection, narrow in between in the elite model (PointMLP, equation 2)."""

    def __init__(self, config: PointMLPConfig, channels: int):
        super().__init__()
        inner, groups, bias = int(config.res_expansion * channels), config.groups, config.use_bias
        self.act = activation(config.hidden_act)
        widen = nn.Conv1d(channels, inner, 1, groups=groups, bias=bias)
        narrow = nn.Conv1d(inner, channels, 1, groups=groups, bias=bias)
        self.net1 = nn.Sequential(widen, nn.BatchNorm1d(inner), self.act)
        self.net2 = nn.Sequential(narrow, nn.BatchNorm1d(channels))
        if groups > 1:
            mix = nn.Conv1d(channels, channels, 1, bias=bias)
            self.net2.extend([self.act, mix, nn.BatchNorm1d(channels)])

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(M, C, K) -> (M, C, K)."""
        return self.act(self.net2(self.net1(values)) + values)


class PointMLPGrouper(nn.Module):
    """Sampled centers and their nearest points, made alike by the geometric affine module (PointMLP, equation 3).

    Every row is [alpha * (neighbor - mean) / spread + beta, center], where the spread is one number per cloud and the
    mean is the center ("anchor") or the mean of the group ("center").
    """

    def __init__(self, config: PointMLPConfig, stage: int, in_channels: int):
        super().__init__()
        self.num_centers, self.num_neighbors = config.num_centers[stage], config.k_neighbors[stage]
        self.use_xyz, self.normalize = config.use_xyz, config.normalize
        if self.normalize is not None:
            width = in_channels + 3 * config.use_xyz
            self.affine_alpha = nn.Parameter(torch.ones(1, 1, 1, width))
            self.affine_beta = nn.Parameter(torch.zeros(1, 1, 1, width))

    def select(self, xyz: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N, 3), (B,) -> indices of the centers (B, S) and of their neighbors (B, S, K)."""
        center_index = farthest_point_sample(xyz, self.num_centers, FPS_LOWEST_INDEX, start=start)
        return center_index, nearest_neighbors(gather_points(xyz, center_index), xyz, self.num_neighbors)

    def forward(
        self, xyz: torch.Tensor, features: torch.Tensor, start: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, N, 3) float32, (B, N, C), first centers (B,) -> (B, S, 3), (B, S, K, 2 C [+ 3])."""
        center_index, neighbor_index = self.select(xyz, start)
        centers, anchors = gather_points(xyz, center_index), gather_points(features, center_index)  # (B, S, 3 or C)
        values = torch.cat([features, xyz.to(features.dtype)], dim=-1) if self.use_xyz else features  # (B, N, C [+ 3])
        rows = gather_points(values, neighbor_index)  # (B, S, K, C [+ 3])
        if self.normalize is not None:
            if self.normalize == "center":
                mean = rows.mean(dim=2, keepdim=True)  # (B, S, 1, C [+ 3])
            else:
                mean = gather_points(values, center_index).unsqueeze(2)
            rows = (rows - mean).float()
            # over all numbers of a cloud, in float32: half precision would overflow
            spread = rows.flatten(1).std(dim=1)[:, None, None, None]  # (B, 1, 1, 1)
            rows = self.affine_alpha * (rows / (spread + SPREAD_EPS)) + self.affine_beta
        anchors = anchors.unsqueeze(2).expand(-1, -1, self.num_neighbors, -1)  # (B, S, K, C)
        return centers, torch.cat([rows.to(features.dtype), anchors], dim=-1)


class PointMLPPreExtraction(nn.Module):
    """Residual layers on every neighbor, then the maximum over the neighbors."""

    def __init__(self, config: PointMLPConfig, stage: int, in_channels: int, out_channels: int):
        super().__init__()
        self.transfer = PointMLPLayer(config, 2 * in_channels + 3 * config.use_xyz, out_channels)
        blocks = (PointMLPResidual(config, out_channels) for _ in range(config.pre_blocks[stage]))
        self.operation = nn.Sequential(*blocks)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """(B, S, K, in) -> (B, out, S)."""
        values = self.transfer(rows.flatten(0, 1).mT)  # (B * S, out, K)
        values = self.operation(values).max(dim=2).values  # (B * S, out)
        return values.unflatten(0, rows.shape[:2]).mT


class PointMLPPosExtraction(nn.Module):
    """Residual layers on every center."""

    def __init__(self, config: PointMLPConfig, stage: int, channels: int):
        super().__init__()
        blocks = (PointMLPResidual(config, channels) for _ in range(config.pos_blocks[stage]))
        self.operation = nn.Sequential(*blocks)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(B, C, S) -> (B, C, S)."""
        return self.operation(values)


class PointMLPModel(PointEncoderPreTrainedModel):
    """PointMLP encoder (ULIP's variant ends before the classification layer).

    Sampling starts at a random point in training, as published, and at point 0 in evaluation, so that a cloud always
    has the same embedding.

    Example:
        >>> import torch
        >>> from modeling_ulip2 import PointMLPConfig, PointMLPModel
        >>> from modeling_ulip2.models.configuration_pointconv import POINTMLP_ELITE
        >>> model = PointMLPModel(PointMLPConfig(**POINTMLP_ELITE)).eval()
        >>> output = model(torch.rand(2, 1024, 3))  # xyz of 2 clouds
        >>> list(output.tokens.shape), list(output.pooled.shape), list(output.centers.shape)
        ([2, 64, 256], [2, 256], [2, 64, 3])
    """

    config_class = PointMLPConfig
    _no_split_modules = ["PointMLPGrouper", "PointMLPLayer", "PointMLPResidual"]

    def __init__(self, config: PointMLPConfig):
        super().__init__(config)
        self.embedding = PointMLPLayer(config, config.in_channels, config.embed_dim)
        self.local_grouper_list = nn.ModuleList()
        self.pre_blocks_list = nn.ModuleList()
        self.pos_blocks_list = nn.ModuleList()
        width = config.embed_dim
        for stage, channels in enumerate(config.channels):
            self.local_grouper_list.append(PointMLPGrouper(config, stage, width))
            self.pre_blocks_list.append(PointMLPPreExtraction(config, stage, width, channels))
            self.pos_blocks_list.append(PointMLPPosExtraction(config, stage, channels))
            width = channels
        head = hidden_layers([width, *config.head_dims], config.head_dropout, config.hidden_act)
        self.classifier = nn.Sequential(*itertools.chain.from_iterable(head))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, PointMLPGrouper) and module.normalize is not None:
            init.ones_(module.affine_alpha)
            init.zeros_(module.affine_beta)
        else:
            super()._init_weights(module)

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
            point_values: (B, N, in_channels) float32, xyz in the unit sphere (y up), then further channels. N may be
                any number from `k_neighbors[0]` on; with fewer points than centers, centers repeat.
            output_hidden_states: also return the features of every stage, (B, S, C) each.
            output_attentions: must be False.
            generator: draws random starts of the sampling, in evaluation too.
            start_indices: (stages, B) first sample of every stage and cloud, instead of a draw.

        Returns:
            PointEncoderOutput with tokens (B, S, C) and centers (B, S, 3) of the last stage, and pooled (B, D).

        Raises:
            ValueError: wrong shape or dtype, fewer points than neighbors, or values that are NaN or infinite.
        """
        config = self.config
        requested = self.requested_outputs(**options)
        check_point_values(point_values, config.in_channels, config.k_neighbors[0], setting="k_neighbors[0]")
        batch, num_points, _ = point_values.shape
        sizes = [num_points, *config.num_centers[:-1]]
        starts = sampling_starts(sizes, batch, self.training, generator, start_indices)  # (stages, B)
        xyz = point_values[..., :3].float()  # (B, N, 3)
        features = self.embedding(point_values.to(self.dtype).mT).mT  # (B, N, embed_dim)
        recorded: list[torch.Tensor] | None = [] if requested["output_hidden_states"] else None
        stages = zip(self.local_grouper_list, self.pre_blocks_list, self.pos_blocks_list, starts, strict=True)
        for group, pre_extraction, pos_extraction, start in stages:
            xyz, rows = group(xyz, features, start)
            features = pos_extraction(pre_extraction(rows)).mT  # (B, S, C)
            if recorded is not None:
                recorded.append(features)
        return PointEncoderOutput(
            tokens=features,
            pooled=self.classifier(features.max(dim=1).values),
            centers=xyz,
            hidden_states=None if recorded is None else tuple(recorded),
        )


register_point_encoder(PointMLPConfig.model_type, PointMLPConfig, PointMLPModel)
PointMLPModel.register_for_auto_class("AutoModel")

__all__ = ["PointMLPModel"]
