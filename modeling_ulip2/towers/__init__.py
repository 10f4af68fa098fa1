"""Frozen image-text encoders: where they come from (OpenCLIP, SLIP, the offline ConSE pair) and how they are asked."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from transformers import AutoConfig, AutoModel

from .configuration_conse import ConseConfig
from .configuration_slip import SlipConfig
from .modeling_conse import ConseModel
from .modeling_slip import SlipModel

if TYPE_CHECKING:
    from .loading import Tower, load_tower
    from .open_clip import clip_from_open_clip, clip_from_open_clip_model, open_clip_state_dict_to_clip

__all__ = [
    "ConseConfig",
    "ConseModel",
    "SlipConfig",
    "SlipModel",
    "Tower",
    "clip_from_open_clip",
    "clip_from_open_clip_model",
    "load_tower",
    "open_clip_state_dict_to_clip",
    "register",
]


def register() -> None:
    """Makes `AutoConfig` and `AutoModel` know ConSE and SLIP, and `save_pretrained` ship their files."""
    for config_class, model_class in ((ConseConfig, ConseModel), (SlipConfig, SlipModel)):
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        AutoModel.register(config_class, model_class, exist_ok=True)
        config_class.register_for_auto_class()
        model_class.register_for_auto_class("AutoModel")


def __getattr__(name: str) -> Any:
    # `import modeling_ulip2` comes here to register; pillow and open_clip are for those who use a tower.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "loading" if name in ("Tower", "load_tower") else "open_clip"
    return getattr(import_module(f".{module}", __name__), name)
