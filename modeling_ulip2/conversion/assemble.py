"""A published checkpoint -> a model of this package, with every tensor accounted for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS, Ulip2Config
from modeling_ulip2.models.modeling_slip import SlipModel
from modeling_ulip2.models.modeling_ulip2 import Ulip2Model
from modeling_ulip2.towers.slip import slip_from_published

from .checkpoint import PublishedCheckpoint, read_checkpoint
from .encoders import ConversionError, EncoderLayout, encoder_config, recognize_encoder, without_unused
from .layouts import Layout, Parts, published_name, recognize, sort_tensors

_PUBLIC_TOWER = "OpenCLIP's public weights, which never trained and are referred to by name"
_LISTED = 8


@dataclass
class Conversion:
    """What became of a file. Tensors are those of the file, mapped and not copied, in the precision they have there.

    model: `Ulip2Model`; an encoder alone if the file holds no projection of it; `SlipModel` if it holds no encoder.
    layout, encoder: as what it was recognized.
    tower: SLIP, if the file holds it beside an encoder.
    unused: published names of the tensors that are left out, each with the reason.
    added: our names of tensors that the file does not hold, each with what they are.
    assumed: fields of the encoder's configuration that no weight shows; true of the published sizes.
    """

    model: PreTrainedModel
    layout: Layout
    encoder: EncoderLayout | None = None
    tower: SlipModel | None = None
    unused: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)
    assumed: dict[str, Any] = field(default_factory=dict)


def convert(
    checkpoint: str | os.PathLike[str] | PublishedCheckpoint,
    point_config: Mapping[str, Any] | None = None,
    clip_name_or_path: str | None = None,
    ignore: str | None = None,
) -> Conversion:
    """Recognizes a published checkpoint by its names and converts it.

    Args:
        checkpoint: the file, or what `read_checkpoint` made of it.
        point_config: fields of the encoder's configuration that weights do not show and that differ from the published
            sizes (number of groups, attention heads, ...).
        clip_name_or_path: the image-text tower that the model shall refer to.
        ignore: regular expression of names to leave out.

    Raises:
        ConversionError: no published layout has such names; or tensors are missing, unexpected or misshapen. The
            message names them.
    """
    if not isinstance(checkpoint, PublishedCheckpoint):
        checkpoint = read_checkpoint(checkpoint)
    layout = recognize(checkpoint)
    parts = sort_tensors(checkpoint, layout, ignore)
    if layout.encoder is None:
        if parts.logit_scale is not None:
            parts.tower["logit_scale"] = parts.logit_scale
        return Conversion(_slip(checkpoint, parts), layout, unused=parts.unused)

    encoder = recognize_encoder(parts.encoder)
    weights, unused = without_unused(encoder, parts.encoder)
    unused = {f"{layout.prefix}{layout.encoder}{name}": reason for name, reason in unused.items()} | parts.unused
    config: Any = encoder_config(encoder, weights, {**layout.fields, **(point_config or {})})
    assumed = {name: getattr(config, name) for name in encoder.hidden if name not in (point_config or {})}
    if layout.alone:
        with torch.device("meta"):
            model: PreTrainedModel = _model_class(encoder)(config)
        _assign(checkpoint, layout, model, weights, whole=False)
        return Conversion(model.eval(), layout, encoder, unused=unused, assumed=assumed)

    state_dict, added = {f"point_model.{name}": value for name, value in weights.items()}, {}
    if layout.projection is None:
        dim = config.output_dim
        parts.projection["weight"] = torch.eye(dim, dtype=next(iter(weights.values())).dtype)
        added["point_projection.weight"] = (
            "the identity: this encoder's pooled feature lies in the shared space as it is"
        )
    state_dict |= {f"point_projection.{name}": value.contiguous() for name, value in parts.projection.items()}
    full_config = Ulip2Config(
        point_config=config,
        projection_dim=parts.projection["weight"].shape[0] if "weight" in parts.projection else 1,
        projection_bias=bool(layout.projection and layout.projection.endswith(".*")),
        clip_name_or_path=clip_name_or_path,
    )
    if parts.logit_scale is not None:
        state_dict["logit_scale"] = parts.logit_scale
    elif not layout.scale:
        state_dict["logit_scale"] = torch.tensor(float(full_config.logit_scale_init_value))
        added["logit_scale"] = "the initial value, which no embedding depends on"
    with torch.device("meta"):
        model = Ulip2Model(full_config)
    _assign(checkpoint, layout, model, state_dict)
    tower = _slip(checkpoint, parts) if parts.tower_kind == "slip" else None
    if parts.tower_kind == "open_clip":
        unused |= {name: _PUBLIC_TOWER for name in checkpoint.state_dict if name.startswith("open_clip_model.")}
    return Conversion(model.eval(), layout, encoder, tower, unused, added, assumed)


def convert_checkpoint(
    checkpoint: str | os.PathLike[str] | PublishedCheckpoint,
    point_config: Mapping[str, Any] | None = None,
    clip_name_or_path: str | None = None,
    open_clip_model: torch.nn.Module | None = None,
) -> Ulip2Model:
    """Turns a published checkpoint of ULIP, ULIP-2, Uni3D or OpenShape into a `Ulip2Model`, its tower included.

    Args:
        checkpoint, point_config, clip_name_or_path: see `convert`.
        open_clip_model: an open_clip model of the tower's architecture. The tower weights of the checkpoint are
            loaded into it, and a conversion of it becomes the tower of the model. Without it, OpenCLIP weights in the
            file are left out: they are those of the public model, which never trained.

    Raises:
        ConversionError: see `convert`; or the file holds no tower for `open_clip_model`, or no projected encoder.
    """
    if not isinstance(checkpoint, PublishedCheckpoint):
        checkpoint = read_checkpoint(checkpoint)
    conversion = convert(checkpoint, point_config, clip_name_or_path)
    model = conversion.model
    if not isinstance(model, Ulip2Model):
        raise ConversionError(f"{checkpoint.name} holds {conversion.layout.name}: a {type(model).__name__} alone.")
    if conversion.tower is not None:
        model.set_clip_model(conversion.tower)
    if open_clip_model is not None:
        tower = sort_tensors(checkpoint, conversion.layout).tower
        if not tower:
            raise ConversionError(
                "An open_clip_model was given, but the checkpoint holds no tower weights (open_clip_model.*)."
            )
        from modeling_ulip2.towers import clip_from_open_clip_model

        open_clip_model.load_state_dict(tower, strict=True)
        model.set_clip_model(clip_from_open_clip_model(open_clip_model))
    model.config.clip_name_or_path = clip_name_or_path
    return model


def _model_class(encoder: EncoderLayout) -> type[PreTrainedModel]:
    model_class = POINT_ENCODERS[encoder.model_type].model_class
    assert model_class is not None
    return model_class


def _slip(checkpoint: PublishedCheckpoint, parts: Parts) -> SlipModel:
    try:
        return slip_from_published(parts.tower)
    except ValueError as error:
        raise ConversionError(f"{checkpoint.name}: {error}") from error


def _assign(
    checkpoint: PublishedCheckpoint,
    layout: Layout,
    model: PreTrainedModel,
    state_dict: dict[str, torch.Tensor],
    whole: bool = True,
) -> None:
    """Makes the tensors the weights of `model`, which lies on the meta device, if they are exactly those it needs.

    whole: the names are those of a `Ulip2Model`, not of an encoder.
    """
    expected = model.state_dict()

    def published(name: str) -> str:
        return published_name(name if whole else f"point_model.{name}", layout)

    problems = []
    missing = [published(name) for name in expected if name not in state_dict]
    unexpected = [published(name) for name in state_dict if name not in expected]
    misshapen = [
        f"{published(name)} is {tuple(state_dict[name].shape)} and must be {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state_dict and state_dict[name].shape != value.shape
    ]
    for kind, found in (("missing", missing), ("unexpected", unexpected), ("misshapen", misshapen)):
        if found:
            rest = f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
            problems.append(f"{len(found)} {kind}: {', '.join(found[:_LISTED])}{rest}")
    if problems:
        encoder = getattr(model.config, "point_config", model.config)
        raise ConversionError(
            f"{checkpoint.name} looks like {layout.name} with the encoder {encoder.model_type}, but does not fit. "
            "Tensors " + "; ".join(problems)
        )
    model.load_state_dict(state_dict, strict=True, assign=True)
