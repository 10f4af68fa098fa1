"""transformers pipelines for 3D shapes: files, arrays or batches of them in, embeddings or ranked labels out.

    from transformers import pipeline
    import modeling_ulip2

    classify = pipeline("zero-shot-point-cloud-classification", model="FOLDER")
    classify("chair.glb", candidate_labels=["chair", "table", "lamp"])
    # [{"score": 0.93, "label": "chair"}, ...]

Importing the package registers the tasks.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline

from modeling_ulip2.data.candidate_labels import check_labels, check_top_k, ranked
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.models.auto import AutoModelForPointCloudClassification
from modeling_ulip2.models.references import model_location
from modeling_ulip2.shape_loop import in_batches
from modeling_ulip2.towers.prompts import resolve_templates

logger = logging.getLogger(__name__)

FEATURE_EXTRACTION = "point-cloud-feature-extraction"
ZERO_SHOT_CLASSIFICATION = "zero-shot-point-cloud-classification"
CLASSIFICATION = "point-cloud-classification"


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
        return self.embedder.encode(as_clouds(clouds), features)


def as_clouds(clouds: Any) -> list[np.ndarray]:
    """What transformers hands to a forward pass, one array (N, C) or a list of them, as a list."""
    return clouds if isinstance(clouds, list) else [clouds]


def reading_options(root: Any, up_axis: str | None) -> dict[str, Any]:
    """The call arguments of `PointCloudPipeline` that are given."""
    return {name: value for name, value in {"root": root, "up_axis": up_axis}.items() if value is not None}


def with_warnings(result: list[dict[str, Any]], warnings: list[str]) -> list[dict[str, Any]]:
    """The entries of a shape's result, each with `warnings` where there are some."""
    return [entry | {"warnings": warnings} for entry in result] if warnings else result


class PointCloudFeatureExtractionPipeline(PointCloudPipeline):
    """3D shapes -> vectors.

    `pipeline("point-cloud-feature-extraction", model=FOLDER)(shapes)` takes a path of a mesh or a point file, an array
    (N, 3) or (N, 6) of xyz and rgb, a mapping with `xyz` and `rgb`, or a batch of these, and returns for each shape a
    list of numbers, or a tensor with `return_tensors=True`.

    Call arguments:
        features: "embeds", of unit length in the space of the image-text model (default); "pooled", the encoder's own
            vector (default of a model without projection); "tokens", one vector for each patch.
        return_tensors: a float32 tensor for each shape, (D,) or (G, C), instead of nested lists.
        return_warnings: `{"features", "warnings"}` for each shape instead of the features alone.
        root, up_axis: see `PointCloudPipeline`.
        batch_size: clouds per forward pass.
    """

    def _sanitize_parameters(
        self,
        features: str | None = None,
        return_tensors: bool | None = None,
        return_warnings: bool | None = None,
        root: Any = None,
        up_axis: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        forward = {} if features is None else {"features": features}
        told = {"return_tensors": return_tensors, "return_warnings": return_warnings}
        return (
            reading_options(root, up_axis),
            forward,
            {name: value for name, value in told.items() if value is not None},
        )

    def _forward(self, inputs: dict[str, Any], features: str | None = None) -> dict[str, Any]:
        return {"features": self._encode(inputs["cloud"], features), "warnings": inputs["warnings"]}

    def postprocess(self, outputs: dict[str, Any], return_tensors: bool = False, return_warnings: bool = False) -> Any:
        values = outputs["features"][0]  # (D,) or (G, C)
        values = values if return_tensors else values.tolist()
        return {"features": values, "warnings": outputs["warnings"]} if return_warnings else values


class ZeroShotPointCloudClassificationPipeline(PointCloudPipeline):
    """3D shapes -> labels of your choice, ranked.

    `pipeline("zero-shot-point-cloud-classification", model=FOLDER)(shapes, candidate_labels=[...])` takes shapes as
    the pipeline `point-cloud-feature-extraction` does and returns for each a list of `{"score", "label"}`, best first.
    Scores are the softmax over the labels of cosine times the model's logit scale, and add up to 1. The model needs
    an image-text tower that can be loaded.

    Call arguments:
        candidate_labels: names of the classes.
        hypothesis_template: one prompt or several with `{}` for the label; a label is the mean of its prompts.
            Default: the 64 templates with which ULIP-2 was measured. Pass "{}" for labels that are sentences already.
        top_k: how many labels to return; default: all.
        root, up_axis: see `PointCloudPipeline`.
        batch_size: clouds per forward pass.
    """

    # loaded from the model's folder if it is there, or else from the tower's
    _load_tokenizer = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not (hasattr(self.model, "get_clip_model") and hasattr(self.model, "logit_scale")):
            raise ValueError(
                f"{self.task} needs a Ulip2Model, not a {type(self.model).__name__}, which reads no text."
            )

    def _sanitize_parameters(
        self,
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str | Sequence[str] | None = None,
        top_k: int | None = None,
        root: Any = None,
        up_axis: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        parameters: dict[str, Any] = {}
        if candidate_labels is not None:
            parameters["candidate_labels"] = check_labels(candidate_labels, "candidate_labels")
        if hypothesis_template is not None:
            parameters["hypothesis_template"] = _templates(hypothesis_template)
        check_top_k(top_k)
        labels = {name: value for name, value in parameters.items() if name == "candidate_labels"}
        return reading_options(root, up_axis), parameters, labels if top_k is None else labels | {"top_k": top_k}

    def _forward(
        self,
        inputs: dict[str, Any],
        candidate_labels: tuple[str, ...] = (),
        hypothesis_template: tuple[str, ...] | None = None,
    ) -> dict[str, Any]:
        classes = self.class_embeds(candidate_labels, hypothesis_template)  # (K, D)
        embeds = self._encode(inputs["cloud"], "embeds")  # (B, D)
        return {"logits": self.embedder.logits(embeds, classes), "warnings": inputs["warnings"]}  # (B, K)

    def postprocess(
        self, outputs: dict[str, Any], candidate_labels: tuple[str, ...] = (), top_k: int | None = None
    ) -> list[dict[str, Any]]:
        return with_warnings(ranked(outputs["logits"][0], candidate_labels, top_k), outputs["warnings"])

    def class_embeds(self, labels: Sequence[str], templates: Sequence[str] | None = None) -> torch.Tensor:
        """(K, D), L2-normalized: each label as the mean of its prompts; what was embedded once is kept."""
        return self.embedder.embed_labels(check_labels(labels, "candidate_labels"), templates)

    @property
    def tower(self) -> Any:
        """The model's image-text model as a `Tower`, loaded on first use."""
        return self.embedder.tower

    def _load_tower(self) -> Any:
        from modeling_ulip2.towers import TransformersTower

        model: Any = self.model
        tokenizer: Any = self.tokenizer
        name = model.config.clip_name_or_path or model.name_or_path
        return TransformersTower(model.get_clip_model(), tokenizer or _tokenizer(name), _no_images, name)


class PointCloudClassificationPipeline(PointCloudPipeline):
    """3D shapes -> the classes that a `Ulip2ForPointCloudClassification` was fine-tuned on, ranked.

    `pipeline("point-cloud-classification", model=FOLDER)(shapes)` takes shapes as the pipeline
    `point-cloud-feature-extraction` does and returns for each a list of `{"score", "label"}`, best first. Scores are
    the softmax of the logits over all classes.

    Call arguments:
        top_k: how many labels to return; default: 5.
        root, up_axis: see `PointCloudPipeline`.
        batch_size: clouds per forward pass.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not hasattr(self.model, "num_labels"):
            raise ValueError(
                f"{self.task} needs a Ulip2ForPointCloudClassification, not a {type(self.model).__name__}."
            )

    def _sanitize_parameters(
        self, top_k: int | None = None, root: Any = None, up_axis: str | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        check_top_k(top_k)
        return reading_options(root, up_axis), {}, {} if top_k is None else {"top_k": top_k}

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Any]:
        logits = in_batches(as_clouds(inputs["cloud"]), self.device, lambda values: self.model(values).logits)
        return {"logits": logits, "warnings": inputs["warnings"]}  # (B, num_labels)

    def postprocess(self, outputs: dict[str, Any], top_k: int = 5) -> list[dict[str, Any]]:
        names = self.model.config.id2label
        result = ranked(outputs["logits"][0], [names[index] for index in range(len(names))], top_k)
        return with_warnings(result, outputs["warnings"])


def _no_images(*_: Any, **__: Any) -> Any:
    raise ValueError("This pipeline compares shapes with texts only.")


def _tokenizer(name: str) -> Any:
    place, inside = model_location(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, **inside)
        # without its files transformers makes some tokenizers of nothing but special tokens
        if len(tokenizer) <= len(set(tokenizer.all_special_tokens)):
            raise ValueError("its vocabulary is missing")
    except (OSError, ValueError) as error:
        raise OSError(
            f"No tokenizer of the image-text tower {name!r} could be loaded ({error}): save one beside the model or "
            "the tower, or pass tokenizer=... to pipeline."
        ) from error
    return tokenizer


def _templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    if not templates:
        raise ValueError("hypothesis_template is empty: pass a prompt with {} for the label.")
    return resolve_templates(templates)


def register() -> None:
    """Makes `transformers.pipeline` know the tasks; may be called again."""
    tasks = {
        FEATURE_EXTRACTION: (PointCloudFeatureExtractionPipeline, AutoModel),
        ZERO_SHOT_CLASSIFICATION: (ZeroShotPointCloudClassificationPipeline, AutoModel),
        CLASSIFICATION: (PointCloudClassificationPipeline, AutoModelForPointCloudClassification),
    }
    for task, (pipeline_class, auto_class) in tasks.items():
        if task not in PIPELINE_REGISTRY.supported_tasks:
            PIPELINE_REGISTRY.register_pipeline(task, pipeline_class, pt_model=auto_class, type="multimodal")
            # by this mark `save_pretrained` would ship the file, which does not stand alone
            del pipeline_class._registered_impl
