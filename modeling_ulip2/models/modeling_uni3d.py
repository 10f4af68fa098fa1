"""Uni3D, a vision transformer that reads points (arXiv 2310.06773).

points -> patches around sampled centers -> one token per patch (mini-PointNet) -> EVA or EVA-02 blocks -> CLS,
normalized

The trunk is that of an image model without its patch, position and rotary embeddings: only blocks and the last norm
are used. Parameters carry the names and shapes of the published checkpoints; their last layer, `trans2embed`, is the
projection of `Ulip2PointModelWithProjection` here.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from transformers import initialization as init
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple

from .configuration_ulip2 import Uni3dConfig, register_point_encoder
from .modeling_pointbert import PointBertPatchEncoder, sample_patches
from .point_encoder import PointEncoderOutput, PointTransformerPreTrainedModel, check_point_values
from .point_ops import gather_points
from .private_apis import weights_at_hand
from .transformer_layers import OutputOptions, PreNormBlock, SelfAttention, drop_path_rates


class Uni3dAttention(SelfAttention):
    """Self-attention with a bias on queries and values, none on keys; from one fused layer or from three."""

    def __init__(self, config: Uni3dConfig):
        width = config.hidden_size
        super().__init__(config, config.num_attention_heads, width // config.num_attention_heads)
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
            with weights_at_hand(self.qkv):
                query, key, value = F.linear(hidden_states, self.qkv.weight, bias).chunk(3, dim=-1)  # (B, T, C) each
        else:
            query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        attended, weights = self.attend(query, key, value)  # (B, T, C)
        return self.proj(attended), weights


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


class Uni3dBlock(PreNormBlock):
    def __init__(self, config: Uni3dConfig, drop_path_rate: float):
        super().__init__()
        self.drop_path_rate = drop_path_rate
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attn = Uni3dAttention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Uni3dMLP(config)


class Uni3dTrunk(nn.Module):
    """Blocks and last norm; a module of its own only because published weights are named `visual.<name>`."""

    def __init__(self, config: Uni3dConfig):
        super().__init__()
        rates = drop_path_rates(config.drop_path_rate, config.num_hidden_layers)
        self.blocks = nn.ModuleList(Uni3dBlock(config, rate) for rate in rates)
        self.fc_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class Uni3dPreTrainedModel(PointTransformerPreTrainedModel):
    config_class = Uni3dConfig
    _no_split_modules = ["Uni3dBlock", "PointBertPatchEncoder"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As published: the patch encoder as torch makes it, the blocks as image transformers are made."""
        if isinstance(module, nn.Linear):
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
    """Uni3D point encoder.

    Example:
        >>> import torch
        >>> from modeling_ulip2 import Uni3dConfig, Uni3dModel
        >>> from modeling_ulip2.models.configuration_ulip2 import UNI3D_SIZES
        >>> model = Uni3dModel(Uni3dConfig(**UNI3D_SIZES["tiny"], num_hidden_layers=2, num_groups=64)).eval()
        >>> output = model(torch.rand(2, 1024, 6))  # xyz and rgb of 2 clouds
        >>> list(output.tokens.shape), list(output.pooled.shape), list(output.centers.shape)
        ([2, 64, 192], [2, 192], [2, 64, 3])
    """

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

    @can_return_tuple
    def forward(
        self,
        point_values: torch.Tensor,
        generator: torch.Generator | None = None,
        **options: Unpack[OutputOptions],
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
        requested = self.requested_outputs(**options)
        neighborhood, centers, _, _ = sample_patches(point_values, config.num_groups, config.group_size)
        if self.training and config.patch_dropout > 0:
            neighborhood, centers = _dropped_patches(neighborhood, centers, config.patch_dropout, generator)
        tokens = self.encoder2trans(self.encoder(neighborhood))  # (B, G, C)
        tokens = tokens + self.pos_embed(centers.to(tokens.dtype))  # (B, G, C)
        cls = (self.cls_token + self.cls_pos).to(tokens.dtype).expand(tokens.shape[0], -1, -1)  # (B, 1, C)
        hidden_states = torch.cat([cls, tokens], dim=1)  # (B, G+1, C)
        trunk = self.visual
        return self.encode(trunk.blocks, hidden_states, norm=trunk.fc_norm, centers=centers, **requested)


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
