"""Which parameters feel weight decay."""

from __future__ import annotations

from torch import nn


def has_weight_decay(name: str, num_dims: int) -> bool:
    """ULIP's rule: no decay for vectors and scalars, nor where the name holds `bias`, `ln` or `bn`."""
    return num_dims >= 2 and not any(part in name for part in ("bias", "ln", "bn"))


def decay_parameter_names(model: nn.Module) -> list[str]:
    """Names of the parameters of `model` that feel weight decay, in the order of `named_parameters`."""
    return [name for name, parameter in model.named_parameters() if has_weight_decay(name, parameter.ndim)]
