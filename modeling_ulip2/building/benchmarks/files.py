"""Finding and reading the files in which benchmarks circulate, none of which is trusted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.geometry.pickles import MAX_PICKLE_BYTES
from modeling_ulip2.geometry.sandbox import Sandbox
from modeling_ulip2.utils.packages import install_command

MAX_LIST_BYTES = 256 * 2**20


class BenchmarkError(ValueError):
    """Files that are not the benchmark, or not all of it; the message says which one and what to do."""


def find(root: Path, *names: str) -> Path | None:
    """The first of `names` (patterns) that is in `root` or one level below, None if there is none."""
    for name in names:
        for pattern in (name, f"*/{name}"):
            if found := sorted(path for path in root.glob(pattern) if path.is_file()):
                return found[0]
    return None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank."""
    return [line.strip() for line in _text(path).splitlines() if line.strip()]


def read_json(path: Path) -> Any:
    try:
        return json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise BenchmarkError(f"{path} is no JSON file, or is truncated ({error})") from None


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise BenchmarkError(f"{path} is larger than {MAX_LIST_BYTES >> 20} MiB; it should be a list")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise BenchmarkError(f"{path} cannot be read as text ({error})") from None


def same_name(name: str) -> str:
    """Class names are spelt with spaces here and with underscores there."""
    return name.strip().replace("_", " ")


def class_index(names: Sequence[str]) -> dict[str, int]:
    """Label of each class by its `same_name`."""
    return {same_name(name): label for label, name in enumerate(names)}


def check_class_order(found: Iterable[str], names: Sequence[str], path: Path) -> None:
    """Raises BenchmarkError unless `path` lists exactly `names`, in this order."""
    listed = list(found)
    if [same_name(name) for name in listed] == [same_name(name) for name in names]:
        return
    place = next(
        (i for i, (a, b) in enumerate(zip(listed, names, strict=False)) if same_name(a) != same_name(b)),
        min(len(listed), len(names)),
    )
    theirs = repr(listed[place]) if place < len(listed) else "nothing"
    ours = repr(names[place]) if place < len(names) else "nothing"
    raise BenchmarkError(
        f"{path} lists {len(listed)} classes and has {theirs} in place {place}, where the benchmark's {len(names)} "
        f"classes have {ours}: its labels would mean other classes"
    )


def label_numbers(labels: np.ndarray, num_classes: int, path: Path) -> np.ndarray:
    """(N,) int64 labels. Raises BenchmarkError unless they are whole numbers in [0, num_classes)."""
    flat = np.asarray(labels).reshape(-1)
    if flat.dtype.kind not in "iuf" or (flat.dtype.kind == "f" and (flat != np.round(flat)).any()):
        raise BenchmarkError(f"{path}: its labels are not whole numbers")
    if len(flat) and not (flat.min() >= 0 and flat.max() < num_classes):
        raise BenchmarkError(
            f"{path}: its labels lie in [{flat.min():g}, {flat.max():g}], the benchmark's in [0, {num_classes - 1}]"
        )
    return flat.astype(np.int64)


def locate(roots: Sequence[Path], reference: str) -> Path:
    """The file below one of `roots` that a list names, maybe by a path of the machine where the list was made.

    Raises:
        MeshError: "missing" or "external_uri".
    """
    parts = [part for part in PurePosixPath(reference.replace("\\", "/")).parts if part not in ("/", ".")]
    if ".." in parts or not parts:
        raise MeshError("external_uri", f"its list names {reference[:120]!r}, outside the folder")
    for root in roots:
        for start in range(len(parts)):
            relative = PurePosixPath(*parts[start:])
            if (root / relative).is_file():
                return Sandbox(root, 0).find(str(relative))
    raise MeshError("missing", f"its list names {reference[:120]!r}, of which no tail is a file in {roots[0]}")


def read_hdf5(path: Path, names: Sequence[str], max_bytes: int = MAX_PICKLE_BYTES) -> list[np.ndarray]:
    """Datasets of numbers of an HDF5 file, each as a whole.

    HDF5 can link to other files and can declare more than it holds: only what lies in this file is read, and only
    after its declared size was found to fit into `max_bytes`.
    """
    try:
        import h5py
    except ImportError:
        raise BenchmarkError(f"{path} needs h5py; {install_command('benchmarks')}") from None
    arrays = []
    try:
        with h5py.File(path, "r") as file:
            for name in names:
                if not isinstance(file.get(name, getlink=True), h5py.HardLink) or name not in file:
                    raise BenchmarkError(f"{path} holds no dataset {name!r}; it holds {', '.join(sorted(file))[:200]}")
                dataset = file[name]
                if not isinstance(dataset, h5py.Dataset) or dataset.external or dataset.is_virtual:
                    raise BenchmarkError(f"{path}: {name!r} is no dataset of this file")
                if dataset.dtype.kind not in "fiu" or dataset.size is None:
                    raise BenchmarkError(f"{path}: {name!r} holds {dataset.dtype}, not numbers")
                if dataset.size * dataset.dtype.itemsize > max_bytes:
                    raise BenchmarkError(
                        f"{path}: {name!r} declares the shape {dataset.shape}; at most {max_bytes} bytes"
                    )
                arrays.append(dataset[()])
    except (OSError, RuntimeError, KeyError, MemoryError) as error:
        raise BenchmarkError(f"{path} is no HDF5 file, or is truncated ({error})") from None
    return arrays
