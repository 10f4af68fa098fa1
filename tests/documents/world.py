"""What `make quickstart` and `make caption` leave, small: documents that need it run in seconds."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch

from modeling_ulip2 import (
    Ulip2CaptioningProcessor,
    Ulip2Config,
    Ulip2FeatureExtractor,
    Ulip2ForConditionalGeneration,
    Ulip2Model,
    Ulip2Processor,
)
from modeling_ulip2.towers import load_tower
from tests.models.captioning_world import language_model, tokenizer
from tests.models.tiny import POINT_CONFIG
from tests.towers.world import save_conse

from .blocks import ROOT

QUICKSTART = Path("outputs/quickstart")


def build_quickstart(root: Path) -> Path:
    """A pair, a model that names it, triplets, a language model and a captioner, all random, below `root`."""
    outputs = root / QUICKSTART
    tower = load_tower(save_conse(outputs / "tower"), device="cpu")
    torch.manual_seed(0)
    config = Ulip2Config(point_config=POINT_CONFIG, projection_dim=tower.dim, clip_name_or_path=str(outputs / "tower"))
    Ulip2Model(config).save_pretrained(outputs / "model")
    extractor = Ulip2FeatureExtractor(num_points=40)
    Ulip2Processor(extractor, tower.tokenizer, tower.image_processor).save_pretrained(outputs / "model")
    build_dataset(outputs)

    captioning = root / "outputs" / "captioning"
    language_model().save_pretrained(captioning / "language_model")
    tokenizer().save_pretrained(captioning / "language_model")
    captioner = Ulip2ForConditionalGeneration.from_point_language_pretrained(
        str(outputs / "model"), str(captioning / "language_model"), connector="mlp", compression="resample"
    )
    captioner.save_pretrained(captioning / "model")
    Ulip2CaptioningProcessor.from_model(captioner).save_pretrained(captioning / "model")
    return outputs


def build_dataset(outputs: Path) -> None:
    """Triplets of the shapes that the examples come with, as the quickstart's build makes them."""
    build = runpy.run_path(str(ROOT / "dataset_scripts" / "build_triplets.py"))["main"]
    build(
        ["--meshes", str(ROOT / "examples" / "data" / "shapes"), "--output", str(outputs / "dataset")]
        + ["--tower", str(outputs / "tower"), "--captioner", "metadata", "--num-proc", "0", "--device", "cpu"]
        + ["--num-points", "256", "--views", "2", "--size", "64"]
    )
