"""Uni3D, a vision transformer that reads points (arXiv 2310.06773).

points -> patches around sampled centers -> one token a patch (mini-PointNet) -> EVA or EVA-02 blocks -> normalized CLS

The trunk is that of an image model without its patch, position and rotary embeddings: only blocks and the last norm
are used. Parameters carry the names and shapes of the published checkpoints; their last layer, `trans2embed`, is the
projection of `Ulip2PointModelWithProjection` here.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_ulip2 import Uni3dConfig, register_point_encoder
from .model_card import ModelCardMixin
from .modeling_pointbert import (
    PointBertPatchEncoder,
    PointEncoderOutput,
    check_attention_output,
    check_point_values,
    drop_path,
    eager_attention_forward,
    group_points,
)
from .point_ops import gather_points


class Uni3dAttention(nn.Module):
    """Self-attention with a bias on queries and values, none on keys; from one fused layer or from three."""

    def __init__(self, config: Uni3dConfig):
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.scaling = (width // config.num_attention_heads) ** -0.5
        self.is_causal = False
        if config.fused_qkv:
            self.qkv = nn.Linear(width, 3 * width, bias=False)
            self.q_bias = nn.Parameter(torch.zeros(width))
            self.v_bias = nn.Parameter(torch.zeros(width))
        else:
            self.q_proj = nn.Linear(width, width)
            self.k_proj = nn.Linear(width, width, bias=False)
            self.v_proj = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.config.fused_qkv:
            bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])  # (3 C,)
            query, key, value = F.linear(hidden_states, self.qkv.weight, bias).chunk(3, dim=-1)  # (B, T, C) each
        else:
            query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, T, C / heads)
            for part in (query, key, value)
        )
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, weights = attend(self, query, key, value, None, dropout=0.0, scaling=self.scaling)
        return self.proj(attended.flatten(2)), weights  # (B, T, C)


class Uni3dMLP(nn.Module):
    """GELU MLP; or SwiGLU, its gate and value packed in one layer or, with an inner norm, in two."""

    def __init__(self, config: Uni3dConfig):
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.kind = config.mlp_kind
        if self.kind == "swiglu_norm":
            self.fc1_g = nn.Linear(width, inner)
            self.fc1_x = nn.Linear(width, inner)
            self.norm = nn.LayerNorm(inner, eps=config.layer_norm_eps)
        else:
            self.fc1 = nn.Linear(width, 2 * inner if self.kind == "swiglu" else inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.kind == "gelu":
            return self.fc2(F.gelu(self.fc1(hidden_states)))
        if self.kind == "swiglu":
            gate, value = self.fc1(hidden_states).chunk(2, dim=-1)  # (B, T, inner) each
            return self.fc2(F.silu(gate) * value)
        return self.fc2(self.norm(F.silu(self.fc1_g(hidden_states)) * self.fc1_x(hidden_states)))


class Uni3dBlock(GradientCheckpointingLayer):
    """Pre-norm transformer block with stochastic depth (whole branches dropped, sample by sample)."""

    def __init__(self, config: Uni3dConfig, drop_path_rate: float):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = Uni3dAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Uni3dMLP(config)

    def forward(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, weights = self.attn(self.norm1(hidden_states))
        hidden_states = hidden_states + drop_path(attended, self.drop_path_rate, self.training)
        branch = self.mlp(self.norm2(hidden_states))
        return hidden_states + drop_path(branch, self.drop_path_rate, self.training), weights


class Uni3dTrunk(nn.Module):
    """Blocks and last norm; a module of its own only because published weights are named `visual.<name>`."""

    def __init__(self, config: Uni3dConfig):
        super().__init__()
        rates = torch.linspace(0, config.drop_path_rate, config.num_hidden_layers, device="cpu").tolist()
        self.blocks = nn.ModuleList(Uni3dBlock(config, rate) for rate in rates)
        self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class Uni3dPreTrainedModel(ModelCardMixin, PreTrainedModel):
    config_class = Uni3dConfig
    base_model_prefix = "point_model"
    main_input_name = "point_values"
    input_modalities = ["point"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["Uni3dBlock", "PointBertPatchEncoder"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As published: the patch encoder as torch makes it, the blocks as image transformers are made."""
        if isinstance(module, nn.Conv1d):
            bound = module.weight[0].numel() ** -0.5
            for parameter in module.parameters():
                init.uniform_(parameter, -bound, bound)
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, Uni3dAttention) and self.config.fused_qkv:
            init.zeros_(module.q_bias)
            init.zeros_(module.v_bias)
        elif isinstance(module, Uni3dModel):
            init.zeros_(module.cls_token)
            init.normal_(module.cls_pos)
        else:
            super()._init_weights(module)


class Uni3dModel(Uni3dPreTrainedModel):
    """Uni3D point encoder."""

    def __init__(self, config: Uni3dConfig):
        super().__init__(config)
        width = config.hidden_size
        self.encoder = PointBertPatchEncoder(config.in_channels, config.encoder_dims)
        self.encoder2trans = nn.Linear(config.encoder_dims, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.cls_pos = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))
        self.visual = Uni3dTrunk(config)
        self.post_init()

    def forward(
        self,
        point_values: torch.Tensor,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        generator: torch.Generator | None = None,
    ) -> PointEncoderOutput:
        """Encodes clouds.

        Args:
            point_values: (B, N, in_channels) float32, xyz in the unit sphere, then rgb in [0, 1]. N may be any number
                from `group_size` on; with fewer points than groups, centers repeat.
            output_hidden_states: also return the input of the first block and the output of every block.
            output_attentions: also return attention weights (needs `attn_implementation="eager"`).
            generator: of the patches left out in training (`patch_dropout`), which are random.

        Returns:
            PointEncoderOutput with tokens (B, G, C), pooled (B, C) and centers (B, G, 3).

        Raises:
            ValueError: wrong shape or dtype, fewer points than `group_size`, or values that are NaN or infinite.
        """
        config = self.config
        check_point_values(point_values, config.in_channels, config.group_size)
        check_attention_output(config, output_attentions)
        neighborhood, centers, _, _ = group_points(point_values, config.num_groups, config.group_size)
        if self.training and config.patch_dropout > 0:
            neighborhood, centers = _dropped_patches(neighborhood, centers, config.patch_dropout, generator)
        tokens = self.encoder2trans(self.encoder(neighborhood))  # (B, G, C)
        tokens = tokens + self.pos_embed(centers.to(tokens.dtype))  # (B, G, C)
        cls = (self.cls_token + self.cls_pos).to(tokens.dtype).expand(len(tokens), -1, -1)  # (B, 1, C)
        hidden_states = torch.cat([cls, tokens], dim=1)  # (B, G+1, C)
        all_hidden_states, all_attentions = [hidden_states], []
        for block in self.visual.blocks:
            hidden_states, weights = block(hidden_states)
            if output_hidden_states:
                all_hidden_states.append(hidden_states)
            if output_attentions:
                all_attentions.append(weights)
        hidden_states = self.visual.fc_norm(hidden_states)
        return PointEncoderOutput(
            tokens=hidden_states[:, 1:],
            pooled=hidden_states[:, 0],
            centers=centers,
            hidden_states=tuple(all_hidden_states) if output_hidden_states else None,
            attentions=tuple(all_attentions) if output_attentions else None,
        )


def _dropped_patches(
    neighborhood: torch.Tensor, centers: torch.Tensor, share: float, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """A random subset of the patches (B, G, M, C) and centers (B, G, 3) of every cloud, without the share `share`."""
    batch, groups = centers.shape[:2]
    kept = max(1, int(groups * (1 - share)))
    device = generator.device if generator is not None else centers.device
    keep = (
        torch.rand(batch, groups, generator=generator, device=device).topk(kept).indices.to(centers.device)
    )  # (B, kept)
    patches = gather_points(neighborhood.flatten(2), keep).unflatten(-1, neighborhood.shape[2:])
    return patches, gather_points(centers, keep)


register_point_encoder(Uni3dConfig.model_type, Uni3dConfig, Uni3dModel)
Uni3dModel.register_for_auto_class("AutoModel")

__all__ = ["Uni3dModel", "Uni3dPreTrainedModel"]
