"""Tiny random models and inputs that the tests of this folder share."""

from __future__ import annotations

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

POINT_CONFIG: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_groups": 8,
    "group_size": 6,
    "encoder_dims": 16,
}
# A small configuration of every point encoder, by model_type.
ENCODERS: dict[str, dict[str, Any]] = {
    "ulip2_pointbert": POINT_CONFIG,
    "ulip2_pointmlp": {
        "num_points": 32,
        "embed_dim": 4,
        "dim_expansion": (2, 2),
        "pre_blocks": (1, 1),
        "pos_blocks": (1, 1),
        "k_neighbors": (8, 4),
        "reducers": (2, 2),
        "head_dims": (12, 10),
    },
    "ulip2_pointnet2": {
        "num_centers": (16, 8),
        "radii": ((0.3,), (0.6,)),
        "num_neighbors": ((8,), (4,)),
        "mlp_dims": (((8, 8),), ((12, 16),)),
        "global_dims": (16, 20),
        "head_dims": (12, 10),
    },
    "ulip2_pointnext": {
        "width": 8,
        "blocks": (1, 1, 2, 1),
        "strides": (1, 2, 2, 1),
        "radius": 0.3,
        "num_neighbors": 8,
        "head_dims": (12, 10),
    },
    "ulip2_ppat": {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
        "intermediate_size": 24,
        "num_groups": 6,
        "group_radius": 0.5,
        "group_size": 4,
        "set_abstraction_dim": 12,
    },
    "ulip2_uni3d": {
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_groups": 6,
        "group_size": 4,
        "encoder_dims": 16,
    },
}
PROJECTION_DIM = 20
WORDS = ["<start>", "<end>", "a", "chair", "table", "red", "blue", "lamp", "of"]
CONTEXT = 12


def clouds(batch: int, points: int = 60, channels: int = 6, seed: int = 0) -> torch.Tensor:
    """Colored clouds (B, N, C) in the unit sphere."""
    values = torch.rand(batch, points, channels, generator=torch.Generator().manual_seed(seed))
    values[..., :3] = values[..., :3] - 0.5
    return values


def tower(projection_dim: int = PROJECTION_DIM) -> CLIPModel:
    """A CLIP that reads `WORDS` and images of 16 x 16."""
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(
        text_config={"vocab_size": len(WORDS), "max_position_embeddings": CONTEXT, **layers, **ids},
        vision_config={"image_size": 16, "patch_size": 8, **layers},
        projection_dim=projection_dim,
    )
    torch.manual_seed(1)
    return CLIPModel(config).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """Word by word, between <start> and <end>; unknown words are "of"."""
    model = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="of"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.post_processor = processors.TemplateProcessing(
        "<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        model_max_length=CONTEXT,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<end>",
        unk_token="of",
    )


def image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
