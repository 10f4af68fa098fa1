"""The folder that a build writes: parquet shards, `errors.parquet`, and the manifest that makes a build resumable.

    DIR/triplets/train-00000-of-00013.parquet, …    one config of the dataset, a file per shard
    DIR/features/train-00000-of-00013.parquet, …    the other one
    DIR/errors.parquet                              what could not become a triplet, and why
    DIR/warnings.parquet                            what had to be guessed about those that did
    DIR/manifest.json                               settings, shards that are done, counts

A shard counts once the manifest lists it. Every file is written under a temporary name and renamed when whole, so
whatever is stopped in mid-write costs the shard at hand and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import Dataset, Features
from filelock import FileLock, Timeout

from .schema import FEATURES_CONFIG, TRIPLETS_CONFIG, error_features, warning_features

FORMAT = 2  # 2: the cameras' distance, angle of view, size and target are columns
MANIFEST = "manifest.json"
ERRORS = "errors.parquet"
LOCK = ".lock"
WARNINGS = "warnings.parquet"
FEATURES_MANIFEST = "features_manifest.json"  # of features that were added later
ROW_GROUP_SIZE = 100  # what `datasets` chooses for images
# Coordinates and embeddings hardly repeat, so that dictionaries of them cost most of the time of reading. Captions do,
# and their embeddings with them, 2 D bytes at a time: zstd finds those, snappy does not.
ENCODING = {"use_dictionary": False, "compression": "zstd"}


class OutputError(RuntimeError):
    """The output folder cannot be written, is in use, or belongs to another build; the message says what to do."""


def shard_path(folder: Path, config: str, shard: int, num_shards: int) -> Path:
    return folder / config / f"train-{shard:05d}-of-{num_shards:05d}.parquet"


def write_parquet(path: Path, rows: list[Mapping[str, Any]], features: Features) -> tuple[int, int]:
    """Write rows as a parquet file with exactly `features`, whole or not at all; bytes of the file and in memory."""
    columns = {name: [row[name] for row in rows] for name in features}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        with partial.open("wb") as file:
            table = Dataset.from_dict(columns, features=features).data.table
            pq.write_table(table, file, row_group_size=ROW_GROUP_SIZE, **ENCODING)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path.stat().st_size, table.nbytes


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    partial = _partial(path)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def is_parquet(path: Path) -> bool:
    """Whether a parquet file can be opened, so whether all of it was written."""
    try:
        pq.read_metadata(path)
    except (OSError, ValueError):  # ArrowInvalid is a ValueError
        return False
    return True


def is_whole(folder: Path, record: Mapping[str, Any] | None, shard: int, num_shards: int) -> bool:
    """Whether a shard's files are there as its record in the manifest says; None: it has none."""
    if record is None:
        return False
    paths = {shard_path(folder, config, shard, num_shards): size for config, size in record["bytes"].items()}
    return all(path.is_file() and path.stat().st_size == size and is_parquet(path) for path, size in paths.items())


def read_parquet(path: Path, features: Features) -> list[dict[str, Any]]:
    return pq.read_table(path, columns=list(features)).to_pylist()


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")


class BuildFolder:
    """One build's output folder, locked while it is open. Use as a context manager.

    Args:
        path: made if missing; must be empty or hold a build whose shards were made with the same settings.
        settings: what the rows depend on, JSON values.
        objects: the objects' rows of text, in the order in which they are cut into shards of `shard_size`.

    Raises:
        OutputError: not writable, in use by another process, not empty, or begun with other settings or objects.
    """

    manifest_name, errors_name, warnings_name = MANIFEST, ERRORS, WARNINGS

    def __init__(
        self, path: Path, settings: Mapping[str, Any], objects: Sequence[Mapping[str, Any]], shard_size: int
    ) -> None:
        self.path = path
        self.num_shards = -(-len(objects) // shard_size)
        self._begun: dict[str, Any] = {
            "format": FORMAT,
            "settings": {**settings, "shard_size": shard_size},
            "objects": {"count": len(objects), "sha256": _digest(objects)},
            "num_shards": self.num_shards,
            "stages": {},
            "shards": {},
        }
        self.manifest: dict[str, Any] = {}

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

    def __exit__(self, *exception: object) -> None:
        self._remove_leftovers()
        self._unlock()

    def _unlock(self) -> None:
        (self.path / LOCK).unlink(missing_ok=True)
        self._lock.release()

    def _open(self) -> None:
        manifest = self.path / self.manifest_name
        if manifest.is_file():
            try:
                self.manifest = json.loads(manifest.read_text(encoding="utf-8"))
                if self.manifest["shards"]:
                    self._check_same_build()
                else:  # nothing to lose, perhaps a first try with a mistake in it
                    self.manifest = self._begun
                    self._write_manifest()
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise OutputError(f"{manifest} is damaged ({error}); move it away with its folder") from error
        else:
            self._check_new()
            self.manifest = self._begun
            self._write_manifest()
        self._remove_leftovers()

    def _check_new(self) -> None:
        if others := sorted(p.name for p in self.path.iterdir() if not p.name.startswith(".")):
            raise OutputError(
                f"{self.path} holds {others[0]!r} but no {self.manifest_name}; choose an empty folder as output"
            )

    def _remove_leftovers(self) -> None:
        for config in ("", TRIPLETS_CONFIG, FEATURES_CONFIG):
            for leftover in (self.path / config).glob(".*.part"):
                leftover.unlink(missing_ok=True)

    def _check_same_build(self) -> None:
        if self.manifest["format"] != FORMAT:
            raise OutputError(f"{self.path} was written by another version (format {self.manifest['format']})")
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
        before, now = self.manifest["objects"], self._begun["objects"]
        if before != now:
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
        recorded = self.manifest["stages"]
        if not self.manifest["shards"]:
            self.manifest["stages"] = dict(stages)
            self._write_manifest()
        elif recorded != json.loads(json.dumps(stages)):
            name = next(name for name in [*recorded, *stages] if recorded.get(name) != stages.get(name))
            raise OutputError(
                f"{self.path} was begun with {name} {json.dumps(recorded.get(name))}, which is now "
                f"{json.dumps(stages.get(name))}. Use the same one, or another output folder."
            )

    def missing_shards(self) -> list[int]:
        """Shards that are not listed, or whose files are gone, unreadable or of another size than when listed."""
        records = self.manifest["shards"]
        return [
            shard
            for shard in range(self.num_shards)
            if not is_whole(self.path, records.get(str(shard)), shard, self.num_shards)
        ]

    def commit(
        self,
        shard: int,
        record: Mapping[str, Any],
        errors: Iterable[Mapping[str, Any]],
        warnings: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """List a shard whose files are written.

        Args:
            record: `bytes` of its file per config, and counts for `totals` to sum up.
            errors: rows of `errors.parquet` without `shard`; those of an earlier try are replaced.
            warnings: likewise.
        """
        _replace_rows(self.path / self.errors_name, shard, errors, error_features())
        _replace_rows(self.path / self.warnings_name, shard, warnings, warning_features())
        self.manifest["shards"][str(shard)] = dict(record)
        self._write_manifest()

    def totals(self) -> dict[str, Any]:
        """Sums over the listed shards: a number per count, a Counter per mapping of counts."""
        totals: dict[str, Any] = {}
        for record in self.manifest["shards"].values():
            for name, value in record.items():
                if isinstance(value, Mapping):
                    totals.setdefault(name, Counter()).update(value)
                else:
                    totals[name] = totals.get(name, 0) + value
        return totals

    def _write_manifest(self) -> None:
        shards = self.manifest["shards"]
        self.manifest["shards"] = {key: shards[key] for key in sorted(shards, key=int)}
        write_text(self.path / self.manifest_name, json.dumps(self.manifest, indent=1, ensure_ascii=False) + "\n")


class FeaturesFolder(BuildFolder):
    """The config `features` as it is added to a folder that holds triplets already, a shard per file of them.

        DIR/features_manifest.json, DIR/features_errors.parquet, …    as for a build, of the features alone

    A build's own features give way: its manifest forgets them.
    """

    manifest_name, errors_name, warnings_name = (
        FEATURES_MANIFEST,
        "features_errors.parquet",
        "features_warnings.parquet",
    )

    def _check_new(self) -> None:
        path = self.path / MANIFEST
        if not path.is_file():
            return
        manifest = json.loads(path.read_text(encoding="utf-8"))
        manifest["settings"]["features"] = False
        for record in manifest["shards"].values():
            for sizes in (record["bytes"], record["data_bytes"]):
                sizes.pop(FEATURES_CONFIG, None)
        write_text(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def read_features_maker(manifest: Mapping[str, Any]) -> set[str]:
    """Fingerprints of the towers that made the `features` config, from the manifest of whatever wrote it."""
    stages = manifest.get("stages", {})
    makers = [stages["EmbedViews"]] if "EmbedViews" in stages else stages.values()
    return {stage["fingerprint"] for stage in makers if "fingerprint" in stage}


def _replace_rows(path: Path, shard: int, rows: Iterable[Mapping[str, Any]], features: Features) -> None:
    """Make the rows of `shard` in a small table those given."""
    before = read_parquet(path, features) if path.is_file() else None
    kept = [row for row in before or [] if row["shard"] != shard]
    new = [{**row, "shard": shard} for row in rows]
    if before is None or new or len(kept) < len(before):
        write_parquet(path, sorted(kept + new, key=lambda row: row["shard"]), features)


def _digest(objects: Sequence[Mapping[str, str]]) -> str:
    digest = hashlib.sha256()
    for row in objects:
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()
