"""Which parameters feel weight decay, and with which learning rate they learn."""

from __future__ import annotations

import re

from torch import nn


def has_weight_decay(name: str, num_dims: int) -> bool:
    """ULIP's rule: no decay for vectors and scalars, nor where the name holds `bias`, `ln` or `bn`."""
    return num_dims >= 2 and not any(part in name for part in ("bias", "ln", "bn"))


def decay_parameter_names(model: nn.Module) -> list[str]:
    """Names of the parameters of `model` that feel weight decay, in the order of `named_parameters`."""
    return [name for name, parameter in model.named_parameters() if has_weight_decay(name, parameter.ndim)]


def encoder_depths(model: nn.Module) -> dict[str, int]:
    """Depth of each parameter of a model with a `point_model`: 0 at the input of the encoder, highest in the head.

    The blocks of a transformer are layers, and so are the stages of PointNeXt, PointMLP and PointNet++; what stands
    before the first is layer 0, and what comes behind the last (norm, projection, head) is the highest layer.
    """
    names = [name for name, _ in model.named_parameters()]
    layers = {name: _layer(name) for name in names if name.startswith("point_model.")}
    deepest = max((layer for layer in layers.values() if layer is not None), default=0)
    depths, behind = {}, False
    for name in names:
        layer = layers.get(name)
        if layer is not None:
            behind = True
        depths[name] = layer if layer is not None else deepest + 1 if behind else 0
    return depths


# Lists of layers, by the names of the published weights: blocks of the transformers, stages of the others.
_LAYER = re.compile(
    r"point_model\.(?:(?:blocks\.blocks|visual\.blocks|transformer\.layers|encoder\.encoder"
    r"|local_grouper_list|pre_blocks_list|pos_blocks_list)\.(\d+)\.|sa(\d+)\.)"
)


def _layer(name: str) -> int | None:
    """Layer of a parameter, counted from 1, where it belongs to one of the layers of an encoder."""
    found = _LAYER.match(name)
    if found is None:
        return None
    stage, abstraction = found.groups()
    return int(stage) + 1 if stage is not None else int(abstraction)
