"""Captions that were made elsewhere, by an API model, on a cluster or by people: one reader for every layout.

A file has rows, each about one object or about one view of it:

- JSONL: `{"id": "chairs/a.glb", "caption": "a red chair"}`, or `"captions": ["a red chair", "a seat"]`, or, a list for
  each view in the order of the views, `"captions": [["a red chair"], ["the back of a chair"]]`; or a text in each of
  several columns, such as `short`, `long` and `alt`. With `"view": 3` the row is about that view alone (the first
  is 0)
- CSV with a header of the same names; or Cap3D's layout (Luo et al. 2023), `uid,caption` without a header
- parquet with columns of the same names

Several rows of one object add up. An object is called by its id, or by the last part of it without suffix, as Cap3D
does: "0b3a…" for "000-023/0b3a….glb".
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from modeling_ulip2.utils.checksums import sha256_of

ID_COLUMNS = ("id", "object_id", "uid")
CAPTION_COLUMNS = ("caption", "captions", "text", "short", "long", "alt")
VIEW_COLUMN = "view"
SUFFIXES = (".jsonl", ".csv", ".parquet")
MAX_LINE = 16 << 20  # bytes
# At most so many faults of a file are listed; the first ones show what is wrong.
_TOLD = 5
_ROWS = 1024  # of a parquet file that are read at once


class RecordedCaptionsError(ValueError):
    """A file of captions cannot be used; the message names the file, the lines and what is wrong with them."""


@dataclass
class ObjectCaptions:
    """What a file says about one object: `of_object` about the whole, `of_views` by view."""

    of_object: list[str] = field(default_factory=list)
    of_views: dict[int, list[str]] = field(default_factory=dict)

    @property
    def num_views(self) -> int:
        """How many views the object must have for every caption to find its own."""
        return max(self.of_views, default=-1) + 1

    def for_views(self, num_views: int) -> list[list[str]]:
        """Captions [view][k]: those of the view first."""
        return [[*self.of_views.get(view, []), *self.of_object] for view in range(num_views)]

    def all(self) -> list[str]:
        """Every caption once."""
        return list(dict.fromkeys([*self.of_object, *(text for own in self.of_views.values() for text in own)]))


class RecordedCaptions:
    """The captions of a file by object; see `read_recorded_captions`."""

    def __init__(self, path: Path, by_id: dict[str, ObjectCaptions]) -> None:
        self.path, self.by_id = path, by_id
        self.sha256 = sha256_of(path)

    def find(self, object_id: str) -> ObjectCaptions | None:
        """What the file says about an object, if anything: under its id, or under the id's last part."""
        return self.by_id.get(object_id) or self.by_id.get(short_name(object_id))

    @property
    def count(self) -> int:
        """Captions in all."""
        return sum(len(own.all()) for own in self.by_id.values())

    def coverage(self, ids: Sequence[str]) -> tuple[list[str], list[str]]:
        """Objects without a caption, and names in the file that belong to none of the objects.

        Raises:
            RecordedCaptionsError: a short name in the file fits several objects.
        """
        short: dict[str, list[str]] = {}
        for object_id in ids:
            short.setdefault(short_name(object_id), []).append(object_id)
        whole = set(ids)
        for name, own in short.items():
            unnamed = [object_id for object_id in own if object_id not in self.by_id]
            if name in self.by_id and name not in whole and len(unnamed) > 1:
                raise RecordedCaptionsError(
                    f"{self.path}: {name!r} may be {unnamed[0]!r} or {unnamed[1]!r}: write the whole id"
                )
        missing = [object_id for object_id in ids if self.find(object_id) is None]
        return missing, [name for name in self.by_id if name not in whole and name not in short]


def short_name(object_id: str) -> str:
    """The last part of an id without its suffix."""
    return re.sub(r"\.[A-Za-z0-9]+$", "", object_id.rpartition("/")[2])


def read_recorded_captions(path: str | Path, columns: Sequence[str] | None = None) -> RecordedCaptions:
    """Reads a file of captions; its suffix (.jsonl, .csv, .parquet) says how.

    Args:
        columns: those that hold captions; default: which of `CAPTION_COLUMNS` there are.

    Raises:
        RecordedCaptionsError: the file is missing, of another kind, empty, or has a malformed row.
    """
    path = Path(path)
    readers = {".jsonl": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix.lower() not in readers:
        raise RecordedCaptionsError(f"{path}: captions are read from {', '.join(SUFFIXES)}, not {path.suffix!r}")
    if not path.is_file():
        raise RecordedCaptionsError(f"there is no file of captions {path}")
    by_id: dict[str, ObjectCaptions] = {}
    faults: list[str] = []
    for place, row in readers[path.suffix.lower()](path, columns):
        try:
            if isinstance(row, str):
                raise ValueError(row)
            _add(by_id, row, columns)
        except ValueError as error:
            faults.append(f"{place}: {error}")
    if faults:
        more = f"; and {len(faults) - _TOLD} more" if len(faults) > _TOLD else ""
        raise RecordedCaptionsError(f"{path}, {'; '.join(faults[:_TOLD])}{more}")
    if not by_id:
        raise RecordedCaptionsError(f"{path} holds no captions")
    return RecordedCaptions(path, by_id)


def _add(by_id: dict[str, ObjectCaptions], row: dict[str, Any], columns: Sequence[str] | None) -> None:
    object_id = next((row[name] for name in ID_COLUMNS if row.get(name) is not None), None)
    if not isinstance(object_id, str) or not object_id.strip():
        raise ValueError(f"there is no id (a text under {', '.join(ID_COLUMNS)})")
    view = _view(row.get(VIEW_COLUMN))
    of_object: list[str] = []
    of_views: dict[int, list[str]] = {}
    for column in columns or CAPTION_COLUMNS:
        value = row.get(column)
        if isinstance(value, list) and any(isinstance(own, list) for own in value):
            if view is not None:
                raise ValueError(f"{column!r} has a list for each view, but the row is about view {view} alone")
            for number, own in enumerate(value):
                of_views.setdefault(number, []).extend(_texts([] if own is None else own, column))
        else:
            of_object += _texts(value, column)
    if view is not None:
        of_object, of_views = [], {view: of_object}
    if not of_object and not any(of_views.values()):
        raise ValueError(f"there is no caption (a text under {', '.join(columns or CAPTION_COLUMNS)})")
    known = by_id.setdefault(object_id.strip().replace("\\", "/"), ObjectCaptions())
    known.of_object = list(dict.fromkeys([*known.of_object, *of_object]))
    for number, texts in of_views.items():
        known.of_views[number] = list(dict.fromkeys([*known.of_views.get(number, []), *texts]))


def _texts(value: Any, column: str) -> list[str]:
    """One caption or several, without surplus blanks and empty ones."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    for text in values:
        if not isinstance(text, str):
            raise ValueError(f"{column!r} must be a text or a list of texts, not {text!r:.60}")
        if "\ufffd" in text:
            raise ValueError(f"{column!r} is not UTF-8")
    return [words for text in values if (words := " ".join(text.split()))]


def _view(value: Any) -> int | None:
    if value is None or value == "" or value != value:  # a table of pandas has NaN where there is nothing
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and re.fullmatch(r"\d{1,6}", value.strip()):
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 10**6:
        raise ValueError(f"{VIEW_COLUMN!r} must be a number from 0, not {value!r:.60}")
    return value


_Rows = Iterator[tuple[str, dict[str, Any] | str]]  # where a row is, and the row or what is wrong with it


def _json_rows(path: Path, columns: Sequence[str] | None) -> _Rows:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            place = f"line {number}"
            if len(line) > MAX_LINE:
                raise RecordedCaptionsError(f"{path}, {place}: it has more than {MAX_LINE >> 20} MiB")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
                row = json.loads(text) if text else None
            except UnicodeDecodeError:
                yield place, "it is not UTF-8"
            except (ValueError, RecursionError) as error:
                yield place, f"it is no JSON ({error})"
            else:
                if text:
                    yield place, row if isinstance(row, dict) else "it is no JSON object"


def _csv_rows(path: Path, columns: Sequence[str] | None) -> _Rows:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        header: list[str] | None = None
        first = True
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield f"line {reader.line_num}", f"it is no CSV ({error})"
                continue
            if not cells:
                continue
            place = f"line {reader.line_num}"
            if first:
                first = False
                names = [cell.strip() for cell in cells]
                if set(names) & set(ID_COLUMNS):
                    _check_columns(path, names, columns)
                    header = names
                    continue
                if columns:
                    raise RecordedCaptionsError(
                        f"{path} has no header, so that it has no columns {', '.join(columns)}"
                    )
            if header is None:  # Cap3D's layout; a comma in a caption without quotes belongs to it
                named = {"id": cells[0], "caption": ",".join(cells[1:])}
                yield place, named if len(cells) > 1 else "expected uid,caption"
            elif len(cells) != len(header):
                yield place, f"it has {len(cells)} cells, the header {len(header)}"
            else:
                yield place, dict(zip(header, cells, strict=True))


def _parquet_rows(path: Path, columns: Sequence[str] | None) -> _Rows:
    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            _check_columns(path, names, columns)
            wanted = [name for name in (*ID_COLUMNS, VIEW_COLUMN, *(columns or CAPTION_COLUMNS)) if name in names]
            number = 0
            for batch in file.iter_batches(_ROWS, columns=wanted):
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (pa.ArrowException, OSError) as error:
        raise RecordedCaptionsError(f"{path} is no parquet file, or damaged: {error}") from error


def _check_columns(path: Path, names: Iterable[str], columns: Sequence[str] | None) -> None:
    names = list(names)
    missing = [column for column in columns or () if column not in names]
    if missing or not set(names) & set(columns or CAPTION_COLUMNS) or not set(names) & set(ID_COLUMNS):
        wanted = ", ".join(missing) if missing else f"an id ({', '.join(ID_COLUMNS)}) and captions"
        raise RecordedCaptionsError(
            f"{path} has no column for {wanted}; its columns are {', '.join(names)}. Name those that hold captions if "
            f"they are called otherwise than {', '.join(CAPTION_COLUMNS)}"
        )
