"""transformers pipelines for 3D shapes: files, arrays or batches of them in, embeddings or ranked labels out.

    from transformers import pipeline
    import modeling_ulip2

    classify = pipeline("zero-shot-point-cloud-classification", model="FOLDER")
    classify("chair.glb", candidate_labels=["chair", "table", "lamp"])
    # [{"score": 0.93, "label": "chair"}, ...]

Importing the package registers the tasks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModel, AutoTokenizer
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.base import Pipeline

from .auto import AutoModelForPointCloudClassification
from .tower_ulip2 import tower_location

FEATURE_EXTRACTION = "point-cloud-feature-extraction"
ZERO_SHOT_CLASSIFICATION = "zero-shot-point-cloud-classification"
CLASSIFICATION = "point-cloud-classification"
# What a cloud can become: the vector in the shared space, the encoder's own vector, or one vector a patch.
FEATURES = ("embeds", "pooled", "tokens")


def read_cloud(shape: Any, num_points: int) -> Any:
    """One shape as a feature extractor takes it: a file is read, anything else is left for it to check.

    Args:
        shape: path of a mesh or of points, an array (N, 3) or (N, 6), or a mapping with "xyz" and perhaps "rgb".
        num_points: how many points a mesh becomes.

    Raises:
        MeshError: the file cannot be used.
        ValueError: `shape` is none of these.
    """
    if isinstance(shape, (str, os.PathLike)):
        from .geometry.shapes import read_shape

        return read_shape(os.fspath(shape), num_points).cloud
    if isinstance(shape, Mapping):
        if "xyz" not in shape:
            raise ValueError(f"A shape given as a mapping needs 'xyz' and perhaps 'rgb', got {sorted(shape)}.")
        return shape
    if getattr(shape, "ndim", None) == 2:
        return shape
    what = f"an array of shape {tuple(shape.shape)}" if hasattr(shape, "shape") else f"{type(shape).__name__}"
    raise ValueError(
        f"A shape is a path, an array (N, 3) or (N, 6), or a mapping with 'xyz' and perhaps 'rgb', got {what}."
    )


def choose_features(model: Any, features: str | None = None) -> str:
    """`features` itself, or by default "embeds", or "pooled" of a model without projection.

    Raises:
        ValueError: the model does not make them.
    """
    projects = hasattr(model, "point_projection")
    if features is None:
        return "embeds" if projects else "pooled"
    if features not in FEATURES:
        raise ValueError(f"features must be one of {', '.join(FEATURES)}, got {features!r}.")
    if features == "embeds" and not projects:
        raise ValueError(f"{type(model).__name__} has no projection into a shared space: ask for features='pooled'.")
    return features


def encode_points(model: Any, point_values: torch.Tensor, features: str | None = None) -> torch.Tensor:
    """What any model of this package makes of clouds (B, N, C).

    Args:
        model: a `Ulip2Model`, `Ulip2PointModelWithProjection`, `Ulip2PointModel` or point encoder.
        features: see `choose_features`.

    Returns:
        "embeds" (B, projection_dim) of unit length, "pooled" (B, D) or "tokens" (B, G, C), float32.
    """
    features = choose_features(model, features)
    encoded = getattr(model, "point_model", model)(point_values)
    if features == "embeds":
        return F.normalize(model.point_projection(encoded.pooled).float(), dim=-1)
    return encoded[features].float()


# its types are narrower than what transformers passes
_Pipeline: Any = Pipeline


class PointCloudPipeline(_Pipeline):
    """What the pipelines share: reading shapes, and batches of clouds."""

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

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """See the class. A batch may be a list, a tuple, a dataset, a generator, or an array (B, N, 3 or 6)."""
        if isinstance(inputs, tuple) or getattr(inputs, "ndim", None) == 3:
            inputs = list(inputs)
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **kwargs)

    def preprocess(self, shape: Any) -> dict[str, np.ndarray]:
        extractor: Any = self.feature_extractor
        cloud = read_cloud(shape, extractor.num_points)
        # as an array, which transformers collates into a list: tensors of unequal size it would pad with points at 0
        return {"cloud": extractor(cloud, return_tensors="np")["point_values"][0]}  # (N, C)

    def _encode(self, clouds: Any, features: str | None) -> torch.Tensor:
        return self._rows(clouds, lambda values: encode_points(self.model, values, features))

    def _rows(self, clouds: Any, encode: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """What `encode` makes of clouds (B, N, C), for one array (N, C) or a list of them of any sizes."""
        clouds = [torch.from_numpy(cloud) for cloud in (clouds if isinstance(clouds, list) else [clouds])]
        clouds = [cloud.to(self.device) for cloud in clouds]
        if len({cloud.shape for cloud in clouds}) == 1:
            return encode(torch.stack(clouds))
        return torch.cat([encode(cloud[None]) for cloud in clouds])


class PointCloudFeatureExtractionPipeline(PointCloudPipeline):
    """3D shapes -> vectors.

    `pipeline("point-cloud-feature-extraction", model=FOLDER)(shapes)` takes a path of a mesh or a point file, an array
    (N, 3) or (N, 6) of xyz and rgb, a mapping with `xyz` and `rgb`, or a batch of these, and returns for each shape a
    list of numbers, or a tensor with `return_tensors=True`.

    Call arguments:
        features: "embeds", of unit length in the space of the image-text model (default); "pooled", the encoder's own
            vector (default of a model without projection); "tokens", one vector for each patch.
        return_tensors: a float32 tensor for each shape, (D,) or (G, C), instead of nested lists.
        batch_size: clouds a forward pass.
    """

    def _sanitize_parameters(
        self, features: str | None = None, return_tensors: bool | None = None
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        forward = {} if features is None else {"features": features}
        return {}, forward, {} if return_tensors is None else {"return_tensors": return_tensors}

    def _forward(self, inputs: dict[str, Any], features: str | None = None) -> dict[str, torch.Tensor]:
        return {"features": self._encode(inputs["cloud"], features)}

    def postprocess(self, outputs: dict[str, torch.Tensor], return_tensors: bool = False) -> Any:
        values = outputs["features"][0]  # (D,) or (G, C)
        return values if return_tensors else values.tolist()


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
        batch_size: clouds a forward pass.
    """

    # loaded from the model's folder if it is there, or else from the tower's
    _load_tokenizer = None

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not (hasattr(self.model, "get_clip_model") and hasattr(self.model, "logit_scale")):
            raise ValueError(
                f"{self.task} needs a Ulip2Model, not a {type(self.model).__name__}, which reads no text."
            )
        self._tower: Any = None
        self._classes: tuple[Any, torch.Tensor] | None = None

    def _sanitize_parameters(
        self,
        candidate_labels: Sequence[str] | None = None,
        hypothesis_template: str | Sequence[str] | None = None,
        top_k: int | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        parameters: dict[str, Any] = {}
        if candidate_labels is not None:
            parameters["candidate_labels"] = _labels(candidate_labels)
        if hypothesis_template is not None:
            parameters["hypothesis_template"] = _templates(hypothesis_template)
        _check_top_k(top_k)
        labels = {name: value for name, value in parameters.items() if name == "candidate_labels"}
        return {}, parameters, labels if top_k is None else labels | {"top_k": top_k}

    def _forward(
        self,
        inputs: dict[str, Any],
        candidate_labels: tuple[str, ...] = (),
        hypothesis_template: tuple[str, ...] | None = None,
    ) -> dict[str, torch.Tensor]:
        classes = self.class_embeds(candidate_labels, hypothesis_template).to(self.device)  # (K, D)
        embeds = self._encode(inputs["cloud"], "embeds")  # (B, D)
        return {"logits": self.model.logit_scale.float().exp() * embeds @ classes.T}  # (B, K)

    def postprocess(
        self, outputs: dict[str, torch.Tensor], candidate_labels: tuple[str, ...] = (), top_k: int | None = None
    ) -> list[dict[str, Any]]:
        return _ranked(outputs["logits"][0], candidate_labels, top_k)

    def class_embeds(self, labels: Sequence[str], templates: Sequence[str] | None = None) -> torch.Tensor:
        """(K, D), L2-normalised: each label as the mean of its prompts; the last answer is kept."""
        from .evaluation.names import load_templates
        from .evaluation.zero_shot import class_embeddings

        labels, templates = _labels(labels), _templates(load_templates() if templates is None else templates)
        if self._classes is None or self._classes[0] != (labels, templates):
            embeds = class_embeddings(self.tower.encode_text, labels, templates)
            if embeds.shape[-1] != self.model.config.projection_dim:
                raise ValueError(
                    f"The image-text tower {self.tower.name} makes texts of {embeds.shape[-1]} channels, but the "
                    f"model projects points to {self.model.config.projection_dim}: it belongs to another tower."
                )
            self._classes = ((labels, templates), embeds)
        return self._classes[1]

    @property
    def tower(self) -> Any:
        """The model's image-text model as a `Tower`, loaded on first use."""
        if self._tower is None:
            from .towers import Tower

            model: Any = self.model
            tokenizer: Any = self.tokenizer
            name = model.config.clip_name_or_path or model.name_or_path
            self._tower = Tower(model.get_clip_model(), tokenizer or _tokenizer(name), _no_images, name)
        return self._tower


class PointCloudClassificationPipeline(PointCloudPipeline):
    """3D shapes -> the classes that a `Ulip2ForPointCloudClassification` was fine-tuned on, ranked.

    `pipeline("point-cloud-classification", model=FOLDER)(shapes)` takes shapes as the pipeline
    `point-cloud-feature-extraction` does and returns for each a list of `{"score", "label"}`, best first. Scores are
    the softmax of the logits over all classes.

    Call arguments:
        top_k: how many labels to return; default: 5.
        batch_size: clouds a forward pass.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not hasattr(self.model, "num_labels"):
            raise ValueError(
                f"{self.task} needs a Ulip2ForPointCloudClassification, not a {type(self.model).__name__}."
            )

    def _sanitize_parameters(self, top_k: int | None = None) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        _check_top_k(top_k)
        return {}, {}, {} if top_k is None else {"top_k": top_k}

    def _forward(self, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {"logits": self._rows(inputs["cloud"], lambda values: self.model(values).logits)}  # (B, num_labels)

    def postprocess(self, outputs: dict[str, torch.Tensor], top_k: int = 5) -> list[dict[str, Any]]:
        names = self.model.config.id2label
        return _ranked(outputs["logits"][0], [names[index] for index in range(len(names))], top_k)


def _ranked(logits: torch.Tensor, names: Sequence[str], top_k: int | None) -> list[dict[str, Any]]:
    """Softmax of logits (K,) with the names of their classes, best first."""
    scores = logits.float().softmax(dim=-1)  # (K,)
    best = scores.topk(min(top_k or len(scores), len(scores)))
    ranked = zip(best.values.tolist(), best.indices.tolist(), strict=True)
    return [{"score": score, "label": names[index]} for score, index in ranked]


def _check_top_k(top_k: int | None) -> None:
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")


def _no_images(*_: Any, **__: Any) -> Any:
    raise ValueError("This pipeline compares shapes with texts only.")


def _tokenizer(name: str) -> Any:
    place, inside = tower_location(name)
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


def _labels(labels: Any) -> tuple[str, ...]:
    if isinstance(labels, str):
        raise ValueError(f"candidate_labels is a list of names, not one string: {labels!r}.")
    labels = tuple(labels)
    if not labels:
        raise ValueError("candidate_labels is empty: name the classes to choose from.")
    for label in labels:
        if not isinstance(label, str) or not label.strip():
            raise ValueError(f"candidate_labels holds {label!r}, which is no name.")
    if len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"candidate_labels names {twice!r} twice: their scores would be halved.")
    return labels


def _templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    templates = (templates,) if isinstance(templates, str) else tuple(templates)
    if not templates:
        raise ValueError("hypothesis_template is empty: pass a prompt with {} for the label.")
    for template in templates:
        if not isinstance(template, str) or template.count("{}") != 1:
            raise ValueError(f"hypothesis_template needs one {{}} for the label, got {template!r}.")
    return templates


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
