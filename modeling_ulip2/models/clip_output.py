"""The output of a dual encoder that compares images with texts, as transformers' CLIP has it."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPOutput


def unit_features(features: Any) -> Tensor:
    """What `get_text_features` and its like return, as embeddings (B, D) of unit length."""
    return F.normalize(features.pooler_output, dim=-1)


def compared(of_texts: Any, of_images: Any, scale: Tensor | None = None) -> CLIPOutput:
    """Every image beside every text: `logits_per_image` (I, T) and `logits_per_text` (T, I), cosines times the scale.

    Args:
        of_texts, of_images: what `get_text_features` (T) and `get_image_features` (I) return.
        scale: of the logits; None: 1.
    """
    text, image = unit_features(of_texts), unit_features(of_images)  # (T, D), (I, D)
    logits = (image if scale is None else scale * image) @ text.T  # (I, T)
    return CLIPOutput(
        logits_per_image=logits,
        logits_per_text=logits.T,
        text_embeds=text,
        image_embeds=image,
        text_model_output=of_texts,
        vision_model_output=of_images,
    )


__all__ = ["compared", "unit_features"]
