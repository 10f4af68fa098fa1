"""Parquet files of rows, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from .files import whole_file

if TYPE_CHECKING:
    from datasets import Features

# Rows of a group: what `datasets` chooses for images, and fewer where a group would become larger than what the hub's
# viewer reads at once. The page index lets it read single rows.
ROW_GROUP_SIZE, ROW_GROUP_BYTES = 100, 100_000_000
# Coordinates and embeddings hardly repeat, so that dictionaries of them cost most of the time of reading. Captions do,
# and their embeddings with them, 2 D bytes at a time: zstd finds those, snappy does not.
ENCODING = {"use_dictionary": False, "compression": "zstd", "write_page_index": True}
_ROWS_AT_ONCE = 10_000


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], features: Features) -> tuple[int, int]:
    """Write rows as a parquet file with exactly `features`, whole or not at all; bytes of the file and in memory."""
    from datasets import Dataset

    columns = {name: [row[name] for row in rows] for name in features}
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        table = Dataset.from_dict(columns, features=features).data.table
        pq.write_table(table, file, row_group_size=rows_of_a_group(table), **ENCODING)
    return path.stat().st_size, table.nbytes


def rows_of_a_group(table: pa.Table) -> int:
    """How many rows of a table make a group that the viewer of the hub can read."""
    if not table.num_rows:
        return ROW_GROUP_SIZE
    return max(1, min(ROW_GROUP_SIZE, ROW_GROUP_BYTES * table.num_rows // max(1, table.nbytes)))


def write_table(path: Path, rows: Iterable[Mapping[str, Any]], features: Features) -> None:
    """Write a long table of plain values whole or not at all, without holding all of it in memory."""
    rows, schema = iter(rows), features.arrow_schema
    with whole_file(path) as file, pq.ParquetWriter(file, schema) as writer:
        while part := list(islice(rows, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))


def read_parquet(path: Path, features: Features) -> list[dict[str, Any]]:
    return pq.read_table(path, columns=list(features)).to_pylist()


def is_parquet(path: Path) -> bool:
    """Whether a parquet file can be opened, which shows that all of it was written."""
    try:
        pq.read_metadata(path)
    except (OSError, ValueError):  # ArrowInvalid is a ValueError
        return False
    return True
