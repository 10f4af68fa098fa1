"""What a build writes down about itself: its settings once, and a line for each shard that is done.

    DIR/manifest.json     format, settings, objects, number of shards, stages, and how much of the log the tables tell
    DIR/shards.jsonl      `{"shard", "record", "errors", "warnings"}` a line, only ever added to
    DIR/errors.parquet    the errors of all lines, and `warnings.parquet` their warnings: made when a run ends

To finish a shard costs one line, however many there are. A line counts once its newline is written: what was torn off
by a crash is cut away when the log is opened. A shard that is made again gets another line, and its last one counts.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from modeling_ulip2.utils.files import whole_file, write_text

FORMAT = 3  # 3: shards are lines of a log instead of entries of the manifest
OLD_FORMAT = 2  # still read; `convert_manifest` makes it the new one


class OutputError(RuntimeError):
    """The output folder cannot be written, is in use, or belongs to another build; the message says what to do."""


class RecordNames(NamedTuple):
    """The names of the files that tell of a build, or of features that were added to it later."""

    manifest: str
    log: str
    errors: str
    warnings: str


BUILD = RecordNames("manifest.json", "shards.jsonl", "errors.parquet", "warnings.parquet")
FEATURES = RecordNames(*(f"features_{name}" for name in BUILD))


class Entry(NamedTuple):
    """A line of the log. `record` maps names to counts, or to counts by name, such as `bytes` of each config's file.

    `errors` and `warnings` are rows of the tables, without `shard`.
    """

    shard: int
    record: Mapping[str, Any]
    errors: list[dict[str, Any]]
    warnings: list[dict[str, Any]]

    def to_line(self) -> bytes:
        return json.dumps(self._asdict(), ensure_ascii=False, separators=(",", ":")).encode() + b"\n"

    @classmethod
    def of_line(cls, line: bytes) -> Entry:
        content = json.loads(line)
        entry = cls(content["shard"], content["record"], content["errors"], content["warnings"])
        if not isinstance(entry.shard, int) or not isinstance(entry.record["bytes"], dict):
            raise ValueError("it has other fields")
        return entry


class Totals:
    """Running sums over records: a number per count, a Counter per mapping of counts."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}

    def add(self, record: Mapping[str, Any], sign: int = 1) -> None:
        """Adds the counts of a record; the sign -1 takes back what was added."""
        for name, value in record.items():
            if isinstance(value, Mapping):
                counter = self.sums.setdefault(name, Counter())
                for key, count in value.items():
                    counter[key] += sign * count
                    if counter[key] == 0:
                        del counter[key]
            else:
                self.sums[name] = self.sums.get(name, 0) + sign * value


class ShardLog:
    """The log of finished shards. In memory it keeps the places of lines and their sums, not what they say.

    Args:
        path: need not exist.
        writable: cut off a torn end and take new lines; else the file stays as it is.
    """

    def __init__(self, path: Path, writable: bool = False) -> None:
        self.path = path
        self._places: dict[int, tuple[int, int]] = {}  # of a shard's line: first byte and number of bytes
        self._totals = Totals()
        self.size = 0
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644) if writable else None
        self._load()

    def _load(self) -> None:
        if not self.path.is_file():
            return
        damaged = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break  # torn off by a crash: its shard is made again
                try:
                    entry = Entry.of_line(line)
                except (ValueError, KeyError, TypeError):
                    damaged += 1
                else:
                    if entry.shard in self._places:
                        self._totals.add(self[entry.shard].record, -1)
                    self._places[entry.shard] = self.size, len(line)
                    self._totals.add(entry.record)
                self.size += len(line)
        if damaged:
            warnings.warn(
                f"{damaged} lines of {self.path} cannot be read; their shards count as not made", stacklevel=3
            )
        if self._file is not None and self.path.stat().st_size > self.size:
            os.ftruncate(self._file, self.size)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, shard: int) -> bool:
        return shard in self._places

    def __getitem__(self, shard: int) -> Entry:
        place, length = self._places[shard]
        with self.path.open("rb") as file:
            file.seek(place)
            return Entry.of_line(file.read(length))

    def __iter__(self) -> Iterator[Entry]:
        """The last line of every shard, by its number."""
        if not self._places:
            return
        with self.path.open("rb") as file:
            for shard in sorted(self._places):
                place, length = self._places[shard]
                file.seek(place)
                yield Entry.of_line(file.read(length))

    def append(self, entry: Entry) -> None:
        """Add a line, whole or not at all, and see it onto the disk."""
        assert self._file is not None, "opened for reading"
        line = entry.to_line()
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError:  # no space, for example
            os.ftruncate(self._file, self.size)
            raise
        if entry.shard in self._places:
            self._totals.add(self[entry.shard].record, -1)
        self._places[entry.shard] = self.size, len(line)
        self._totals.add(entry.record)
        self.size += len(line)

    def totals(self) -> dict[str, Any]:
        """Sums over the last lines of all shards; they go on to change with the log."""
        return self._totals.sums

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def read_manifest(folder: Path, names: RecordNames = BUILD) -> dict[str, Any]:
    """What a folder's manifest says, of this format or the one before.

    Raises:
        OutputError: there is none, it is damaged, or another version wrote it.
    """
    path = folder / names.manifest
    if not path.is_file():
        raise OutputError(f"{folder} holds no {names.manifest}: build it with `ulip2 build`")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        version = manifest["format"]
        fields = (manifest["settings"], manifest["stages"], *([manifest["shards"]] if version == OLD_FORMAT else []))
        if version in (OLD_FORMAT, FORMAT) and not all(isinstance(value, dict) for value in fields):
            raise ValueError("settings, stages or shards are no mapping")
        if version in (OLD_FORMAT, FORMAT) and not isinstance(manifest["num_shards"], int):
            raise ValueError("num_shards is no number")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OutputError(f"{path} is damaged ({error!r}); move it away with its folder") from error
    if version not in (OLD_FORMAT, FORMAT):
        raise OutputError(f"{folder} was written by another version (format {version})")
    return manifest


def read_log(folder: Path, names: RecordNames = BUILD) -> Iterable[Entry]:
    """The finished shards of a folder, by number, whatever the format of its manifest.

    Raises:
        OutputError: see `read_manifest`; or the log is missing.
    """
    manifest = read_manifest(folder, names)
    if manifest["format"] == OLD_FORMAT:
        return _old_entries(folder, names, manifest)
    check_log(folder, names, manifest)
    return ShardLog(folder / names.log)


def check_log(folder: Path, names: RecordNames, manifest: Mapping[str, Any]) -> None:
    """Raises OutputError where the log is missing or shorter than the manifest knows it to have been."""
    path = folder / names.log
    size = path.stat().st_size if path.is_file() else 0
    if size < manifest.get("told", 0):
        raise OutputError(
            f"{path} {'is cut off' if size else 'is missing'}: it says which shards are made. "
            "Restore it, or make the dataset anew in another folder."
        )


def is_told(folder: Path, names: RecordNames, manifest: Mapping[str, Any]) -> bool:
    """Whether tables and card tell of all finished shards; not so after a run that was killed."""
    if manifest["format"] == OLD_FORMAT:
        return True
    path = folder / names.log
    return manifest.get("told", 0) == (path.stat().st_size if path.is_file() else 0)


def write_manifest(folder: Path, names: RecordNames, manifest: Mapping[str, Any]) -> None:
    write_text(folder / names.manifest, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def convert_manifest(folder: Path, names: RecordNames) -> None:
    """Give a folder of the old format a log. Whatever stops it in between, it can be called again."""
    manifest = read_manifest(folder, names)
    if manifest["format"] == FORMAT:
        return
    write_log(folder / names.log, _old_entries(folder, names, manifest))
    del manifest["shards"]
    manifest |= {"format": FORMAT, "told": (folder / names.log).stat().st_size}
    write_manifest(folder, names, manifest)


def write_log(path: Path, entries: Iterable[Entry]) -> None:
    """Write a log anew, whole or not at all."""
    with whole_file(path) as file:
        file.writelines(entry.to_line() for entry in entries)


def _old_entries(folder: Path, names: RecordNames, manifest: Mapping[str, Any]) -> list[Entry]:
    """The shards of a manifest of the old format, with their rows of the tables."""
    rows: list[defaultdict[int, list[dict[str, Any]]]] = []
    for name in (names.errors, names.warnings):
        by_shard: defaultdict[int, list[dict[str, Any]]] = defaultdict(list)
        if (folder / name).is_file():
            for row in pq.read_table(folder / name).to_pylist():
                by_shard[row.pop("shard")].append(row)
        rows.append(by_shard)
    errors, told = rows
    shards = sorted((int(shard), record) for shard, record in manifest["shards"].items())
    return [Entry(shard, record, errors[shard], told[shard]) for shard, record in shards]
