"""What the weights of a published point encoder say about its configuration.

Every encoder here has the names and shapes of the published one, so that recognizing it is all there is to convert.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedConfig

from modeling_ulip2.models.configuration_ulip2 import (
    POINT_ENCODERS,
    POINTMLP_ELITE,
    POINTNET2_MSG,
    POINTNEXT_SIZES,
    UNI3D_SIZES,
    PointBertConfig,
    PointMLPConfig,
    PointNet2Config,
    PointNextConfig,
    PpatConfig,
    Uni3dConfig,
)

Weights = Mapping[str, torch.Tensor]
Fields = Mapping[str, Any]


class ConversionError(ValueError):
    """A published file does not fit; the message names the tensors."""


@dataclass(frozen=True)
class EncoderLayout:
    """How a point encoder is recognized.

    model_type: of its configuration here.
    signature: a tensor that no other encoder has.
    fields: configuration fields, as far as weights show them or the published sizes have them, given those that are
        known otherwise.
    hidden: fields that no weight shows.
    unused: patterns of tensors that the encoder does not use, each with the reason.
    """

    model_type: str
    signature: str
    fields: Callable[[Weights, Fields], dict[str, Any]]
    hidden: tuple[str, ...]
    unused: Mapping[str, str] = field(default_factory=dict)

    @property
    def config_class(self) -> type[PreTrainedConfig]:
        return POINT_ENCODERS[self.model_type].config_class


def infer_point_config(weights: Weights) -> dict[str, Any]:
    """What the weights of a published Point-BERT (names without `point_encoder.`) say about its configuration.

    They do not say `num_attention_heads`, `num_groups`, `group_size` and `drop_path_rate`.
    """
    try:
        return {
            "in_channels": weights["encoder.first_conv.0.weight"].shape[1],
            "hidden_size": weights["cls_token"].shape[-1],
            "num_hidden_layers": count_layers(weights, "blocks.blocks."),
            "encoder_dims": weights["encoder.second_conv.3.weight"].shape[0],
        }
    except KeyError as error:
        raise ConversionError(
            f"These are not the weights of a published Point-BERT encoder: {error} is missing."
        ) from error


def count_layers(weights: Weights, prefix: str) -> int:
    """How many different numbers follow `prefix` in the names."""
    return len({name[len(prefix) :].split(".")[0] for name in weights if name.startswith(prefix)})


def _pointbert_fields(weights: Weights, known: Fields) -> dict[str, Any]:
    fields = infer_point_config(weights)
    # every published size has heads of 64 channels
    return fields | _heads(fields["hidden_size"], 64)


def _heads(hidden_size: int, head_dim: int) -> dict[str, int]:
    return {"num_attention_heads": hidden_size // head_dim} if hidden_size % head_dim == 0 else {}


def _uni3d_fields(weights: Weights, known: Fields) -> dict[str, Any]:
    block = "visual.blocks.0."
    fused, gated = f"{block}attn.qkv.weight" in weights, f"{block}mlp.fc1_g.weight" in weights
    inner = weights[f"{block}mlp.fc2.weight"].shape[1]
    packed = not gated and weights[f"{block}mlp.fc1.weight"].shape[0] == 2 * inner
    hidden_size = weights["cls_token"].shape[-1]
    heads = {size["hidden_size"]: size["num_attention_heads"] for size in UNI3D_SIZES.values()}
    return {
        "in_channels": weights["encoder.first_conv.0.weight"].shape[1],
        "hidden_size": hidden_size,
        "num_hidden_layers": count_layers(weights, "visual.blocks."),
        **({"num_attention_heads": heads[hidden_size]} if hidden_size in heads else _heads(hidden_size, 64)),
        "intermediate_size": inner,
        "fused_qkv": fused,
        "mlp_kind": "swiglu_norm" if gated else "swiglu" if packed else "gelu",
        "encoder_dims": weights["encoder.second_conv.3.weight"].shape[0],
    }


# What the weights of OpenShape's sizes do not show, by hidden_size, layers, intermediate_size and set_abstraction_dim.
_PPAT_GROUPING = {
    (256, 6, 1024, 96): dict(num_groups=64, group_radius=0.4, group_size=256),
    (512, 6, 1024, 128): dict(num_groups=64, group_radius=0.4, group_size=256),
    (512, 12, 1024, 128): dict(num_groups=128, group_radius=0.35, group_size=128),
    (512, 12, 1536, 256): dict(num_groups=384, group_radius=0.2, group_size=64),
    (768, 12, 2304, 256): dict(num_groups=512, group_radius=0.2, group_size=64),
    (768, 24, 3072, 256): dict(num_groups=512, group_radius=0.2, group_size=64),
}


def _ppat_fields(weights: Weights, known: Fields) -> dict[str, Any]:
    block, head_dim = "transformer.layers.0.", 64
    hidden_size = weights["cls_token"].shape[0]
    layers = count_layers(weights, "transformer.layers.")
    inner = weights[f"{block}1.fn.net.0.weight"].shape[0]
    abstraction = weights["sa.mlp_convs.2.weight"].shape[0]
    attention = weights[f"{block}0.fn.to_qkv.weight"].shape[0] // 3
    return {
        "in_channels": weights["sa.mlp_convs.0.weight"].shape[1] - 3,
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "intermediate_size": inner,
        "set_abstraction_dim": abstraction,
        "relative_position_bias": f"{block}0.fn.pe.0.weight" in weights,
        **({"head_dim": head_dim} | _heads(attention, head_dim) if attention % head_dim == 0 else {}),
        **_PPAT_GROUPING.get((hidden_size, layers, inner, abstraction), {}),
    }


def _preset(
    model_type: str, first_weight: str, presets: Sequence[dict[str, Any]]
) -> Callable[[Weights, Fields], dict[str, Any]]:
    """Picks the preset whose weights have the given names and shapes, or the one that differs least."""

    def fields(weights: Weights, known: Fields) -> dict[str, Any]:
        in_channels = weights[first_weight].shape[1]
        candidates = [{**preset, "in_channels": in_channels} for preset in presets]
        return min(candidates, key=lambda candidate: _difference(model_type, {**candidate, **known}, weights))

    return fields


def _difference(model_type: str, fields: dict[str, Any], weights: Weights) -> int:
    expected = expected_shapes(POINT_ENCODERS[model_type].config_class(**fields))
    found = {name: tuple(value.shape) for name, value in weights.items()}
    return len(expected.items() ^ found.items())


def expected_shapes(config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a point encoder, without making them."""
    model_class = POINT_ENCODERS[config.model_type].model_class
    assert model_class is not None
    with torch.device("meta"):
        model = model_class(config)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


# Reason of an unused tensor that must be zero, for the encoder to do without it.
ZERO = "a constant zero"
_UNI3D_UNUSED = "part of the image model that the trunk comes from; Uni3D never runs it"

ENCODER_LAYOUTS: tuple[EncoderLayout, ...] = (
    EncoderLayout(
        PointBertConfig.model_type,
        "blocks.blocks.0.attn.qkv.weight",
        _pointbert_fields,
        ("num_attention_heads", "num_groups", "group_size"),
    ),
    EncoderLayout(
        Uni3dConfig.model_type,
        "visual.blocks.0.norm1.weight",
        _uni3d_fields,
        ("num_attention_heads", "num_groups", "group_size"),
        {
            r"visual\.(cls_token|pos_embed|patch_embed\.proj\.(weight|bias)|head\.(weight|bias))": _UNI3D_UNUSED,
            r"visual\.rope\..*": _UNI3D_UNUSED,
            r"visual\.blocks\.\d+\.attn\.k_bias": ZERO,
        },
    ),
    EncoderLayout(
        PpatConfig.model_type,
        "sa.mlp_convs.0.weight",
        _ppat_fields,
        ("head_dim", "num_groups", "group_radius", "group_size"),
    ),
    EncoderLayout(
        PointNextConfig.model_type,
        "encoder.encoder.0.0.convs.0.0.weight",
        _preset(PointNextConfig.model_type, "encoder.encoder.0.0.convs.0.0.weight", list(POINTNEXT_SIZES.values())),
        ("strides", "radius", "radius_scaling", "num_neighbors"),
    ),
    EncoderLayout(
        PointNet2Config.model_type,
        "sa1.mlp_convs.0.weight",
        _preset(PointNet2Config.model_type, "sa1.mlp_convs.0.weight", [{}]),
        ("num_centers", "radii", "num_neighbors"),
    ),
    EncoderLayout(
        PointNet2Config.model_type,
        "sa1.conv_blocks.0.0.weight",
        _preset(PointNet2Config.model_type, "sa1.conv_blocks.0.0.weight", [POINTNET2_MSG]),
        ("num_centers", "radii", "num_neighbors"),
    ),
    EncoderLayout(
        PointMLPConfig.model_type,
        "embedding.net.0.weight",
        _preset(PointMLPConfig.model_type, "embedding.net.0.weight", [{}, POINTMLP_ELITE]),
        ("num_points", "k_neighbors", "reducers"),
    ),
)


def recognize_encoder(weights: Weights) -> EncoderLayout:
    """The layout of an encoder's weights (names without the prefix of the encoder).

    Raises:
        ConversionError: no encoder of this package has such weights.
    """
    for layout in ENCODER_LAYOUTS:
        if layout.signature in weights:
            return layout
    known = ", ".join(sorted({layout.model_type for layout in ENCODER_LAYOUTS}))
    raise ConversionError(f"No known point encoder ({known}) has the tensors {sorted(weights)[:5]} ... of this file.")


def without_unused(layout: EncoderLayout, weights: Weights) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors that the encoder uses, and the reasons of those that it does not.

    Raises:
        ConversionError: a tensor that the encoder does without because it is zero is not.
    """
    used, unused = {}, {}
    for name, value in weights.items():
        reason = next((why for pattern, why in layout.unused.items() if re.fullmatch(pattern, name)), None)
        if reason is None:
            used[name] = value
        elif reason == ZERO and value.any():
            raise ConversionError(f"{name} is not zero: the encoder {layout.model_type} has no such bias.")
        else:
            unused[name] = reason
    return used, unused


def encoder_config(layout: EncoderLayout, weights: Weights, overrides: Fields) -> PreTrainedConfig:
    """Configuration of the encoder that has these weights.

    Args:
        overrides: fields that the weights do not show, or that differ from the published sizes.

    Raises:
        ConversionError: a tensor is missing that the configuration is read from, or a field has no such value.
    """
    unknown = sorted(name for name in overrides if not hasattr(layout.config_class(), name))
    if unknown:
        raise ConversionError(f"{layout.config_class.__name__} has no field {', '.join(unknown)}.")
    try:
        fields = layout.fields(weights, overrides)
    except KeyError as error:
        raise ConversionError(
            f"The file has no {error}, from which the size of {layout.model_type} is read."
        ) from error
    try:
        return layout.config_class(**fields | dict(overrides))
    except (TypeError, ValueError) as error:
        raise ConversionError(f"The weights give no valid {layout.config_class.__name__}: {error}") from error
