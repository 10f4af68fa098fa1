"""The papers' benchmarks as datasets: what each consists of, and how a converted folder is found and read.

    FOLDER/README.md                                 `load_dataset(FOLDER, "PB_T50_RS", split="test")` works
    FOLDER/benchmark.json                            which benchmark, from which files, checked against which counts
    FOLDER/<config>/test-00000-of-00006.parquet, …   `id`, `xyz` (n, 3), `rgb` (n, 3) where there is color, `label`

`dataset_scripts/modelnet40.py`, `objaverse_lvis.py` and `scanobjectnn.py` write such folders.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modeling_ulip2.data.class_names import load_class_names
from modeling_ulip2.utils.packages import require_package

if TYPE_CHECKING:  # what the benchmarks are is known without
    from datasets import Dataset

MANIFEST = "benchmark.json"
FORMAT = 1
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: as commands call it, and in `load_class_names`.
        title: as papers call it.
        configs: what each config holds; a config is one kind of file in which the benchmark circulates.
        counts: shapes of a split, by (config, split), or by (None, split) for all configs; every number that is known
            to circulate. A split that is not here has no published count.
    """

    name: str
    title: str
    configs: Mapping[str, str]
    counts: Mapping[tuple[str | None, str], tuple[int, ...]]

    @property
    def class_names(self) -> list[str]:
        return load_class_names(self.name)

    def expected(self, config: str, split: str) -> tuple[int, ...]:
        """The numbers of shapes that a complete split may have; empty where none was published."""
        return self.counts.get((config, split), self.counts.get((None, split), ()))


_OBJECTS = "the objects as scanned"
_TRANSLATED = {"T25": "moved by up to 25 % of the bounding box", "T50": "moved by up to 50 % of the bounding box"}
_SCANOBJECTNN = {
    "OBJ_BG": f"{_OBJECTS}, with background",
    "OBJ_ONLY": f"{_OBJECTS}, without background",
    "PB_T25": _TRANSLATED["T25"],
    "PB_T25_R": f"{_TRANSLATED['T25']}, rotated",
    "PB_T50_R": f"{_TRANSLATED['T50']}, rotated",
    "PB_T50_RS": f"{_TRANSLATED['T50']}, rotated, scaled: the hardest, and the one meant where a paper names none",
}
_SCANOBJECTNN |= {
    f"{name}_nobg": f"{what.partition(':')[0]}; without background"
    for name, what in _SCANOBJECTNN.items()
    if name.startswith("PB")
}
_SCANOBJECTNN["OPENSHAPE"] = "`xyz_label.npy`, the test shapes of OpenShape and Uni3D; they name no variant"

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        Benchmark(
            "modelnet40",
            "ModelNet40",
            {
                "colored_10k": "`modelnet40_colored_10k_pc.npy` (ULIP) or `test_pc.npy` (OpenShape, Uni3D)",
                "fps_8192": "`modelnet40_<split>_8192pts_fps.dat` (Point-BERT)",
                "normal_resampled": "`modelnet40_normal_resampled`, text files of 10,000 points",
                "h5_2048": "`modelnet40_ply_hdf5_2048`",
                "off": "the original meshes, 10,000 points drawn from the surface, turned y up",
            },
            {(None, "train"): (9843,), (None, "test"): (2468,), ("h5_2048", "train"): (9840,)},
        ),
        Benchmark(
            "objaverse_lvis",
            "Objaverse-LVIS",
            {"lvis": "the `.npy` dictionaries of OpenShape, which ULIP-2 and Uni3D list, too"},
            {("lvis", "test"): (46832, 46207, 46206, 46205)},  # the papers' number, and those that can be downloaded
        ),
        Benchmark(
            "scanobjectnn",
            "ScanObjectNN",
            _SCANOBJECTNN,
            {
                (name, split): (count,)
                for names, counts in (
                    (("OBJ_BG", "OBJ_ONLY"), (2309, 581)),
                    (("PB_T50_RS", "PB_T50_RS_nobg"), (11416, 2882)),
                )
                for name in names
                for split, count in zip(SPLITS, counts, strict=True)
            },
        ),
    )
}


def read_benchmark_manifest(folder: str | Path) -> dict[str, Any]:
    """`benchmark.json` of a converted benchmark: `benchmark`, and of each config its `splits` (`shapes`, `files`, …).

    Raises:
        FileNotFoundError: `folder` is no converted benchmark.
        ValueError: the file is damaged, or of another version.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        scripts = ", ".join(f"dataset_scripts/{name}.py" for name in BENCHMARKS)
        raise FileNotFoundError(f"{folder} holds no {MANIFEST}: not a converted benchmark; {scripts} make one")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["format"] == FORMAT and manifest["benchmark"] in BENCHMARKS
        complete = all(isinstance(config["splits"], dict) for config in manifest["configs"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); convert the benchmark anew") from None
    if not known or not complete:
        raise ValueError(f"{path} was written by another version, or names an unknown benchmark; convert it anew")
    return manifest


def complete_splits(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(config, split) of everything that was converted to its end."""
    return [
        (config, split)
        for config, entry in manifest["configs"].items()
        for split, record in entry["splits"].items()
        if record["complete"]
    ]


def find_benchmarks(root: str | Path) -> list[Path]:
    """The converted benchmarks in `root`: itself, or its sub-folders to the second level."""
    root = Path(root)
    return sorted(path.parent for depth in ("", "*/", "*/*/") for path in root.glob(f"{depth}{MANIFEST}"))


def read_benchmark(folder: str | Path, config: str | None = None, split: str = "test") -> Dataset:
    """One split of a converted benchmark.

    Args:
        folder: what a script of `dataset_scripts` wrote.
        config: default: the only one.
        split: "test" or "train".

    Returns:
        Rows `id` (string), `xyz` (n, 3) float32 or float16 as the source stores them, y up, `rgb` (n, 3) uint8 or
        floats in [0, 1] where the source has color, `label` (`ClassLabel` with the names in label order).

    Raises:
        FileNotFoundError: no converted benchmark.
        ValueError: no such config or split, or its conversion was stopped; the message lists what there is.
    """
    there = complete_splits(read_benchmark_manifest(folder))
    configs = sorted({name for name, _ in there})
    if config is None:
        if len(configs) != 1:
            raise ValueError(f"{folder} holds the configs {', '.join(configs) or '(none)'}: choose one")
        config = configs[0]
    if (config, split) not in there:
        listed = ", ".join(f"{name} ({part})" for name, part in there)
        raise ValueError(f"{folder} holds no complete split {split!r} of {config!r}; it holds {listed or 'nothing'}")
    # Named files enter the key of the cache with their times: a folder that was converted anew is read anew.
    files = {split: f"{config}/{split}-*.parquet"}
    return require_package("datasets").load_dataset(str(folder), config, split=split, data_files=files)
