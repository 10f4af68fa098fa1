"""Search in a large index: recall, latency, memory and size of each kind of FAISS index, and of adding shapes.

    python tests/benchmarks/bench_search.py [--shapes 1000000] [--dim 1280] [--queries 500] [--folder DIR]

Embeddings are drawn, clustered like those of a collection: one cluster for every 50 shapes, spread by a falling
spectrum; a query lies beside a shape. Recall@10 is against an exact search. Latency is that of `ShapeIndex.search` as
a user calls it, one query at a time, candidates ranked again; "fresh" is the first search of a process that has just
opened the index. Memory is what a process holds after the searches, beyond what it held before: "own" is its alone,
"mapped" are pages of the files that the system may drop.

Every kind is measured in the same run on the same queries, in a process of its own. The last column adds the last
hundredth of the shapes to the index of the others and compares with building it from nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from datasets import Dataset, Features, List, Value
from datasets.arrow_writer import ArrowWriter
from transformers.utils.logging import disable_progress_bar

from modeling_ulip2.search.faiss_index import FACTORIES, choose_factory, update_faiss
from modeling_ulip2.search.index import ShapeIndex, read_shapes
from modeling_ulip2.search.schema import CONFIG, EMBEDS, FAISS_FILE, FORMAT, INFO_FILE, index_shard_path

K, CLUSTER, BLOCK = 10, 50, 20_000
SPREAD, BESIDE = 0.7, 0.3  # of a shape around its cluster, of a query around its shape


def draw(folder: Path, shapes: int, dim: int, queries: int, seed: int = 0) -> np.ndarray:
    """Writes the embeddings as shards of an index folder; returns the queries (Q, D)."""
    rng = np.random.default_rng(seed)
    spectrum = (np.arange(1, dim + 1) ** -0.5).astype(np.float32)
    centers = rng.standard_normal((max(1, shapes // CLUSTER), dim), dtype=np.float32) * spectrum
    features = Features({EMBEDS: List(Value("float32"), length=dim)})
    asked = np.sort(rng.choice(shapes, size=min(queries, shapes), replace=False))
    chosen = np.empty((len(asked), dim), dtype=np.float32)
    (folder / CONFIG).mkdir(parents=True)
    # the last hundredth in shards of its own: those are added later
    edges = sorted({*range(0, shapes, BLOCK), shapes - shapes // 100, shapes})
    for shard, (start, end) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        rows = centers[rng.integers(len(centers), size=end - start)]  # (n, D)
        rows += SPREAD * spectrum * rng.standard_normal(rows.shape, dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        of_block = (asked >= start) & (asked < end)
        chosen[of_block] = rows[asked[of_block] - start]
        with ArrowWriter(features=features, path=str(index_shard_path(folder, shard))) as writer:
            writer.write_batch({EMBEDS: rows})
            writer.finalize()
    chosen += BESIDE * spectrum / np.linalg.norm(spectrum) * rng.standard_normal(chosen.shape, dtype=np.float32)
    return chosen / np.linalg.norm(chosen, axis=1, keepdims=True)


def nearest(folder: Path, queries: np.ndarray) -> np.ndarray:
    """The K nearest rows of every query by comparing with all, (Q, K)."""
    scores = np.full((len(queries), K), -np.inf, dtype=np.float32)
    rows = np.zeros((len(queries), K), dtype=np.int64)
    start = 0
    for path in sorted((folder / CONFIG).glob("train-*.arrow")):
        block = Dataset.from_file(str(path)).with_format("numpy")[EMBEDS][:]  # (n, D)
        both = np.concatenate([scores, queries @ np.stack(block).T], axis=1)
        numbers = np.concatenate(
            [rows, np.broadcast_to(np.arange(start, start + len(block)), (len(queries), len(block)))], axis=1
        )
        best = np.argpartition(-both, K - 1, axis=1)[:, :K]
        scores, rows = np.take_along_axis(both, best, axis=1), np.take_along_axis(numbers, best, axis=1)
        start += len(block)
    return rows


def build(folder: Path, factory: str, dim: int, added: int) -> dict[str, float]:
    """Builds the FAISS file without the last `added` rows, then adds those; seconds of both."""
    (folder / FAISS_FILE).unlink(missing_ok=True)
    info = {"format": FORMAT, "dim": dim, "num_points": 0, "factory": factory, "model": "none", "tower": "none"}
    (folder / INFO_FILE).write_text(json.dumps(info))
    shapes = read_shapes(folder)
    start = time.perf_counter()
    update_faiss(folder, shapes.select(range(len(shapes) - added)), factory)
    built = time.perf_counter()
    update_faiss(folder, shapes, factory)
    return {"build": built - start, "add": time.perf_counter() - built, "size": (folder / FAISS_FILE).stat().st_size}


def search(folder: Path) -> dict[str, float]:
    """Asks every query of the folder; run in a process of its own, so that its memory is that of the search."""
    queries, truth = np.load(folder / "queries.npy"), np.load(folder / "truth.npy")
    process = psutil.Process()
    before = process.memory_info()
    index = ShapeIndex.open(folder)
    seconds, found = [], 0
    for query, right in zip(queries, truth, strict=True):
        start = time.perf_counter()
        matches = index.search(query, K)
        seconds.append(time.perf_counter() - start)
        found += len({match.row for match in matches}.intersection(right.tolist()))
    after = process.memory_info()
    mapped = after.shared - before.shared
    return {
        "recall": found / truth.size,
        "fresh": seconds[0],
        "p50": float(np.median(seconds[1:])),
        "p99": float(np.quantile(seconds[1:], 0.99)),
        "own": after.rss - before.rss - mapped,
        "mapped": mapped,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shapes", type=int, default=100_000, help="[100000; a million takes 12 GB of disk and, on ten cores, 12 min]"
    )
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--factories", nargs="+", help="default: those of the rule, exact first")
    parser.add_argument("--folder", type=Path, help="where to put the files [a temporary folder]")
    parser.add_argument("--search_only", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    disable_progress_bar()
    if options.search_only:
        print(json.dumps(search(options.search_only)))
        return
    factories = options.factories or [*(factory for _, factory in FACTORIES), choose_factory(10**9)]
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="bench_search_"))
    try:
        start = time.perf_counter()
        queries = draw(folder, options.shapes, options.dim, options.queries)
        np.save(folder / "queries.npy", queries)
        np.save(folder / "truth.npy", nearest(folder, queries))
        print(
            f"{options.shapes:,} embeddings of {options.dim} numbers, {len(queries)} queries; drawn, and searched "
            f"exactly, in {time.perf_counter() - start:.0f} s; by size the index would be "
            f"{choose_factory(options.shapes)}"
        )
        print(
            f"{'index':<16} {'recall@10':>9} {'p50 ms':>8} {'p99 ms':>8} {'fresh ms':>9} {'file MB':>8} {'own MB':>7} "
            f"{'mapped MB':>9} {'build s':>8} {'add 1 % s':>9} {'build / add':>11}",
            flush=True,
        )
        for factory in factories:
            measured: dict[str, Any] = build(folder, factory, options.dim, options.shapes // 100)
            command = [sys.executable, __file__, "--search_only", str(folder)]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            measured |= json.loads(output.splitlines()[-1])
            milliseconds = [1e3 * measured[name] for name in ("p50", "p99", "fresh")]
            megabytes = [measured[name] / 1e6 for name in ("size", "own", "mapped")]
            print(
                f"{factory:<16} {measured['recall']:>9.3f} "
                + "{:>8.1f} {:>8.1f} {:>9.1f} {:>8.0f} {:>7.0f} {:>9.0f} ".format(*milliseconds, *megabytes)
                + f"{measured['build']:>8.0f} {measured['add']:>9.1f} {measured['build'] / measured['add']:>11.0f}",
                flush=True,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
