"""Embeddings of the frozen tower, taken from the dataset or computed once: training then never runs the tower.

A row holds, by `id`, `image_embeds` (V, D), `text_embeds` [V](k, D) and, where depth views are used, `depth_embeds`
(V, D), all float16 and L2-normalized.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import PartialState
from datasets import Dataset, IterableDataset, load_dataset
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from tqdm.auto import tqdm

from modeling_ulip2.data.images import open_depth, open_view
from modeling_ulip2.data.reading import check_views, config_files, load_config
from modeling_ulip2.data.schema import FEATURES_CONFIG, TRIPLETS_CONFIG, features_features
from modeling_ulip2.data.shards import FEATURES_MANIFEST, MANIFEST, read_features_maker, shard_path
from modeling_ulip2.data.shares import own_missing_shards, require_whole
from modeling_ulip2.data.stream import joined_rows, open_parquet
from modeling_ulip2.towers import Tower
from modeling_ulip2.towers.fingerprint import made_by_older_recipe
from modeling_ulip2.utils.parquet import is_parquet, write_parquet
from modeling_ulip2.utils.places import default_feature_cache
from modeling_ulip2.utils.private_apis import rows_fingerprint

logger = logging.getLogger(__name__)

DEFAULT_CACHE = Path(default_feature_cache())
# Work that is lost when a computation is stopped, at most.
ROWS_PER_SHARD = 128


def tower_features(
    dataset: str,
    triplets: Dataset,
    tower: Tower,
    use_depth: bool = False,
    cache_dir: Path = DEFAULT_CACHE,
    hub: Mapping[str, Any] = MappingProxyType({}),
) -> Dataset:
    """Embeddings of the rows of `triplets`: the dataset's own where the same tower made them, else from the cache.

    Args:
        dataset: the folder or hub repository of `triplets`.
        triplets: the `triplets` config, or some of its rows.
        tower: the frozen image-text model.
        use_depth: depth views are needed too.
        cache_dir: where computed embeddings are kept, by tower and rows.
        hub: `revision`, `token` and `cache_dir` of a hub repository.
    """
    published = published_features(dataset, tower, **hub)
    if published is not None and use_depth and "depth_embeds" not in published.column_names:
        logger.info("the dataset's own features leave out depth views: they are computed")
        published = None
    if published is not None:
        missing = set(triplets["id"]) - set(published["id"])
        if not missing:
            logger.info(f"using the dataset's own features of {tower.name} ({tower.fingerprint})")
            return published
        logger.info(f"the dataset's own features lack {len(missing)} rows: they are computed")
    return computed_features(triplets, tower, use_depth, cache_dir)


def published_features(dataset: str, tower: Tower, **hub: Any) -> Dataset | None:
    """The `features` config of a dataset if its manifest says that `tower` made it, else None (the log says why).

    Args:
        hub: `revision`, `token` and `cache_dir` of a hub repository.
    """
    if not _made_by(dataset, tower, hub):
        return None
    try:
        return load_config(dataset, FEATURES_CONFIG, **hub)
    except (ValueError, FileNotFoundError) as error:
        logger.info(f"the features of {dataset} cannot be read ({error}): not used")
        return None


def streamed_features(dataset: str, tower: Tower, use_depth: bool = False, **hub: Any) -> IterableDataset | None:
    """Triplets joined with the dataset's own features, as a stream; None where they do not fit (the log says why).

    Args:
        hub: `revision`, `token` and `cache_dir` of a hub repository.
    """
    if not _made_by(dataset, tower, hub):
        return None
    try:
        triplets, features = (config_files(dataset, config, **hub) for config in (TRIPLETS_CONFIG, FEATURES_CONFIG))
        with open_parquet(features[0], hub.get("token")) as file:
            columns = pq.read_schema(file).names
    except (ValueError, FileNotFoundError, IndexError, pa.ArrowException) as error:
        logger.info(f"the features of {dataset} cannot be read ({error}): not used")
        return None
    if [PurePath(path).name for path in triplets] != [PurePath(path).name for path in features]:
        logger.info(
            f"the features of {dataset} lie in other files than its triplets: not used, as a stream is not searched"
        )
        return None
    if use_depth and "depth_embeds" not in columns:
        logger.info("the dataset's own features leave out depth views: not used")
        return None
    logger.info(f"using the dataset's own features of {tower.name} ({tower.fingerprint})")
    return joined_rows(triplets, features, use_depth, hub.get("token"))


def _made_by(dataset: str, tower: Tower, hub: Mapping[str, Any]) -> bool:
    """Does a dataset's manifest say that `tower` made its features? Else the log says what it says."""
    manifest = _manifest(dataset, hub)
    if manifest is None:
        logger.info(f"{dataset} has no {MANIFEST}: its features, if any, are not used")
        return False
    made_by = read_features_maker(manifest)
    if made_by != {tower.fingerprint}:
        old = sorted(filter(made_by_older_recipe, made_by))
        if old:
            logger.warning(
                f"the features of {dataset} carry a fingerprint of an earlier version ({', '.join(old)}), which told "
                f"neither activations nor tokenizers apart. Whether {tower.name} ({tower.fingerprint}) made them "
                "cannot be said: they are not used. `ulip2 embed-triplets FOLDER --tower TOWER --replace` "
                "makes them anew."
            )
            return False
        other = ", ".join(sorted(made_by)) or "no tower"
        logger.info(f"the features of {dataset} come from {other}, not from {tower.fingerprint}: not used")
        return False
    return True


def _manifest(dataset: str, hub: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of the features if they were added later, else of the build."""
    folder = Path(dataset).expanduser()
    for name in (FEATURES_MANIFEST, MANIFEST):
        path = folder / name
        if not folder.is_dir():
            try:
                path = Path(hf_hub_download(dataset, name, repo_type="dataset", **hub))
            except (EntryNotFoundError, LocalEntryNotFoundError):
                continue
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    return None


def computed_features(
    triplets: Dataset, tower: Tower, use_depth: bool = False, cache_dir: Path = DEFAULT_CACHE
) -> Dataset:
    """Embeddings of all views and captions of `triplets`, computed shard by shard; whole shards are never computed
    twice.

    With several processes each computes a part of the shards, see `shares`; all need the same folder.
    """
    if use_depth and "depths" not in triplets.column_names:
        raise ValueError("use_depth needs a dataset with depth views; this one has no column `depths`")
    check_views(triplets)
    folder = Path(cache_dir) / _cache_key(triplets, tower, use_depth)
    features = features_features(tower.dim, depth=use_depth)
    num_shards = -(-len(triplets) // ROWS_PER_SHARD)
    paths = [shard_path(folder, FEATURES_CONFIG, shard, num_shards) for shard in range(num_shards)]
    state = PartialState()

    def is_whole(shard: int) -> bool:
        return paths[shard].is_file() and is_parquet(paths[shard])

    mine = own_missing_shards(num_shards, is_whole, state.process_index, state.num_processes)
    older = [old for old in folder.parent.glob("*-*") if made_by_older_recipe(old.name.rpartition("-")[0])]
    if mine and older:
        logger.warning(
            f"{len(older)} folders in {folder.parent}, such as {older[0].name}, hold features by fingerprints of an "
            "earlier version and are no longer read: delete them if you like"
        )
    if mine:
        logger.info(f"embedding {len(triplets)} triplets with {tower.name}: {len(mine)} shards into {folder}")
    else:
        logger.info(f"using the features of {tower.name} ({tower.fingerprint}) in {folder}")
    for shard in tqdm(mine, desc="tower features", unit="shard", disable=not mine or not state.is_local_main_process):
        rows = triplets.select(range(shard * ROWS_PER_SHARD, min((shard + 1) * ROWS_PER_SHARD, len(triplets))))
        write_parquet(paths[shard], [_embed(row, tower, use_depth) for row in rows], features)
    state.wait_for_everyone()
    require_whole(paths, is_whole)
    return load_dataset("parquet", data_files=[str(path) for path in paths], split="train", features=features)


def _embed(row: Mapping[str, Any], tower: Tower, use_depth: bool) -> dict[str, Any]:
    captions = row["captions"]  # [V][k]
    distinct = sorted({caption for own in captions for caption in own})
    if not distinct:
        raise ValueError(f"the triplet {row['id']!r} has no caption")
    encoded = dict(zip(distinct, _half(tower.encode_text(distinct)), strict=True))
    embeds: dict[str, Any] = {
        "id": row["id"],
        "image_embeds": _half(tower.encode_images([open_view(view) for view in row["views"]])),  # (V, D)
        "text_embeds": [[encoded[caption] for caption in own] for own in captions],  # [V][k](D,)
    }
    if use_depth:
        embeds["depth_embeds"] = _half(tower.encode_images([open_depth(view) for view in row["depths"]]))  # (V, D)
    return embeds


def _half(embeds: Any) -> np.ndarray:
    return embeds.cpu().numpy().astype(np.float16)


def _cache_key(triplets: Dataset, tower: Tower, use_depth: bool) -> str:
    # datasets' fingerprint changes with the files and with the selection of rows
    text = json.dumps([tower.fingerprint, rows_fingerprint(triplets), use_depth, ROWS_PER_SHARD])
    return f"{tower.fingerprint}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
