"""Test shapes, texts and images as L2-normalised rows, by a trained model and its frozen tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoFeatureExtractor, AutoModel, AutoProcessor
from transformers.utils import logging

from modeling_ulip2.configuration_ulip2 import Ulip2Config
from modeling_ulip2.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.modeling_ulip2 import Ulip2Model
from modeling_ulip2.towers import Tower, load_tower, register
from modeling_ulip2.training.data import decode_row
from modeling_ulip2.triplets.images import open_view


def load_for_evaluation(
    model: str | Path, tower: str | Path | None = None, device: str | torch.device | None = None
) -> tuple[Ulip2Model, Ulip2FeatureExtractor, Tower]:
    """A trained model in evaluation mode, its feature extractor, and the tower whose space it was trained into.

    Args:
        model: folder or hub name of a `Ulip2Model`.
        tower: image-text model to use instead of the one that the checkpoint embeds or names, e.g. because it moved.
        device: default: a GPU if there is one.

    Raises:
        ValueError: not a `Ulip2Model`, or it has no tower and none was given.
    """
    point_model, feature_extractor = load_point_model(model, device)
    return point_model, feature_extractor, load_tower_of(point_model, model, tower)


def load_point_model(
    model: str | Path, device: str | torch.device | None = None
) -> tuple[Ulip2Model, Ulip2FeatureExtractor]:
    """As `load_for_evaluation`, without the tower."""
    register()
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    point_model = AutoModel.from_pretrained(str(model)).to(device).eval()
    if not isinstance(point_model.config, Ulip2Config) or not hasattr(point_model, "get_point_features"):
        raise ValueError(f"{model} holds a {type(point_model).__name__}, not a Ulip2Model")
    return point_model, AutoFeatureExtractor.from_pretrained(str(model))


def load_tower_of(point_model: Ulip2Model, model: str | Path, tower: str | Path | None = None) -> Tower:
    """The tower of a model from `load_point_model`, on the same device; arguments as in `load_for_evaluation`."""
    reference = tower or point_model.config.clip_name_or_path
    if reference is not None:
        return load_tower(reference, point_model.device)
    processor = AutoProcessor.from_pretrained(str(model))
    return Tower(point_model.get_clip_model(), processor.tokenizer, processor.image_processor, str(model))


@torch.no_grad()
def embed_points(
    model: Any,
    feature_extractor: Ulip2FeatureExtractor,
    clouds: Sequence[Mapping[str, Any]] | Dataset,
    batch_size: int = 16,
    progress: bool = True,
) -> Tensor:
    """Embeds N clouds.

    Args:
        model: anything with `get_point_features`; in evaluation mode.
        clouds: rows with `xyz` (n, 3) and perhaps `rgb` (n, 3), e.g. a triplets dataset.

    Returns:
        (N, D) float32 on the CPU, L2-normalised.
    """
    if len(clouds) == 0:
        raise ValueError("there is no point cloud to embed")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, not {batch_size}")
    if model.training:
        raise ValueError(
            "the model is in training mode, so BatchNorm would mix the clouds of a batch; call model.eval()"
        )
    if isinstance(clouds, Dataset):
        columns = [name for name in ("xyz", "rgb") if name in clouds.column_names]
        clouds = clouds.select_columns(columns).with_format("arrow")
    rows = []
    starts = range(0, len(clouds), batch_size)
    for start in logging.tqdm(starts, desc="point clouds", unit="batch", disable=not progress):
        batch = [clouds[index] for index in range(start, min(start + batch_size, len(clouds)))]
        batch = [cloud if isinstance(cloud, Mapping) else decode_row(cloud) for cloud in batch]
        values = feature_extractor(batch, return_tensors="pt")["point_values"]  # (b, n, C)
        embeds = model.get_point_features(values.to(model.device)).pooler_output  # (b, D)
        rows.append(F.normalize(embeds.float(), dim=-1).cpu())
    return torch.cat(rows)  # (N, D)


def embed_views(
    tower: Tower,
    triplets: Dataset,
    features: Dataset | None = None,
    draw: int | None = None,
    progress: bool = True,
) -> list[Tensor]:
    """Image embeddings of the views of N shapes, each (V, D) float32 and L2-normalised; V may differ.

    Args:
        triplets: rows with `id` and `views`.
        features: the `features` config with `image_embeds` of the same tower, if there is one: spares the tower.
            Must hold every shape.
        draw: seed to draw one view a shape, which gives (1, D); None: all views.
    """
    if features is None:
        rows, column = triplets, "views"
    else:
        place = {name: row for row, name in enumerate(features["id"])}
        missing = [name for name in triplets["id"] if name not in place]
        if missing:
            raise ValueError(f"{len(missing)} of {len(triplets)} shapes have no features, e.g. {missing[0]!r}")
        rows, column = features.select([place[name] for name in triplets["id"]]), "image_embeds"
    rows = rows.select_columns(column).with_format("arrow")
    rng = None if draw is None else np.random.default_rng(draw)
    embeds = []
    for index in logging.tqdm(range(len(rows)), desc="views", unit="shape", disable=not progress):
        views = decode_row(rows[index])[column]  # encoded images, or (V, D)
        if rng is not None:
            drawn = int(rng.integers(len(views)))
            views = views[drawn : drawn + 1]
        if features is None:
            embeds.append(tower.encode_images([open_view(view) for view in views]))  # (V, D)
        else:
            embeds.append(F.normalize(torch.from_numpy(np.float32(views)), dim=-1))  # (V, D)
    return embeds
