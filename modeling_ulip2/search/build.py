"""Shapes -> an index folder, and more shapes into one that is there.

A shard of shapes is the unit of work: written under a temporary name, renamed when whole. Stopped in the middle, the
same call goes on after the last whole shard. Shards are only ever added, so the FAISS index grows behind them, and a
folder can be searched while it grows: what the FAISS index does not cover yet is not found, and nothing else is lost.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock, Timeout
from transformers.utils.logging import tqdm

from modeling_ulip2.evaluation.embeddings import embed_points
from modeling_ulip2.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.geometry import MeshError
from modeling_ulip2.triplets.schema import error_features
from modeling_ulip2.triplets.shards import read_parquet, write_parquet, write_text

from .faiss_index import choose_factory, update_faiss
from .index import ShapeIndex, agree, read_shapes, require_model
from .schema import CONFIG, EMBEDS, ERRORS_FILE, FAISS_FILE, FORMAT, INFO_FILE, index_card, index_features, shard_path
from .sources import Row, Source

logger = logging.getLogger(__name__)

SHARD_SIZE = 500
_LOCK = ".lock"


@dataclass(frozen=True)
class Embedder:
    """The model that embeds the shapes of an index.

    Attributes:
        model: a `Ulip2Model` in evaluation mode.
        name, tower_name: what the folder's card calls the model and the image-text model of its space.
        batch_size: clouds a forward pass.
    """

    model: Any
    feature_extractor: Ulip2FeatureExtractor
    name: str
    tower_name: str
    batch_size: int = 16

    def __call__(self, rows: Sequence[Row]) -> np.ndarray:
        """(n, D) float32, L2-normalised."""
        clouds = [{"xyz": row["xyz"], "rgb": row["rgb"]} for row in rows]
        return embed_points(self.model, self.feature_extractor, clouds, self.batch_size, progress=False).numpy()


def build_index(
    source: Source,
    output_dir: str | Path,
    embedder: Embedder,
    *,
    factory: str | None = None,
    shard_size: int = SHARD_SIZE,
    append: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> ShapeIndex:
    """Embeds shapes and writes them, a picture and the points of each, with a FAISS index over the embeddings.

    A shape that cannot be used becomes a row of `errors.parquet`, tried again by the next call.

    Args:
        source: the shapes.
        output_dir: a new or empty folder, one where the same build was stopped, or with `append` an index.
        factory: a FAISS factory string, e.g. "Flat" (exact), "IVF1024,SQ8"; default: `choose_factory`, by size.
        shard_size: rows of a file; a build that is stopped loses no more than these.
        append: add those shapes whose id is not in the index yet.
        overwrite: delete an index that is in `output_dir`.

    Raises:
        ValueError: no shape can be used; `output_dir` holds something else, is in use, or was made from other shapes
            or by another model.
    """
    if append and overwrite:
        raise ValueError("append adds to an index and overwrite deletes it; choose one")
    if len(source.ids) == 0:
        raise ValueError("there is no shape to index")
    if len(set(source.ids)) < len(source.ids):
        twice, _ = Counter(source.ids).most_common(1)[0]
        raise ValueError(f"the id {twice!r} is there twice; an index knows its shapes by id")
    folder = Path(output_dir)
    with _locked(folder):
        info = _begin(folder, source, embedder, factory, shard_size, append, overwrite)
        present = _check_present(folder, info, source, embedder, append)
        _write_shards(folder, info, source, present, embedder, progress)
        return _finish(folder, info, len(source.ids), progress)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One writer at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process is writing into {folder}; wait for it or stop it first") from None
    try:
        yield
    finally:
        (folder / _LOCK).unlink(missing_ok=True)
        lock.release()


def _begin(
    folder: Path,
    source: Source,
    embedder: Embedder,
    factory: str | None,
    shard_size: int,
    append: bool,
    overwrite: bool,
) -> dict[str, Any]:
    """The settings of the folder, which are written if it is new.

    `factory_by_size` says that nobody asked for the FAISS index's kind, so that it may change as the folder grows.
    """
    info = {
        "format": FORMAT,
        "dim": int(embedder.model.config.projection_dim),
        "num_points": source.num_points,
        "factory": factory or choose_factory(len(source.ids)),
        "factory_by_size": factory is None,
        "shard_size": shard_size,
        "model": embedder.name,
        "tower": embedder.tower_name,
    }
    present = sorted(path.name for path in folder.iterdir() if path.name != _LOCK)
    if present and INFO_FILE not in present:
        raise ValueError(f"{folder} holds {present[0]!r} and no index; choose a new or empty folder")
    if not present or overwrite:
        if append:
            raise ValueError(f"{folder} holds no index to append to; leave --append out to build one")
        for name in present:
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        write_text(folder / INFO_FILE, json.dumps(info, indent=2) + "\n")
        return info
    before = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
    # what an index is called and how it is cut matters to nobody who adds to it
    compared = ["format", "dim", "num_points"] if append else list(info)
    changed = [
        f"{name} was {before.get(name)!r}, now {info[name]!r}"
        for name in compared
        if before.get(name) != info[name] and not (name == "factory" and factory is None)
    ]
    if changed:
        raise ValueError(f"{folder} holds another index ({'; '.join(changed)}); --overwrite replaces it")
    return before


def _check_present(
    folder: Path, info: Mapping[str, Any], source: Source, embedder: Embedder, append: bool
) -> set[str]:
    """The ids that are in the folder. Raises ValueError unless they belong together with the source and the model."""
    if not any((folder / CONFIG).glob("train-*.arrow")):
        return set()
    shapes = read_shapes(folder)
    require_model(shapes, info, embedder.model, embedder.feature_extractor)
    present = set(shapes["id"][:])
    if append:
        return present
    if foreign := present.difference(source.ids):
        raise ValueError(
            f"{folder} holds {len(foreign)} other shapes, e.g. {min(foreign)!r}; --append adds to them, --overwrite "
            "begins again"
        )
    unusable = {row["id"] for row in read_errors(folder)}
    if (folder / FAISS_FILE).is_file() and (new := [name for name in source.ids if name not in present | unusable]):
        raise ValueError(
            f"{folder} is an index of {len(present):,} of these {len(source.ids):,} shapes; --append adds the other "
            f"{len(new):,}, --overwrite begins again"
        )
    place = {name: position for position, name in enumerate(source.ids)}
    for shard in sorted((folder / CONFIG).glob("train-*.arrow")):
        first = Dataset.from_file(str(shard)).select_columns(["id", EMBEDS])[0]
        embed = embedder([source.read(place[first["id"]])])[0]
        if not agree(embed, np.array(first[EMBEDS], dtype=np.float32)):
            raise ValueError(f"{folder} was begun with other shapes of these names; --overwrite begins again")
    return present


def _write_shards(
    folder: Path, info: Mapping[str, Any], source: Source, present: set[str], embedder: Embedder, progress: bool
) -> None:
    """Writes the shapes that are not present, in shards behind those that are there."""
    todo = [position for position, name in enumerate(source.ids) if name not in present]
    features = index_features(info["num_points"], info["dim"])
    (folder / CONFIG).mkdir(exist_ok=True)
    for leftover in (folder / CONFIG).glob(".*.part"):
        leftover.unlink()
    shard = len(list((folder / CONFIG).glob("train-*.arrow")))
    tried, errors = set[str](), list[dict[str, Any]]()
    try:
        with tqdm(
            total=len(source.ids), initial=len(source.ids) - len(todo), unit="shape", disable=not progress
        ) as bar:
            for start in range(0, len(todo), info["shard_size"]):
                positions = todo[start : start + info["shard_size"]]
                path = shard_path(folder, shard)
                partial = path.with_name(f".{path.name}.part")
                own: list[dict[str, str]] = []
                with ArrowWriter(features=features, path=str(partial)) as writer:
                    written = 0
                    for first in range(0, len(positions), embedder.batch_size):
                        batch = positions[first : first + embedder.batch_size]
                        rows = list(_usable(source, batch, own))
                        for row, embed in zip(rows, embedder(rows) if rows else (), strict=True):
                            writer.write(row | {EMBEDS: embed})
                        written += len(rows)
                        bar.update(len(batch))
                    if written:
                        writer.finalize()
                tried.update(source.ids[position] for position in positions)
                errors += [{**row, "shard": shard} for row in own]
                if written:
                    partial.replace(path)
                    shard += 1
                else:
                    partial.unlink(missing_ok=True)
    finally:  # once, also when it is stopped; after a kill the next call tries those shapes again
        _record_errors(folder, tried, errors)


def _usable(source: Source, positions: Sequence[int], errors: list[dict[str, str]]) -> Iterator[Row]:
    """The rows that can be read; of the others, `errors` tells why not."""
    for position in positions:
        try:
            yield source.read(position)
        except (ValueError, OSError, MemoryError) as error:
            reason = error.reason if isinstance(error, MeshError) else "unusable"
            # without the path, which `str` of a MeshError begins with
            message = str(error.args[0]) if isinstance(error, MeshError) else str(error) or type(error).__name__
            errors.append({"id": source.ids[position], "reason": reason, "message": message})


def _record_errors(folder: Path, tried: set[str], errors: Sequence[Mapping[str, Any]]) -> None:
    """Replaces what `errors.parquet` says about the shapes that were tried."""
    before = read_errors(folder)
    kept = [row for row in before if row["id"] not in tried]
    if errors or len(kept) < len(before):
        write_parquet(folder / ERRORS_FILE, [*kept, *errors], error_features())


def read_errors(folder: str | Path) -> list[dict[str, Any]]:
    """What could not be used, and why: rows of `error_features`."""
    path = Path(folder) / ERRORS_FILE
    return read_parquet(path, error_features()) if path.is_file() else []


def _finish(folder: Path, info: dict[str, Any], asked: int, progress: bool) -> ShapeIndex:
    """Brings the card and the FAISS index up to date with the shards."""
    if not any((folder / CONFIG).glob("train-*.arrow")):
        raise ValueError(f"none of the {asked:,} shapes can be used; {folder / ERRORS_FILE} tells why")
    shapes = read_shapes(folder)
    by_size = choose_factory(len(shapes))
    outgrown = info["factory_by_size"] and by_size != info["factory"]
    if outgrown:
        info = info | {"factory": by_size}
        logger.info("%d shapes are indexed by %s from now on", len(shapes), by_size)
    update_faiss(folder, shapes, info["factory"], rebuild=outgrown, progress=progress)
    write_text(folder / INFO_FILE, json.dumps(info, indent=2) + "\n")
    write_text(folder / "README.md", index_card(info, len(shapes), Counter(shapes["license"][:])))
    return ShapeIndex.open(folder)
