"""Point-BERT, the point encoder of ULIP and ULIP-2 (arXiv 2111.14819; ULIP-2: arXiv 2305.08275, section 3.3).

points -> patches around sampled centers -> one token per patch (mini-PointNet) -> transformer -> [CLS, max of the
tokens]

Parameters carry the names and shapes of the published checkpoints.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple

from .configuration_ulip2 import PointBertConfig, register_point_encoder
from .point_encoder import PointEncoderOutput, PointTransformerPreTrainedModel, check_point_values
from .point_layers import fold_batch_norm, normed, without_statistics
from .point_ops import FPS_POINTBERT, farthest_point_sample, gather_points, group_points
from .transformer_layers import OutputOptions, PreNormBlock, SelfAttention, drop_path_rates


def sample_patches(
    point_values: torch.Tensor, num_groups: int, group_size: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cuts clouds into patches: sampled centers, the points nearest to each, xyz relative to the center.

    Runs in float32 whatever the autocast state: half precision would choose other points.

    Returns:
        neighborhood (B, G, M, C), centers (B, G, 3), indices of the centers (B, G), of the neighbors (B, G, M).
    """
    with torch.autocast(point_values.device.type, enabled=False):
        point_values = point_values.float()
        xyz = point_values[..., :3]  # (B, N, 3)
        center_index = farthest_point_sample(xyz, num_groups, FPS_POINTBERT)  # (B, G)
        centers = gather_points(xyz, center_index)  # (B, G, 3)
        neighborhood, neighbor_index = group_points(point_values, centers, group_size)  # (B, G, M, C), (B, G, M)
        return neighborhood, centers, center_index, neighbor_index


# How many patches go through the patch encoder together in evaluation: on a CPU, 2 MB of activations stay in cache;
# elsewhere they are what bounds the memory of a large batch, a quarter of a gigabyte per layer in float32.
_PATCHES_IN_CACHE = 32
_PATCHES_IN_MEMORY = 4096
# Activations that take more of a GPU's memory than this are computed again in the backward pass.
_LARGEST_SHARE = 0.25


class PointBertPatchEncoder(nn.Module):
    """Mini-PointNet: a patch of points -> one token (Point-BERT, section 3.1).

    The modules are 1x1 convolutions because published weights have their shapes; the computation keeps channels last.
    The second stage sees [max over the patch, point] of which only the second half differs from point to point: its
    product is split in two, and the first half is computed once per patch. Outside training, BatchNorm is folded into
    the product before it.
    """

    gradient_checkpointing = False

    def __init__(self, in_channels: int, encoder_dims: int):
        super().__init__()
        self.first_conv = nn.Sequential(
            nn.Conv1d(in_channels, 128, 1), nn.BatchNorm1d(128), nn.ReLU(inplace=True), nn.Conv1d(128, 256, 1)
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(512, 512, 1), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Conv1d(512, encoder_dims, 1)
        )

    def forward(self, neighborhood: torch.Tensor) -> torch.Tensor:
        """(B, G, M, C) -> (B, G, encoder_dims)."""
        conv, norm, project = _layers(self.first_conv)
        first = (*fold_batch_norm(conv, norm), norm, *fold_batch_norm(project))
        conv, norm, project = _layers(self.second_conv)
        second = (*fold_batch_norm(conv, norm), norm, *fold_batch_norm(project))
        patches = neighborhood.flatten(0, 1).to(first[0].dtype)  # (B * G, M, C)
        if self.training:  # BatchNorm wants all patches at once
            tokens = self._encode_again_if_it_pays(patches, first, second)
        elif torch.compiler.is_compiling():  # a number of parts would become part of the graph
            tokens = self._encode(patches, first, second)
        else:
            at_once = _PATCHES_IN_CACHE if patches.device.type == "cpu" else _PATCHES_IN_MEMORY
            tokens = torch.cat([self._encode(part, first, second) for part in patches.split(at_once)])
        return tokens.unflatten(0, neighborhood.shape[:2])

    def _encode_again_if_it_pays(
        self, patches: torch.Tensor, first: tuple[Any, ...], second: tuple[Any, ...]
    ) -> torch.Tensor:
        """`_encode`; its activations are not kept for the backward pass, but computed again, where that pays.

        That is with `gradient_checkpointing_enable()`, and where they would take a large share of a GPU's memory.
        """
        pays = self.gradient_checkpointing
        if not pays and patches.is_cuda and not torch.compiler.is_compiling():
            widths = 2 * len(first[0]) + 2 * len(second[0]) + len(first[3]) + len(second[3])
            size = patches.shape[0] * patches.shape[1] * widths * patches.element_size()
            pays = size > _LARGEST_SHARE * torch.cuda.get_device_properties(patches.device).total_memory
        if not (pays and torch.is_grad_enabled()):
            return self._encode(patches, first, second)
        return checkpoint(
            self._encode,
            patches,
            first,
            second,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing here is random
            context_fn=lambda: (contextlib.nullcontext(), without_statistics(first[2], second[2])),
        )

    def _encode(self, points: torch.Tensor, first: tuple[Any, ...], second: tuple[Any, ...]) -> torch.Tensor:
        """Patches (P, M, C) -> tokens (P, encoder_dims)."""
        weight, bias, norm, project_weight, project_bias = first
        points = F.relu(normed(F.linear(points, weight, bias), norm), inplace=True)  # (P, M, 128)
        points = F.linear(points, project_weight, project_bias)  # (P, M, 256)
        patch = _largest(points)  # (P, 256)

        weight, bias, norm, project_weight, project_bias = second
        weight_patch, weight_point = weight.chunk(2, dim=1)  # the concatenation is [patch, point]
        points = F.linear(points, weight_point).add_(F.linear(patch, weight_patch, bias).unsqueeze(1))  # (P, M, 512)
        points = F.relu(normed(points, norm), inplace=True)
        return _largest(F.linear(points, project_weight, project_bias))


def _largest(points: torch.Tensor) -> torch.Tensor:
    """Maximum over the points of a patch, (P, M, C) -> (P, C)."""
    # `amax` is faster, but would spread the gradient over equal maxima (copies of a point), unlike the original
    return points.max(dim=1).values if torch.is_grad_enabled() else points.amax(dim=1)


def _layers(stage: nn.Sequential) -> tuple[Any, Any, Any]:
    """Convolution, BatchNorm and the convolution behind the activation."""
    conv, norm, _, project = stage
    return conv, norm, project


class PointBertAttention(SelfAttention):
    def __init__(self, config: PointBertConfig):
        super().__init__(config, config.num_attention_heads, config.hidden_size // config.num_attention_heads)
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, weights = self.attend(*self.qkv(hidden_states).chunk(3, dim=-1))  # (B, T, C)
        return self.proj(attended), weights


class PointBertMLP(nn.Module):
    def __init__(self, config: PointBertConfig):
        super().__init__()
        inner = int(config.mlp_ratio * config.hidden_size)
        self.fc1 = nn.Linear(config.hidden_size, inner)
        self.act = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(inner, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(hidden_states)))


class PointBertBlock(PreNormBlock):
    """The position of every token is added before EVERY block and stays in the residual stream."""

    def __init__(self, config: PointBertConfig, drop_path_rate: float):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = PointBertMLP(config)
        self.attn = PointBertAttention(config)

    def forward(self, hidden_states: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, C) each -> (B, T, C), attention weights or None."""
        return super().forward(hidden_states + position)


class PointBertBlocks(nn.Module):
    """The blocks; a module of its own only because published weights are named `blocks.blocks.<i>`."""

    def __init__(self, config: PointBertConfig):
        super().__init__()
        rates = drop_path_rates(config.drop_path_rate, config.num_hidden_layers)
        self.blocks = nn.ModuleList(PointBertBlock(config, rate) for rate in rates)


class PointBertPreTrainedModel(PointTransformerPreTrainedModel):
    config_class = PointBertConfig
    _no_split_modules = ["PointBertBlock", "PointBertPatchEncoder"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As published: torch's defaults, a CLS token of zeros and its position from a standard normal."""
        if isinstance(module, PointBertModel):
            init.zeros_(module.cls_token)
            init.normal_(module.cls_pos)
        else:
            super()._init_weights(module)


class PointBertModel(PointBertPreTrainedModel):
    """Point-BERT encoder.

    Example:
        >>> import torch
        >>> from modeling_ulip2 import PointBertConfig, PointBertModel
        >>> model = PointBertModel(PointBertConfig(num_hidden_layers=2, num_groups=64)).eval()
        >>> output = model(torch.rand(2, 1024, 6))  # xyz and rgb of 2 clouds
        >>> list(output.tokens.shape), list(output.pooled.shape), list(output.centers.shape)
        ([2, 64, 384], [2, 768], [2, 64, 3])
    """

    def __init__(self, config: PointBertConfig):
        super().__init__(config)
        width = config.hidden_size
        self.encoder = PointBertPatchEncoder(config.in_channels, config.encoder_dims)
        self.reduce_dim = nn.Linear(config.encoder_dims, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_pos = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))
        self.blocks = PointBertBlocks(config)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        point_values: torch.Tensor,
        **options: Unpack[OutputOptions],
    ) -> PointEncoderOutput:
        """Encodes clouds.

        Args:
            point_values: (B, N, in_channels) float32, xyz in the unit sphere (y up), then rgb in [0, 1]. N may be any
                number from `group_size` on; with fewer points than groups, centers repeat.
            output_hidden_states: also return the input of the first block and the output of every block.
            output_attentions: also return attention weights (needs `attn_implementation="eager"`).

        Returns:
            PointEncoderOutput with tokens (B, G, C), pooled (B, 2 C) and centers (B, G, 3).

        Raises:
            ValueError: wrong shape or dtype, fewer points than `group_size`, or values that are NaN or infinite.
        """
        config = self.config
        check_point_values(point_values, config.in_channels, min_points=config.group_size)
        requested = self.requested_outputs(**options)
        neighborhood, centers, _, _ = sample_patches(point_values, config.num_groups, config.group_size)
        return self.encode_tokens(self.encoder(neighborhood), centers, **requested)

    def encode_tokens(self, tokens: torch.Tensor, centers: torch.Tensor, **requested: bool) -> PointEncoderOutput:
        """The transformer: patch tokens (B, G, encoder_dims) and centers (B, G, 3) to the output of `forward`."""
        batch = tokens.shape[0]
        tokens = self.reduce_dim(tokens)  # (B, G, C)
        position = self.pos_embed(centers.to(self.dtype))  # (B, G, C)
        cls_token = self.cls_token.expand(batch, -1, -1).to(tokens.dtype)  # (B, 1, C)
        cls_pos = self.cls_pos.expand(batch, -1, -1).to(position.dtype)  # (B, 1, C)
        hidden_states = torch.cat([cls_token, tokens], dim=1)  # (B, G + 1, C)
        position = torch.cat([cls_pos, position], dim=1)  # (B, G + 1, C)
        output: Any = self.encode(
            self.blocks.blocks, hidden_states, position, norm=self.norm, centers=centers, **requested
        )
        output.pooled = torch.cat([output.pooled, output.tokens.max(dim=1).values], dim=-1)  # (B, 2 C)
        return output


register_point_encoder(PointBertConfig.model_type, PointBertConfig, PointBertModel)
PointBertModel.register_for_auto_class("AutoModel")

__all__ = ["PointBertModel", "PointBertPreTrainedModel"]
