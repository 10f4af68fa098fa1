"""Objaverse-LVIS from the `.npy` dictionaries of OpenShape, to a folder that `load_dataset` reads.

    python dataset_scripts/objaverse_lvis.py --source objaverse-lvis --output data/objaverse_lvis

The 46,000 dictionaries are named by one of three lists, whichever is found in `--source`: `lvis.json` with
`objaverse_lvis_metadata.json` (ULIP), `lvis.json` as a list of shapes (OpenShape), `lvis_testset.txt` (Uni3D).
The dictionaries are pickles and are read without executing anything of them.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modeling_ulip2.building.benchmarks.files import (
    BenchmarkError,
    class_index,
    find,
    locate,
    read_json,
    read_lines,
    same_name,
)
from modeling_ulip2.building.benchmarks.folder import BenchmarkSplit, StoredCloud, add_arguments, convert_benchmark
from modeling_ulip2.data.benchmarks import BENCHMARKS
from modeling_ulip2.geometry import read_npy
from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.utils.scripts import run_main

BENCHMARK = BENCHMARKS["objaverse_lvis"]
NAMES = BENCHMARK.class_names
# A dictionary of 10,000 points with all its embeddings is a few hundred kilobytes.
MAX_BYTES = 64 * 2**20


class Entry(NamedTuple):
    """A line of a list: the shape, its class, the file that holds it."""

    uid: str
    category: str
    file: str


def list_sources(root: Path) -> Iterator[BenchmarkSplit]:
    path = find(root, "lvis_testset.txt", "lvis.json", "split/lvis.json")
    if path is None:
        return
    entries, files = _read_list(path)
    index = class_index(NAMES)
    if unknown := sorted({entry.category for entry in entries if same_name(entry.category) not in index}):
        raise BenchmarkError(
            f"{path}: {unknown[0]!r} is none of the {len(NAMES)} classes of Objaverse-LVIS ({len(unknown)} like it)"
        )
    labels = np.array([index[same_name(entry.category)] for entry in entries], dtype=np.int64)

    def read(row: int) -> StoredCloud:
        return read_cloud(locate([path.parent, root], entries[row].file))

    yield BenchmarkSplit("lvis", "test", files, [entry.uid for entry in entries], labels, read)


def read_cloud(path: Path) -> StoredCloud:
    """`xyz` (10000, 3) and `rgb` (10000, 3) in [0, 1] of one dictionary.

    Raises:
        MeshError: not such a dictionary, or a pickle that asks for more than arrays and text.
    """
    content = read_npy(path, max_bytes=MAX_BYTES)
    if not isinstance(content, dict) or "xyz" not in content:
        raise MeshError("corrupt", "it holds no dictionary with xyz", path)
    return content["xyz"], content.get("rgb")


def _read_list(path: Path) -> tuple[list[Entry], list[Path]]:
    """The entries of a list, and the files that they come from."""
    if path.suffix == ".txt":
        return _uni3d(path), [path]
    content = read_json(path)
    if isinstance(content, list):
        return _openshape(content, path), [path]
    if isinstance(content, dict) and content and all(isinstance(file, str) for file in content.values()):
        metadata = path.with_name("objaverse_lvis_metadata.json")
        return _ulip(content, path, metadata), [path, metadata]
    raise BenchmarkError(f"{path} is neither ULIP's {{uid: file}} nor OpenShape's list of shapes")


def _uni3d(path: Path) -> list[Entry]:
    """Lines `label,class,uid,file`; the labels must be the places of the classes in alphabetical order."""
    entries, index = [], class_index(NAMES)
    for number, line in enumerate(read_lines(path), start=1):
        words = line.split(",")
        if len(words) != 4:
            raise BenchmarkError(f"{path}, line {number}: {line[:80]!r} is not `label,class,uid,file`")
        label, category, uid, file = (word.strip() for word in words)
        if label != str(index.get(same_name(category), label)):
            raise BenchmarkError(
                f"{path}, line {number}: {category} has the label {label}; in the benchmark it has "
                f"{index[same_name(category)]}"
            )
        entries.append(Entry(uid, category, file))
    return entries


def _openshape(content: list, path: Path) -> list[Entry]:
    entries = []
    for number, shape in enumerate(content):
        try:
            entries.append(Entry(str(shape["uid"]), str(shape["category"]), str(shape["data_path"])))
        except (TypeError, KeyError):
            raise BenchmarkError(f"{path}: shape {number} lacks uid, category or data_path") from None
    return entries


def _ulip(content: dict[str, str], path: Path, metadata: Path) -> list[Entry]:
    if not metadata.is_file():
        raise BenchmarkError(f"{path} needs {metadata.name} beside it: the classes are there")
    maps = read_json(metadata)
    categories = maps.get("value_to_key_mapping") if isinstance(maps, dict) else None
    if not isinstance(categories, dict):
        raise BenchmarkError(f"{metadata} lacks value_to_key_mapping, the class of each shape")
    if missing := [uid for uid in content if uid not in categories]:
        raise BenchmarkError(f"{metadata} does not say the class of {len(missing)} shapes, e.g. {missing[0]}")
    return [Entry(uid, str(categories[uid]), file) for uid, file in content.items()]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    args = parser.parse_args(arguments)
    convert_benchmark("objaverse_lvis", args, list_sources(args.source), "lvis_testset.txt or lvis.json")


if __name__ == "__main__":
    run_main(main)
