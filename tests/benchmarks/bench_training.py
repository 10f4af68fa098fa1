"""Training steps per second, stage by stage, beside a straightforward version in the same run.

    python tests/benchmarks/bench_training.py [--hidden_size 192 --layers 4 --groups 32 --group_size 16 --batch 32 ...]

The rows lie in Arrow memory with precomputed tower features, as `examples/pretrain.py` has them. "Straightforward"
is the encoder of `bench_encoder.py` (a torch loop for the sampling, all distances, convolutions over the
concatenation) fed by rows in the numpy format of `datasets`. The two take turns; the figures are medians. The last
line is this package's step under bf16 autocast, which pays off where the processor has bf16 instructions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from bench_encoder import (
    median_ms,
    straightforward_grouping,
    straightforward_patches,
    straightforward_sampling,
    straightforward_transformer,
)
from datasets import Dataset, Features

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model, contrastive_loss
from modeling_ulip2.data.collator import TripletCollator
from modeling_ulip2.data.reading import TripletDataset
from modeling_ulip2.data.schema import features_features, triplet_features
from modeling_ulip2.models.point_ops import gather_points
from modeling_ulip2.training.param_groups import decay_parameter_names

NUM_ROWS, NUM_VIEWS, NUM_CAPTIONS = 128, 12, 8


def make_rows(stored_points: int, dim: int) -> tuple[Dataset, Dataset]:
    """Triplets without views, and their tower features; random."""
    rng = np.random.default_rng(0)
    columns = triplet_features(stored_points)
    ids = [str(row) for row in range(NUM_ROWS)]
    triplets = {
        "id": ids,
        "xyz": rng.normal(size=(NUM_ROWS, stored_points, 3)).astype(np.float16),
        "rgb": rng.integers(256, size=(NUM_ROWS, stored_points, 3), dtype=np.uint8),
    }
    features = {
        "id": ids,
        "image_embeds": rng.normal(size=(NUM_ROWS, NUM_VIEWS, dim)).astype(np.float16),
        "text_embeds": rng.normal(size=(NUM_ROWS, NUM_VIEWS, NUM_CAPTIONS, dim)).astype(np.float16),
    }
    return (
        Dataset.from_dict(triplets, features=Features({name: columns[name] for name in triplets})),
        Dataset.from_dict(features, features=features_features(dim)),
    )


class Processor:
    """What the collator needs of a processor when the rows carry embeddings."""

    def __init__(self, feature_extractor: Ulip2FeatureExtractor):
        self.feature_extractor = feature_extractor


class Steps:
    """One training step in pieces; `plain` chooses the straightforward version of each piece."""

    def __init__(self, options: argparse.Namespace):
        encoder = {
            "hidden_size": options.hidden_size,
            "num_hidden_layers": options.layers,
            "num_attention_heads": options.heads,
            "num_groups": options.groups,
            "group_size": options.group_size,
            "encoder_dims": options.encoder_dims,
            "drop_path_rate": 0.0,
        }
        self.model = Ulip2Model(Ulip2Config(point_config=encoder, projection_dim=options.dim)).train()
        decayed = set(decay_parameter_names(self.model))
        named = dict(self.model.named_parameters())
        groups = [
            {"params": [named[name] for name in named if name in decayed], "weight_decay": 0.1},
            {"params": [named[name] for name in named if name not in decayed], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=1e-6)
        self.collator = TripletCollator(Processor(Ulip2FeatureExtractor(num_points=options.points)))
        triplets, features = make_rows(options.stored_points, options.dim)
        self.rows = TripletDataset(triplets, features)
        self.plain_rows = triplets.with_format("numpy"), features.with_format("numpy")
        self.batch_size = options.batch
        self.order = np.random.default_rng(0)

    def batch(self, plain: bool = False) -> dict[str, Any]:
        indices = self.order.choice(NUM_ROWS, self.batch_size, replace=False).tolist()
        if not plain:
            return self.collator([self.rows[index] for index in indices])
        triplets, features = self.plain_rows
        return self.collator([{**triplets[index], **features[index]} for index in indices])

    def loss(self, batch: dict[str, Any], plain: bool = False) -> torch.Tensor:
        if not plain:
            return self.model(**batch).loss
        encoder, config = self.model.point_model, self.model.config.point_config
        points = batch["point_values"]
        centers = gather_points(points[..., :3], straightforward_sampling(points[..., :3], config.num_groups))
        patches = straightforward_patches(encoder, straightforward_grouping(points, centers, config.group_size))
        embeds = self.model.point_projection(straightforward_transformer(encoder, patches, centers))
        return contrastive_loss(
            F.normalize(embeds, dim=-1),
            F.normalize(batch["text_embeds"][:, 0], dim=-1),
            F.normalize(batch["image_embeds"], dim=-1),
            self.model.logit_scale.exp(),
        )

    def update(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.model.clamp_logit_scale()

    def step(self, plain: bool = False, bf16: bool = False) -> None:
        batch = self.batch(plain)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = self.loss(batch, plain)
        loss.backward()
        self.update()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    defaults = {"hidden_size": 192, "layers": 4, "heads": 4, "groups": 32, "group_size": 16, "encoder_dims": 128}
    defaults |= {"points": 1024, "stored_points": 4096, "dim": 384, "batch": 32, "threads": 1, "repeats": 5}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    steps = Steps(options)
    batch = steps.batch()
    deviation = (steps.loss(batch) - steps.loss(batch, plain=True)).abs().item()

    def forward(plain: bool) -> Callable[[], object]:
        return lambda: steps.loss(batch, plain)

    def forward_backward(plain: bool) -> Callable[[], object]:
        def run() -> None:
            steps.loss(batch, plain).backward()
            steps.optimizer.zero_grad()

        return run

    stages = {
        "rows and augmentation": (steps.batch, lambda: steps.batch(plain=True)),
        "forward": (forward(False), forward(True)),
        "forward and backward": (forward_backward(False), forward_backward(True)),
        "whole step": (steps.step, lambda: steps.step(plain=True)),
    }
    print(
        f"{steps.model.num_parameters():,} parameters, batches of {options.batch} x {options.points} points, "
        f"{options.groups} patches of {options.group_size}, {options.threads} thread(s), torch {torch.__version__}; "
        f"ms, median of {options.repeats}"
    )
    print(f"{'stage':<24}{'ours':>9}{'straightforward':>17}{'ratio':>8}")
    device = torch.device("cpu")
    for name, (ours, plain) in stages.items():
        times = median_ms({"ours": ours, "plain": plain}, options.repeats, device)
        print(f"{name:<24}{times['ours']:>9.1f}{times['plain']:>17.1f}{times['plain'] / times['ours']:>8.2f}")
    print(f"steps per second         {1e3 / times['ours']:>9.2f}{1e3 / times['plain']:>17.2f}")
    times = median_ms({"f32": steps.step, "bf16": lambda: steps.step(bf16=True)}, options.repeats, device)
    faster = times["f32"] / times["bf16"]
    print(f"whole step in bf16      {times['bf16']:>9.1f}   ({faster:.2f} times faster than in f32)")
    print(f"difference between the two losses: {deviation:.1e}")


if __name__ == "__main__":
    main()
