"""Point-BERT, the point encoder of ULIP and ULIP-2 (arXiv 2111.14819; ULIP-2: arXiv 2305.08275, section 3.3).

points -> patches around sampled centers -> one token a patch (mini-PointNet) -> transformer -> [CLS, max of the
tokens]

Parameters carry the names and shapes of the published checkpoints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput

from .configuration_ulip2 import PointBertConfig, register_point_encoder
from .model_card import ModelCardMixin
from .point_ops import FPS_POINTBERT, farthest_point_sample, gather_points, nearest_neighbors


@dataclass
class PointEncoderOutput(ModelOutput):
    """What every point encoder returns.

    tokens: (B, G, C) one feature per patch.
    pooled: (B, D) one feature per cloud.
    centers: (B, G, 3) where the patches lie, in the coordinates of the input.
    hidden_states: with `output_hidden_states`, the input of the first block and the output of every block.
    attentions: with `output_attentions`, (B, heads, G + 1, G + 1) for every block.
    """

    tokens: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    centers: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


def group_points(
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
        neighbor_index = nearest_neighbors(centers, xyz, group_size)  # (B, G, M)
        neighborhood = gather_points(point_values, neighbor_index)  # (B, G, M, C)
        offset = F.pad(centers, (0, point_values.shape[-1] - 3))  # (B, G, C): color stays as it is
        return neighborhood - offset.unsqueeze(2), centers, center_index, neighbor_index


# On a CPU, how many patches of 32 points go through the patch encoder together: 2 MB of activations stay in cache.
_PATCHES_IN_CACHE = 32


class PointBertPatchEncoder(nn.Module):
    """Mini-PointNet: a patch of points -> one token (Point-BERT, section 3.1).

    The modules are 1x1 convolutions because published weights have their shapes; the computation keeps channels last.
    The second stage sees [max over the patch, point] of which only the second half differs from point to point: its
    product is split in two, and the first half is computed once a patch. Outside training, BatchNorm is folded into
    the product before it.
    """

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
        first = (*_linear_of(conv, norm), norm, project.weight.squeeze(-1), project.bias)
        conv, norm, project = _layers(self.second_conv)
        second = (*_linear_of(conv, norm), norm, project.weight.squeeze(-1), project.bias)
        patches = neighborhood.flatten(0, 1).to(first[0].dtype)  # (B * G, M, C)
        # BatchNorm in training wants all patches at once
        at_once = len(patches) if self.training or patches.device.type != "cpu" else _PATCHES_IN_CACHE
        tokens = torch.cat([self._encode(part, first, second) for part in patches.split(at_once)])
        return tokens.unflatten(0, neighborhood.shape[:2])

    def _encode(self, points: torch.Tensor, first: tuple[Any, ...], second: tuple[Any, ...]) -> torch.Tensor:
        """Patches (P, M, C) -> tokens (P, encoder_dims)."""
        weight, bias, norm, project_weight, project_bias = first
        points = F.relu(_normed(F.linear(points, weight, bias), norm), inplace=True)  # (P, M, 128)
        points = F.linear(points, project_weight, project_bias)  # (P, M, 256)
        patch = _largest(points)  # (P, 256)

        weight, bias, norm, project_weight, project_bias = second
        weight_patch, weight_point = weight.chunk(2, dim=1)  # the concatenation is [patch, point]
        points = F.linear(points, weight_point).add_(F.linear(patch, weight_patch, bias).unsqueeze(1))  # (P, M, 512)
        points = F.relu(_normed(points, norm), inplace=True)
        return _largest(F.linear(points, project_weight, project_bias))


def _largest(points: torch.Tensor) -> torch.Tensor:
    """Maximum over the points of a patch, (P, M, C) -> (P, C)."""
    # `amax` is faster, but would spread the gradient over equal maxima (copies of a point), unlike the original
    return points.max(dim=1).values if torch.is_grad_enabled() else points.amax(dim=1)


def _layers(stage: nn.Sequential) -> tuple[Any, Any, Any]:
    """Convolution, BatchNorm and the convolution behind the activation."""
    conv, norm, _, project = stage
    return conv, norm, project


def _linear_of(conv: Any, norm: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight (out, in) and bias of a 1x1 convolution, with the BatchNorm behind it folded in unless in training."""
    weight, bias = conv.weight.squeeze(-1), conv.bias
    if norm.training:
        return weight, bias
    scale = norm.weight.float() * torch.rsqrt(norm.running_var.float() + norm.eps)  # (out,)
    folded = scale * (bias.float() - norm.running_mean.float()) + norm.bias.float()
    return (weight * scale[:, None]).to(weight.dtype), folded.to(bias.dtype)


def _normed(values: torch.Tensor, norm: Any) -> torch.Tensor:
    return norm(values.flatten(0, -2)).view_as(values) if norm.training else values


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: object,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out; (B, heads, tokens, channels) each -> (B, tokens, heads, channels), weights."""
    weights = torch.matmul(query, key.transpose(-2, -1)) * scaling  # (B, heads, T, T)
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class PointBertAttention(nn.Module):
    def __init__(self, config: PointBertConfig):
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.scaling = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.is_causal = False
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, tokens, channels = hidden_states.shape
        qkv = self.qkv(hidden_states).view(batch, tokens, 3, self.num_heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, T, C / heads) each
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, weights = attend(self, query, key, value, None, dropout=0.0, scaling=self.scaling)
        return self.proj(attended.reshape(batch, tokens, channels)), weights


class PointBertMLP(nn.Module):
    def __init__(self, config: PointBertConfig):
        super().__init__()
        inner = int(config.mlp_ratio * config.hidden_size)
        self.fc1 = nn.Linear(config.hidden_size, inner)
        self.act = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(inner, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(hidden_states)))


def drop_path(branch: torch.Tensor, rate: float, training: bool) -> torch.Tensor:
    """Stochastic depth: leaves out the branch (B, T, C) of a random share `rate` of the samples, in training only."""
    if rate == 0 or not training:
        return branch
    keep = 1 - rate
    return branch * branch.new_empty(branch.shape[0], 1, 1).bernoulli_(keep).div_(keep)


class PointBertBlock(GradientCheckpointingLayer):
    """Pre-norm transformer block with stochastic depth (whole branches dropped, sample by sample)."""

    def __init__(self, config: PointBertConfig, drop_path_rate: float):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = PointBertMLP(config)
        self.attn = PointBertAttention(config)

    def forward(self, hidden_states: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        # the position is added before EVERY block and stays in the residual stream
        hidden_states = hidden_states + position  # (B, T, C)
        attended, weights = self.attn(self.norm1(hidden_states))
        hidden_states = hidden_states + drop_path(attended, self.drop_path_rate, self.training)
        branch = self.mlp(self.norm2(hidden_states))  # (B, T, C)
        return hidden_states + drop_path(branch, self.drop_path_rate, self.training), weights


class PointBertBlocks(nn.Module):
    """The blocks; a module of its own only because published weights are named `blocks.blocks.<i>`."""

    def __init__(self, config: PointBertConfig):
        super().__init__()
        rates = torch.linspace(0, config.drop_path_rate, config.num_hidden_layers, device="cpu").tolist()
        self.blocks = nn.ModuleList(PointBertBlock(config, rate) for rate in rates)


class PointBertPreTrainedModel(ModelCardMixin, PreTrainedModel):
    config_class = PointBertConfig
    base_model_prefix = "point_model"
    main_input_name = "point_values"
    input_modalities = ["point"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["PointBertBlock", "PointBertPatchEncoder"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As published: torch's defaults, a CLS token of zeros and its position from a standard normal."""
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            bound = module.weight[0].numel() ** -0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, PointBertModel):
            init.zeros_(module.cls_token)
            init.normal_(module.cls_pos)
        else:
            super()._init_weights(module)


class PointBertModel(PointBertPreTrainedModel):
    """Point-BERT encoder."""

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

    def forward(
        self,
        point_values: torch.Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
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
        check_attention_output(config, output_attentions)
        neighborhood, centers, _, _ = group_points(point_values, config.num_groups, config.group_size)
        return self.encode_tokens(self.encoder(neighborhood), centers, output_hidden_states, output_attentions)

    def encode_tokens(
        self,
        tokens: torch.Tensor,
        centers: torch.Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> PointEncoderOutput:
        """The transformer: patch tokens (B, G, encoder_dims) and centers (B, G, 3) to the output of `forward`."""
        batch = tokens.shape[0]
        tokens = self.reduce_dim(tokens)  # (B, G, C)
        position = self.pos_embed(centers.to(self.dtype))  # (B, G, C)
        cls_token = self.cls_token.expand(batch, -1, -1).to(tokens.dtype)  # (B, 1, C)
        cls_pos = self.cls_pos.expand(batch, -1, -1).to(position.dtype)  # (B, 1, C)
        hidden_states = torch.cat([cls_token, tokens], dim=1)  # (B, G + 1, C)
        position = torch.cat([cls_pos, position], dim=1)  # (B, G + 1, C)

        all_hidden_states, all_attentions = [hidden_states], []
        for block in self.blocks.blocks:
            hidden_states, weights = block(hidden_states, position)
            if output_hidden_states:
                all_hidden_states.append(hidden_states)
            if output_attentions:
                all_attentions.append(weights)
        hidden_states = self.norm(hidden_states)
        cls, tokens = hidden_states[:, 0], hidden_states[:, 1:]
        return PointEncoderOutput(
            tokens=tokens,
            pooled=torch.cat([cls, tokens.max(dim=1).values], dim=-1),
            centers=centers,
            hidden_states=tuple(all_hidden_states) if output_hidden_states else None,
            attentions=tuple(all_attentions) if output_attentions else None,
        )


def check_attention_output(config: PreTrainedConfig, output_attentions: bool) -> None:
    """Raises ValueError if attention weights are asked of an implementation that does not make them."""
    if output_attentions and config._attn_implementation != "eager":
        raise ValueError(f"output_attentions needs attn_implementation='eager', not {config._attn_implementation!r}.")


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
            f"point_values has {point_values.shape[1]} points a cloud, fewer than {setting} = {min_points}. Sample "
            "more points from the surface, or repeat points."
        )
    if not torch.compiler.is_compiling():
        finite = point_values.isfinite().flatten(1).all(dim=1)  # (B,)
        if not finite.all():
            clouds = (~finite).nonzero().flatten().tolist()
            raise ValueError(f"point_values holds NaN or infinite values in the clouds {clouds[:10]} of the batch.")


register_point_encoder(PointBertConfig.model_type, PointBertConfig, PointBertModel)
PointBertModel.register_for_auto_class("AutoModel")

__all__ = ["PointBertModel", "PointBertPreTrainedModel", "PointEncoderOutput"]
