"""What the pipelines share: reading shapes, batches of clouds, and how transformers gets to know the tasks."""

from __future__ import annotations

import logging
import os
from typing import Any

import torch
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline

from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.utils.private_apis import keep_pipeline_out_of_checkpoints

logger = logging.getLogger(__name__)

# its types are narrower than what transformers passes
_Pipeline: Any = Pipeline


class PointCloudPipeline(_Pipeline):
    """What the pipelines share: reading shapes, and batches of clouds, by a `Ulip2Embedder`.

    Call arguments:
        root: folder below which meshes may name other files (materials, textures); default: each mesh's own.
        up_axis: what points up in the shapes, "y", "z", "-z" or "x"; "auto" (default): what the file's format fixes,
            else the feature extractor's setting.

    What had to be left out or guessed of a shape is logged, and stands as `warnings` in its result.
    """

    _load_processor = False
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = True
    _load_tokenizer: bool | None = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.feature_extractor is None:
            raise ValueError("A pipeline for point clouds needs feature_extractor=..., a Ulip2FeatureExtractor.")
        # BatchNorm would mix the clouds of a batch; a model that was just trained comes in training mode
        self.model.eval()
        self.embedder = Ulip2Embedder(self.model, self.feature_extractor, self._load_tower)

    def _load_tower(self) -> Any:
        raise ValueError(f"{self.task} reads no text.")

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """See the class. A batch may be a list, a tuple, a dataset, a generator, or an array (B, N, 3 or 6)."""
        if isinstance(inputs, tuple) or getattr(inputs, "ndim", None) == 3:
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **kwargs)

    def preprocess(
        self, shape: Any, root: str | os.PathLike[str] | None = None, up_axis: str | None = None
    ) -> dict[str, Any]:
        cloud, warnings = self.embedder.reading(root=root, up_axis=up_axis)(shape)  # (N, C)
        for warning in warnings:
            logger.warning("%s%s", f"{shape}: " if isinstance(shape, (str, os.PathLike)) else "", warning)
        # as an array, which transformers collates into a list: tensors of unequal size it would pad with points at 0
        return {"cloud": cloud, "warnings": warnings}

    def _encode(self, clouds: Any, features: str | None) -> torch.Tensor:
        """`Ulip2Embedder.encode` of what transformers hands to a forward pass: one array (N, C) or a list of them."""
        return self.embedder.encode(clouds if isinstance(clouds, list) else [clouds], features)


def reading_options(root: Any, up_axis: str | None) -> dict[str, Any]:
    """The call arguments of `PointCloudPipeline` that are given."""
    return {name: value for name, value in {"root": root, "up_axis": up_axis}.items() if value is not None}


def with_warnings(result: list[dict[str, Any]], warnings: list[str]) -> list[dict[str, Any]]:
    """The entries of a shape's result, each with `warnings` where there are some."""
    return [entry | {"warnings": warnings} for entry in result] if warnings else result


def register_task(task: str, pipeline_class: Any, auto_class: Any) -> None:
    """Makes `transformers.pipeline` know a task, if it does not yet."""
    if task not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(task, pipeline_class, pt_model=auto_class, type="multimodal")
        keep_pipeline_out_of_checkpoints(pipeline_class)  # its file does not stand alone
