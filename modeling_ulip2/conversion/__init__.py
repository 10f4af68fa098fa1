"""Published checkpoints -> this package: `ulip2 convert NAME_OR_FILE OUTPUT_DIR`.

What stands below is loaded when it is first asked for: the catalog of names needs neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .assemble import Conversion, convert, convert_checkpoint
    from .catalog import CATALOG, NamedRelease, find_named
    from .checkpoint import PublishedCheckpoint, read_checkpoint
    from .encoders import ConversionError, infer_point_config
    from .layouts import LAYOUTS, Layout, published_name, recognize, sort_tensors
    from .named import convert_release, converted_release
    from .pointvit import pointbert_config

_HOMES = {
    "CATALOG": "catalog",
    "NamedRelease": "catalog",
    "find_named": "catalog",
    "PublishedCheckpoint": "checkpoint",
    "read_checkpoint": "checkpoint",
    "Conversion": "assemble",
    "convert": "assemble",
    "convert_checkpoint": "assemble",
    "ConversionError": "encoders",
    "infer_point_config": "encoders",
    "LAYOUTS": "layouts",
    "Layout": "layouts",
    "published_name": "layouts",
    "recognize": "layouts",
    "sort_tensors": "layouts",
    "convert_release": "named",
    "converted_release": "named",
    "pointbert_config": "pointvit",
}

__all__ = [
    "CATALOG",
    "LAYOUTS",
    "Conversion",
    "ConversionError",
    "Layout",
    "NamedRelease",
    "PublishedCheckpoint",
    "convert",
    "convert_checkpoint",
    "convert_release",
    "converted_release",
    "find_named",
    "infer_point_config",
    "pointbert_config",
    "published_name",
    "read_checkpoint",
    "recognize",
    "sort_tensors",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
