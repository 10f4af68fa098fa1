"""SLIP (Mu et al. 2021, arXiv 2112.12750): a vision transformer and a text transformer trained on image-text pairs.

ULIP's first generation, and the ablations of ULIP-2, align points with it. The text side is CLIP's, the image side an
ordinary vision transformer. Parameters carry the names and shapes of the published checkpoints.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, initialization
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.clip.modeling_clip import CLIPOutput
from transformers.processing_utils import Unpack
from transformers.utils import can_return_tuple

from .clip_output import compared
from .configuration_slip import SlipConfig
from .transformer_layers import (
    OutputOptions,
    PreNormBlock,
    SelfAttention,
    check_attention_output,
    requested_outputs,
    run_blocks,
)


class SlipTextAttention(SelfAttention):
    def __init__(self, config: SlipConfig) -> None:
        width, heads = config.text_hidden_size, config.text_num_attention_heads
        super().__init__(config, heads, width // heads, is_causal=True)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor | None]:
        projected = F.linear(hidden_states, self.in_proj_weight, self.in_proj_bias)  # (B, L, 3 C)
        attended, weights = self.attend(*projected.chunk(3, dim=-1))
        return self.out_proj(attended), weights


class SlipTextMLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.act = ACT2FN["quick_gelu"]
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.c_proj(self.act(self.c_fc(hidden_states)))


class SlipTextBlock(PreNormBlock):
    """Its attention is causal."""

    def __init__(self, config: SlipConfig) -> None:
        super().__init__()
        width, eps = config.text_hidden_size, config.text_layer_norm_eps
        self.attn = SlipTextAttention(config)
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.mlp = SlipTextMLP(width)
        self.ln_2 = nn.LayerNorm(width, eps=eps)

    def branches(self) -> tuple[Any, Any, Any, Any]:
        return self.ln_1, self.attn, self.ln_2, self.mlp


class SlipTextTransformer(nn.Module):
    """The blocks; a module of its own only because published weights are named `transformer.resblocks.<i>`."""

    def __init__(self, config: SlipConfig) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*(SlipTextBlock(config) for _ in range(config.text_num_hidden_layers)))


class SlipVisionAttention(SelfAttention):
    def __init__(self, config: SlipConfig) -> None:
        width, heads = config.vision_hidden_size, config.vision_num_attention_heads
        super().__init__(config, heads, width // heads, is_causal=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, hidden_states: Tensor) -> tuple[Tensor, Tensor | None]:
        attended, weights = self.attend(*self.qkv(hidden_states).chunk(3, dim=-1))
        return self.proj(attended), weights


class SlipVisionMLP(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(hidden_states)))


class SlipVisionBlock(PreNormBlock):
    def __init__(self, config: SlipConfig) -> None:
        super().__init__()
        width, eps = config.vision_hidden_size, config.vision_layer_norm_eps
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = SlipVisionAttention(config)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = SlipVisionMLP(width)


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

    def embed(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, image_size, image_size) -> tokens (B, 1 + patches, C), CLS first."""
        if pixel_values.ndim != 4 or pixel_values.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(
                f"pixel_values must have shape (batch, 3, {self.image_size}, {self.image_size}), got "
                f"{tuple(pixel_values.shape)}; use the image processor of this model."
            )
        patches = self.patch_embed(pixel_values.to(self.pos_embed.dtype))  # (B, patches, C)
        cls = self.cls_token.expand(len(patches), -1, -1)  # (B, 1, C)
        return torch.cat([cls, patches], dim=1) + self.pos_embed

    def forward(self, pixel_values: Tensor, **requested: bool) -> BaseModelOutputWithPooling:
        """(B, 3, image_size, image_size) -> `last_hidden_state` (B, 1 + patches, C), normalized."""
        return normalized_run(self.blocks, self.norm, self.embed(pixel_values), requested)


def normalized_run(
    blocks: Any, norm: nn.Module, hidden_states: Tensor, requested: dict[str, bool]
) -> BaseModelOutputWithPooling:
    """Tokens (B, L, C) through the blocks and the norm behind them, with what was asked for beside."""
    run: Any = run_blocks(blocks, hidden_states, **requested)
    return BaseModelOutputWithPooling(
        last_hidden_state=norm(run.last_hidden_state), hidden_states=run.hidden_states, attentions=run.attentions
    )


class SlipModel(PreTrainedModel):
    """SLIP as a dual encoder, with the interface of `CLIPModel`; the head of its self-supervised half is left out.

    Example:
        >>> import torch
        >>> from modeling_ulip2.models.configuration_slip import SlipConfig
        >>> from modeling_ulip2.models.modeling_slip import SlipModel
        >>> model = SlipModel(SlipConfig(text_num_hidden_layers=1, vision_num_hidden_layers=1)).eval()
        >>> output = model(torch.tensor([[49406, 320, 4269, 49407]]), torch.rand(2, 3, 224, 224))
        >>> list(output.text_embeds.shape), list(output.logits_per_image.shape)
        ([1, 512], [2, 1])
    """

    config_class = SlipConfig
    base_model_prefix = "slip"
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["SlipTextBlock", "SlipVisionBlock"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

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

    def _requested(self, **options: Unpack[OutputOptions]) -> dict[str, bool]:
        requested = requested_outputs(self.config, **options)
        check_attention_output(self.config, requested["output_attentions"])
        return requested

    @can_return_tuple
    def get_text_features(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> BaseModelOutputWithPooling:
        """Features at the end of a text, where the token id is largest: `input_ids` (B, L) -> `pooler_output` (B, D).

        `attention_mask` changes nothing: attention is causal, and what stands behind the end is never read.
        """
        length = input_ids.shape[-1]
        if input_ids.ndim != 2 or length > self.config.max_position_embeddings:
            raise ValueError(
                f"input_ids must have shape (batch, length <= {self.config.max_position_embeddings}), got "
                f"{tuple(input_ids.shape)}."
            )
        requested = self._requested(**options)
        hidden_states = self.token_embedding(input_ids) + self.positional_embedding[:length]  # (B, L, C)
        output: Any = normalized_run(self.transformer.resblocks, self.ln_final, hidden_states, requested)
        ends = input_ids.argmax(dim=-1)  # (B,): the first of equals
        rows = torch.arange(len(ends), device=ends.device)  # (B,)
        output.pooler_output = output.last_hidden_state[rows, ends] @ self.text_projection  # (B, D)
        return output

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: Tensor,
        **options: Unpack[OutputOptions],
    ) -> BaseModelOutputWithPooling:
        """`pixel_values` (B, 3, H, W), ImageNet-normalized -> `pooler_output` (B, D), of the CLS token."""
        output = self.visual(pixel_values, **self._requested(**options))
        output.pooler_output = output.last_hidden_state[:, 0] @ self.image_projection  # (B, D)
        return output

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        **options: Unpack[OutputOptions],
    ) -> CLIPOutput:
        """Compares every image with every text.

        Args:
            input_ids: (T, L). attention_mask: not needed, see `get_text_features`.
            pixel_values: (I, 3, H, W), ImageNet-normalized.
            output_hidden_states, output_attentions: of both transformers, in `text_model_output` and
                `vision_model_output`; attention weights need `attn_implementation="eager"`.

        Returns:
            CLIPOutput with `text_embeds` (T, D) and `image_embeds` (I, D), L2-normalized, `logits_per_image` (I, T)
            and `logits_per_text` (T, I), their cosines times the logit scale.
        """
        requested = self._requested(**options)
        of_texts: Any = self.get_text_features(input_ids, return_dict=True, **requested)
        of_images: Any = self.get_image_features(pixel_values, return_dict=True, **requested)
        return compared(of_texts, of_images, self.logit_scale.exp())
