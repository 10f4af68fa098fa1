"""Samples per second from parquet to a collated batch, beside the samples per second that a training step takes.

    python tests/benchmarks/bench_reading.py [--dataset DIR --num-workers 2 --batch-size 32 --device cuda]

A sample is a cloud of 10,000 colored points, normalized and augmented, with one view and its best caption: as the
tower's stored embeddings, or as image and words for a tower that runs in every step. Local files are memory-mapped and
read in random order; a stream is shuffled in a buffer, and its workers share the files. Without --dataset it writes
one of random clouds and pictures. The step is that of the published Point-BERT of 32.5 M parameters with stored
embeddings, on --device; the last columns say what share of the step's needs a single worker covers, and how many
workers feed it. For other GPUs, --step-rate gives their samples per second.

All batches lie within a pass: `datasets` ends each pass of a shuffled stream of parquet files with a pause of 5 s,
which is nothing in a pass over 800,000 shapes and would be most of the time here.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from PIL import Image
from torch.utils.data import DataLoader
from transformers import CLIPImageProcessor

sys.path.insert(0, str(Path(__file__).parents[2]))

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model, Ulip2Processor  # noqa: E402
from modeling_ulip2.data.collator import TripletCollator  # noqa: E402
from modeling_ulip2.data.reading import TripletDataset, config_files, load_config, read_triplets  # noqa: E402
from modeling_ulip2.data.schema import FEATURES_CONFIG, TRIPLETS_CONFIG, features_features, triplet_features
from modeling_ulip2.data.shards import shard_path  # noqa: E402
from modeling_ulip2.data.stream import TripletStream, joined_rows  # noqa: E402
from modeling_ulip2.utils.parquet import write_parquet  # noqa: E402
from tests.evaluation.world import build_processor  # noqa: E402

POINTS, VIEWS, CAPTIONS, DIM, SIZE = 10_000, 12, 8, 1280, 224
FILES, ROWS_PER_FILE = 8, 128


def write_dataset(folder: Path) -> None:
    """Random clouds, and pictures that take about as many bytes as renders do."""
    rng = np.random.default_rng(0)
    camera = {"azimuths": 0.0, "elevations": 0.0, "distances": 1.0}
    for shard in range(FILES):
        rows = []
        for number in range(ROWS_PER_FILE):
            words = [[f"caption {caption} of shape {number}" for caption in range(CAPTIONS)] for _ in range(VIEWS)]
            row: dict[str, Any] = {name: "" for name in ("source", "name", "license", "creator")}
            row |= {name: [value] * VIEWS for name, value in camera.items()}
            row |= {"id": f"{shard}/{number}", "fov": 40.0, "size": SIZE, "target": [0.0, 0.0, 0.0]}
            row |= {"shifts": [[0.0, 0.0]] * VIEWS}
            row |= {"xyz": rng.normal(size=(POINTS, 3)).astype(np.float16)}
            row |= {"rgb": rng.integers(256, size=(POINTS, 3), dtype=np.uint8)}
            row |= {"views": [picture(rng) for _ in range(VIEWS)], "captions": words}
            row |= {"caption_scores": [[0.5] * CAPTIONS] * VIEWS}
            row |= {"image_embeds": rng.normal(size=(VIEWS, DIM)).astype(np.float16)}
            row |= {"text_embeds": list(rng.normal(size=(VIEWS, CAPTIONS, DIM)).astype(np.float16))}
            rows.append(row)
        write_parquet(shard_path(folder, TRIPLETS_CONFIG, shard, FILES), rows, triplet_features(POINTS))
        write_parquet(shard_path(folder, FEATURES_CONFIG, shard, FILES), rows, features_features(DIM))
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("triplets", "features"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")


def picture(rng: np.random.Generator) -> dict[str, Any]:
    pixels = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).resize((134, 134))
    view, buffer = Image.new("RGB", (SIZE, SIZE)), io.BytesIO()
    view.paste(pixels, (45, 45))
    view.save(buffer, "WEBP", quality=90)
    return {"bytes": buffer.getvalue(), "path": None}


def rate(batches: Iterator[dict[str, Any]], count: int) -> float:
    """Samples per second over `count` batches, once the first one is there."""
    next(batches)
    start, samples = time.perf_counter(), 0
    for batch in islice(batches, count):
        samples += len(batch["point_values"])
    return samples / (time.perf_counter() - start)


def forever(loader: DataLoader) -> Iterator[dict[str, Any]]:
    while True:
        yield from loader


def step_rate(batch: dict[str, Any], device: str, repeats: int) -> float:
    """Samples a second of forward, backward and update of the published encoder, bf16 on a GPU."""
    torch.manual_seed(0)
    dim = batch["text_embeds"].shape[-1]
    model = Ulip2Model(Ulip2Config(point_config={"model_type": "ulip2_pointbert"}, projection_dim=dim)).to(device)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-4)
    inputs = {key: own.to(device) if isinstance(own, torch.Tensor) else own for key, own in batch.items()}
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=device != "cpu"):
            loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits for the GPU
        times.append(time.perf_counter() - start)
    return len(batch["point_values"]) / float(np.median(times[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", type=Path, help="triplets with features")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--step-batch-size", type=int, default=8)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--num-workers", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--step-rate", type=float, help="samples per second to feed, instead of measuring a step")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.dataset or Path(scratch, "triplets")
        if options.dataset is None:
            write_dataset(folder)
        measure(folder, options)


def measure(folder: Path, options: argparse.Namespace) -> None:
    triplets, features = read_triplets(str(folder)), load_config(str(folder), FEATURES_CONFIG)
    stream = read_triplets(str(folder), streaming=True)
    joined = joined_rows(*(config_files(str(folder), config) for config in (TRIPLETS_CONFIG, FEATURES_CONFIG)))
    assert isinstance(triplets, Dataset) and isinstance(features, Dataset) and isinstance(stream, IterableDataset)
    points = len(triplets[0]["xyz"])
    processor = Ulip2Processor(
        Ulip2FeatureExtractor(num_points=points), build_processor().tokenizer, CLIPImageProcessor()
    )
    collator = TripletCollator(processor)
    batches = min(options.batches, len(triplets) * 3 // 4 // options.batch_size - 1)
    if batches < 1:
        sys.exit(f"{len(triplets)} shapes are too few for batches of {options.batch_size}: lower --batch-size.")
    sources = {
        "local, stored embeddings": TripletDataset(triplets, features),
        "local, image and caption": TripletDataset(triplets),
        "streaming, stored embeddings": TripletStream(joined, shuffle_buffer=128),
        "streaming, image and caption": TripletStream(stream, shuffle_buffer=128),
    }
    needed = options.step_rate
    if needed is None:
        step = DataLoader(sources["local, stored embeddings"], options.step_batch_size, collate_fn=collator)
        needed = step_rate(next(iter(step)), options.device, repeats=2)
    print(
        f"{len(triplets)} shapes of {points} points; batches of {options.batch_size}; {os.cpu_count()} cores; "
        f"a step on {options.device} takes {needed:.1f} samples/s"
    )
    for name, source in sources.items():
        rates = {}
        for workers in dict.fromkeys([0, options.num_workers]):
            shuffle = None if isinstance(source, TripletStream) else True
            loader = DataLoader(
                source, options.batch_size, shuffle=shuffle, num_workers=workers, collate_fn=collator, drop_last=True
            )
            rates[workers] = rate(forever(loader), batches)
        told = "".join(f"{own:9.1f} samples/s with {workers} workers" for workers, own in rates.items())
        single = rates[0] / needed
        print(f"{name:<30}{told}   one covers {100 * single:.0f} %; {int(np.ceil(1 / single))} feed it")


if __name__ == "__main__":
    main()
