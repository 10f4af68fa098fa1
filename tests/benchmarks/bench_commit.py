"""What it costs to finish a shard, to stop and to go on, in a folder that holds many shards already.

    python tests/benchmarks/bench_commit.py --shards 1000 12500 156000

Only the records are made, not the parquet files: a million objects are 15,625 shards of 64, ten million 156,250.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from modeling_ulip2.data.card import dataset_card
from modeling_ulip2.data.records import BUILD, Entry, write_log
from modeling_ulip2.data.shards import BuildFolder
from modeling_ulip2.utils.files import write_text

COMMITS = 50
SETTINGS = {"release": "bench", "num_points": 10000, "depth": False, "features": False}


def entry(shard: int) -> Entry:
    """A shard as a build leaves it: 63 triplets, a mesh that could not be used, a warning."""
    record = {
        "triplets": 63,
        "captions": 63 * 120,
        "warned": 1,
        "errors": Counter({"empty": 1}),
        "licenses": Counter({"cc0-1.0": 40, "by-4.0": 23}),
        "sources": Counter({"objaverse": 63}),
        "bytes": {"triplets": 60_000_000 + shard, "features": 20_000_000 + shard},
        "data_bytes": {"triplets": 70_000_000, "features": 25_000_000},
        "seconds": Counter({"ReadMesh": 1.5, "RenderViews": 60.25, "EmbedViews": 300.125, "RankCaptions": 20.5}),
    }
    error = {"id": f"000-001/{shard:032x}.glb", "reason": "empty", "message": "it holds no triangle"}
    warning = {"id": f"000-002/{shard:032x}.glb", "message": "the image 'wood.png' is missing: left out"}
    return Entry(shard, record, [error], [warning])


def measure(shards: int) -> list[str]:
    def tell(folder: BuildFolder) -> None:
        write_text(folder.path / "README.md", dataset_card("Bench", folder.manifest, folder.totals()))

    with tempfile.TemporaryDirectory() as name:
        path, objects = Path(name), [{"id": str(shard)} for shard in range(shards + COMMITS)]
        with BuildFolder(path, SETTINGS, objects, 1, tell):
            pass
        write_log(path / BUILD.log, (entry(shard) for shard in range(shards)))
        start = time.perf_counter()
        folder = BuildFolder(path, SETTINGS, objects, 1, tell).__enter__()
        opened = time.perf_counter()
        times = []
        for shard in range(shards, shards + COMMITS):
            begin = time.perf_counter()
            folder.commit(shard, entry(shard).record, entry(shard).errors, entry(shard).warnings)
            folder.totals()
            times.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        folder.__exit__(None)
        closed = time.perf_counter()
        size = (path / BUILD.log).stat().st_size / 2**20
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 2**20
    figures = [f"{1e3 * statistics.median(times):.2f} ms", f"{1e3 * max(times):.2f} ms"]
    return [
        f"{shards:,}",
        *figures,
        f"{opened - start:.2f} s",
        f"{closed - begin:.2f} s",
        f"{size:.0f}",
        f"{memory:.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, nargs="+", default=[1_000, 12_500, 156_000])
    args = parser.parse_args()
    print("| shards | commit, median | commit, worst | open again | tables and card | log, MiB | memory, MiB |")
    print("|---|---|---|---|---|---|---|")
    for shards in args.shards:
        print(f"| {' | '.join(measure(shards))} |", flush=True)


if __name__ == "__main__":
    main()
