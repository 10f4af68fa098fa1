"""Time and peak memory of the proposals for a scan, by its number of points.

python -m tests.benchmarks.bench_scenes --points 5000000
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from modeling_ulip2.scenes import Scene
from modeling_ulip2.scenes.proposals import GeometricSegmenter
from tests.scenes.rooms import DENSITY, RoomBuilder, furnished

ROOMS_IN_A_ROW = 5


def house(points: int) -> Scene:
    """Furnished rooms side by side, at the density of a scan, until there are so many points."""
    room = furnished(density=DENSITY).scene()
    count = -(-points // len(room.xyz))
    rng = np.random.default_rng(0)
    xyz = np.concatenate(
        [
            room.xyz
            + np.float32([4.2 * (n % ROOMS_IN_A_ROW), 0, 3.2 * (n // ROOMS_IN_A_ROW)])
            + rng.normal(0, 0.002, room.xyz.shape).astype(np.float32)
            for n in range(count)
        ]
    )
    return Scene("house", xyz[:points], np.tile(room.rgb, (count, 1))[:points])


def peak() -> float:
    """GB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=5_000_000)
    parser.add_argument("--max_voxels", type=int, default=GeometricSegmenter.max_voxels)
    options = parser.parse_args()
    segmenter = GeometricSegmenter(max_voxels=options.max_voxels)
    warm = RoomBuilder(density=500)
    warm.chair(0, 0)
    segmenter.segment(warm.scene())  # compiles the loops
    scene = house(options.points)
    before, wall, cpu = peak(), time.perf_counter(), time.process_time()
    masks = segmenter.segment(scene)
    print(
        f"{options.points:,} points: {time.perf_counter() - wall:.0f} s, {time.process_time() - cpu:.0f} s of "
        f"processors, peak {peak():.2f} GB ({before:.2f} GB with the scan before), {len(masks)} proposals"
    )


if __name__ == "__main__":
    main()
