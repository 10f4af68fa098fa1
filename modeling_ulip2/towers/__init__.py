"""Frozen image-text encoders: where they come from (OpenCLIP, SLIP, the offline ConSE pair) and how they are asked."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from modeling_ulip2.models.configuration_conse import ConseConfig
from modeling_ulip2.models.configuration_linear_lit import LinearLitConfig
from modeling_ulip2.models.configuration_slip import SlipConfig
from modeling_ulip2.models.modeling_conse import ConseModel
from modeling_ulip2.models.modeling_linear_lit import LinearLitModel
from modeling_ulip2.models.modeling_slip import SlipModel

if TYPE_CHECKING:
    from .base import Tower
    from .loading import load_tower
    from .open_clip import clip_from_open_clip, clip_from_open_clip_model, open_clip_state_dict_to_clip
    from .transformers_tower import TransformersTower

__all__ = [
    "ConseConfig",
    "ConseModel",
    "LinearLitConfig",
    "LinearLitModel",
    "SlipConfig",
    "SlipModel",
    "Tower",
    "TransformersTower",
    "clip_from_open_clip",
    "clip_from_open_clip_model",
    "load_tower",
    "open_clip_state_dict_to_clip",
]

_MODULES = {"Tower": "base", "TransformersTower": "transformers_tower", "load_tower": "loading"}


def __getattr__(name: str) -> Any:
    # pillow and open_clip are for those who use a tower.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES.get(name, 'open_clip')}", __name__), name)
