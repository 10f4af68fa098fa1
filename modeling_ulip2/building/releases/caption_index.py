"""Captions of a release in one JSON object of ten million entries, which no process has to hold at once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from modeling_ulip2.building.sources.table import CollectionError
from modeling_ulip2.utils.files import whole_path

CHUNK = 1 << 20
MAX_ENTRY = 16 << 20  # characters that one key with its value may take
BATCH = 10_000


def read_entries(file: IO[str], chunk: int = CHUNK) -> Iterator[tuple[str, Any]]:
    """Keys and values of a JSON object, one after the other, in memory for one entry.

    Raises:
        ValueError: the file is no JSON object, is cut short, or has an entry of absurd length.
    """
    decoder, buffer, at, ended = json.JSONDecoder(), "", 0, False

    def skip(characters: str) -> str:
        """The next character that is none of these, "" at the end of the file."""
        nonlocal buffer, at, ended
        while True:
            while at < len(buffer) and buffer[at] in characters:
                at += 1
            if at < len(buffer) or ended:
                return buffer[at : at + 1]
            buffer, at = file.read(chunk), 0
            ended = not buffer

    def value() -> Any:
        nonlocal buffer, at, ended
        while True:
            try:
                found, end = decoder.raw_decode(buffer, at)
            except json.JSONDecodeError:
                found, end = None, len(buffer)
            if buffer[end : end + 1] and buffer[end] in " \t\r\n,:}":  # else a number may go on
                at = end
                return found
            more = file.read(chunk)
            if not more or len(buffer) - at > MAX_ENTRY:
                raise ValueError("it is cut short or damaged") from None
            buffer, at = buffer[at:] + more, 0

    if skip(" \t\r\n\ufeff") != "{":
        raise ValueError("it is no JSON object")
    at += 1
    while (character := skip(" \t\r\n,")) != "}":
        if character != '"':
            raise ValueError("it is cut short or damaged")
        key = value()
        if skip(" \t\r\n") != ":":
            raise ValueError(f"there is no value behind {key[:80]!r}")
        at += 1
        skip(" \t\r\n")
        yield key, value()


def view_key(path: str) -> str:
    """By what a view is found: the last two parts of its path, folder of the shape and name of the file."""
    return "/".join(path.replace("\\", "/").split("/")[-2:])


def index_captions(source: Path, index: Path) -> None:
    """Write the captions of a JSON file `{path of a view: [captions]}` as an SQLite table, unless it is there.

    Raises:
        CollectionError: the file is missing, damaged, or something else.
    """
    if index.is_file():
        return
    try:
        with source.open(encoding="utf-8") as file, whole_path(index) as partial, sqlite3.connect(partial) as database:
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
