"""One rank of two that fill the feature caches, rank 1 late: `late_ranks.py TRIPLETS TOWER CACHE [kill]`.

Rank 1 looks for missing shards only once rank 0 has written its first. With `kill`, it kills itself within its first
shard of the towers' features, its file half written.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from modeling_ulip2.data.reading import read_triplets
from modeling_ulip2.evaluation.benchmarks import embed_shards
from modeling_ulip2.towers import load_tower
from modeling_ulip2.training import features, point_features
from tests.evaluation.world import build_model
from tests.models import captioning_world as world

SHARD = 3  # of 16 rows: 6 shards


def wait_for(folder: Path, pattern: str) -> None:
    for _ in range(1200):
        if any(folder.rglob(pattern)):
            return
        time.sleep(0.1)
    raise TimeoutError(f"{folder} never held {pattern}")


def kill(path: Path, *rest: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f".{path.name}.{os.getpid()}.part").write_bytes(b"PAR1 half")
    os.kill(os.getpid(), signal.SIGKILL)


def main(dataset: str, tower_folder: str, cache_folder: str, *told: str) -> None:
    features.ROWS_PER_SHARD = point_features.SHAPES_PER_SHARD = SHARD
    cache, triplets, tower = Path(cache_folder), read_triplets(dataset), load_tower(tower_folder)
    model, processor = world.captioner(*world.save_parts(cache / f"parts-{os.environ['RANK']}"), connector="mlp")
    state = PartialState(cpu=True)
    encoder = build_model(Path(tower_folder))
    late = state.process_index == 1

    if late:
        wait_for(cache / "towers", "train-00000-of-*.parquet")
        if "kill" in told:
            features.write_parquet = kill
    found = features.computed_features(triplets, tower, cache_dir=cache / "towers")
    assert list(found["id"]) == list(triplets["id"])

    if late:
        wait_for(cache / "points", "00000.safetensors")
    points = point_features.point_features(model, processor.feature_extractor, triplets, cache / "points")
    assert all(torch.isfinite(points[name]).all() for name in triplets["id"])

    if late:
        wait_for(cache / "embeds", "embeds-00000-of-*.safetensors")
    clouds = embed_shards.PreparedClouds(triplets, processor.feature_extractor)
    share = {"process_index": state.process_index, "num_processes": state.num_processes, "shard_size": SHARD}
    embed_shards.embed_shards(encoder, clouds, cache / "embeds", "stamp", num_workers=0, **share)
    state.wait_for_everyone()
    embeds, _ = embed_shards.read_shards(cache / "embeds", len(clouds), "stamp", SHARD)
    assert embeds.shape[0] == 16
    print(f"rank {state.process_index} has everything")


if __name__ == "__main__":
    main(*sys.argv[1:])
