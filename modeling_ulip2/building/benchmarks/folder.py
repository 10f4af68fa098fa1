"""The folder of a converted benchmark: parquet shards, `benchmark.json`, and the card that `load_dataset` reads."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Array2D, ClassLabel, Features, Value
from huggingface_hub import DatasetCardData
from tqdm import tqdm

from modeling_ulip2.data.benchmarks import (
    BENCHMARKS,
    FORMAT,
    MANIFEST,
    Benchmark,
    complete_splits,
    read_benchmark_manifest,
)
from modeling_ulip2.data.card import SIZES
from modeling_ulip2.geometry.cloud import near_origin
from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.markdown import markdown_table
from modeling_ulip2.utils.parquet import write_parquet

from .files import BenchmarkError

SHARD_SIZE = 500

StoredCloud = tuple[np.ndarray, np.ndarray | None]


@dataclass(frozen=True)
class BenchmarkSplit:
    """One split as its files have it, before any cloud is read.

    Attributes:
        config, split: what it becomes.
        files: the files it comes from, for the record.
        ids, labels: of N shapes, in the files' order.
        read: the index of a shape to xyz (n, 3) and rgb (n, 3) or None; raises MeshError for a file that cannot be
            used.
        notes: what a reader of the card should know.
    """

    config: str
    split: str
    files: Sequence[Path]
    ids: Sequence[str]
    labels: np.ndarray
    read: Callable[[int], StoredCloud]
    notes: Sequence[str] = ()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that every benchmark's script has."""
    parser.add_argument("--source", type=Path, required=True, help="folder of the downloaded files")
    parser.add_argument("--output", type=Path, required=True, help="folder of the dataset, new or to be completed")
    parser.add_argument(
        "--allow-partial",
        action="store_true",
        help="accept another number of shapes than the benchmark has, or files that cannot be used; "
        "the card and every result say so",
    )


def convert_benchmark(name: str, args: argparse.Namespace, sources: Iterable[BenchmarkSplit], looked_for: str) -> None:
    """Writes each source as a config's split; ends the program with a message where one is unusable.

    Args:
        name: of the benchmark.
        args: what `add_arguments` read.
        sources: may be a generator, so that one source at a time is in memory.
        looked_for: a file that would have been a source.
    """
    output, found = args.output, False
    try:
        if not args.source.is_dir():
            raise BenchmarkError(f"there is no folder {args.source} (--source)")
        for source in sources:
            found = True
            write_split(BENCHMARKS[name], output, source, allow_partial=args.allow_partial)
        if not found:
            raise BenchmarkError(f"{args.source} holds none of the files that are looked for, e.g. {looked_for}")
        manifest = read_benchmark_manifest(output)
    except (BenchmarkError, MeshError, OSError, ValueError) as error:
        sys.exit(f"{name}: {error}")
    for config, split in complete_splits(manifest):
        print(f"{config}, {split}: {manifest['configs'][config]['splits'][split]['shapes']} shapes in {output}")


def write_split(
    benchmark: Benchmark, output: Path, source: BenchmarkSplit, *, allow_partial: bool = False
) -> dict[str, Any]:
    """Writes one split and the card; shards that an earlier run finished are kept. Its record in `benchmark.json`.

    Raises:
        BenchmarkError: the number of shapes is none that the benchmark has, clouds differ in size or type, or some
            cannot be used, and `allow_partial` is not set.
    """
    expected = benchmark.expected(source.config, source.split)
    what = f"{benchmark.title}, {source.config}, {source.split}"
    if not len(source.ids):
        raise BenchmarkError(f"{what}: {source.files[0]} holds no shape")
    if expected and len(source.ids) not in expected and not allow_partial:
        numbers = " or ".join(f"{number:,}" for number in expected)
        raise BenchmarkError(
            f"{what}: {source.files[0]} holds {len(source.ids):,} shapes, the benchmark has {numbers}. Download it "
            "again, or add --allow-partial for results that are marked as partial"
        )
    if len(source.labels) != len(source.ids):
        raise BenchmarkError(f"{what}: {len(source.ids)} shapes but {len(source.labels)} labels")
    if len(set(source.ids)) < len(source.ids):
        raise BenchmarkError(f"{what}: two shapes have the same id")
    manifest = _open(benchmark, output)
    record = _begun(manifest, benchmark, source, output)
    num_shards = -(-len(source.ids) // SHARD_SIZE)
    progress = tqdm(total=len(source.ids), desc=what, unit="shape")
    for shard in range(num_shards):
        rows = range(shard * SHARD_SIZE, min((shard + 1) * SHARD_SIZE, len(source.ids)))
        path = output / source.config / f"{source.split}-{shard:05d}-of-{num_shards:05d}.parquet"
        if not _is_whole(path, record, shard):
            errors = _write_shard(path, source, rows, record, benchmark)
            record["errors"] = [error for error in record["errors"] if error["shard"] != shard]
            record["errors"] += [{**error, "shard": shard} for error in errors]
            record["shards"][path.name] = path.stat().st_size if path.is_file() else None
            _write_manifest(output, manifest)
        progress.update(len(rows))
    progress.close()
    errors = record["errors"]
    record["shapes"] = len(source.ids) - len(errors)
    record["complete"] = record["shapes"] > 0 and (allow_partial or not errors)
    _write_manifest(output, manifest)
    if not record["complete"]:
        raise BenchmarkError(
            f"{what}: {len(errors)} of {len(source.ids)} shapes cannot be used, e.g. {errors[0]['id']}: "
            f"{errors[0]['message']} ({MANIFEST} lists all). Mend them and run this again, or add --allow-partial for "
            "results that are marked as partial"
        )
    write_text(output / "README.md", benchmark_card(manifest))
    return record


def _is_whole(path: Path, record: dict[str, Any], shard: int) -> bool:
    """Whether an earlier run wrote all shapes of a shard; one that lacks some is tried again."""
    if any(error["shard"] == shard for error in record["errors"]):
        return False
    return path.is_file() and record["shards"].get(path.name) == path.stat().st_size


def _open(benchmark: Benchmark, output: Path) -> dict[str, Any]:
    if (output / MANIFEST).is_file():
        manifest = read_benchmark_manifest(output)
        if manifest["benchmark"] != benchmark.name:
            raise BenchmarkError(f"{output} holds {manifest['benchmark']}; choose another folder for {benchmark.name}")
        return manifest
    if output.exists() and any(output.iterdir()):
        raise BenchmarkError(f"{output} is not empty and holds no {MANIFEST}; choose an empty folder")
    output.mkdir(parents=True, exist_ok=True)
    return {"format": FORMAT, "benchmark": benchmark.name, "configs": {}}


def _begun(manifest: dict[str, Any], benchmark: Benchmark, source: BenchmarkSplit, output: Path) -> dict[str, Any]:
    """The split's record: the earlier run's if it read the same files, else a new one, without shards of old ones."""
    config = manifest["configs"].setdefault(source.config, {"splits": {}})
    stamp = hashlib.sha256()
    for name, label in zip(source.ids, source.labels.tolist(), strict=True):
        stamp.update(f"{name}\0{label}\n".encode())
    files = [{"name": path.name, "bytes": path.stat().st_size if path.is_file() else None} for path in source.files]
    begun = {
        "files": files,
        "list_sha256": stamp.hexdigest(),
        "shapes_listed": len(source.ids),
        "shapes": len(source.ids),
        "expected": list(benchmark.expected(source.config, source.split)),
        "classes_with_shapes": len(np.unique(source.labels)),
        "notes": list(source.notes),
        "errors": [],
        "shards": {},
        "complete": False,
    }
    before = config["splits"].get(source.split)
    if before and all(before[key] == begun[key] for key in ("files", "list_sha256")):
        return before
    for path in (output / source.config).glob(f"{source.split}-*.parquet"):
        path.unlink()
    config["splits"][source.split] = begun
    return begun


def _write_manifest(output: Path, manifest: dict[str, Any]) -> None:
    write_text(output / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")


def _write_shard(
    path: Path, source: BenchmarkSplit, rows: range, record: dict[str, Any], benchmark: Benchmark
) -> list[dict[str, str]]:
    """Writes the shapes `rows`; those that cannot be used are returned, as rows of `errors`."""
    clouds, errors = [], []
    for row in rows:
        try:
            clouds.append((row, *_checked(*source.read(row))))
        except MeshError as error:
            errors.append({"id": source.ids[row], "reason": error.reason, "message": str(error)})
    for row, xyz, rgb in clouds:
        kind = {"points": len(xyz), "xyz": str(xyz.dtype), "rgb": None if rgb is None else str(rgb.dtype)}
        if record.setdefault("clouds", kind) != kind:
            raise BenchmarkError(
                f"the shape {source.ids[row]} is of the kind {kind}, those before of {record['clouds']}"
            )
    path.unlink(missing_ok=True)
    if not clouds:
        return errors
    features = benchmark_features(record["clouds"], benchmark.class_names)
    columns = [
        {"id": source.ids[row], "xyz": xyz, "label": int(source.labels[row])} | ({} if rgb is None else {"rgb": rgb})
        for row, xyz, rgb in clouds
    ]
    write_parquet(path, columns, features)
    return errors


def benchmark_features(clouds: dict[str, Any], class_names: Sequence[str]) -> Features:
    """Columns of a benchmark whose clouds are of the kind {"points": n, "xyz": dtype, "rgb": dtype or None}."""
    shape = (clouds["points"], 3)
    columns: dict[str, Any] = {"id": Value("string"), "xyz": Array2D(shape, clouds["xyz"])}
    if clouds["rgb"]:
        columns["rgb"] = Array2D(shape, clouds["rgb"])
    return Features(columns | {"label": ClassLabel(names=list(class_names))})


def _checked(xyz: np.ndarray, rgb: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """A cloud in the types that are stored: coordinates and fractions as they come, float64 rounded to float32.

    Coordinates that lie so far from the origin that float32 would lose their shape are centered first.
    """
    if not isinstance(xyz, np.ndarray) or xyz.ndim != 2 or xyz.shape[1] != 3 or xyz.dtype.kind not in "fiu":
        raise MeshError("corrupt", f"its coordinates are {_shape(xyz)}, not numbers of the shape (n, 3)")
    if len(xyz) == 0:
        raise MeshError("empty", "it holds no point")
    if not np.isfinite(xyz).all():
        raise MeshError("non_finite", "its coordinates are NaN or infinite")
    if xyz.dtype != np.float16:
        xyz = near_origin(xyz).astype(np.float32)
    if rgb is None:
        return xyz, None
    if not isinstance(rgb, np.ndarray) or rgb.shape != xyz.shape or rgb.dtype.kind not in "fiu":
        raise MeshError("corrupt", f"its colors are {_shape(rgb)}, its coordinates {_shape(xyz)}")
    low, high = float(rgb.min()), float(rgb.max())
    if not (low >= 0 and high <= 255):  # also false for NaN
        raise MeshError("non_finite", f"its colors lie in [{low:g}, {high:g}], neither in [0, 1] nor in [0, 255]")
    if rgb.dtype.kind != "f" or high > 1:
        return xyz, np.round(rgb).astype(np.uint8)
    return xyz, rgb if rgb.dtype == np.float16 else rgb.astype(np.float32)


def _shape(array: Any) -> str:
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"


def benchmark_card(manifest: dict[str, Any]) -> str:
    """README.md of a converted benchmark; its YAML is what makes `load_dataset(folder, config)` work."""
    benchmark = BENCHMARKS[manifest["benchmark"]]
    splits: dict[str, list[str]] = {}
    for config, split in complete_splits(manifest):
        splits.setdefault(config, []).append(split)
    count = sum(
        manifest["configs"][config]["splits"][split]["shapes"] for config in splits for split in splits[config]
    )
    data = DatasetCardData(
        pretty_name=benchmark.title,
        task_categories=["zero-shot-classification"],
        tags=["3d", "point-cloud"],
        size_categories=next((name for limit, name in SIZES if count < limit), "n>1T"),
        configs=[
            {
                "config_name": config,
                "data_files": [{"split": split, "path": f"{config}/{split}-*.parquet"} for split in names],
            }
            for config, names in splits.items()
        ],
    )
    lines = [f"---\n{data.to_yaml()}\n---", f"# {benchmark.title}"]
    first = next(iter(splits), "…")
    lines.append(
        f"{benchmark.title} ({len(benchmark.class_names)} classes), converted from the files that circulate with "
        f"`dataset_scripts/{benchmark.name}.py` of `modeling_ulip2`. Coordinates and colors are stored as they came, "
        f'y up.\n\n```python\nfrom datasets import load_dataset\n\nload_dataset("…", "{first}", split="test")\n```'
    )
    rows, notes = [], []
    for config in splits:
        for split in splits[config]:
            record = manifest["configs"][config]["splits"][split]
            clouds = record["clouds"]
            shapes = f"{record['shapes']:,}{_verdict(record)}"
            told = [shapes, f"{clouds['points']:,}", clouds["rgb"] or "none", benchmark.configs[config]]
            rows.append([config, split, *told])
            notes += [f"- {config}, {split}: {note}" for note in record["notes"]]
            if record["errors"]:
                notes.append(
                    f"- {config}, {split}: {len(record['errors'])} shapes could not be used, see `{MANIFEST}`"
                )
    table = markdown_table(["config", "split", "shapes", "points", "color", "what it is"], rows)
    lines += ["\n".join(table).rstrip(), *(["\n".join(notes)] if notes else []), ""]
    return "\n\n".join(lines)


def _verdict(record: dict[str, Any]) -> str:
    if not record["expected"]:
        return " (no count was published)"
    return "" if record["shapes"] in record["expected"] else f" (partial: {record['expected'][0]:,} expected)"
