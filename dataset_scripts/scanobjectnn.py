"""ScanObjectNN from the HDF5 files of its authors, or OpenShape's `xyz_label.npy`, to a folder for `load_dataset`.

    python dataset_scripts/scanobjectnn.py --source h5_files --output data/scanobjectnn

Every variant that is found becomes a config: OBJ_BG, OBJ_ONLY, PB_T25, PB_T25_R, PB_T50_R, PB_T50_RS, those of
`main_split_nobg` with `_nobg`. `load_dataset("data/scanobjectnn", "PB_T50_RS", split="test")` reads the hardest.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from modeling_ulip2.building.benchmarks.files import BenchmarkError, find, label_numbers, read_hdf5
from modeling_ulip2.building.benchmarks.folder import BenchmarkSplit, add_arguments, convert_benchmark
from modeling_ulip2.data.benchmarks import BENCHMARKS, SPLITS
from modeling_ulip2.geometry.npy import read_npy
from modeling_ulip2.utils.scripts import run_main

BENCHMARK = BENCHMARKS["scanobjectnn"]
WITH_BACKGROUND, WITHOUT_BACKGROUND = "main_split", "main_split_nobg"
PREFIXES = {"train": "training", "test": "test"}
# What the authors append to "<prefix>_objectdataset".
SUFFIXES = {
    "OBJ_BG": "",
    "PB_T25": "_augmented25_norot",
    "PB_T25_R": "_augmented25rot",
    "PB_T50_R": "_augmentedrot",
    "PB_T50_RS": "_augmentedrot_scale75",
}


def variant_file(config: str, split: str) -> str:
    """Path of a config's HDF5 file in the authors' archive."""
    with_background = config != "OBJ_ONLY" and not config.endswith("_nobg")
    variant = "OBJ_BG" if config == "OBJ_ONLY" else config.removesuffix("_nobg")
    folder = WITH_BACKGROUND if with_background else WITHOUT_BACKGROUND
    return f"{folder}/{PREFIXES[split]}_objectdataset{SUFFIXES[variant]}.h5"


def list_sources(root: Path, configs: list[str] | None = None) -> Iterator[BenchmarkSplit]:
    """Every variant and split that is in `root`, or only the `configs`."""
    for config in configs or list(BENCHMARK.configs):
        if config == "OPENSHAPE":
            if path := find(root, "xyz_label.npy", "scanobjectnn/xyz_label.npy"):
                yield openshape_source(path)
            continue
        for split in SPLITS:
            if path := find(root, variant_file(config, split)):
                yield hdf5_source(path, config, split)


def hdf5_source(path: Path, config: str, split: str) -> BenchmarkSplit:
    points, labels = read_hdf5(path, ["data", "label"])
    if points.ndim != 3 or points.shape[2] != 3:
        raise BenchmarkError(f"{path}: 'data' has the shape {points.shape}; (shapes, points, 3) is needed")
    labels = label_numbers(labels, len(BENCHMARK.class_names), path)
    ids = [f"{config}/{split}/{index:05d}" for index in range(len(points))]
    return BenchmarkSplit(config, split, [path], ids, labels, lambda index: (points[index], None))


def openshape_source(path: Path) -> BenchmarkSplit:
    content = read_npy(path)
    if not isinstance(content, dict) or not {"xyz", "label"} <= set(content):
        raise BenchmarkError(f"{path} holds no dictionary of xyz and label")
    xyz, rgb = content["xyz"], content.get("rgb")
    labels = label_numbers(np.asarray(content["label"]), len(BENCHMARK.class_names), path)
    if len(xyz) != len(labels) or (rgb is not None and len(rgb) != len(xyz)):
        raise BenchmarkError(f"{path} holds {len(xyz)} clouds and {len(labels)} labels")
    ids = [f"OPENSHAPE/test/{index:05d}" for index in range(len(labels))]

    def read(index: int) -> tuple[np.ndarray, np.ndarray | None]:
        return np.asarray(xyz[index]), None if rgb is None else np.asarray(rgb[index])

    return BenchmarkSplit("OPENSHAPE", "test", [path], ids, labels, read)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument(
        "--configs", nargs="+", choices=sorted(BENCHMARK.configs), help="variants to convert [all that are found]"
    )
    args = parser.parse_args(arguments)
    convert_benchmark("scanobjectnn", args, list_sources(args.source, args.configs), variant_file("PB_T50_RS", "test"))


if __name__ == "__main__":
    run_main(main)
