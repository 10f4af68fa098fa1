"""Captions of held-out shapes by a model, and by the controls that it must beat."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import logging

from modeling_ulip2.data.captions import question
from modeling_ulip2.evaluation.captions.scores import read_predictions
from modeling_ulip2.evaluation.metrics.retrieval import search

# X-InstructBLIP's settings, with which ULIP-2's captions were made.
PUBLISHED_GENERATION: dict[str, Any] = {
    "num_beams": 5,
    "min_new_tokens": 10,
    "max_new_tokens": 80,
    "length_penalty": 0.0,
}


def generate_captions(
    model: Any,
    processor: Any,
    ids: Sequence[str],
    features: Mapping[str, Tensor],
    prompt: str,
    path: str | Path,
    batch_size: int = 16,
    **generation: Any,
) -> dict[str, str]:
    """A caption for each shape, in the order of `ids`; written line by line, so that a stopped run goes on.

    Args:
        model, processor: a `Ulip2ForConditionalGeneration` and its processor.
        ids: of the shapes; `features` has them.
        prompt: what the user says beside the cloud.
        path: JSON lines with `id` and `prediction`; those that are there are not made again.
        generation: to `generate`; default: `PUBLISHED_GENERATION`.
    """
    path = Path(path)
    predictions = read_predictions(_without_half_a_line(path)) if path.exists() else {}
    missing = [name for name in ids if name not in predictions]
    starts = range(0, len(missing), batch_size)
    with path.open("a", encoding="utf-8") as file:
        for start in logging.tqdm(starts, desc="captions", unit="batch", disable=not missing):
            batch = missing[start : start + batch_size]
            clouds = torch.stack([features[name] for name in batch])  # (b, G, C)
            for name, caption in zip(batch, _answers(model, processor, prompt, clouds, generation), strict=True):
                predictions[name] = caption
                file.write(json.dumps({"id": name, "prediction": caption}, ensure_ascii=False) + "\n")
            file.flush()
    return {name: predictions[name] for name in ids}


def text_only_caption(model: Any, processor: Any, prompt: str, **generation: Any) -> str:
    """What the same language model says to the prompt without a cloud: the same for every shape."""
    return _answers(model, processor, prompt, None, generation)[0]


@torch.no_grad()
def _answers(
    model: Any, processor: Any, prompt: str, features: Tensor | None, generation: Mapping[str, Any]
) -> list[str]:
    count = 1 if features is None else len(features)
    inputs = processor.apply_chat_template(
        [question(prompt, with_cloud=features is not None)] * count,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
    ).to(model.device)
    if features is not None:
        inputs["point_features"] = features.to(model.device, model.dtype)
    model.eval()
    ids = model.generate(**inputs, **(PUBLISHED_GENERATION | dict(generation)))
    return [" ".join(text.split()) for text in processor.batch_decode(ids, skip_special_tokens=True)]


def _without_half_a_line(path: Path) -> Path:
    """The same file, without what a stop left of its last line."""
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    return path


def shuffled_captions(predictions: Mapping[str, str], seed: int = 0) -> dict[str, str]:
    """Every shape gets the caption that the model made of another shape's points, which is what it would say of them.

    A random cycle through all shapes, so that none keeps its own.
    """
    if len(predictions) < 2:
        raise ValueError("it takes two shapes to exchange their points")
    ids = list(predictions)
    order = np.random.default_rng(seed).permutation(len(ids))
    return {ids[row]: predictions[ids[other]] for row, other in zip(order, np.roll(order, 1), strict=True)}


def nearest_captions(
    point_embeds: Mapping[str, Tensor], train_embeds: Mapping[str, Tensor], train_captions: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The caption of the training shape whose point embedding is nearest, and the id of that shape.

    Args:
        point_embeds, train_embeds: embeddings (D,) by id of the shapes to caption and of those trained on.
        train_captions: of the latter.
    """
    known = [name for name in train_embeds if name in train_captions]
    if not known:
        raise ValueError("no training shape has both an embedding and a caption")
    queries = F.normalize(torch.stack(list(point_embeds.values())).float(), dim=-1)  # (N, D)
    gallery = F.normalize(torch.stack([train_embeds[name] for name in known]).float(), dim=-1)  # (M, D)
    _, rows = search(queries, gallery, k=1)  # (N, 1)
    nearest = {name: known[row] for name, (row,) in zip(point_embeds, rows.tolist(), strict=True)}
    return {name: train_captions[other] for name, other in nearest.items()}, nearest
