"""The layouts of published files, as one table: by which names a file is recognized, and what becomes of them.

ULIP, ULIP-2    point_encoder.*, pc_projection, logit_scale, and often the tower: open_clip_model.* or SLIP's names;
                or, as PointLLM ships it, point_encoder.* alone
Uni3D           point_encoder.*, point_encoder.trans2embed (the projection), logit_scale
OpenShape       ppat.*, proj, logit_scale; its older files pc_encoder.*
Point-BERT      transformer_q.* (the encoder), and what else its pre-training needed
SLIP            visual.*, transformer.*, ... without an encoder
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .checkpoint import PublishedCheckpoint
from .encoders import ConversionError
from .releases import ENCODER_ALONE

SLIP_NAMES = r"(visual|transformer|token_embedding|ln_final)\..+|positional_embedding|image_projection|text_projection"
OPEN_CLIP_TENSORS = "open_clip_model."


@dataclass(frozen=True)
class Layout:
    """One layout.

    name: short, for messages and cards.
    signature: patterns of which each must match a name of the file.
    encoder: prefix of the encoder's tensors; None: the file holds no encoder.
    projection: name of the projection. A name ending in ".*" is a linear layer with weight and bias; any other a
        matrix that is multiplied from the right, without bias.
    tower: pattern of a tower's tensors.
    unused: patterns of what has no place in a model, each with the reason.
    fields: of the encoder's configuration, which no weight shows and which all files of the layout share.
    scale: whether the file must hold `logit_scale`.
    alone: the file holds an encoder whose features lie in no shared space.
    prefix: what stands before every name, and says nothing.
    """

    name: str
    signature: tuple[str, ...]
    encoder: str | None
    projection: str | None = None
    tower: str | None = None
    unused: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] = field(default_factory=dict)
    scale: bool = False
    alone: bool = False
    prefix: str = ""


_FIRST_OPENSHAPE = {"num_groups": 64, "group_radius": 0.4, "group_size": 256}
_PRETRAINING = "served the pre-training of Point-BERT only"

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "Uni3D",
        (r"point_encoder\.trans2embed\.weight", r"point_encoder\.visual\.blocks\..+"),
        encoder="point_encoder.",
        projection="point_encoder.trans2embed.*",
        scale=True,
    ),
    Layout(
        "OpenShape",
        (r"ppat\.cls_token", r"proj\.weight"),
        encoder="ppat.",
        projection="proj.*",
    ),
    Layout(
        "OpenShape (first release)",
        (r"pc_encoder\.ppat\.cls_token", r"pc_encoder\.proj\.weight"),
        encoder="ppat.",
        projection="proj.*",
        fields=_FIRST_OPENSHAPE,
        prefix="pc_encoder.",
    ),
    Layout(
        "OpenShape (first release, without projection)",
        (r"pc_encoder\.sa\.mlp_convs\.0\.weight",),
        encoder="pc_encoder.",
        fields=_FIRST_OPENSHAPE,
    ),
    Layout(
        "Point-BERT pre-training",
        (r"transformer_q\.cls_token", r"transformer_q\.blocks\..+"),
        encoder="transformer_q.",
        alone=True,
        unused={
            r"transformer_q\.(lm_head|cls_head)\..+|transformer_q\.mask_token": _PRETRAINING,
            r"transformer_k\..+|dvae\..+|queue|queue_ptr": _PRETRAINING,
        },
    ),
    Layout(
        "ULIP",
        (r"point_encoder\..+", r"pc_projection"),
        encoder="point_encoder.",
        projection="pc_projection",
        tower=rf"{re.escape(OPEN_CLIP_TENSORS)}.+|{SLIP_NAMES}",
        scale=True,
    ),
    Layout(
        "ULIP in X-InstructBLIP",
        (r"pc_encoder\.point_encoder\..+", r"pc_encoder\.pc_projection"),
        encoder="point_encoder.",
        projection="pc_projection",
        tower=rf"{re.escape(OPEN_CLIP_TENSORS)}.+|{SLIP_NAMES}",
        scale=True,
        prefix="pc_encoder.",
    ),
    Layout(
        ENCODER_ALONE,
        (r"point_encoder\..+",),
        encoder="point_encoder.",
        alone=True,
        unused={
            rf"logit_scale|{re.escape(OPEN_CLIP_TENSORS)}.+|{SLIP_NAMES}": (
                "of no use without the projection, which the file lacks"
            ),
        },
    ),
    Layout(
        "SLIP",
        (r"visual\.cls_token", r"transformer\.resblocks\..+", r"image_projection"),
        encoder=None,
        tower=SLIP_NAMES,
        scale=True,
        unused={r"image_mlp\..+": "the head of SLIP's self-supervised half"},
    ),
)


def recognize(checkpoint: PublishedCheckpoint) -> Layout:
    """The layout of a file.

    Raises:
        ConversionError: it has none of the layouts.
    """
    names = list(checkpoint.state_dict)
    for layout in LAYOUTS:
        if all(any(re.fullmatch(pattern, name) for name in names) for pattern in layout.signature):
            return layout
    known = ", ".join(layout.name for layout in LAYOUTS)
    raise ConversionError(
        f"{checkpoint.name} has none of the published layouts ({known}). Its {len(names)} tensors begin with "
        f"{', '.join(sorted(names)[:8])}."
    )


@dataclass
class Parts:
    """The tensors of a file, sorted by where they belong.

    encoder: by the names of the encoder.
    projection: weight and possibly bias, as of a linear layer.
    logit_scale: scalar, a logarithm.
    tower: by published names, of kind "open_clip" or "slip".
    unused: published names and why they are left out.
    """

    encoder: dict[str, torch.Tensor] = field(default_factory=dict)
    projection: dict[str, torch.Tensor] = field(default_factory=dict)
    logit_scale: torch.Tensor | None = None
    tower: dict[str, torch.Tensor] = field(default_factory=dict)
    tower_kind: str | None = None
    unused: dict[str, str] = field(default_factory=dict)


def sort_tensors(checkpoint: PublishedCheckpoint, layout: Layout, ignore: str | None = None) -> Parts:
    """Gives every tensor of the file its place.

    Args:
        ignore: pattern of further names to leave out.

    Raises:
        ConversionError: tensors have no place; the message names them.
    """
    parts, unexpected = Parts(), []
    for published, value in checkpoint.state_dict.items():
        name = published.removeprefix(layout.prefix)
        reason = next((why for pattern, why in layout.unused.items() if re.fullmatch(pattern, name)), None)
        if ignore is not None and re.fullmatch(ignore, published):
            parts.unused[published] = "left out as asked"
        elif reason is not None:
            parts.unused[published] = reason
        elif name == "logit_scale":
            parts.logit_scale = value
        elif layout.projection is not None and _is_projection(layout.projection, name):
            leaf = name.rpartition(".")[2] if layout.projection.endswith(".*") else "weight"
            parts.projection[leaf] = value if layout.projection.endswith(".*") else value.T
        elif layout.encoder is not None and name.startswith(layout.encoder):
            parts.encoder[name.removeprefix(layout.encoder)] = value
        elif layout.tower is not None and re.fullmatch(layout.tower, name):
            parts.tower_kind = "open_clip" if name.startswith(OPEN_CLIP_TENSORS) else "slip"
            parts.tower[name.removeprefix(OPEN_CLIP_TENSORS)] = value
        else:
            unexpected.append(published)
    if unexpected:
        raise ConversionError(
            f"{checkpoint.name} looks like {layout.name}, but {len(unexpected)} of its tensors have no place there: "
            f"{', '.join(sorted(unexpected)[:10])}{' ...' if len(unexpected) > 10 else ''}. If they are not wanted, "
            "say so (ignore=PATTERN, or --ignore)."
        )
    return parts


def _is_projection(projection: str, name: str) -> bool:
    if projection.endswith(".*"):
        return name in (projection[:-1] + "weight", projection[:-1] + "bias")
    return name == projection


def published_name(name: str, layout: Layout) -> str:
    """The published name of a tensor of `Ulip2Model`, or of an encoder's tensor with `point_model.` before it."""
    if name.startswith("point_model."):
        name = name.replace("point_model.", layout.encoder or "", 1)
    elif name.startswith("point_projection.") and layout.projection is not None:
        leaf = name.rpartition(".")[2]
        name = layout.projection[:-1] + leaf if layout.projection.endswith(".*") else layout.projection
    return layout.prefix + name
