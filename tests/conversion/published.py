"""Small checkpoints in every published layout, made from random models of this package."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS
from modeling_ulip2.towers import SlipConfig, SlipModel
from tests.models import tiny

Tensors = dict[str, torch.Tensor]
DIM = tiny.PROJECTION_DIM
# What no weight of the small encoders shows, or differs from the published sizes.
NOT_IN_WEIGHTS: dict[str, dict[str, Any]] = {model_type: dict(fields) for model_type, fields in tiny.ENCODERS.items()}
SLIP_CONFIG = dict(
    projection_dim=DIM,
    vocab_size=60,
    max_position_embeddings=12,
    text_hidden_size=64,
    text_num_hidden_layers=2,
    text_num_attention_heads=1,
    image_size=16,
    patch_size=8,
    vision_hidden_size=64,
    vision_num_hidden_layers=1,
    vision_num_attention_heads=1,
)


def encoder(model_type: str) -> PreTrainedModel:
    """A small random encoder with statistics of a trained network."""
    classes = POINT_ENCODERS[model_type]
    torch.manual_seed(0)
    model = classes.model_class(classes.config_class(**tiny.ENCODERS[model_type])).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model


def slip() -> SlipModel:
    torch.manual_seed(1)
    return SlipModel(SlipConfig(**SLIP_CONFIG)).eval()


def prefixed(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: value.clone() for name, value in tensors.items()}


@dataclass
class Published:
    """A file's content, and what the model that it comes from does.

    embed: clouds -> features in the shared space, as the published code computes them from the file's tensors.
    """

    content: dict[str, Any]
    layout: str
    encoder: PreTrainedModel | None
    embed: Callable[[torch.Tensor], torch.Tensor] | None = None
    tower: SlipModel | None = None

    @property
    def point_config(self) -> dict[str, Any]:
        return {} if self.encoder is None else NOT_IN_WEIGHTS[self.encoder.config.model_type]

    def save(self, path: Path) -> Path:
        torch.save(self.content, path)
        return path


def ulip(model_type: str = "ulip2_pointbert", with_slip: bool = False, prefix: str = "module.") -> Published:
    """ULIP and ULIP-2, with or without the SLIP tower of the first generation."""
    model = encoder(model_type)
    matrix = torch.randn(model.config.output_dim, DIM)
    tensors = prefixed("point_encoder.", model.state_dict())
    tensors |= {"pc_projection": matrix, "logit_scale": torch.tensor(3.0)}
    tower = slip() if with_slip else None
    if tower is not None:
        tensors |= {name: value for name, value in tower.state_dict().items() if name != "logit_scale"}
    content = {
        "epoch": 7,
        "state_dict": prefixed(prefix, tensors),
        "args": argparse.Namespace(npoints=300),
        "best_acc1": 1.5,
    }
    return Published(content, "ULIP", model, lambda points: model(points).pooled @ matrix, tower)


def pointllm() -> Published:
    """ULIP-2's training as PointLLM ships it: the encoder, and what a training leaves beside it."""
    published = ulip()
    tensors = published.content["state_dict"]
    kept = {name: value for name, value in tensors.items() if name != "module.pc_projection"}
    content = published.content | {"state_dict": kept, "optimizer": {"state": {0: {"step": 3.0}}}}
    return Published(content, "ULIP, encoder alone", published.encoder)


def xinstructblip() -> Published:
    published = ulip(prefix="")
    tensors = prefixed("pc_encoder.", published.content["state_dict"])
    return Published(tensors, "ULIP in X-InstructBLIP", published.encoder, published.embed)


def uni3d() -> Published:
    model = encoder("ulip2_uni3d")
    width = model.config.hidden_size
    linear = nn.Linear(width, DIM)
    tensors = model.state_dict() | {f"trans2embed.{name}": value for name, value in linear.state_dict().items()}
    tensors |= {  # of the image model, never used
        "visual.cls_token": torch.randn(1, 1, width),
        "visual.pos_embed": torch.randn(1, 5, width),
        "visual.patch_embed.proj.weight": torch.randn(width, 3, 2, 2),
        "visual.patch_embed.proj.bias": torch.randn(width),
        "visual.head.weight": torch.randn(4, width),
        "visual.head.bias": torch.randn(4),
        "visual.blocks.0.attn.k_bias": torch.zeros(width),
        "visual.rope.pos_embed": torch.randn(4, 8),
    }
    tensors = prefixed("point_encoder.", tensors) | {"logit_scale": torch.tensor(3.0)}
    return Published({"module": tensors}, "Uni3D", model, lambda points: linear(model(points).pooled))


def openshape(first_release: bool = False, projected: bool = True) -> Published:
    model = encoder("ulip2_ppat")
    linear = nn.Linear(model.config.output_dim, DIM)
    if not projected:
        tensors = prefixed("pc_encoder.", model.state_dict())
        layout = "OpenShape (first release, without projection)"
        return Published(tensors, layout, model, lambda points: model(points).pooled)
    tensors = prefixed("ppat.", model.state_dict()) | prefixed("proj.", linear.state_dict())

    def embed(points: torch.Tensor) -> torch.Tensor:
        return linear(model(points).pooled)

    if first_release:
        return Published(prefixed("pc_encoder.", tensors), "OpenShape (first release)", model, embed)
    scale = {"module.logit_scale": torch.tensor(3.0)}
    content = {"state_dict": prefixed("module.", tensors), "logit_scale": scale, "epoch": 3, "text_proj": None}
    return Published(content, "OpenShape", model, embed)


def pointbert_pretraining() -> Published:
    model = encoder("ulip2_pointbert")
    heads = {
        "mask_token": torch.randn(1, 1, 24),
        "lm_head.weight": torch.randn(9, 24),
        "cls_head.0.bias": torch.ones(4),
    }
    tensors = prefixed("transformer_q.", model.state_dict() | heads)
    tensors |= prefixed("transformer_k.", model.state_dict() | heads)
    tensors |= {"dvae.codebook": torch.randn(9, 4), "queue": torch.randn(4, 8), "queue_ptr": torch.zeros(1).long()}
    return Published({"base_model": prefixed("module.", tensors), "epoch": 300}, "Point-BERT pre-training", model)


def slip_alone() -> Published:
    tower = slip()
    tensors = tower.state_dict() | {"image_mlp.layer1.weight": torch.randn(5, 5)}
    content = {
        "state_dict": prefixed("module.", tensors),
        "args": argparse.Namespace(output_dir=Path("/somewhere/slip"), epochs=100),
        "epoch": 100,
    }
    return Published(content, "SLIP", None, tower=tower)


LAYOUTS: dict[str, Callable[[], Published]] = {
    "ulip2_pointbert": ulip,
    **{
        f"ulip1_{name}": lambda name=name: ulip(f"ulip2_{name}", with_slip=True)
        for name in ("pointbert", "pointnext", "pointnet2", "pointmlp")
    },
    "ulip2_pointnext": lambda: ulip("ulip2_pointnext"),
    "xinstructblip": xinstructblip,
    "pointllm": pointllm,
    "uni3d": uni3d,
    "openshape": openshape,
    "openshape_first": lambda: openshape(first_release=True),
    "openshape_first_unprojected": lambda: openshape(first_release=True, projected=False),
    "pointbert_pretraining": pointbert_pretraining,
    "slip": slip_alone,
}
