"""Triplets that are read as they arrive: shuffled, shared among processes and workers, in passes without end.

A stream takes the rows of `load_dataset(..., streaming=True)`, for which the frozen tower runs in every step, or those
of `joined_rows`: clouds with the tower's embeddings from the files of the config `features`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset as TorchIterableDataset
from torch.utils.data import get_worker_info

from modeling_ulip2.data.origin import origin_of
from modeling_ulip2.data.reading import FEATURE_COLUMNS, POINT_COLUMNS, RAW_COLUMNS, decode_row
from modeling_ulip2.data.schema import Row

# Rows that a file is asked for at a time; some 300 kilobytes each with embeddings.
ROWS_PER_READ = 32


class TripletStream(TorchIterableDataset):
    """Endless passes over a streamed dataset; each row tells its pass in `epoch`, which the augmentation needs.

    Trainer can resume a stream without end: it skips the rows that were used, whatever number of passes they make.
    Where the number of files is a multiple of the number of processes each process reads its own files, otherwise
    every process reads all and keeps its share; then a global batch is the same for any number of processes.

    Args:
        triplets: `load_dataset(..., "triplets", streaming=True)` or `joined_rows(...)`.
        ids: rows to keep; None: all.
        seed, shuffle_buffer: files are shuffled, and rows within a buffer of this many, otherwise in each pass; 0:
            rows come as they are stored.
        process_index, num_processes: of this process.
    """

    def __init__(
        self,
        triplets: IterableDataset,
        ids: Iterable[str] | None = None,
        seed: int = 0,
        shuffle_buffer: int = 0,
        process_index: int = 0,
        num_processes: int = 1,
    ):
        source = triplets
        # rows of `joined_rows` come from a generator, all others from Arrow tables
        self.origin = origin_of(triplets)  # for the card of what is trained on it
        self.has_features = triplets.info.builder_name == "generator"
        if not self.has_features:
            present = triplets.column_names or POINT_COLUMNS + RAW_COLUMNS
            source = source.select_columns([name for name in POINT_COLUMNS + RAW_COLUMNS if name in present])
            source = source.with_format("arrow")
        if shuffle_buffer:
            source = source.shuffle(seed=seed, buffer_size=shuffle_buffer)
        self._source = split_dataset_by_node(source, process_index, num_processes)
        self._wanted = None if ids is None else frozenset(ids)

    def __iter__(self) -> Iterator[Row]:
        for epoch in count():
            self._source.set_epoch(epoch)
            rows = 0
            for read in self._source:
                row = decode_row(read) if isinstance(read, pa.Table) else read
                if self._wanted is None or row["id"] in self._wanted:
                    rows += 1
                    yield row | {"epoch": epoch}
            if not rows and get_worker_info() is not None:
                return  # more workers than files
            if not rows:
                raise ValueError("the stream holds no row of the training split")


def joined_rows(
    triplets: Sequence[str], features: Sequence[str], use_depth: bool = False, token: str | None = None
) -> IterableDataset:
    """Clouds with the towers' embeddings, decoded; of each file those columns alone are read.

    Args:
        triplets, features: parquet files of the two configs, paths or addresses that fsspec knows. Those at the same
            place hold the same shapes in the same order, as `ulip2 build` writes them; reading checks it.
        use_depth: also read `depth_embeds`.
        token: for files that are private on the hub; None: that of the login.
    """
    columns = tuple(name for name in FEATURE_COLUMNS if use_depth or name != "depth_embeds")
    pairs = list(zip(triplets, features, strict=True))
    return IterableDataset.from_generator(_read_pairs, gen_kwargs={"pairs": pairs, "columns": columns, "token": token})


def open_parquet(place: str, token: str | None = None) -> Any:
    """A file on this machine or on the hub (`hf://`), opened for reading, as a context manager."""
    return fsspec.open(place, "rb", **({"token": token} if token and place.startswith("hf://") else {}))


def _read_pairs(pairs: list[tuple[str, str]], columns: tuple[str, ...], token: str | None = None) -> Iterator[Row]:
    """Rows of the pairs of files; `datasets` gives each process and worker a part of `pairs`."""
    for triplets, features in pairs:
        with open_parquet(triplets, token) as clouds, open_parquet(features, token) as embeddings:
            opened = pq.ParquetFile(clouds), pq.ParquetFile(embeddings)
            if opened[0].metadata.num_rows != opened[1].metadata.num_rows:
                raise _other_shapes(
                    triplets, features, f"{opened[0].metadata.num_rows} rows beside {opened[1].metadata.num_rows}"
                )
            for row, own in zip(_read(opened[0], POINT_COLUMNS), _read(opened[1], ("id", *columns)), strict=True):
                if row["id"] != own["id"]:
                    raise _other_shapes(triplets, features, f"{row['id']!r} beside {own['id']!r}")
                yield row | own


def _read(file: pq.ParquetFile, columns: Sequence[str]) -> Iterator[Row]:
    present = [name for name in columns if name in file.schema_arrow.names]
    for batch in file.iter_batches(ROWS_PER_READ, columns=present):
        table = pa.Table.from_batches([batch])
        for index in range(len(table)):
            yield decode_row(table.take([index]))  # a copy: a row in the shuffle buffer must not keep all of the batch


def _other_shapes(triplets: str, features: str, difference: str) -> ValueError:
    return ValueError(
        f"{features} does not hold the embeddings of {triplets} ({difference}): make them anew with "
        "`ulip2 embed-triplets --replace`, or train with --use_features false"
    )
