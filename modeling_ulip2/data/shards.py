"""The folder that a build writes: parquet shards, and the records that make a build resumable.

    DIR/triplets/train-00000-of-00013.parquet, …    one config of the dataset, a file per shard
    DIR/features/train-00000-of-00013.parquet, …    the other one
    DIR/manifest.json, shards.jsonl                 settings, and a line per finished shard, see `records`
    DIR/errors.parquet                              what could not become a triplet, and why
    DIR/warnings.parquet                            what had to be guessed about those that did

A shard counts once the log lists it. Every file is written under a temporary name and renamed when whole, so whatever
is stopped in mid-write costs the shard at hand and nothing else. Tables and card are made when a run ends, finished or
stopped; after a run that was killed, the next one makes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from modeling_ulip2.utils.files import LEFTOVERS, write_text
from modeling_ulip2.utils.parquet import is_parquet, read_parquet, write_parquet, write_table

from .records import (
    BUILD,
    FEATURES,
    FORMAT,
    OLD_FORMAT,
    Entry,
    OutputError,
    ShardLog,
    check_log,
    convert_manifest,
    is_told,
    read_log,
    read_manifest,
    write_log,
    write_manifest,
)
from .schema import FEATURES_CONFIG, TRIPLETS_CONFIG, error_features, warning_features

MANIFEST, ERRORS, WARNINGS = BUILD.manifest, BUILD.errors, BUILD.warnings
FEATURES_MANIFEST = FEATURES.manifest  # of features that were added later
LOCK = ".lock"
REWRITING = -1  # in place of the log's size, while a log becomes shorter

__all__ = [
    "ERRORS",
    "FEATURES_MANIFEST",
    "LOCK",
    "MANIFEST",
    "WARNINGS",
    "BuildFolder",
    "FeaturesFolder",
    "OutputError",
    "is_parquet",
    "is_whole",
    "read_features_maker",
    "read_parquet",
    "shard_path",
    "write_parquet",
    "write_text",
]


def shard_path(folder: Path, config: str, shard: int, num_shards: int) -> Path:
    return folder / config / f"train-{shard:05d}-of-{num_shards:05d}.parquet"


def is_whole(folder: Path, record: Mapping[str, Any], shard: int, num_shards: int) -> bool:
    """Whether a shard's files are there as its record in the log says."""
    paths = {shard_path(folder, config, shard, num_shards): size for config, size in record["bytes"].items()}
    return all(path.is_file() and path.stat().st_size == size and is_parquet(path) for path, size in paths.items())


class BuildFolder:
    """One build's output folder, locked while it is open. Use as a context manager.

    Args:
        path: made if missing; must be empty or hold a build whose shards were made with the same settings.
        settings: what the rows depend on, JSON values.
        objects: the objects' rows of text, in the order in which they are cut into shards of `shard_size`.
        tell: writes what else tells of the finished shards, such as the card. Called with the folder when it is closed
            and shards were finished since the last time.

    Raises:
        OutputError: not writable, in use by another process, not empty, or begun with other settings or objects.
    """

    names = BUILD

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        objects: Sequence[Mapping[str, Any]],
        shard_size: int,
        tell: Callable[[BuildFolder], None] | None = None,
    ) -> None:
        self.path = path
        self.num_shards = -(-len(objects) // shard_size)
        self._tell = tell
        self._begun: dict[str, Any] = {
            "format": FORMAT,
            "settings": {**settings, "shard_size": shard_size},
            "objects": {"count": len(objects), "sha256": _digest(objects)},
            "num_shards": self.num_shards,
            "stages": {},
            "told": 0,
        }
        self.manifest: dict[str, Any] = {}
        self._log: ShardLog | None = None

    def __enter__(self) -> BuildFolder:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / LOCK)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(f"another build is writing into {self.path}; wait for it or stop it first") from None
        except OSError as error:
            raise OutputError(f"cannot write into {self.path}: {error.strerror or error}") from error
        try:
            self._open()
        except BaseException:
            self._unlock()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            self._conclude()
        except Exception:
            if kind is None:  # else what went wrong first is what counts, and the next run makes up for it
                raise
        finally:
            self._remove_leftovers()
            self._unlock()

    def _unlock(self) -> None:
        if self._log is not None:
            self._log.close()
        (self.path / LOCK).unlink(missing_ok=True)
        self._lock.release()

    def _open(self) -> None:
        if (self.path / self.names.manifest).is_file():
            self.manifest = read_manifest(self.path, self.names)
            if self.manifest["format"] == OLD_FORMAT:
                if self.manifest["shards"]:
                    self._check_same_build()  # refused as it was
                convert_manifest(self.path, self.names)
                self.manifest = read_manifest(self.path, self.names)
            check_log(self.path, self.names, self.manifest)
            self._log = ShardLog(self.path / self.names.log, writable=True)
            if len(self._log):
                self._check_same_build()
            else:  # nothing to lose, perhaps a first try with a mistake in it
                self._begin()
        else:
            self._check_new()
            (self.path / self.names.log).unlink(missing_ok=True)  # of features that were being dropped
            self._begin()
            self._log = ShardLog(self.path / self.names.log, writable=True)
        self._remove_leftovers()

    def _begin(self) -> None:
        self.manifest = self._begun
        write_manifest(self.path, self.names, self.manifest)

    def _check_new(self) -> None:
        if others := sorted(p.name for p in self.path.iterdir() if not p.name.startswith(".")):
            raise OutputError(
                f"{self.path} holds {others[0]!r} but no {self.names.manifest}; choose an empty folder as output"
            )

    def _remove_leftovers(self) -> None:
        for config in ("", TRIPLETS_CONFIG, FEATURES_CONFIG):
            for leftover in (self.path / config).glob(LEFTOVERS):
                leftover.unlink(missing_ok=True)

    def _check_same_build(self) -> None:
        old, new = self.manifest["settings"], self._begun["settings"]
        different = [
            f"{name} was {json.dumps(old.get(name))} and is now {json.dumps(new.get(name))}"
            for name in [*old, *(name for name in new if name not in old)]
            if old.get(name) != new.get(name)
        ]
        if different:
            raise OutputError(
                f"{self.path} was begun with other settings: {'; '.join(different)}. "
                "Use the same settings to complete it, or another output folder."
            )
        before, now = self.manifest.get("objects"), self._begun["objects"]
        if before != now:
            if before is None or "merged" in self.manifest:
                raise OutputError(f"{self.path} is a merged dataset and cannot be built on; choose another folder")
            raise OutputError(
                f"{self.path} was begun with other objects: {before['count']} then, {now['count']} now"
                f"{', but with other names, places or order' if before['count'] == now['count'] else ''}. "
                "Restore the folder of meshes to complete it, or choose another output folder."
            )

    def check_stages(self, stages: Mapping[str, Any]) -> None:
        """Record what the stages say about themselves, such as the tower's fingerprint, or compare it.

        Raises:
            OutputError: they differ from those that wrote the existing shards.
        """
        recorded, stages = self.manifest["stages"], json.loads(json.dumps(stages))
        if not len(self.log):
            self.manifest["stages"] = stages
            write_manifest(self.path, self.names, self.manifest)
        elif recorded != stages:
            name = next(name for name in [*recorded, *stages] if recorded.get(name) != stages.get(name))
            raise OutputError(
                f"{self.path} was begun with {name} {json.dumps(recorded.get(name))}, which is now "
                f"{json.dumps(stages.get(name))}. Use the same one, or another output folder."
            )

    @property
    def log(self) -> ShardLog:
        """The finished shards; to be read even when the folder is closed again."""
        assert self._log is not None, "the folder was never opened"
        return self._log

    def missing_shards(self) -> list[int]:
        """Shards that are not listed, or whose files are gone, unreadable or of another size than when listed."""
        whole = {entry.shard for entry in self.log if is_whole(self.path, entry.record, entry.shard, self.num_shards)}
        return [shard for shard in range(self.num_shards) if shard not in whole]

    def commit(
        self,
        shard: int,
        record: Mapping[str, Any],
        errors: Iterable[Mapping[str, Any]],
        warnings: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """List a shard whose files are written: one line, whatever the number of shards.

        Args:
            record: `bytes` of its file per config, and counts for `totals` to sum up.
            errors: rows of `errors.parquet` without `shard`; those of an earlier try are replaced.
            warnings: likewise.
        """
        self.log.append(Entry(shard, record, [dict(row) for row in errors], [dict(row) for row in warnings]))

    def totals(self) -> dict[str, Any]:
        """Sums over the listed shards: a number per count, a Counter per mapping of counts."""
        return self.log.totals()

    def _conclude(self) -> None:
        """Make tables and card tell of all finished shards, if they do not; the manifest says so last."""
        if not len(self.log) or self.manifest["told"] == self.log.size:
            return
        for name, features, rows in (
            (self.names.errors, error_features(), (self._rows(entry.errors, entry) for entry in self.log)),
            (self.names.warnings, warning_features(), (self._rows(entry.warnings, entry) for entry in self.log)),
        ):
            write_table(self.path / name, (row for own in rows for row in own), features)
        if self._tell is not None:
            self._tell(self)
        self.manifest["told"] = self.log.size
        write_manifest(self.path, self.names, self.manifest)

    @staticmethod
    def _rows(rows: list[dict[str, Any]], entry: Entry) -> Iterator[dict[str, Any]]:
        return ({**row, "shard": entry.shard} for row in rows)


class FeaturesFolder(BuildFolder):
    """The config `features` as it is added to a folder that holds triplets already, a shard per file of them.

        DIR/features_manifest.json, DIR/features_errors.parquet, …    as for a build, of the features alone

    A build's own features give way: its records forget them.
    """

    names = FEATURES

    def _check_new(self) -> None:
        if not (self.path / BUILD.manifest).is_file():
            return
        entries = list(read_log(self.path))
        convert_manifest(self.path, BUILD)
        manifest = read_manifest(self.path)
        manifest["settings"]["features"] = False
        told = manifest["told"] == REWRITING or is_told(self.path, BUILD, manifest)
        write_manifest(self.path, BUILD, manifest | {"told": REWRITING if told else 0})
        for entry in entries:
            for sizes in (entry.record["bytes"], entry.record.get("data_bytes", {})):
                sizes.pop(FEATURES_CONFIG, None)
        write_log(self.path / BUILD.log, entries)
        if told:
            write_manifest(self.path, BUILD, manifest | {"told": (self.path / BUILD.log).stat().st_size})


def read_features_maker(manifest: Mapping[str, Any]) -> set[str]:
    """Fingerprints of the towers that made the `features` config, from the manifest of whatever wrote it."""
    stages = manifest.get("stages", {})
    makers = [stages["EmbedViews"]] if "EmbedViews" in stages else stages.values()
    return {stage["fingerprint"] for stage in makers if "fingerprint" in stage}


def _digest(objects: Sequence[Mapping[str, str]]) -> str:
    digest = hashlib.sha256()
    for row in objects:
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()
