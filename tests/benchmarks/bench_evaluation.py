"""How long an evaluation of the size of Objaverse-LVIS takes, estimated from a measured part of it.

    python tests/benchmarks/bench_evaluation.py [--clouds 48 --batch 8 --workers 1 --repeats 3 --device cpu]

Clouds of 10,000 colored points in half precision, stored as `dataset_scripts/objaverse_lvis.py` stores them, go
through the official Point-BERT (random weights). The evaluator, whose clouds are prepared in worker processes, and a
loop that prepares and encodes in turn take turns; the figures are medians. Scoring is measured at full size: 46,832
shapes, 1,156 classes, with controls and intervals. The prompts of the classes are encoded once for each tower,
whatever the number of shapes, and are not part of this.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "dataset_scripts")]

from modeling_ulip2 import PointBertConfig, Ulip2Config, Ulip2FeatureExtractor, Ulip2Model  # noqa: E402
from modeling_ulip2.data.benchmarks import BENCHMARKS, read_benchmark  # noqa: E402
from modeling_ulip2.embedding.loop import default_workers  # noqa: E402
from modeling_ulip2.evaluation.benchmarks.embed_shards import PreparedClouds, embed_shards, read_shards  # noqa: E402
from modeling_ulip2.evaluation.benchmarks.protocols import PROTOCOLS  # noqa: E402
from modeling_ulip2.evaluation.metrics.controls import evaluate_zero_shot  # noqa: E402
from modeling_ulip2.evaluation.reports.report import format_duration  # noqa: E402
from tests.evaluation.benchmark_folders import write_benchmark  # noqa: E402

LVIS = BENCHMARKS["objaverse_lvis"]
SHAPES, DIM = LVIS.expected("lvis", "test")[0], 1280


@torch.inference_mode()
def in_turn(model: nn.Module, clouds: PreparedClouds, batch_size: int, device: torch.device) -> float:
    """Seconds of a loop that prepares a batch, encodes it, prepares the next."""
    start = time.perf_counter()
    for first in range(0, len(clouds), batch_size):
        values = torch.stack([clouds[index] for index in range(first, min(first + batch_size, len(clouds)))])
        F.normalize(model.get_point_features(values.to(device)).pooler_output.float(), dim=-1).cpu()
    return time.perf_counter() - start


def scoring() -> float:
    """Seconds to rank and to put chance, controls and intervals beside the figures, at full size."""
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(SHAPES, DIM, generator=generator)
    classes = torch.randn(len(LVIS.class_names), DIM, generator=generator)
    labels = torch.from_numpy(np.random.default_rng(0).integers(len(classes), size=SHAPES))
    start = time.perf_counter()
    evaluate_zero_shot(points, classes, labels)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clouds", type=int, default=48, help="[%(default)s]")
    parser.add_argument("--batch", type=int, default=8, help="[%(default)s]")
    parser.add_argument("--workers", type=int, default=default_workers(), help="[%(default)s]")
    parser.add_argument("--repeats", type=int, default=3, help="[%(default)s]")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="[%(default)s]")
    args = parser.parse_args()
    device = torch.device(args.device)
    torch.manual_seed(0)
    model = Ulip2Model(Ulip2Config(point_config=PointBertConfig().to_dict(), projection_dim=DIM)).eval().to(device)
    extractor = PROTOCOLS["ulip2"].feature_extractor("objaverse_lvis", "lvis", Ulip2FeatureExtractor())
    turns: list[float] = []
    overlapped: list[float] = []
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "lvis"
        write_benchmark(folder, "objaverse_lvis", "lvis", args.clouds, points=10_000, color=True)
        clouds = PreparedClouds(read_benchmark(folder), extractor)
        in_turn(model, clouds, args.clouds, device)  # compiles and warms up
        for number in range(args.repeats):
            turns.append(in_turn(model, clouds, args.batch, device))
            out = Path(scratch) / f"embeds-{number}"
            start = time.perf_counter()
            embed_shards(model, clouds, out, "bench", batch_size=args.batch, num_workers=args.workers)
            overlapped.append(time.perf_counter() - start)
            speed = read_shards(out, len(clouds), "bench")[1]
            shares.append(speed.encoder_seconds / speed.seconds)
    per_cloud, before = statistics.median(overlapped) / args.clouds, statistics.median(turns) / args.clouds
    ranking = scoring()
    parameters = sum(p.numel() for p in model.point_model.parameters()) / 1e6
    print(f"Point-BERT of {parameters:.1f} M parameters on {device}, {args.workers} workers, batch {args.batch}")
    print(f"{args.clouds} clouds, prepared in workers: {1e3 * per_cloud:.1f} ms per cloud; in turn {1e3 * before:.1f}")
    print(f"ratio {before / per_cloud:.2f}; share of time in the encoder {100 * statistics.median(shares):.1f} %")
    print(f"scoring {SHAPES:,} shapes against {len(LVIS.class_names):,} classes: {format_duration(ranking)}")
    print(f"estimated for {SHAPES:,} clouds on one such device: {format_duration(SHAPES * per_cloud + ranking)}")


if __name__ == "__main__":
    main()
