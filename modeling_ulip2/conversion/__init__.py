"""Published checkpoints -> this package: `python -m modeling_ulip2.conversion CHECKPOINT OUTPUT_DIR`."""

from .checkpoint import PublishedCheckpoint, read_checkpoint
from .published import (
    convert_checkpoint,
    infer_point_config,
    model_state_dict,
    pointbert_config,
    published_name,
)

__all__ = [
    "PublishedCheckpoint",
    "convert_checkpoint",
    "infer_point_config",
    "model_state_dict",
    "pointbert_config",
    "published_name",
    "read_checkpoint",
]
