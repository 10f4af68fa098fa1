"""Several triplets datasets become one, as ULIP-2 pre-trains on Objaverse and ShapeNet together.

Shards are linked where the file system can, else copied; nothing is rendered or captioned again. The datasets need the
same columns and number of points, and, where they hold features, features of the same image-text model. Stop it
whenever you like: the same command goes on where it was, and the output appears when it is whole.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from filelock import FileLock
from tqdm import tqdm

from modeling_ulip2.data.card import dataset_card
from modeling_ulip2.data.records import FEATURES, Entry, OutputError, read_log, read_manifest
from modeling_ulip2.data.schema import TRIPLETS_CONFIG
from modeling_ulip2.data.shards import LOCK, BuildFolder, is_whole, shard_path
from modeling_ulip2.utils.command_line import add_hub_arguments, hub_options, script_parser
from modeling_ulip2.utils.files import temporary_path, whole_file, write_text
from modeling_ulip2.utils.places import find_folder

DESCRIPTION = """Make one triplets dataset of several, as ULIP-2 pre-trains on Objaverse and ShapeNet together.

Shards are linked where the file system can, else copied; nothing is rendered or captioned again. The datasets need the
same columns and number of points, and, where they hold features, features of the same image-text model. Stop it
whenever you like: the same command goes on where it was, and the output appears when it is whole.
"""
# What may differ between datasets that are merged: how the rows were cut into shards.
UNIMPORTANT = {"shard_size"}
COPIED_AT_ONCE = 16 << 20


class MergedFolder(BuildFolder):
    """A build whose shards are those of other builds, one after the other."""

    def __init__(self, path: Path, begun: Mapping[str, Any], tell: Callable[[BuildFolder], None]) -> None:
        super().__init__(path, {}, [], 1, tell)
        self.num_shards = begun["num_shards"]
        self._begun |= begun


def read_complete(folder: Path) -> tuple[dict[str, Any], Iterable[Entry]]:
    """Manifest and shards of a build that is complete; shards are read anew each time, not kept.

    Raises:
        OutputError: `folder` is no build, or one that was stopped.
    """
    manifest, entries = read_manifest(folder), read_log(folder)
    missing = manifest["num_shards"] - sum(
        is_whole(folder, entry.record, entry.shard, manifest["num_shards"]) for entry in entries
    )
    if missing:
        raise OutputError(f"{missing} of {manifest['num_shards']} shards of {folder} are missing: complete it first")
    if (folder / FEATURES.manifest).is_file() and not manifest["settings"].get("features"):
        print(
            f"the embeddings that were added to {folder} later are left out; "
            "`ulip2 embed-triplets` adds them to the merged dataset",
            file=sys.stderr,
        )
    return manifest, entries


def merge(folders: Sequence[Path], output: Path, title: str | None = None) -> int:
    """Writes the merged dataset to `output`, a new or empty folder; returns the number of its rows.

    It grows in a hidden folder beside `output` and becomes `output` when it is whole. What a stopped run left there
    is taken up by the next one, if it merges the same datasets.

    Raises:
        OutputError: a dataset is incomplete, they do not fit together, or `output` holds something.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} is not empty; choose another output folder")
    output = output.absolute()
    parts = [read_complete(folder) for folder in folders]
    begun = merged_manifest(folders, [manifest for manifest, _ in parts])
    check_ids(folders, parts)
    source = "Merged from " + ", ".join(f"`{folder.resolve().name}`" for folder in folders) + "."

    def tell(folder: BuildFolder) -> None:
        card = dataset_card(title or output.name, folder.manifest, folder.totals(), source)
        write_text(folder.path / "README.md", card)

    partial = output.with_name(f".{output.name}.part")
    if partial.is_dir() and not is_begun(partial, begun):
        with FileLock(partial / LOCK, timeout=0):
            shutil.rmtree(partial)
    with MergedFolder(partial, begun, tell) as merged:
        missing = set(merged.missing_shards())
        first = 0
        with tqdm(total=merged.num_shards, initial=merged.num_shards - len(missing), unit="shard") as bar:
            for folder, (manifest, entries) in zip(folders, parts, strict=True):
                for entry in entries:
                    shard = first + entry.shard
                    if shard in missing:
                        for config in entry.record["bytes"]:
                            place = shard_path(folder, config, entry.shard, manifest["num_shards"])
                            link_or_copy(place, shard_path(partial, config, shard, merged.num_shards))
                        merged.commit(shard, entry.record, entry.errors, entry.warnings)
                        bar.update()
                first += manifest["num_shards"]
    if output.is_dir():
        output.rmdir()  # it is empty
    partial.replace(output)
    return merged.totals()["triplets"]


def is_begun(partial: Path, begun: Mapping[str, Any]) -> bool:
    """Whether a stopped run merged the same datasets."""
    try:
        manifest = read_manifest(partial)
    except OutputError:
        return False
    return all(manifest.get(name) == value for name, value in begun.items())


def merged_manifest(folders: Sequence[Path], manifests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the merged dataset's manifest begins with.

    Raises:
        OutputError: settings or image-text models differ.
    """
    kept = manifests[0]
    for folder, manifest in zip(folders[1:], manifests[1:], strict=True):
        for part in ("settings", "stages"):
            here, there = kept[part], manifest[part]
            for name in sorted((here.keys() | there.keys()) - UNIMPORTANT):
                if here.get(name) != there.get(name):
                    raise OutputError(
                        f"{folders[0]} and {folder} differ in {name}: {json.dumps(here.get(name))} and "
                        f"{json.dumps(there.get(name))}; build both with the same settings"
                    )
    merged = [
        {"name": folder.resolve().name, "objects": manifest.get("objects"), "shards": manifest["num_shards"]}
        for folder, manifest in zip(folders, manifests, strict=True)
    ]
    return {
        "settings": {name: value for name, value in kept["settings"].items() if name not in UNIMPORTANT},
        "objects": {"count": sum((part["objects"] or {"count": 0})["count"] for part in merged)},
        "merged": merged,
        "num_shards": sum(manifest["num_shards"] for manifest in manifests),
        "stages": kept["stages"],
    }


def check_ids(folders: Sequence[Path], parts: Sequence[tuple[dict[str, Any], Iterable[Entry]]]) -> None:
    """Raises OutputError where two shapes have the same id.

    Eight bytes of each id are kept: ten million ids as they are would fill gigabytes.
    """
    from pandas.util import hash_array  # takes a second

    digests = [hash_array(ids) for _, ids in _ids(folders, parts)]
    values, counts = np.unique(np.concatenate(digests), return_counts=True) if digests else ([], np.zeros(0))
    suspects = set(np.asarray(values)[counts > 1].tolist())
    if not suspects:
        return
    known: dict[str, Path] = {}
    for folder, ids in _ids(folders, parts):
        for name, digest in zip(ids.tolist(), hash_array(ids).tolist(), strict=True):
            if digest not in suspects:
                continue
            if name in known:
                raise OutputError(f"the id {name!r} is in {known[name]} and in {folder}: rename one of the two")
            known[name] = folder


def _ids(
    folders: Sequence[Path], parts: Sequence[tuple[dict[str, Any], Iterable[Entry]]]
) -> Iterator[tuple[Path, np.ndarray]]:
    """The ids of every file with rows, and the dataset that it belongs to."""
    for folder, (manifest, entries) in zip(folders, parts, strict=True):
        for entry in entries:
            if entry.record["triplets"]:
                path = shard_path(folder, TRIPLETS_CONFIG, entry.shard, manifest["num_shards"])
                yield folder, np.array(pq.read_table(path, columns=["id"])["id"].to_pylist(), dtype=object)


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file into place, whole or not at all; one that a stopped run left there is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = temporary_path(target)
    partial.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), partial)  # the hub's cache holds links
    except OSError:  # another file system, or one without links
        with source.open("rb") as content, whole_file(target) as copy:
            shutil.copyfileobj(content, copy, COPIED_AT_ONCE)
    else:
        partial.replace(target)
        partial.unlink(missing_ok=True)  # to replace a file by another link to it does nothing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("datasets", metavar="DATASET", nargs="+", help="folders of `ulip2 build`, or names of them on the hub")
    add("--output", metavar="OUT", type=Path, required=True, help="a new folder")
    add("--title", help="of the dataset card [name of the output folder]")
    add_hub_arguments(parser, "datasets")


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    args = script_parser(DESCRIPTION, add_arguments, prog).parse_args(arguments)
    hub = hub_options(args)
    rows = merge([find_folder(name, "dataset", **hub) for name in args.datasets], args.output, args.title)
    print(f"{args.output} holds {rows} triplets of {len(args.datasets)} datasets")
