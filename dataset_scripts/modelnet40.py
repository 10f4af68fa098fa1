"""ModelNet40 from any of the files in which it circulates, to a folder that `load_dataset` reads.

    python dataset_scripts/modelnet40.py --source modelnet40_normal_resampled --output data/modelnet40

Each kind of file that is found in `--source` becomes a config: `colored_10k` (ULIP's `modelnet40_colored_10k_pc.npy`
with its JSON list, or OpenShape's and Uni3D's `test_pc.npy` with theirs; what ULIP-2 is measured on), `fps_8192`
(Point-BERT's `.dat` pickles), `normal_resampled` (text), `h5_2048`, `off` (the original meshes, 10,000 points drawn
by `--seed`). Pickles are read without executing anything of them.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from modeling_ulip2.building.benchmarks.files import (
    BenchmarkError,
    check_class_order,
    class_index,
    find,
    label_numbers,
    read_hdf5,
    read_json,
    read_lines,
    same_name,
)
from modeling_ulip2.building.benchmarks.folder import BenchmarkSplit, StoredCloud, add_arguments, convert_benchmark
from modeling_ulip2.data.benchmarks import BENCHMARKS, SPLITS
from modeling_ulip2.geometry import read_mesh, read_npy, read_pickle, sample_points
from modeling_ulip2.geometry.axes import turn_to_y_up
from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.geometry.numbers import parse_numbers
from modeling_ulip2.utils.scripts import run_main

BENCHMARK = BENCHMARKS["modelnet40"]
NAMES = BENCHMARK.class_names
OFF_POINTS = 10_000
# The clouds of ULIP and the list beside them, then OpenShape's and Uni3D's.
COLORED = {
    "modelnet40_colored_10k_pc.npy": "modelnet40_test_split_10k_colored.json",
    "test_pc.npy": "test_split.json",
}


def colored_10k(root: Path, seed: int) -> Iterator[BenchmarkSplit]:
    """A pickled array of a dictionary with `xyz` and `rgb` for each test shape; its JSON names shape and class."""
    for name, list_name in COLORED.items():
        if (path := find(root, name)) is None:
            continue
        listing = path.with_name(list_name)
        entries = read_json(listing) if listing.is_file() else None
        if not isinstance(entries, list) or not all(isinstance(e, dict) and "category" in e for e in entries):
            raise BenchmarkError(
                f"{path} needs {list_name} beside it, a list of {{name, category}}; its classes are there"
            )
        clouds = read_npy(path)
        if not isinstance(clouds, list) or not all(isinstance(cloud, dict) and "xyz" in cloud for cloud in clouds):
            raise BenchmarkError(f"{path} holds no array of dictionaries with xyz")
        if len(clouds) != len(entries):
            raise BenchmarkError(f"{path} holds {len(clouds)} clouds, {listing} names {len(entries)}")
        labels = _labels((entry["category"] for entry in entries), listing)
        ids = _unique([str(entry.get("name", index)) for index, entry in enumerate(entries)])
        yield BenchmarkSplit("colored_10k", "test", [path, listing], ids, labels, _dictionaries(clouds))
        return


def fps_8192(root: Path, seed: int) -> Iterator[BenchmarkSplit]:
    """A pickled pair of lists: x, y, z and normal of each shape's points, and its label in an array of one number."""
    for split in SPLITS:
        if (path := find(root, f"modelnet40_{split}_8192pts_fps.dat")) is None:
            continue
        content = read_pickle(path)
        if not isinstance(content, (list, tuple)) or len(content) != 2 or len(content[0]) != len(content[1]):
            raise BenchmarkError(f"{path} holds no pair of a list of points and a list of labels of the same length")
        points = content[0]
        labels = label_numbers(np.array([np.asarray(label).reshape(-1)[0] for label in content[1]]), len(NAMES), path)
        _check_shape_names(path)
        ids, files, notes = _listed_ids(path, split, labels)
        yield BenchmarkSplit("fps_8192", split, [path, *files], ids, labels, _columns(points), notes)


def normal_resampled(root: Path, seed: int) -> Iterator[BenchmarkSplit]:
    """`<class>/<class>_<number>.txt` with lines `x,y,z,nx,ny,nz`, named by `modelnet40_<split>.txt`."""
    for split in SPLITS:
        listing = find(root, f"modelnet40_{split}.txt")
        if listing is None or find(listing.parent, "airplane/airplane_*.txt") is None:
            continue
        _check_shape_names(listing)
        ids = read_lines(listing)
        classes = [name.rpartition("_")[0] for name in ids]
        paths = [listing.parent / cls / f"{name}.txt" for cls, name in zip(classes, ids, strict=True)]

        def read(index: int, paths: list[Path] = paths) -> StoredCloud:
            return _read_text(paths[index]), None

        yield BenchmarkSplit("normal_resampled", split, [listing], ids, _labels(classes, listing), read)


def h5_2048(root: Path, seed: int) -> Iterator[BenchmarkSplit]:
    """`ply_data_<split><n>.h5` with `data` (N, 2048, 3) and `label` (N, 1)."""
    for split in SPLITS:
        first = find(root, f"ply_data_{split}0.h5")
        if first is None:
            continue
        paths = sorted(first.parent.glob(f"ply_data_{split}[0-9].h5"))
        _check_shape_names(first)
        points, labels = [], []
        for path in paths:
            data, label = read_hdf5(path, ["data", "label"])
            if data.ndim != 3 or data.shape[2] != 3 or len(data) != len(label):
                raise BenchmarkError(f"{path}: 'data' has the shape {data.shape} and 'label' {label.shape}")
            points.append(data)
            labels.append(label_numbers(label, len(NAMES), path))
        ids = [f"{path.stem}/{i:04d}" for path, own in zip(paths, labels, strict=True) for i in range(len(own))]
        clouds = [cloud for data in points for cloud in data]
        yield BenchmarkSplit("h5_2048", split, paths, ids, np.concatenate(labels), _columns(clouds))


def off(root: Path, seed: int) -> Iterator[BenchmarkSplit]:
    """`<class>/<split>/<class>_<number>.off`, z up."""
    for split in SPLITS:
        paths = sorted(path for depth in ("", "*/") for path in root.glob(f"{depth}*/{split}/*.off"))
        if not paths:
            continue
        labels = _labels((path.parent.parent.name for path in paths), paths[0])

        def read(index: int, paths: list[Path] = paths) -> StoredCloud:
            xyz, _ = sample_points(read_mesh(paths[index]), OFF_POINTS, seed=seed + index)
            return turn_to_y_up(xyz, "z"), None

        notes = [f"points drawn uniformly by area, seeds {seed} to {seed + len(paths) - 1}"]
        yield BenchmarkSplit("off", split, [paths[0].parents[2]], [path.stem for path in paths], labels, read, notes)


READERS: dict[str, Callable[[Path, int], Iterator[BenchmarkSplit]]] = {
    reader.__name__: reader for reader in (colored_10k, fps_8192, normal_resampled, h5_2048, off)
}


def _dictionaries(clouds: list[dict]) -> Callable[[int], StoredCloud]:
    return lambda index: (clouds[index]["xyz"], clouds[index].get("rgb"))


def _columns(clouds: list) -> Callable[[int], StoredCloud]:
    """Rows of 3 coordinates, and perhaps 3 numbers of a normal, which no model here reads."""

    def read(index: int) -> StoredCloud:
        cloud = np.asarray(clouds[index])
        if cloud.ndim != 2 or cloud.shape[1] not in (3, 6):
            raise MeshError("corrupt", f"its points have the shape {cloud.shape}, not (n, 3) or (n, 6)")
        return cloud[:, :3], None

    return read


def _read_text(path: Path) -> np.ndarray:
    """x, y, z of a file with six numbers per line, separated by commas."""
    try:
        values = parse_numbers(path.read_bytes().replace(b",", b" "))
    except OSError as error:
        raise MeshError("missing", f"it cannot be opened ({error.strerror})", path) from None
    if values is None or len(values) == 0 or len(values) % 6:
        raise MeshError("truncated", "it does not hold six numbers per line", path)
    return values.reshape(-1, 6)[:, :3]


def _labels(classes: Iterator[str] | list[str], path: Path) -> np.ndarray:
    index = class_index(NAMES)
    listed = [same_name(str(name)) for name in classes]
    if unknown := sorted(set(listed) - set(index)):
        raise BenchmarkError(f"{path}: {unknown[0]!r} is none of ModelNet40's {len(NAMES)} classes")
    return np.array([index[name] for name in listed], dtype=np.int64)


def _unique(names: list[str]) -> list[str]:
    return names if len(set(names)) == len(names) else [f"{name}/{index}" for index, name in enumerate(names)]


def _check_shape_names(beside: Path) -> None:
    """The order of the classes, where the folder says it: numbers as labels mean nothing without."""
    if path := find(beside.parent, "modelnet40_shape_names.txt", "shape_names.txt"):
        check_class_order(read_lines(path), NAMES, path)


def _listed_ids(path: Path, split: str, labels: np.ndarray) -> tuple[list[str], list[Path], list[str]]:
    """Names of a `.dat` file's shapes, from the list that it was made by; each name tells its class, too."""
    listing = path.with_name(f"modelnet40_{split}.txt")
    if not listing.is_file():
        note = f"the order of the classes was not checked: there was no {listing.name} beside {path.name}"
        return [f"{split}/{index:05d}" for index in range(len(labels))], [], [note]
    ids = read_lines(listing)
    if len(ids) != len(labels):
        raise BenchmarkError(f"{path} holds {len(labels)} shapes, {listing} names {len(ids)}")
    named = _labels([name.rpartition("_")[0] for name in ids], listing)
    if (named != labels).any():
        row = int((named != labels).argmax())
        raise BenchmarkError(
            f"{path}: shape {row} has the label {labels[row]} ({NAMES[labels[row]]}), but {listing.name} names it "
            f"{ids[row]}"
        )
    return ids, [listing], []


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--configs", nargs="+", choices=sorted(READERS), help="kinds of file to convert [all found]")
    parser.add_argument("--seed", type=int, default=0, help="of the points drawn from OFF meshes [%(default)s]")
    args = parser.parse_args(arguments)
    sources = (source for name in args.configs or READERS for source in READERS[name](args.source, args.seed))
    convert_benchmark("modelnet40", args, sources, next(iter(COLORED)))


if __name__ == "__main__":
    run_main(main)
