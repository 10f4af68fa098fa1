"""Rows of a triplets dataset as the collator wants them: numpy views of Arrow memory, images still encoded.

`TripletDataset` serves a dataset on disk (memory-mapped, so its size does not matter) and joins its rows with the
frozen tower's embeddings where those were computed beforehand; `stream.TripletStream` serves one as it arrives.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset, get_dataset_config_names, load_dataset, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError
from torch.utils.data import Dataset as TorchDataset

from modeling_ulip2.data.origin import dataset_address, origin_of
from modeling_ulip2.data.schema import TRIPLETS_CONFIG, Row
from modeling_ulip2.utils.places import NOWHERE, PlaceError, is_hub_name
from modeling_ulip2.utils.private_apis import hub_downloads_in

logger = logging.getLogger(__name__)

# What the collator reads. With precomputed embeddings the images and the captions stay on disk.
POINT_COLUMNS = ("id", "xyz", "rgb")
RAW_COLUMNS = ("views", "depths", "captions")
FEATURE_COLUMNS = ("image_embeds", "depth_embeds", "text_embeds")
SOURCES_COLUMN = "caption_sources"

# Rows with precomputed embeddings that are kept once decoded; a few kilobytes each, as the numbers stay where they
# are in Arrow memory.
MAX_DECODED = 100_000


def read_triplets(dataset: str, streaming: bool = False, **hub: Any) -> Dataset | IterableDataset:
    """The `triplets` config of a dataset folder or of a hub repository; all its rows.

    Args:
        hub: `revision`, `token` and `cache_dir` of a repository, see `load_config`.

    Raises:
        FileNotFoundError: there is no such folder, nor on the hub, or it holds no triplets.
    """
    folder = Path(dataset).expanduser()
    if folder.is_dir():
        if not any(folder.glob("**/*.parquet")):
            raise FileNotFoundError(f"{dataset} holds no parquet shard: not a triplets folder, or not built yet")
        return load_config(str(folder), TRIPLETS_CONFIG, streaming)
    with on_the_hub(dataset, "build one with `ulip2 build`"):
        return load_config(dataset, TRIPLETS_CONFIG, streaming, **hub)


@contextmanager
def on_the_hub(dataset: str, advice: str) -> Iterator[None]:
    """Around the loading of a dataset that is no folder: a PlaceError, with advice, where the hub has none either."""
    there = Path(dataset).expanduser().exists()
    if there or not is_hub_name(dataset):
        raise PlaceError(f"{dataset}: {'a file' if there else NOWHERE}; {advice}")
    try:
        yield
    except (ConnectionError, DatasetNotFoundError) as error:
        raise PlaceError(f"{dataset}: {NOWHERE} ({error}); {advice}") from error


def load_config(dataset: str, config: str, streaming: bool = False, **hub: Any) -> Dataset | IterableDataset:
    """All rows of one config of a dataset folder or hub repository, as the files are now.

    Args:
        hub: `revision`, `token` and `cache_dir` of a repository; a folder has no use for them.
    """
    if Path(dataset).expanduser().is_dir():
        return load_dataset(dataset, config, split="train", streaming=streaming, **_named_files(dataset, config))
    with hub_downloads_in(hub.get("cache_dir")):
        rows = load_dataset(dataset, config, split="train", streaming=streaming, **hub)
    rows.info.homepage = rows.info.homepage or dataset_address(dataset)
    return rows


def config_files(dataset: str, config: str, **hub: Any) -> list[str]:
    """Paths or `hf://` addresses of the files that `load_config` reads, in its order."""
    hub = {} if Path(dataset).expanduser().is_dir() else hub
    builder = load_dataset_builder(dataset, config, **_named_files(dataset, config), **hub)
    return list((builder.config.data_files or {}).get("train", []))


def config_names(dataset: str, **hub: Any) -> list[str]:
    """The configs of a hub repository."""
    cache_dir = hub.pop("cache_dir", None)
    with hub_downloads_in(cache_dir):
        return get_dataset_config_names(dataset, **hub)


def _named_files(dataset: str, config: str) -> dict[str, Any]:
    if not (Path(dataset) / config).is_dir():
        return {}
    # Named, files enter the key of the cache with their paths and times. Known from the card alone they do not:
    # another folder of the same name, or the same one built anew, would be answered from the cache of the first.
    return {"data_files": {"train": f"{config}/*.parquet"}}


def read_split(path: str | Path) -> dict[str, list[str]]:
    """`{"train": [ids], "test": [ids]}` from a JSON file.

    Raises:
        ValueError: one of the two is missing, or an id is in both.
    """
    try:
        split = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(split, dict) or not all(isinstance(split.get(part), list) for part in ("train", "test")):
        raise ValueError(f'{path} must hold {{"train": [ids], "test": [ids]}}')
    common = set(split["train"]) & set(split["test"])
    if common:
        raise ValueError(f"{path}: {len(common)} ids are both in train and in test, e.g. {sorted(common)[0]!r}")
    return {part: split[part] for part in ("train", "test")}


def select_ids(dataset: Dataset, ids: Iterable[str], what: str) -> Dataset:
    """The rows of `dataset` whose `id` is in `ids`, in the order of the dataset; ids without a row are logged."""
    wanted, names = set(ids), list(dataset["id"])
    if not wanted or not names:
        raise ValueError(f"there are no {what} ids to look for" if names else "the dataset has no rows")
    rows = [index for index, name in enumerate(names) if name in wanted]
    if not rows:
        raise ValueError(
            f"none of the {len(wanted)} {what} ids is in the dataset: {min(wanted)!r} there, {names[0]!r} here"
        )
    if len(rows) < len(wanted):
        missing = sorted(wanted - {names[index] for index in rows})
        logger.warning(f"{len(missing)} of {len(wanted)} {what} ids are not in the dataset, e.g. {missing[0]!r}")
    return dataset.select(rows)


def check_views(triplets: Dataset) -> None:
    """Tells apart datasets that hold clouds and captions alone, such as Objaverse-LVIS as OpenShape released it.

    Raises:
        ValueError: rows have no view; the message says how many, and names one.
    """
    if "views" not in triplets.column_names:
        raise ValueError("the triplets have no views, which this needs beside clouds and captions")
    if "azimuths" not in triplets.column_names:
        return
    missing, example = 0, ""
    # a view has an azimuth: to count those reads no picture
    for batch in triplets.select_columns(["id", "azimuths"]).with_format("arrow").iter(10_000):
        lengths = pc.list_value_length(batch["azimuths"]).fill_null(0).to_numpy()
        if (lengths == 0).any():
            example = example or batch["id"][int(np.argmax(lengths == 0))].as_py()
            missing += int((lengths == 0).sum())
    if missing:
        raise ValueError(
            f"{missing} of {len(triplets)} triplets have no views, e.g. {example!r}: this needs pictures beside "
            "clouds and captions"
        )


class CloudRows(Sequence[dict[str, Any]]):
    """Rows of a dataset as an embedder takes them, decoded when they are asked for.

    Args:
        clouds: rows with `xyz` and perhaps `rgb`.
        keep_color: False leaves `rgb` out, so that the extractor fills its gray.
    """

    def __init__(self, clouds: Dataset, keep_color: bool = True) -> None:
        wanted = ("xyz", "rgb") if keep_color else ("xyz",)
        self._rows = clouds.select_columns([name for name in wanted if name in clouds.column_names])
        self._rows = self._rows.with_format("arrow")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return decode_row(self._rows[index])


class TripletDataset(TorchDataset):
    """Triplets by index.

    Args:
        triplets: the `triplets` config, or some of its rows.
        features: the towers' embeddings (columns `id`, `image_embeds`, `text_embeds`, perhaps `depth_embeds`) of at
            least these rows, in any order. None: rows carry encoded images and captions instead.
        sources: captioners whose captions are served, by their names in `caption_sources`; None: all captions.
        num_views: as many of a shape's views are served, evenly spread in their order; None, or where there are no
            more: all.

    Raises:
        ValueError: rows lack features; or the captions do not say who said them, or nobody in `sources` said any.
    """

    def __init__(
        self,
        triplets: Dataset,
        features: Dataset | None = None,
        sources: Sequence[str] | None = None,
        num_views: int | None = None,
    ):
        if num_views is not None and num_views < 1:
            raise ValueError(f"num_views must be at least 1, not {num_views}")
        self._num_views = num_views
        columns = POINT_COLUMNS + (RAW_COLUMNS if features is None else ())
        self._sources = None if sources is None else frozenset(sources)
        if self._sources is not None:
            columns += (SOURCES_COLUMN,)
            check_sources(triplets, self._sources)
        if features is None:
            check_views(triplets)
        self.ids: list[str] = list(triplets["id"])
        self.origin = origin_of(triplets)  # for the card of what is trained on it
        self._triplets = _arrow(triplets, columns)
        self._features, self._feature_rows = None, None
        if features is not None:
            place = {name: row for row, name in enumerate(features["id"])}
            missing = [name for name in self.ids if name not in place]
            if missing:
                raise ValueError(f"{len(missing)} of {len(self.ids)} rows have no tower features, e.g. {missing[0]!r}")
            self._feature_rows = [place[name] for name in self.ids]
            self._features = _arrow(features, FEATURE_COLUMNS)
        self._decoded: dict[int, Row] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Row:
        """Columns of one triplet, decoded as by `decode_row`."""
        if index in self._decoded:
            return self._decoded[index]
        row = decode_row(self._triplets[index])
        if self._features is None or self._feature_rows is None:
            return self._chosen(row)
        row = self._chosen(row | decode_row(self._features[self._feature_rows[index]]))
        if len(self._decoded) < MAX_DECODED:
            self._decoded[index] = row
        return row

    def _chosen(self, row: Row) -> Row:
        """The row with the captions of `sources` and `num_views` views alone."""
        row = self._some_views(row)
        if self._sources is None:
            return row
        said = row.pop(SOURCES_COLUMN)
        kept = [[place for place, source in enumerate(own) if source in self._sources] for own in said]
        if "captions" in row:
            row["captions"] = [[own[at] for at in view] for own, view in zip(row["captions"], kept, strict=True)]
        if "text_embeds" in row:
            row["text_embeds"] = [own[view] for own, view in zip(row["text_embeds"], kept, strict=True)]
        return row

    def _some_views(self, row: Row) -> Row:
        names = [name for name in (*RAW_COLUMNS, *FEATURE_COLUMNS, SOURCES_COLUMN) if row.get(name) is not None]
        count = max((len(row[name]) for name in names), default=0)
        if self._num_views is None or count <= self._num_views:
            return row
        kept = [place * count // self._num_views for place in range(self._num_views)]
        return row | {name: [row[name][place] for place in kept if place < len(row[name])] for name in names}


def check_sources(triplets: Dataset, sources: Collection[str]) -> None:
    """Raises ValueError unless every shape has a caption by one of the captioners `sources`."""
    if SOURCES_COLUMN not in triplets.column_names:
        raise ValueError("the triplets do not say which captioner said what: build them with --caption-sources")
    silent: list[str] = []
    known: set[str] = set()
    for row in triplets.select_columns(["id", SOURCES_COLUMN]):
        own = {source for of_view in row[SOURCES_COLUMN] for source in of_view}
        known |= own
        if not own & set(sources):
            silent.append(row["id"])
    if silent:
        raise ValueError(
            f"{len(silent)} of {len(triplets)} triplets, e.g. {silent[0]!r}, have no caption of "
            f"{' or '.join(sorted(sources))}: there are those of {', '.join(sorted(known))}"
        )


def decode_row(table: pa.Table) -> Row:
    """The only row of an Arrow table as a dict: numbers as numpy arrays that share its memory, all else as Python."""
    return {name: _nested(table.column(name).combine_chunks())[0] for name in table.column_names}


def _nested(array: pa.Array | pa.ChunkedArray) -> Any:
    """n entries as an array (n, ...), or as a list of arrays where lengths differ; strings and images as Python."""
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_fixed_size_list(array.type):
        inner = _nested(array.flatten())
        if isinstance(inner, np.ndarray):
            return inner.reshape(len(array), array.type.list_size, *inner.shape[1:])
        return [inner[i : i + array.type.list_size] for i in range(0, len(inner), array.type.list_size)]
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        if array.null_count:
            raise ValueError("a list in the dataset is null")
        inner, ends = _nested(array.flatten()), array.offsets.to_numpy() - array.offsets[0].as_py()
        lengths = np.diff(ends)
        if isinstance(inner, np.ndarray) and len(lengths) and (lengths == lengths[0]).all():
            return inner.reshape(len(array), lengths[0], *inner.shape[1:])
        return [inner[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        return array.to_numpy(zero_copy_only=False)
    return array.to_pylist()


def _arrow(dataset: Dataset, columns: Iterable[str]) -> Dataset:
    return dataset.select_columns([name for name in columns if name in dataset.column_names]).with_format("arrow")
