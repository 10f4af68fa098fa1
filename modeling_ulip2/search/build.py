"""Builds an index folder from shapes, and adds shapes to one that exists.

A shard of shapes is the unit of work: written under a temporary name, renamed when whole. After a stop in the middle,
the same call goes on after the last whole shard. Shards are only ever added, so the FAISS index grows behind them, and
a folder can be searched while it grows: what the FAISS index does not cover yet is not found, and nothing else is
lost.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from filelock import FileLock, Timeout
from transformers.utils.logging import tqdm

from modeling_ulip2.data.schema import STORED_UP_AXIS, error_features
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.embedding.loop import reading_workers
from modeling_ulip2.embedding.reading import Selected
from modeling_ulip2.embedding.records import ShapeFailure
from modeling_ulip2.utils.files import LEFTOVERS, whole_path, write_text
from modeling_ulip2.utils.machine_paths import without_paths
from modeling_ulip2.utils.parquet import read_parquet, write_parquet

from .faiss_index import choose_factory, update_faiss
from .index import ShapeIndex, agree, read_shapes, require_model
from .locations import found_place, stored_place
from .schema import (
    CONFIG,
    EMBEDS,
    ERRORS_FILE,
    FAISS_FILE,
    FORMAT,
    INFO_FILE,
    index_card,
    index_features,
    index_shard_path,
)
from .shape_sources import IndexRow, ShapeSource, TripletSource

logger = logging.getLogger(__name__)

SHARD_SIZE = 500
_LOCK = ".lock"


@dataclass
class IndexReport:
    """What became of the shapes of one call of `build_index`.

    Attributes:
        added: ids of the shapes that it wrote, as the index calls them.
        present: how many were in the index already.
        failures: those that cannot be used.
        warnings: of shapes that were written, by id.
        skipped: files of the folder that hold no shape that is read, with the reason.
    """

    added: list[str] = field(default_factory=list)
    present: int = 0
    failures: list[ShapeFailure] = field(default_factory=list)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def build_index(
    source: ShapeSource,
    output_dir: str | Path,
    embedder: Ulip2Embedder,
    *,
    factory: str | None = None,
    shard_size: int = SHARD_SIZE,
    append: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    report: IndexReport | None = None,
) -> ShapeIndex:
    """Embeds shapes and writes them, a picture and the points of each, with a FAISS index over the embeddings.

    A shape that cannot be used becomes a row of `errors.parquet`, tried again by the next call.

    Args:
        source: the shapes.
        output_dir: a new or empty folder, one where the same build was stopped, or with `append` an index.
        embedder: of a `Ulip2Model`; the index remembers it by its name, see `locations.stored_place`.
        factory: a FAISS factory string, e.g. "Flat" (exact), "IVF1024,SQ8"; default: `choose_factory`, by size.
        shard_size: rows of a file; a build that is stopped loses no more than these.
        append: add those shapes that are not in the index yet. A shape is there already if its collection and its id
            are, or, for another collection, if a shape of the same id has the same points; a shape that shares no more
            than the id is called `COLLECTION/ID`.
        overwrite: delete an index that is in `output_dir`.
        report: is filled with what becomes of the shapes.

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
    folder, report = Path(output_dir), IndexReport() if report is None else report
    report.skipped.update(source.skipped)
    with _locked(folder):
        info = _begin(folder, source, embedder, factory, shard_size, append, overwrite)
        present = _check_present(folder, info, source, embedder, append)
        collection = _add_collection(info, source, folder)
        write_info(folder, info)
        ids = _Ids(folder, collection, source, append)
        todo = [position for position in range(len(source.ids)) if ids.name(position) not in present]
        report.present += len(source.ids) - len(todo)
        _write_shards(folder, info, source, todo, ids, embedder, progress, report)
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
    source: ShapeSource,
    embedder: Ulip2Embedder,
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
        "dim": embedder.dim,
        "num_points": source.num_points,
        "factory": factory or choose_factory(len(source.ids)),
        "factory_by_size": factory is None,
        "shard_size": shard_size,
        "model": stored_place(embedder.name, folder),
        "tower": embedder.tower_name,
        "collections": [],
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
        write_info(folder, info)
        return info
    before = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
    # what an index is called and how it is cut matters to nobody who adds to it
    compared = ["format", "dim", "num_points"] if append else [name for name in info if name != "collections"]
    changed = [
        f"{name} was {before.get(name)!r}, now {info[name]!r}"
        for name in compared
        if before.get(name) != info[name] and not (name == "factory" and factory is None)
    ]
    if changed:
        raise ValueError(f"{folder} holds another index ({'; '.join(changed)}); --overwrite replaces it")
    return before


def write_info(folder: Path, info: Mapping[str, Any]) -> None:
    write_text(folder / INFO_FILE, json.dumps(info, indent=2) + "\n")


def _add_collection(info: dict[str, Any], source: ShapeSource, folder: Path) -> str:
    """What the index calls the collection of a source, which is entered unless it is known."""
    collections = info.setdefault("collections", [])
    known = _collection(info, source, folder)
    if known is not None:
        return known
    taken = {entry["name"] for entry in collections}
    names = [source.name, "/".join(Path(source.place or source.name).parts[-2:]).lstrip("/")]
    names += [f"{source.name}-{number}" for number in range(2, len(taken) + 3)]
    place = None if source.place is None else stored_place(source.place, folder)
    collections.append({"name": next(name for name in names if name not in taken), "place": place})
    return collections[-1]["name"]


def _collection(info: Mapping[str, Any], source: ShapeSource, folder: Path) -> str | None:
    """What the index calls the collection of a source, None if it does not know it."""
    for entry in info.get("collections", []):
        if source.place is None:
            if entry["place"] is None and entry["name"] == source.name:
                return entry["name"]
        elif entry["place"] is not None and found_place(entry["place"], folder) == source.place:
            return entry["name"]
    return None


class _Ids:
    """What the index calls the shapes of a source.

    Shapes of one collection are told apart by their ids, and known again by them. A shape of another collection that
    has an id which is taken gets `COLLECTION/ID`, unless it is the same shape.
    """

    def __init__(self, folder: Path, collection: str, source: ShapeSource, append: bool) -> None:
        self.collection, self._source = collection, source
        self._ids = set(source.ids)
        self._shapes: Dataset | None = None
        self._rows: dict[str, int] = {}  # by id, of what was there before
        self._own: set[str] = set()  # ids of this collection among them
        if any((folder / CONFIG).glob("train-*.arrow")):
            self._shapes = read_shapes(folder)
            self._rows = {name: row for row, name in enumerate(self._shapes["id"])}
            if not append:  # the same build goes on
                self._own = set(self._rows)
            elif source.place is not None and "collection" in self._shapes.column_names:
                owners = zip(self._shapes["id"], self._shapes["collection"], strict=True)
                self._own = {name for name, owner in owners if owner == collection}

    def name(self, position: int) -> str:
        """The id under which a shape is in the index, or will be unless it is one of another collection."""
        name = self._source.ids[position]
        if name in self._own:
            return name
        qualified = self._qualified(name)
        return name if name not in self._rows and qualified not in self._own else qualified

    def _qualified(self, name: str) -> str:
        number = 1
        while True:
            prefix = self.collection if number == 1 else f"{self.collection}-{number}"
            qualified = f"{prefix}/{name}"  # which may also be the path of another shape
            if qualified not in self._ids and (qualified not in self._rows or qualified in self._own):
                return qualified
            number += 1

    def same(self, position: int, row: IndexRow) -> bool:
        """Whether a shape of this id with the same points is there, of another collection or an unknown one."""
        name = self._source.ids[position]
        for known in (name, f"{self.collection}/{name}"):
            if self._shapes is None or known in self._own or known not in self._rows:
                continue
            there = self._shapes.select_columns(["xyz", "rgb"]).with_format("numpy")[self._rows[known]]
            if np.array_equal(np.float16(there["xyz"]), np.float16(row["xyz"])) and np.array_equal(
                np.uint8(there["rgb"]), np.uint8(row["rgb"])
            ):
                return True
        return False


def _check_present(
    folder: Path, info: Mapping[str, Any], source: ShapeSource, embedder: Ulip2Embedder, append: bool
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
        embed = embedder.embed_shapes([source[place[first["id"]]]], up_axis=STORED_UP_AXIS)[0].numpy()
        if not agree(embed, np.array(first[EMBEDS], dtype=np.float32)):
            raise ValueError(f"{folder} was begun with other shapes of these names; --overwrite begins again")
    return present


def _write_shards(
    folder: Path,
    info: Mapping[str, Any],
    source: ShapeSource,
    todo: Sequence[int],
    ids: _Ids,
    embedder: Ulip2Embedder,
    progress: bool,
    report: IndexReport,
) -> None:
    """Writes the shapes at the positions `todo`, in shards behind those that are there."""
    features = index_features(info["num_points"], info["dim"])
    (folder / CONFIG).mkdir(exist_ok=True)
    for leftover in (folder / CONFIG).glob(LEFTOVERS):
        leftover.unlink()
    shard = len(list((folder / CONFIG).glob("train-*.arrow")))
    workers = embedder.num_workers
    if workers is None:
        workers = reading_workers(len(todo), embedder.batch_size, files=not isinstance(source, TripletSource))
    tried, errors = set[str](), list[dict[str, Any]]()
    bar = tqdm(total=len(source.ids), initial=len(source.ids) - len(todo), unit="shape", disable=not progress)
    try:
        for start in range(0, len(todo), info["shard_size"]):
            positions = todo[start : start + info["shard_size"]]
            path = index_shard_path(folder, shard)
            names = [ids.name(position) for position in positions]
            records = embedder.iter_shapes(
                Selected(source, positions),
                ids=names,
                features="embeds",
                up_axis=STORED_UP_AXIS,
                num_workers=workers,
                progress=False,
                keep=True,
            )
            failures: list[ShapeFailure] = []
            added: list[str] = []
            with whole_path(path) as partial, ArrowWriter(features=features, path=str(partial)) as writer:
                for position, record in zip(positions, records, strict=True):
                    bar.update()
                    failure = record.failure
                    if failure is not None:
                        failures.append(failure)
                        continue
                    if ids.same(position, record.shape):
                        report.present += 1
                        continue
                    told = {"id": record.id, "collection": ids.collection, EMBEDS: record.vector().numpy()}
                    writer.write({**record.shape, **told, "warnings": list(map(without_paths, record.warnings))})
                    added.append(record.id)
                    if record.warnings:
                        report.warnings[record.id] = list(record.warnings)
                if added:
                    writer.finalize()
                else:
                    partial.unlink(missing_ok=True)
            tried.update(names)
            errors += [
                {"id": one.id, "reason": one.reason, "message": without_paths(one.message), "shard": shard}
                for one in failures
            ]
            report.failures += failures
            report.added += added
            shard += bool(added)
    finally:  # once, also when it is stopped; after a kill the next call tries those shapes again
        bar.close()
        _record_errors(folder, tried, errors)


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
    write_info(folder, info)
    write_text(folder / "README.md", index_card(info, len(shapes), Counter(shapes["license"][:])))
    return ShapeIndex.open(folder)
