"""The pipeline `zero-shot-point-cloud-classification`: 3D shapes and labels of your choice in, ranked labels out.

from transformers import pipeline
import modeling_ulip2

classify = pipeline("zero-shot-point-cloud-classification", model="FOLDER")
classify("chair.glb", candidate_labels=["chair", "table", "lamp"])
# [{"score": 0.93, "label": "chair"}, ...]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoTokenizer

from modeling_ulip2.data.candidate_labels import check_labels, check_top_k, ranked
from modeling_ulip2.models.references import model_location
from modeling_ulip2.pipelines.base import PointCloudPipeline, reading_options, with_warnings
from modeling_ulip2.towers.prompts import resolve_templates

ZERO_SHOT_CLASSIFICATION = "zero-shot-point-cloud-classification"


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
            parameters["hypothesis_template"] = parse_templates(hypothesis_template)
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


def parse_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Prompts as a call gives them. Raises ValueError if there is none."""
    if not templates:
        raise ValueError("hypothesis_template is empty: pass a prompt with {} for the label.")
    return resolve_templates(templates)
