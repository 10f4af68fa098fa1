"""Published checkpoints -> this package: `ulip2 convert FILE OUTPUT_DIR`."""

from .checkpoint import PublishedCheckpoint, read_checkpoint
from .convert import Conversion, convert, convert_checkpoint
from .encoders import ConversionError, infer_point_config
from .layouts import LAYOUTS, Layout, published_name, recognize, sort_tensors
from .pointvit import pointbert_config

__all__ = [
    "LAYOUTS",
    "Conversion",
    "ConversionError",
    "Layout",
    "PublishedCheckpoint",
    "convert",
    "convert_checkpoint",
    "infer_point_config",
    "pointbert_config",
    "published_name",
    "read_checkpoint",
    "recognize",
    "sort_tensors",
]
