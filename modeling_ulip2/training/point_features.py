"""What a frozen point encoder makes of shapes, computed once and kept: training a connector then never runs it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from modeling_ulip2.data.reading import CloudRows
from modeling_ulip2.data.shares import own_missing_shards, require_whole
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.embedding.loop import default_workers
from modeling_ulip2.embedding.reading import Selected
from modeling_ulip2.training.features import DEFAULT_CACHE
from modeling_ulip2.utils.files import whole_path
from modeling_ulip2.utils.private_apis import rows_fingerprint

logger = logging.getLogger(__name__)

# Work that is lost when a computation is stopped, at most.
SHAPES_PER_SHARD = 256
NAME = "point_features"


class PointFeatures(Mapping[str, Tensor]):
    """Features (G, C) float32 of shapes by id, read from files as they are asked for."""

    def __init__(self, ids: list[str], paths: list[Path]):
        self._place = {name: divmod(row, SHAPES_PER_SHARD) for row, name in enumerate(ids)}
        self._paths = paths
        self._open: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._place)

    def __iter__(self) -> Iterator[str]:
        return iter(self._place)

    def __getitem__(self, name: str) -> Tensor:
        shard, row = self._place[name]
        if shard not in self._open:
            self._open[shard] = safe_open(self._paths[shard], framework="pt").get_slice(NAME)
        return self._open[shard][row]

    def __getstate__(self) -> dict[str, Any]:
        # workers open the files themselves
        return self.__dict__ | {"_open": {}}


def point_features(
    model: Any, feature_extractor: Any, shapes: Dataset, cache_dir: Path = DEFAULT_CACHE, batch_size: int = 32
) -> PointFeatures:
    """Features of all `shapes`, shard by shard; whole shards are never computed twice.

    With several processes each computes a part of the shards, see `shares`; all need the same folder.

    Args:
        model: a `Ulip2ForConditionalGeneration`; its `get_point_features` makes the features.
        feature_extractor: prepares the clouds.
        shapes: rows with `id`, `xyz` and perhaps `rgb`.
        cache_dir: where features are kept, by encoder, settings and rows.

    Raises:
        ValueError: a cloud cannot be used, or the encoder gives NaN or infinity for it; the message names it.
    """
    folder = Path(cache_dir) / _cache_key(model, feature_extractor, shapes)
    ids = list(shapes["id"])
    paths = [folder / f"{shard:05d}.safetensors" for shard in range(-(-len(ids) // SHAPES_PER_SHARD))]
    state = PartialState()

    def is_whole(shard: int) -> bool:
        return _is_whole(paths[shard])

    mine = own_missing_shards(len(paths), is_whole, state.process_index, state.num_processes)
    logger.info(f"features of {len(ids)} shapes in {folder}: {len(mine)} of {len(paths)} shards are computed here")
    shards = [range(shard * SHAPES_PER_SHARD, min((shard + 1) * SHAPES_PER_SHARD, len(ids))) for shard in mine]
    rows = [row for shard in shards for row in shard]
    was_training = model.training
    model.eval()
    try:
        records = Ulip2Embedder(model, feature_extractor, batch_size=batch_size).iter_shapes(
            Selected(CloudRows(shapes), rows),
            ids=[ids[row] for row in rows],
            features="connector",
            num_workers=default_workers(state.num_processes) if len(rows) > batch_size else 0,
            progress="point features" if mine and state.is_local_main_process else False,
        )
        for shard, own in zip(mine, shards, strict=True):
            features = torch.stack([record.vector() for record in islice(records, len(own))])  # (n, G, C)
            with whole_path(paths[shard]) as partial:
                save_file({NAME: features}, partial)
    finally:
        model.train(was_training)
    state.wait_for_everyone()
    require_whole(paths, is_whole)
    return PointFeatures(ids, paths)


def _cache_key(model: Any, feature_extractor: Any, shapes: Dataset) -> str:
    """Changes with the encoder's weights, what is taken from it, the preparation of clouds, and the rows."""
    model.load_parts()
    weights = hashlib.sha256()
    for name, tensor in sorted(model.point_model.state_dict().items()):
        weights.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())
    config = model.config
    settings = [config.point_feature_type, config.pools_tokens and config.num_query_tokens, SHAPES_PER_SHARD]
    text = json.dumps([feature_extractor.to_dict(), settings, rows_fingerprint(shapes)], sort_keys=True, default=str)
    return f"points-{weights.hexdigest()[:16]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _is_whole(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return NAME in file.keys()
    except (OSError, SafetensorError):
        return False
