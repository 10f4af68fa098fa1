"""Names, shapes and settings of the published ULIP and ULIP-2 checkpoints, and how they become ours.

    point_encoder.*      <->  point_model.*              the same names and shapes
    pc_projection        <->  point_projection.weight    transposed: published as (D, E), multiplied from the right
    logit_scale          <->  logit_scale                a logarithm in both
    open_clip_model.*     ->  the tower, by `towers.clip_from_open_clip`

The mapping is one to one: a tensor with another name is an error, and so is one that is missing.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from ..configuration_ulip2 import PointBertConfig, Ulip2Config
from ..modeling_ulip2 import Ulip2Model
from .checkpoint import PublishedCheckpoint, read_checkpoint

_ENCODER, _TOWER = "point_encoder.", "open_clip_model."

# Published configuration field -> ours. The encoder has no classification head, and `NAME` is that of its class.
_POINTBERT_FIELDS = {
    "trans_dim": "hidden_size",
    "depth": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_group": "num_groups",
    "group_size": "group_size",
    "encoder_dims": "encoder_dims",
    "drop_path_rate": "drop_path_rate",
}
_POINTBERT_UNUSED = {"cls_dim", "NAME"}


def pointbert_config(published: dict[str, Any], weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Fields of `PointBertConfig` for a published encoder configuration and its weights.

    Raises:
        ValueError: a field of the configuration is unknown, or contradicts the weights.
    """
    unknown = set(published) - set(_POINTBERT_FIELDS) - _POINTBERT_UNUSED
    if unknown:
        raise ValueError(f"Unknown fields of a published Point-BERT configuration: {sorted(unknown)}.")
    fields = {ours: published[theirs] for theirs, ours in _POINTBERT_FIELDS.items() if theirs in published}
    inferred = infer_point_config(weights)
    for name, value in inferred.items():
        if fields.setdefault(name, value) != value:
            raise ValueError(f"The configuration says {name} = {fields[name]}, the weights {value}.")
    return fields


def infer_point_config(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What the weights of a published Point-BERT (names without `point_encoder.`) say about its configuration.

    They do not say `num_attention_heads`, `num_groups`, `group_size` and `drop_path_rate`.
    """
    try:
        return {
            "in_channels": weights["encoder.first_conv.0.weight"].shape[1],
            "hidden_size": weights["cls_token"].shape[-1],
            "num_hidden_layers": 1
            + max(int(name.split(".")[2]) for name in weights if name.startswith("blocks.blocks.")),
            "encoder_dims": weights["encoder.second_conv.3.weight"].shape[0],
        }
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"These are not the weights of a published Point-BERT encoder: {error} is missing."
        ) from error


def published_name(name: str) -> str:
    """The published name of a tensor of `Ulip2Model` (`point_projection.weight` is transposed there)."""
    if name == "point_projection.weight":
        return "pc_projection"
    return name.replace("point_model.", _ENCODER, 1) if name.startswith("point_model.") else name


def model_state_dict(published: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Splits a published state dict (without `module.`) into ours and the open_clip tower's, under its own names.

    Raises:
        ValueError: a name is unknown.
    """
    ours, tower, unknown = {}, {}, []
    for name, value in published.items():
        if name.startswith(_TOWER):
            tower[name.removeprefix(_TOWER)] = value
        elif name.startswith(_ENCODER):
            ours["point_model." + name.removeprefix(_ENCODER)] = value
        elif name == "pc_projection":
            ours["point_projection.weight"] = value.T.contiguous()
        elif name == "logit_scale":
            ours[name] = value
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"{len(unknown)} tensors have names that no published ULIP-2 checkpoint has: {unknown[:5]} ..."
        )
    return ours, tower


def convert_checkpoint(
    checkpoint: str | os.PathLike[str] | PublishedCheckpoint,
    point_config: dict[str, Any] | None = None,
    clip_name_or_path: str | None = None,
    open_clip_model: torch.nn.Module | None = None,
) -> Ulip2Model:
    """Turns a published ULIP-2 Point-BERT checkpoint into a `Ulip2Model`, with every tensor accounted for.

    Args:
        checkpoint: the `.pt` file, or what `read_checkpoint` made of it.
        point_config: fields of `PointBertConfig` that weights do not show and that differ from the released models
            (`num_attention_heads`, `num_groups`, `group_size`, `drop_path_rate`).
        clip_name_or_path: the tower that the model shall refer to.
        open_clip_model: an open_clip model of the tower's architecture. If the checkpoint holds tower weights they are
            loaded into it, and a conversion of it becomes the tower of the model. Without it, tower weights in the
            file
            are left out: they are those of the public OpenCLIP model, which never trained.

    Raises:
        ValueError: unknown, missing or misshapen tensors; the message names them.
    """
    if not isinstance(checkpoint, PublishedCheckpoint):
        checkpoint = read_checkpoint(checkpoint)
    state_dict, tower_weights = model_state_dict(checkpoint.state_dict)
    encoder = {
        name.removeprefix("point_model."): value
        for name, value in state_dict.items()
        if name.startswith("point_model.")
    }
    fields = infer_point_config(encoder) | (point_config or {})
    if "point_projection.weight" not in state_dict:
        raise ValueError("The checkpoint has no pc_projection: it is no ULIP checkpoint.")
    config = Ulip2Config(
        point_config=PointBertConfig(**fields),
        projection_dim=state_dict["point_projection.weight"].shape[0],
        clip_name_or_path=clip_name_or_path,
    )
    model = Ulip2Model(config)
    try:
        model.load_state_dict(state_dict, strict=True)
    except RuntimeError as error:
        raise ValueError(f"The checkpoint does not fit {fields}: {error}") from error
    if open_clip_model is not None:
        if not tower_weights:
            raise ValueError(
                "An open_clip_model was given, but the checkpoint holds no tower weights (open_clip_model.*)."
            )
        from ..towers import clip_from_open_clip_model

        open_clip_model.load_state_dict(tower_weights, strict=True)
        model.set_clip_model(clip_from_open_clip_model(open_clip_model))
        model.config.clip_name_or_path = clip_name_or_path
    return model.eval()
