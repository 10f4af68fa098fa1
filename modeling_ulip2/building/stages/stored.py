"""What a folder of triplets holds already, for stages that add to it."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from modeling_ulip2.data.schema import Row

from .base import ObjectError, RowStage

COLUMNS = ("source", "license", "views", "captions")


class ReadTriplet(RowStage):
    """`file` and `index` -> the stored `views` (encoded images), `captions` [V][k] and, if asked for, `depths`.

    Rows that follow one another in a file are read together, a row group at a time.
    """

    def __init__(self, folder: str, depth: bool = False) -> None:
        self.folder, self.columns = Path(folder), [*COLUMNS, *(["depths"] if depth else [])]
        self._file, self._start, self._table = "", 0, pa.table({})

    def process(self, row: Row) -> Row:
        if row["file"] != self._file or not self._start <= row["index"] < self._start + len(self._table):
            try:
                self._read(row["file"], row["index"])
            except (OSError, ValueError, KeyError) as error:
                self._file = ""
                raise ObjectError("unreadable_shard", f"{row['file']}: {str(error).splitlines()[0]}") from error
        (found,) = self._table.slice(row["index"] - self._start, 1).to_pylist()
        if not found["views"]:
            raise ObjectError("no_views", "it has captions but no views to embed")
        return {**found, "warnings": []}

    def _read(self, name: str, index: int) -> None:
        with pq.ParquetFile(self.folder / name) as file:
            self._start = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if index < self._start + rows:
                    self._table = file.read_row_group(group, columns=self.columns)
                    self._file = name
                    return
                self._start += rows
        raise ValueError(f"it has no row {index}")
