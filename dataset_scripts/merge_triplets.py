"""Several triplets datasets become one, as ULIP-2 pre-trains on Objaverse and ShapeNet together.

    python dataset_scripts/merge_triplets.py data/objaverse data/shapenet --output data/both

Shards are linked where the file system can, else copied; nothing is rendered or captioned again. The datasets need the
same columns and number of points, and, where they hold features, features of the same image-text model.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from modeling_ulip2.triplets.card import dataset_card
from modeling_ulip2.triplets.schema import TRIPLETS_CONFIG, error_features, warning_features
from modeling_ulip2.triplets.shards import (
    ERRORS,
    FORMAT,
    MANIFEST,
    WARNINGS,
    BuildFolder,
    OutputError,
    read_parquet,
    shard_path,
    write_parquet,
    write_text,
)

# What may differ between datasets that are merged: how the rows were cut into shards.
UNIMPORTANT = {"shard_size"}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a build that is complete.

    Raises:
        OutputError: `folder` is no build, or one that was stopped.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise OutputError(f"{folder} holds no {MANIFEST}: build it with build_triplets.py")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if manifest.get("format") != FORMAT:
        raise OutputError(f"{folder} was written by another version (format {manifest.get('format')})")
    missing = manifest["num_shards"] - len(manifest["shards"])
    if missing:
        raise OutputError(f"{missing} of {manifest['num_shards']} shards of {folder} are missing: complete it first")
    return manifest


def merge(folders: Sequence[Path], output: Path, title: str | None = None) -> int:
    """Writes the merged dataset to `output`, a new or empty folder; returns the number of its rows.

    Raises:
        OutputError: a dataset is incomplete, they do not fit together, or `output` holds something.
    """
    if output.exists() and any(output.iterdir()):
        raise OutputError(f"{output} is not empty; choose another output folder")
    manifests = [read_manifest(folder) for folder in folders]
    merged = merged_manifest(folders, manifests)
    ids: dict[str, Path] = {}
    tables: dict[str, list[dict[str, Any]]] = {ERRORS: [], WARNINGS: []}
    first = 0
    for folder, manifest in zip(folders, manifests, strict=True):
        for number, record in manifest["shards"].items():
            shard = first + int(number)
            if record["triplets"]:
                check_ids(shard_path(folder, TRIPLETS_CONFIG, int(number), manifest["num_shards"]), folder, ids)
            for config in record["bytes"]:
                source = shard_path(folder, config, int(number), manifest["num_shards"])
                link_or_copy(source, shard_path(output, config, shard, merged["num_shards"]))
            merged["shards"][str(shard)] = record
        for name, features in ((ERRORS, error_features()), (WARNINGS, warning_features())):
            rows = read_parquet(folder / name, features) if (folder / name).is_file() else []
            tables[name] += [{**row, "shard": first + row["shard"]} for row in rows]
        first += manifest["num_shards"]
    write_parquet(output / ERRORS, tables[ERRORS], error_features())
    write_parquet(output / WARNINGS, tables[WARNINGS], warning_features())
    write_text(output / MANIFEST, json.dumps(merged, indent=1, ensure_ascii=False) + "\n")
    build = BuildFolder(output, merged["settings"], [], 1)
    build.manifest = merged
    totals = build.totals()
    source = "Merged from " + ", ".join(f"`{folder.resolve().name}`" for folder in folders) + "."
    write_text(output / "README.md", dataset_card(title or output.resolve().name, merged, totals, source))
    return totals["triplets"]


def merged_manifest(folders: Sequence[Path], manifests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The common manifest, with no shards yet.

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
    return {
        "format": FORMAT,
        "settings": {name: value for name, value in kept["settings"].items() if name not in UNIMPORTANT},
        "merged": [
            {"name": folder.resolve().name, "objects": manifest["objects"]}
            for folder, manifest in zip(folders, manifests, strict=True)
        ],
        "num_shards": sum(manifest["num_shards"] for manifest in manifests),
        "stages": kept["stages"],
        "shards": {},
    }


def check_ids(path: Path, folder: Path, known: dict[str, Path]) -> None:
    """Notes the ids of a shard; raises OutputError where another shard has one of them."""
    for name in pq.read_table(path, columns=["id"])["id"].to_pylist():
        if name in known:
            raise OutputError(f"the id {name!r} is in {known[name]} and in {folder}: rename one of the two")
        known[name] = folder


def link_or_copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="+", type=Path, help="folders of build_triplets.py")
    parser.add_argument("--output", type=Path, required=True, help="a new folder")
    parser.add_argument("--title", help="of the dataset card [name of the output folder]")
    args = parser.parse_args(arguments)
    try:
        rows = merge(args.datasets, args.output, args.title)
    except (OutputError, OSError) as error:
        sys.exit(f"merge_triplets: {error}")
    print(f"{args.output} holds {rows} triplets of {len(args.datasets)} datasets")


if __name__ == "__main__":
    main()
