"""SLIP from published weights, and its tokenizer and image processor without the Hub.

The weights are those of SLIP's own checkpoints (MIT) or of ULIP's, which hold a frozen copy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from transformers import CLIPImageProcessor, PreTrainedTokenizerBase, VisionTextDualEncoderProcessor

from modeling_ulip2.models.configuration_slip import SlipConfig
from modeling_ulip2.models.modeling_slip import SlipModel
from modeling_ulip2.utils.packages import require_package

# every published transformer of SLIP has heads of 64 channels
_HEAD_DIM = 64
# ImageNet's, with which SLIP was trained
_IMAGE_MEAN, _IMAGE_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def slip_config(weights: Mapping[str, torch.Tensor], **overrides: int) -> SlipConfig:
    """The configuration that published weights show.

    Args:
        weights: by published names.
        overrides: fields that weights do not show and that differ from the published sizes
            (`text_num_attention_heads`, `vision_num_attention_heads`).

    Raises:
        KeyError: a tensor is missing.
    """
    text, vision = weights["positional_embedding"], weights["visual.pos_embed"]
    patch_size = weights["visual.patch_embed.proj.weight"].shape[-1]
    fields: dict[str, Any] = {
        "projection_dim": weights["text_projection"].shape[1],
        "vocab_size": weights["token_embedding.weight"].shape[0],
        "max_position_embeddings": text.shape[0],
        "text_hidden_size": text.shape[1],
        "text_num_hidden_layers": _count(weights, "transformer.resblocks."),
        "text_num_attention_heads": max(1, text.shape[1] // _HEAD_DIM),
        "image_size": patch_size * math.isqrt(vision.shape[1] - 1),
        "patch_size": patch_size,
        "vision_hidden_size": vision.shape[2],
        "vision_num_hidden_layers": _count(weights, "visual.blocks."),
        "vision_num_attention_heads": max(1, vision.shape[2] // _HEAD_DIM),
    }
    return SlipConfig(**fields | overrides)


def slip_from_published(weights: Mapping[str, torch.Tensor], config: SlipConfig | None = None) -> SlipModel:
    """SLIP with published weights, which keep their names. The tensors are used as they are, not copied.

    Raises:
        ValueError: tensors are missing, unexpected or misshapen; the message names them.
    """
    try:
        config = config or slip_config(weights)
    except KeyError as error:
        raise ValueError(f"These are no weights of SLIP: {error} is missing.") from error
    with torch.device("meta"):
        model = SlipModel(config)
    if "logit_scale" not in weights:  # ULIP's checkpoints hold their own instead
        weights = {**weights, "logit_scale": torch.tensor(float(config.logit_scale_init_value))}
    try:
        model.load_state_dict(dict(weights), strict=True, assign=True)
    except RuntimeError as error:
        raise ValueError(f"The weights are not those of SLIP: {error}") from error
    return model.eval()


def _count(weights: Mapping[str, torch.Tensor], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)})


def slip_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer of SLIP and ULIP-1: CLIP's byte pair encoding, which open_clip carries.

    Raises:
        ImportError: open_clip is not installed; the message names the pip command.
    """
    tokenizer = require_package("open_clip.tokenizer", "openclip").SimpleTokenizer()
    from .open_clip_processing import tokenizer_from_open_clip

    return tokenizer_from_open_clip(tokenizer)


def slip_image_processor(config: SlipConfig) -> CLIPImageProcessor:
    """SLIP's evaluation transform: shorter edge to the image size (bilinear), central crop, ImageNet normalization."""
    size = config.image_size
    return CLIPImageProcessor(
        size={"shortest_edge": size},
        resample=2,  # bilinear
        crop_size={"height": size, "width": size},
        image_mean=_IMAGE_MEAN,
        image_std=_IMAGE_STD,
        do_convert_rgb=True,
    )


def slip_processor(config: SlipConfig) -> VisionTextDualEncoderProcessor:
    """Image processor and tokenizer as one, as `AutoProcessor` loads them."""
    return VisionTextDualEncoderProcessor(slip_image_processor(config), slip_tokenizer())
