"""SLIP (Mu et al. 2021, arXiv 2112.12750): a vision transformer and a text transformer trained on image-text pairs.

ULIP's first generation, and the ablations of ULIP-2, align points with it. The text side is CLIP's, the image side an
ordinary vision transformer. Parameters carry the names and shapes of the published checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils import ModelOutput

from .configuration_slip import SlipConfig


@dataclass
class SlipOutput(ModelOutput):
    """`text_embeds` (T, D), `image_embeds` (I, D), L2-normalized; their cosines times the scale, (I, T) and (T, I)."""

    logits_per_image: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Attention written out; (B, heads, L, C) each -> (B, L, heads, C), weights."""
    weights = torch.matmul(query, key.transpose(-2, -1)) * scaling  # (B, heads, L, L)
    if module.is_causal:
        weights = weights + torch.full_like(weights[0, 0], -torch.inf).triu(1)
    weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class SlipAttention(nn.Module):
    """Self-attention; its subclasses name their parameters as the published text and image transformers do."""

    def __init__(self, config: SlipConfig, num_heads: int, is_causal: bool) -> None:
        super().__init__()
        self.config = config
        self.num_heads = num_heads
        self.is_causal = is_causal

    def attend(self, qkv: Tensor) -> Tensor:
        """Queries, keys and values (B, L, 3 C) -> (B, L, C)."""
        query, key, value = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, L, C / heads)
            for part in qkv.chunk(3, dim=-1)
        )
        function: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        scaling = query.shape[-1] ** -0.5
        attended, _ = function(self, query, key, value, None, scaling=scaling, is_causal=self.is_causal)
        return attended.flatten(2)


class SlipTextAttention(SlipAttention):
    def __init__(self, config: SlipConfig) -> None:
        super().__init__(config, config.text_num_attention_heads, is_causal=True)
        width = config.text_hidden_size
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.out_proj(self.attend(F.linear(hidden_states, self.in_proj_weight, self.in_proj_bias)))


class SlipTextMLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.act = ACT2FN["quick_gelu"]
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(hidden_states)))


class SlipTextBlock(nn.Module):
    """Pre-norm block with causal attention."""

    def __init__(self, config: SlipConfig) -> None:
        super().__init__()
        width, eps = config.text_hidden_size, config.text_layer_norm_eps
        self.attn = SlipTextAttention(config)
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.mlp = SlipTextMLP(width)
        self.ln_2 = nn.LayerNorm(width, eps=eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states + self.attn(self.ln_1(hidden_states))
        return hidden_states + self.mlp(self.ln_2(hidden_states))


class SlipTextTransformer(nn.Module):
    """The blocks; a module of its own only because published weights are named `transformer.resblocks.<i>`."""

    def __init__(self, config: SlipConfig) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(SlipTextBlock(config) for _ in range(config.text_num_hidden_layers)))


class SlipVisionAttention(SlipAttention):
    def __init__(self, config: SlipConfig) -> None:
        super().__init__(config, config.vision_num_attention_heads, is_causal=False)
        width = config.vision_hidden_size
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.proj(self.attend(self.qkv(hidden_states)))


class SlipVisionMLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(hidden_states)))


class SlipVisionBlock(nn.Module):
    """Pre-norm block."""

    def __init__(self, config: SlipConfig) -> None:
        super().__init__()
        width, eps = config.vision_hidden_size, config.vision_layer_norm_eps
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = SlipVisionAttention(config)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = SlipVisionMLP(width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states + self.attn(self.norm1(hidden_states))
        return hidden_states + self.mlp(self.norm2(hidden_states))


class SlipPatchEmbedding(nn.Module):
    def __init__(self, config: SlipConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.vision_hidden_size, config.patch_size, stride=config.patch_size)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.proj(pixel_values).flatten(2).transpose(1, 2)  # (B, patches, C)


class SlipVisionTransformer(nn.Module):
    """Vision transformer whose feature is its normalized CLS token."""

    def __init__(self, config: SlipConfig) -> None:
        super().__init__()
        width, patches = config.vision_hidden_size, (config.image_size // config.patch_size) ** 2
        self.image_size = config.image_size
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + patches, width))
        self.patch_embed = SlipPatchEmbedding(config)
        self.blocks = nn.Sequential(*(SlipVisionBlock(config) for _ in range(config.vision_num_hidden_layers)))
        self.norm = nn.LayerNorm(width, eps=config.vision_layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, image_size, image_size) -> (B, 1 + patches, C)."""
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(
                f"pixel_values must have shape (batch, 3, {self.image_size}, {self.image_size}), got "
                f"{tuple(pixel_values.shape)}; use the image processor of this model."
            )
        patches = self.patch_embed(pixel_values.to(self.pos_embed.dtype))  # (B, patches, C)
        cls = self.cls_token.expand(len(patches), -1, -1)  # (B, 1, C)
        return self.norm(self.blocks(torch.cat([cls, patches], dim=1) + self.pos_embed))


class SlipModel(PreTrainedModel):
    """SLIP as a dual encoder, with the interface of `CLIPModel`; the head of its self-supervised half is left out."""

    config_class = SlipConfig
    base_model_prefix = "slip"
    main_input_name = "pixel_values"
    input_modalities = ["image", "text"]
    _no_split_modules = ["SlipTextBlock", "SlipVisionBlock"]
    _supports_sdpa = True

    def __init__(self, config: SlipConfig) -> None:
        super().__init__(config)
        width = config.text_hidden_size
        self.visual = SlipVisionTransformer(config)
        self.transformer = SlipTextTransformer(config)
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.max_position_embeddings, width))
        self.ln_final = nn.LayerNorm(width, eps=config.text_layer_norm_eps)
        # multiplied from the right, as published
        self.image_projection = nn.Parameter(torch.empty(config.vision_hidden_size, config.projection_dim))
        self.text_projection = nn.Parameter(torch.empty(width, config.projection_dim))
        self.logit_scale = nn.Parameter(torch.tensor(float(config.logit_scale_init_value)))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        std = self.config.initializer_range
        super()._init_weights(module)
        if isinstance(module, SlipTextAttention):
            initialization.normal_(module.in_proj_weight, std=std)
            initialization.zeros_(module.in_proj_bias)
        elif isinstance(module, SlipVisionTransformer):
            initialization.normal_(module.cls_token, std=std)
            initialization.normal_(module.pos_embed, std=std)
        elif isinstance(module, SlipModel):
            initialization.normal_(module.positional_embedding, std=0.01)
            initialization.normal_(module.image_projection, std=module.image_projection.shape[0] ** -0.5)
            initialization.normal_(module.text_projection, std=module.text_projection.shape[0] ** -0.5)
            initialization.constant_(module.logit_scale, self.config.logit_scale_init_value)

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutputWithPooling:
        """Features at the end of a text, where the token id is largest: `input_ids` (B, L) -> `pooler_output` (B, D).

        `attention_mask` changes nothing: attention is causal, and what stands behind the end is never read.
        """
        length = input_ids.shape[-1]
        if input_ids.ndim != 2 or length > self.config.max_position_embeddings:
            raise ValueError(
                f"input_ids must have shape (batch, length <= {self.config.max_position_embeddings}), got "
                f"{tuple(input_ids.shape)}."
            )
        hidden_states = self.token_embedding(input_ids) + self.positional_embedding[:length]  # (B, L, C)
        hidden_states = self.ln_final(self.transformer.resblocks(hidden_states))
        ends = input_ids.argmax(dim=-1)  # (B,): the first of equals
        pooled = hidden_states[torch.arange(len(ends), device=ends.device), ends] @ self.text_projection  # (B, D)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=pooled)

    def get_image_features(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """`pixel_values` (B, 3, H, W), ImageNet-normalized -> `pooler_output` (B, D)."""
        hidden_states = self.visual(pixel_values)  # (B, 1 + patches, C)
        return BaseModelOutputWithPooling(
            last_hidden_state=hidden_states, pooler_output=hidden_states[:, 0] @ self.image_projection
        )

    def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor | None = None) -> SlipOutput:
        """Compares every image with every text."""
        text_features: Any = self.get_text_features(input_ids)
        image_features: Any = self.get_image_features(pixel_values)
        text = F.normalize(text_features.pooler_output, dim=-1)  # (T, D)
        image = F.normalize(image_features.pooler_output, dim=-1)  # (I, D)
        logits = self.logit_scale.exp() * image @ text.T  # (I, T)
        return SlipOutput(logits_per_image=logits, logits_per_text=logits.T, text_embeds=text, image_embeds=image)
