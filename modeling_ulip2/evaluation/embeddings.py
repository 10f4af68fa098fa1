"""Test shapes, texts and images as L2-normalized rows, by a trained model and its frozen tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from transformers.utils import logging

from modeling_ulip2.data.images import open_view
from modeling_ulip2.data.reading import CloudRows, check_views, decode_row
from modeling_ulip2.data.schema import STORED_UP_AXIS
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.models.configuration_ulip2 import Ulip2Config
from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.models.modeling_ulip2 import Ulip2Model
from modeling_ulip2.towers import Tower
from modeling_ulip2.towers.of_model import load_tower_of


def load_for_evaluation(
    model: str | Path, tower: str | Path | None = None, device: str | torch.device | None = None, **hub: Any
) -> tuple[Ulip2Model, Ulip2FeatureExtractor, Tower]:
    """A trained model in evaluation mode, its feature extractor, and the tower whose space it was trained into.

    Args:
        model: folder or hub name of a `Ulip2Model`.
        tower: image-text model to use instead of the one that the checkpoint embeds or names, e.g. because it moved.
        device: default: a GPU if there is one.
        hub: `revision`, `token` and `cache_dir` of a hub name.

    Raises:
        ValueError: not a `Ulip2Model`, or it has no tower and none was given.
    """
    point_model, feature_extractor = load_point_model(model, device, **hub)
    return point_model, feature_extractor, load_tower_of(point_model, model, tower)


def load_point_model(
    model: str | Path, device: str | torch.device | None = None, **hub: Any
) -> tuple[Ulip2Model, Ulip2FeatureExtractor]:
    """As `load_for_evaluation`, without the tower."""
    embedder = Ulip2Embedder.from_pretrained(model, device=device, **hub)
    if not isinstance(embedder.model.config, Ulip2Config) or not hasattr(embedder.model, "get_point_features"):
        raise ValueError(f"{model} holds a {type(embedder.model).__name__}, not a Ulip2Model")
    return embedder.model, embedder.feature_extractor


def embed_points(
    model: Any,
    feature_extractor: Ulip2FeatureExtractor,
    clouds: Sequence[Mapping[str, Any]] | Dataset,
    batch_size: int = 16,
    progress: bool = True,
    up_axis: str | None = STORED_UP_AXIS,
    num_workers: int | None = None,
) -> Tensor:
    """Embeds N clouds that are read already; see `Ulip2Embedder.embed_shapes` for files and for more options.

    Args:
        model: anything with `get_point_features`; in evaluation mode.
        clouds: rows with `xyz` (n, 3) and perhaps `rgb` (n, 3), e.g. a triplets dataset.
        up_axis: what is up in rows that do not say it; default: as in triplets, y. None: the feature extractor knows.
        num_workers: processes that decode and prepare rows; None: what the machine has to spare, for long lists.

    Returns:
        (N, D) float32 on the CPU, L2-normalized.
    """
    if len(clouds) == 0:
        raise ValueError("there is no point cloud to embed")
    ids = list(clouds["id"]) if isinstance(clouds, Dataset) and "id" in clouds.column_names else None
    rows = CloudRows(clouds) if isinstance(clouds, Dataset) else clouds
    embedder = Ulip2Embedder(model, feature_extractor, batch_size=batch_size)
    return embedder.embed_shapes(
        rows, ids=ids, features="embeds", up_axis=up_axis, num_workers=num_workers, progress=progress
    )


def embed_views(
    tower: Tower,
    triplets: Dataset,
    features: Dataset | None = None,
    draw: int | None = None,
    progress: bool = True,
) -> list[Tensor]:
    """Image embeddings of the views of N shapes, each (V, D) float32 and L2-normalized; V may differ.

    Args:
        triplets: rows with `id` and `views`.
        features: the `features` config with `image_embeds` of the same tower, if there is one: spares the tower.
            Must hold every shape.
        draw: seed to draw one view per shape, which gives (1, D); None: all views.
    """
    if features is None:
        check_views(triplets)
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
