"""What a batch of training clouds costs the worker that prepares it, step by step; one process, one thread.

    python tests/benchmarks/bench_collator.py [--batch 64 --points 10000 --repeats 5]

The rows are stored as triplets are: xyz in float16, colors in bytes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from modeling_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.data.augmentation import PUBLISHED, PointAugmentation
from modeling_ulip2.data.collator import CloudCollator

# Every cloud as a scan would show it.
SCANNED = PointAugmentation(one_side_share=1, occlusion_share=1, floor_share=1, jitter_sigma=0.01, color_dropout=0.3)


def median_ms(function: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()  # of this process alone, whatever else the machine does
        function()
        times.append((time.process_time() - start) * 1e3)
    return statistics.median(times[1:])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"batch": 64, "points": 10_000, "repeats": 5}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    shape = (options.batch, options.points, 3)
    xyz, rgb = rng.normal(size=shape).astype(np.float16), rng.integers(256, size=shape, dtype=np.uint8)
    rows = [
        {"id": str(i), "xyz": cloud, "rgb": colors} for i, (cloud, colors) in enumerate(zip(xyz, rgb, strict=True))
    ]
    extractor = Ulip2FeatureExtractor(num_points=options.points)
    collator = CloudCollator(extractor)
    plain = CloudCollator(extractor, augmentation=None)
    clouds = [{"xyz": row["xyz"], "rgb": row["rgb"]} for row in rows]
    values = extractor(clouds, return_tensors="np")["point_values"]
    rngs = [collator._rng(row) for row in rows]
    steps: dict[str, Callable[[], object]] = {
        "float16 to float32, by NumPy": lambda: xyz.astype(np.float32),
        "float16 to float32, by torch": lambda: torch.from_numpy(xyz).float(),
        "random order": lambda: [collator._draw(row["xyz"], own) for row, own in zip(rows, rngs, strict=True)],
        "feature extractor": lambda: extractor(clouds, return_tensors="np"),
        "augmentation": lambda: [PUBLISHED(cloud, own) for cloud, own in zip(values, rngs, strict=True)],
        "augmentation as in scans": lambda: [SCANNED(cloud, own) for cloud, own in zip(values, rngs, strict=True)],
        "whole batch, not augmented": lambda: plain._points(rows, [plain._rng(row) for row in rows]),
        "whole batch": lambda: collator._points(rows, [collator._rng(row) for row in rows]),
    }
    print(f"{options.batch} clouds of {options.points} points; CPU ms per batch, median of {options.repeats}")
    for name, step in steps.items():
        print(f"{name:<30}{median_ms(step, options.repeats):>9.1f}")


if __name__ == "__main__":
    main()
