"""Captions of a release in one JSON object of ten million entries, which no process has to hold at once."""

from __future__ import annotations

import codecs
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import ijson
from tqdm import tqdm

from modeling_ulip2.building.sources.table import CollectionError
from modeling_ulip2.utils.files import whole_path

CHUNK = 1 << 20
MAX_ENTRY = 16 << 20  # bytes that one key with its value may take
BATCH = 10_000


def read_entries(file: IO[bytes], chunk: int = CHUNK) -> Iterator[tuple[str, Any]]:
    """Keys and values of a JSON object, one after the other, in memory for one entry.

    Raises:
        ValueError: the file is no JSON object, is cut short, or has an entry of absurd length.
    """
    pieces = _Pieces(file)
    if pieces.begin() != b"{":
        raise ValueError("it is no JSON object")
    try:
        for entry in ijson.kvitems(pieces, "", buf_size=chunk, use_float=True):
            pieces.since_entry = 0
            yield entry
    except ijson.JSONError as error:
        raise ValueError(f"it is cut short or damaged ({' '.join(str(error).split())[:200]})") from error


class _Pieces:
    """A file from its first character on, that ends a read in which one entry takes more than `MAX_ENTRY` bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._first, self.since_entry = file, b"", 0

    def begin(self) -> bytes:
        """The first character behind blanks and a byte order mark, to be read again."""
        if (head := self._file.read(len(codecs.BOM_UTF8))) != codecs.BOM_UTF8:
            self._first = head.lstrip()
        while not self._first and (more := self._file.read(1)):
            self._first = more.strip()
        return self._first[:1]

    def read(self, size: int) -> bytes:
        self.since_entry += size
        if self.since_entry > MAX_ENTRY + size:
            raise ValueError(f"one entry takes more than {MAX_ENTRY >> 20} MiB")
        if not self._first or not size:  # ijson reads nothing at first, to see whether these are bytes
            return self._file.read(size)
        found, self._first = self._first, b""
        return found


def view_key(path: str) -> str:
    """The key of a view: the last two parts of its path, folder of the shape and name of the file."""
    return "/".join(path.replace("\\", "/").split("/")[-2:])


def index_captions(source: Path, index: Path) -> None:
    """Write the captions of a JSON file `{path of a view: [captions]}` as an SQLite table, unless it is there.

    Raises:
        CollectionError: the file is missing, damaged, or something else.
    """
    if index.is_file():
        return
    try:
        with source.open("rb") as file, whole_path(index) as partial, sqlite3.connect(partial) as database:
            database.execute("PRAGMA journal_mode = OFF")
            database.execute("PRAGMA synchronous = OFF")
            database.execute("CREATE TABLE captions (view TEXT PRIMARY KEY, texts TEXT) WITHOUT ROWID")
            rows: list[tuple[str, str]] = []
            for key, texts in tqdm(read_entries(file), desc="Indexing captions", unit="view"):
                rows.append((view_key(key), json.dumps([texts] if isinstance(texts, str) else texts)))
                if len(rows) == BATCH:
                    database.executemany("INSERT OR REPLACE INTO captions VALUES (?, ?)", rows)
                    rows.clear()
            database.executemany("INSERT OR REPLACE INTO captions VALUES (?, ?)", rows)
        database.close()
    except FileNotFoundError:
        raise CollectionError(f"there is no {source}") from None
    except (ValueError, TypeError) as error:
        raise CollectionError(f"{source} is not a JSON object {{view: [captions]}}: {error}") from error


class CaptionIndex:
    """What `index_captions` wrote, to be asked by folder and file; opened on the first question."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._database: sqlite3.Connection | None = None

    def __call__(self, view: str) -> list[str]:
        if self._database is None:
            self._database = sqlite3.connect(f"{self.path.resolve().as_uri()}?mode=ro", uri=True)
        found = self._database.execute("SELECT texts FROM captions WHERE view = ?", (view_key(view),)).fetchone()
        return clean_captions(json.loads(found[0])) if found else []


def clean_captions(texts: Any) -> list[str]:
    """Captions in their order, without what is no text, surplus blanks, empty ones and repetitions."""
    texts = [texts] if isinstance(texts, str) else texts if isinstance(texts, list) else []
    return list(dict.fromkeys(words for text in texts if isinstance(text, str) and (words := " ".join(text.split()))))
