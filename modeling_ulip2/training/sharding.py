"""What FSDP2 has to know of a `Ulip2Model`."""

from __future__ import annotations

from typing import Any

from torch import nn


def prepare_sharding(model: Any, plugin: Any) -> None:
    """Adapts accelerate's FSDP2 plugin to a model that is not wrapped yet.

    Scalars (the logit scale) are not sharded, as FSDP2 cannot: each process keeps them, and their gradients are to be
    averaged (`average_gradients`). The model has no input embeddings to be treated apart. It is moved as it is, since
    what is not sharded would be lost on a meta device.

    Args:
        plugin: `accelerate.utils.FullyShardedDataParallelPlugin`.
    """
    if plugin.fsdp_version != 2:
        raise ValueError("sharding needs FSDP2: set fsdp_version: 2 in fsdp_config (FSDP1 flattens all parameters)")
    scalars = nn.Module()
    for name, own in model.named_parameters():
        if own.ndim == 0:
            scalars.register_parameter(name.replace(".", "_"), own)
    plugin.ignored_modules = [scalars]
    plugin.cpu_ram_efficient_loading = False
    model.get_input_embeddings = _no_embeddings


def _no_embeddings() -> None:
    return None
