"""Small converted benchmarks, written by the converters' own writer."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from modeling_ulip2.building.benchmarks.folder import BenchmarkSplit, write_split
from modeling_ulip2.data.benchmarks import BENCHMARKS


def write_benchmark(
    folder: Path,
    name: str,
    config: str,
    shapes: int,
    points: int = 80,
    color: bool = False,
    seed: int = 0,
    split: str = "test",
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Random clouds with labels 0, 1, 2, …; their xyz (N, n, 3), rgb or None, labels (N,)."""
    rng = np.random.default_rng(seed)
    xyz = rng.normal(size=(shapes, points, 3)).astype(np.float32) + 0.5
    rgb = rng.integers(256, size=xyz.shape, dtype=np.uint8) if color else None
    labels = np.arange(shapes) % len(BENCHMARKS[name].class_names)
    file = folder.with_name(f"{folder.name}.source")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes([seed]))
    ids = [f"{config}/{index}" for index in range(shapes)]
    source = BenchmarkSplit(config, split, [file], ids, labels, lambda i: (xyz[i], None if rgb is None else rgb[i]))
    write_split(BENCHMARKS[name], folder, source, allow_partial=True)
    return xyz, rgb, labels
