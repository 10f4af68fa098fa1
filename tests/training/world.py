"""A small world for the tests of training: triplets with depth, ragged captions and features, and a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from PIL import Image

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model, Ulip2Processor
from modeling_ulip2.data.reading import read_triplets
from modeling_ulip2.data.schema import features_features, triplet_features
from modeling_ulip2.towers import Tower
from modeling_ulip2.training.features import computed_features
from tests.evaluation.world import CATEGORIES, build_processor, build_tower

STORED_POINTS, NUM_POINTS, NUM_VIEWS, SIZE, DIM = 80, 64, 3, 32, 24
ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_groups": 8,
    "group_size": 8,
    "encoder_dims": 16,
    "drop_path_rate": 0.0,
}


def triplet_rows(shapes: int = 16, depth: bool = False, seed: int = 0) -> list[dict[str, Any]]:
    """Boxes whose proportions and color tell their category; the first view of every shape has two captions."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(shapes):
        category = CATEGORIES[index % 3]
        extent = np.roll([4.0, 1.0, 0.5], index % 3)
        captions = [[f"a {category} number {index}", f"some {category}"]] + [[f"a {category}"]] * (NUM_VIEWS - 1)
        row = {
            "id": f"made/{index:02d}.obj",
            "source": "made",
            "name": f"{category} {index // 6}",
            "license": "CC0",
            "creator": "",
            "xyz": (rng.uniform(-1, 1, size=(STORED_POINTS, 3)) * extent).astype(np.float16),
            "rgb": np.clip(rng.normal(80 * (index % 3) + 40, 10, size=(STORED_POINTS, 3)), 0, 255).astype(np.uint8),
            "views": [_noise(rng) for _ in range(NUM_VIEWS)],
            "azimuths": [0.0, 120.0, 240.0],
            "elevations": [15.0] * NUM_VIEWS,
            "distances": [4.0] * NUM_VIEWS,
            "shifts": [[0.0, 0.0]] * NUM_VIEWS,
            "fov": 40.0,
            "size": SIZE,
            "target": [0.0, 0.5, 0.0],
            "captions": captions,
            "caption_scores": [[0.3, 0.2]] + [[0.3]] * (NUM_VIEWS - 1),
        }
        if depth:
            row |= {"depths": [_depth(rng) for _ in range(NUM_VIEWS)], "depth_scale": 0.001}
        rows.append(row)
    return rows


def write_dataset(folder: Path, shapes: int = 16, depth: bool = False, files: int = 2, seed: int = 0) -> Path:
    """A triplets folder of `files` shards, as dataset_scripts/build_triplets.py would leave it, without features."""
    rows = triplet_rows(shapes, depth, seed)
    (folder / "triplets").mkdir(parents=True)
    for file, part in enumerate(np.array_split(np.arange(shapes), files)):
        Dataset.from_list([rows[i] for i in part], features=triplet_features(STORED_POINTS, depth=depth)).to_parquet(
            folder / "triplets" / f"train-{file:05d}-of-{files:05d}.parquet"
        )
    _write_card(folder, ["triplets"])
    return folder


def add_features(folder: Path, tower: Tower, cache: Path, depth: bool = False, beside: bool = False) -> None:
    """Adds the config `features` and a manifest that names its tower.

    `beside`: in files that go with those of the triplets, as dataset_scripts/ writes them; else in another order.
    """
    computed = computed_features(read_triplets(str(folder)), tower, depth, cache)
    features = features_features(tower.dim, depth=depth)
    (folder / "features").mkdir()
    if beside:
        start = 0
        for path in sorted((folder / "triplets").iterdir()):
            end = start + pq.read_metadata(path).num_rows
            computed.select(range(start, end)).cast(features).to_parquet(folder / "features" / path.name)
            start = end
    else:
        shuffled = computed.shuffle(seed=0).cast(features)
        shuffled.to_parquet(folder / "features" / "train-00000-of-00001.parquet")
    _write_card(folder, ["triplets", "features"])
    write_manifest(folder, tower.fingerprint)


def write_manifest(folder: Path, fingerprint: str) -> None:
    (folder / "manifest.json").write_text(json.dumps({"stages": {"embed": {"fingerprint": fingerprint}, "read": {}}}))


def write_tower(folder: Path) -> Path:
    build_tower().save_pretrained(folder)
    build_processor().save_pretrained(folder)
    return folder


def tiny_processor(num_points: int = NUM_POINTS, **kwargs: Any) -> Ulip2Processor:
    processor = build_processor()
    extractor = Ulip2FeatureExtractor(num_points=num_points, **kwargs)
    return Ulip2Processor(extractor, processor.tokenizer, processor.image_processor)


def tiny_model(seed: int = 0, **encoder: Any) -> Ulip2Model:
    torch.manual_seed(seed)
    return Ulip2Model(Ulip2Config(point_config=ENCODER | encoder, projection_dim=DIM))


def _noise(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(256, size=(SIZE, SIZE, 3), dtype=np.uint8))


def _depth(rng: np.random.Generator) -> Image.Image:
    depth = rng.integers(1000, 3000, size=(SIZE, SIZE), dtype=np.uint16)
    depth[:8] = 0
    return Image.fromarray(depth)


def _write_card(folder: Path, configs: list[str]) -> None:
    entries = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in configs)
    (folder / "README.md").write_text(f"---\nconfigs:\n{entries}---\n")
