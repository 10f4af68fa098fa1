"""Triplets -> an index folder. Stopped in the middle, the same call goes on after the last whole shard."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from transformers.utils import logging

from modeling_ulip2.evaluation.embeddings import embed_points
from modeling_ulip2.evaluation.split import PORTRAIT_AZIMUTH
from modeling_ulip2.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.training.data import decode_row
from modeling_ulip2.triplets.shards import write_text

from .index import ShapeIndex, agree, read_shapes
from .schema import EMBEDS, FAISS_FILE, FORMAT, INFO_FILE, index_card, index_features, shard_path

# Compares the query with every shape, so it finds the nearest ones for certain.
EXACT = "Flat"
SHARD_SIZE = 500
_TEXTS = ("id", "source", "name", "license", "creator")


def build_index(
    triplets: Dataset,
    output_dir: str | Path,
    model: Any,
    feature_extractor: Ulip2FeatureExtractor,
    *,
    model_name: str,
    tower_name: str,
    labels: Mapping[str, str] | None = None,
    factory: str = EXACT,
    batch_size: int = 16,
    shard_size: int = SHARD_SIZE,
    overwrite: bool = False,
    progress: bool = True,
) -> ShapeIndex:
    """Embeds N shapes and writes them, one view and the points of each, with a FAISS index over the embeddings.

    Args:
        triplets: rows of the `triplets` config.
        output_dir: a new or empty folder, or one where the same build was stopped.
        model: a `Ulip2Model` in evaluation mode.
        model_name, tower_name: what the folder's card calls the model and the image-text model of its space.
        labels: category by id.
        factory: a FAISS factory string, e.g. "Flat" (exact), "IVF1024,Flat", "HNSW32".
        shard_size: rows of a parquet file; a build that is stopped loses no more than these.
        overwrite: delete an index that is in `output_dir`.

    Raises:
        ValueError: no shapes; `output_dir` holds something else, or a build of other shapes or by another model.
    """
    if len(triplets) == 0:
        raise ValueError("there is no shape to index")
    folder = Path(output_dir)
    info = {
        "format": FORMAT,
        "shapes": len(triplets),
        "dim": int(model.config.projection_dim),
        "num_points": triplets.features["xyz"].shape[0],
        "factory": factory,
        "shard_size": shard_size,
        "model": model_name,
        "tower": tower_name,
    }
    _begin(folder, info, overwrite)
    licenses = _write_shards(folder, info, triplets, model, feature_extractor, labels or {}, batch_size, progress)
    write_text(folder / "README.md", index_card(info, licenses))
    shapes = read_shapes(folder)
    add_faiss(shapes, factory)
    partial = folder / f".{FAISS_FILE}.part"
    shapes.save_faiss_index(EMBEDS, partial)
    partial.replace(folder / FAISS_FILE)
    return ShapeIndex.open(folder)


def add_faiss(shapes: Dataset, factory: str) -> None:
    """Attaches a FAISS index over `point_embeds`; inner products of normalised rows are cosines.

    Raises:
        ValueError: the factory string is unknown, or needs more shapes to be trained.
    """
    import faiss

    train_size = None if factory.startswith(EXACT) else len(shapes)
    try:
        shapes.add_faiss_index(
            EMBEDS, string_factory=factory, metric_type=faiss.METRIC_INNER_PRODUCT, train_size=train_size
        )
    except RuntimeError as error:
        reason = str(error).splitlines()[0].rpartition("Error: ")[2]
        raise ValueError(f"FAISS cannot build {factory!r} over {len(shapes)} shapes: {reason}") from None


def _begin(folder: Path, info: Mapping[str, Any], overwrite: bool) -> None:
    present = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    is_index = INFO_FILE in present
    if present and not is_index:
        raise ValueError(f"{folder} holds {present[0]!r} and no index; choose a new or empty folder")
    if is_index and overwrite:
        shutil.rmtree(folder)
    elif is_index:
        before = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
        changed = [
            f"{name} was {before.get(name)!r}, now {info[name]!r}" for name in info if before.get(name) != info[name]
        ]
        if changed:
            raise ValueError(f"{folder} holds another index ({'; '.join(changed)}); --overwrite replaces it")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / INFO_FILE, json.dumps(info, indent=2) + "\n")


def _write_shards(
    folder: Path,
    info: Mapping[str, Any],
    triplets: Dataset,
    model: Any,
    feature_extractor: Ulip2FeatureExtractor,
    labels: Mapping[str, str],
    batch_size: int,
    progress: bool,
) -> Counter[str]:
    """Writes the shards that are missing; counts the licences of all."""
    features = index_features(info["num_points"], info["dim"])
    starts = range(0, len(triplets), info["shard_size"])
    licenses: Counter[str] = Counter()
    with logging.tqdm(total=len(triplets), desc="shapes", unit="shape", disable=not progress) as bar:
        for shard, start in enumerate(starts):
            rows = triplets.select(range(start, min(start + info["shard_size"], len(triplets))))
            path = shard_path(folder, shard, len(starts))
            if path.is_file():
                _check_shard(path, rows, model, feature_extractor)
                bar.update(len(rows))
            else:
                embeds = []
                for first in range(0, len(rows), batch_size):
                    batch = rows.select(range(first, min(first + batch_size, len(rows))))
                    embeds.append(embed_points(model, feature_extractor, batch, batch_size, progress=False).numpy())
                    bar.update(len(batch))
                path.parent.mkdir(exist_ok=True)
                partial = path.with_name(f".{path.name}.part")
                with ArrowWriter(features=features, path=str(partial)) as writer:
                    for row in _index_rows(rows, np.concatenate(embeds), labels):
                        writer.write(row)
                    writer.finalize()
                partial.replace(path)
            licenses.update(rows["license"])
    return licenses


def _index_rows(rows: Dataset, embeds: np.ndarray, labels: Mapping[str, str]) -> Iterable[dict[str, Any]]:
    columns = [*_TEXTS, "xyz", "rgb", "views", "azimuths"]
    table = rows.select_columns(columns).with_format("arrow")
    for index in range(len(rows)):
        row = decode_row(table[index])
        turns = np.abs((np.asarray(row["azimuths"]) - PORTRAIT_AZIMUTH + 180) % 360 - 180)  # (V,) degrees
        yield {
            **{name: row[name] or "" for name in _TEXTS},
            "category": labels.get(row["id"], ""),
            "image": row["views"][int(turns.argmin())] if len(turns) else None,
            "xyz": row["xyz"],
            "rgb": row["rgb"],
            EMBEDS: embeds[index],
        }


def _check_shard(path: Path, rows: Dataset, model: Any, feature_extractor: Ulip2FeatureExtractor) -> None:
    """Raises ValueError unless a shard of an earlier call holds these rows, embedded by this model."""
    written = Dataset.from_file(str(path)).select_columns(["id", EMBEDS])
    embed = embed_points(model, feature_extractor, rows.select([0]), progress=False)[0]
    same_shapes = list(written["id"]) == list(rows["id"])
    if not same_shapes or not agree(embed.numpy(), np.array(written[0][EMBEDS], dtype=np.float32)):
        raise ValueError(
            f"{path.parent.parent} was begun with other shapes or another model; --overwrite begins again"
        )
