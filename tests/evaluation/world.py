"""A small world for the tests of the evaluation: a triplets folder, its labels, and a random model with its tower."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    PreTrainedTokenizerFast,
)

from modeling_ulip2 import PointBertConfig, Ulip2Config, Ulip2FeatureExtractor, Ulip2Model, Ulip2Processor
from modeling_ulip2.data.schema import triplet_features

CATEGORIES = ("chair", "lamp", "table")
NUM_POINTS, NUM_VIEWS, SIZE = 64, 3, 32


@dataclass(frozen=True)
class World:
    model: Path
    tower: Path
    dataset: Path
    labels_file: Path
    split_file: Path


def build_world(folder: Path, shapes: int = 12) -> World:
    """Shape i has category i % 3, but every fourth shape has no label; the last two thirds are the test split."""
    rng = np.random.default_rng(0)
    rows = [_row(index, rng) for index in range(shapes)]
    (folder / "dataset" / "triplets").mkdir(parents=True)
    Dataset.from_list(rows, features=triplet_features(NUM_POINTS)).to_parquet(
        folder / "dataset" / "triplets" / "train-00000-of-00001.parquet"
    )
    card = "---\nconfigs:\n- config_name: triplets\n  data_files: triplets/*.parquet\n---\n"
    (folder / "dataset" / "README.md").write_text(card)
    ids = [row["id"] for row in rows]
    with open(folder / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "category"])
        writer.writerows([name, "" if index % 4 == 3 else CATEGORIES[index % 3]] for index, name in enumerate(ids))
    (folder / "split.json").write_text(json.dumps({"train": ids[: shapes // 3], "test": ids[shapes // 3 :]}))
    build_tower().save_pretrained(folder / "tower")
    build_processor().save_pretrained(folder / "tower")
    build_model(folder / "tower").save_pretrained(folder / "model")
    _ulip2_processor().save_pretrained(folder / "model")
    return World(folder / "model", folder / "tower", folder / "dataset", folder / "labels.csv", folder / "split.json")


def build_tower() -> CLIPModel:
    torch.manual_seed(0)
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = layers | {"vocab_size": 259, "max_position_embeddings": 77, "bos_token_id": 256, "eos_token_id": 257}
    return CLIPModel(
        CLIPConfig(
            text_config=text | {"pad_token_id": 258},
            vision_config=layers | {"image_size": SIZE, "patch_size": 16},
            projection_dim=24,
        )
    ).eval()


def build_processor() -> CLIPProcessor:
    return CLIPProcessor(_image_processor(), _tokenizer())


def build_model(tower: Path) -> Ulip2Model:
    torch.manual_seed(1)
    encoder = PointBertConfig(
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_groups=8,
        group_size=8,
        encoder_dims=16,
        in_channels=6,
    )
    return Ulip2Model(
        Ulip2Config(point_config=encoder.to_dict(), projection_dim=24, clip_name_or_path=str(tower))
    ).eval()


def _ulip2_processor() -> Ulip2Processor:
    return Ulip2Processor(Ulip2FeatureExtractor(num_points=NUM_POINTS), _tokenizer(), _image_processor())


def _image_processor() -> CLIPImageProcessor:
    return CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE})


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, between <s> and </s>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)} | {"<s>": 256, "</s>": 257, "<pad>": 258}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", model_max_length=77
    )


def _row(index: int, rng: np.random.Generator) -> dict:
    category = CATEGORIES[index % 3]
    name = f"{category} {index // 6}"
    views = [Image.fromarray(rng.integers(256, size=(SIZE, SIZE, 3), dtype=np.uint8)) for _ in range(NUM_VIEWS)]
    return {
        "id": f"made/{index:02d}.obj",
        "source": "made",
        "name": name,
        "license": "CC0",
        "creator": "",
        "xyz": rng.normal(size=(NUM_POINTS, 3)).astype(np.float16),
        "rgb": rng.integers(256, size=(NUM_POINTS, 3), dtype=np.uint8),
        "views": views,
        "azimuths": [0.0, 120.0, 240.0],
        "elevations": [15.0] * NUM_VIEWS,
        "distances": [4.0] * NUM_VIEWS,
        "shifts": [[0.0, 0.0]] * NUM_VIEWS,
        "fov": 40.0,
        "size": SIZE,
        "target": [0.0, 0.5, 0.0],
        "captions": [[f"a photo of a {name}."]] * NUM_VIEWS,
        "caption_scores": [[0.3]] * NUM_VIEWS,
    }
