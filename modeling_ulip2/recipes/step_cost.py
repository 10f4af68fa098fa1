"""What a training costs: a step of its configuration is timed, part by part, and multiplied by its length.

    python -m modeling_ulip2.recipes.step_cost --config examples/configs/ulip2_shapenet.yaml --rows 52460

Clouds and embeddings are random numbers of the configured sizes, so neither data nor a tower is needed. What is
measured is one device, with this machine's processor preparing the batches; several devices are taken to be as fast
together as one times their number.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
import yaml
from torch import Tensor

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model
from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.data.collator import TripletCollator
from modeling_ulip2.models import modeling_pointbert
from modeling_ulip2.recipes.pretraining_options import PretrainingModelArguments
from modeling_ulip2.training.arguments import Ulip2TrainingArguments
from modeling_ulip2.training.param_groups import decay_parameter_names
from modeling_ulip2.utils.memory import peak_memory

# Of a step, in the order in which they happen. `encoder` is without the grouping.
PARTS = ("data", "grouping", "encoder", "gather", "loss", "backward", "optimizer")
STORED_VIEWS = 12


@dataclass
class StepCost:
    """The cost of a step on one device: seconds by part, the whole, and the most memory in use, in bytes.

    The data of a step is prepared by workers while the device computes: the whole leaves it out, unless it is slower.
    """

    batch_size: int
    parts: dict[str, float]
    memory: int
    device: str

    @property
    def seconds(self) -> float:
        return sum(value for name, value in self.parts.items() if name != "data")

    @property
    def samples_per_second(self) -> float:
        return self.batch_size / self.seconds


def measure_step(
    model: Ulip2Model,
    num_points: int,
    batch_size: int,
    device: torch.device,
    bf16: bool = False,
    repeats: int = 3,
    augmentation: PointAugmentation | None = None,
) -> StepCost:
    """Medians of the parts of a training step, after one that is not counted.

    Args:
        num_points: of a cloud; 1.2 times as many are stored.
        bf16: autocast to bfloat16.
    """
    placed: Any = model
    model = placed.to(device).train()
    extractor = Ulip2FeatureExtractor(in_channels=model.config.point_config.in_channels, num_points=num_points)
    processor: Any = SimpleNamespace(feature_extractor=extractor)
    collator = TripletCollator(processor, augmentation=augmentation or PointAugmentation())
    rows = _rows(batch_size, int(num_points * 1.2), model.config.projection_dim)
    decayed = set(decay_parameter_names(model))
    both = [[own for name, own in model.named_parameters() if (name in decayed) == decays] for decays in (True, False)]
    groups: Any = [{"params": both[0], "weight_decay": 0.1}, {"params": both[1], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-6)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    clock = _Clock(device)
    for turn in range(repeats + 1):
        if turn == 1:
            clock.times.clear()
        collator.set_epoch(turn)
        with clock.part("data"):
            batch = collator(rows)
        batch = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16), clock.grouping_apart():
            with clock.part("encoder"):
                points = model.get_point_features(batch["point_values"]).pooler_output
            partners = model(
                **{name: own for name, own in batch.items() if name not in ("point_values", "return_loss")}
            )
            with clock.part("gather"):
                if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
                    own = torch.cat([F.normalize(points.float(), dim=-1)] * 3, dim=1)
                    dist.all_gather([torch.empty_like(own) for _ in range(dist.get_world_size())], own.detach())
            with clock.part("loss"):
                loss = model.compare(points, partners.text_embeds, partners.image_embeds).loss
        with clock.part("backward"):
            loss.backward()
        with clock.part("optimizer"):
            optimizer.step()
            optimizer.zero_grad()
            model.clamp_logit_scale()
    parts = {name: float(np.median(clock.times[name])) for name in PARTS if name in clock.times}
    if "grouping" in parts:
        parts["encoder"] -= parts["grouping"]
    if device.type == "cuda":
        return StepCost(batch_size, parts, torch.cuda.max_memory_allocated(device), torch.cuda.get_device_name(device))
    return StepCost(batch_size, parts, peak_memory(), f"CPU, {torch.get_num_threads()} thread(s)")


class _Clock:
    """Seconds by part; the device finishes its work before each reading."""

    def __init__(self, device: torch.device):
        self.device, self.times = device, dict[str, list[float]]()

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = self._now()
        yield
        self.times.setdefault(name, []).append(self._now() - start)

    @contextmanager
    def grouping_apart(self) -> Iterator[None]:
        """While it lasts, the grouping of Point-BERT and Uni3D is a part of its own; others group in every layer."""
        real: Callable[..., Any] = modeling_pointbert.sample_patches

        def timed(*arguments: Any, **kwargs: Any) -> Any:
            with self.part("grouping"):
                return real(*arguments, **kwargs)

        users = [
            module
            for name, module in list(sys.modules.items())
            if name.startswith("modeling_ulip2.") and getattr(module, "sample_patches", None) is real
        ]
        try:
            for module in users:
                module.sample_patches = timed  # type: ignore[attr-defined]
            yield
        finally:
            for module in users:
                module.sample_patches = real  # type: ignore[attr-defined]


def _rows(count: int, stored_points: int, dim: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {
            "id": str(row),
            "xyz": rng.normal(size=(stored_points, 3)).astype(np.float16),
            "rgb": rng.integers(256, size=(stored_points, 3), dtype=np.uint8),
            "image_embeds": rng.normal(size=(STORED_VIEWS, dim)).astype(np.float16),
            "text_embeds": list(rng.normal(size=(STORED_VIEWS, 1, dim)).astype(np.float16)),
        }
        for row in range(count)
    ]


def configured_model(options: dict[str, Any], dim: int) -> tuple[Ulip2Model, int]:
    """The model of a recipe, with random weights, and the points of its clouds."""
    encoder = {name: options[name] for name in PretrainingModelArguments.ENCODER_FIELDS if name in options}
    config = Ulip2Config(
        point_config={"model_type": options.get("point_encoder", "ulip2_pointbert"), **encoder}, projection_dim=dim
    )
    return Ulip2Model(config), int(options.get("num_points") or Ulip2FeatureExtractor().num_points)


def main(argv: list[str] | None = None) -> StepCost:
    """Measures, prints the parts of a step and the length of the training, and returns the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--config", type=Path, required=True, help="YAML file of `ulip2 pretrain`")
    add("--rows", type=int, help="training shapes; default: no estimate, the step alone")
    add("--epochs", type=float, help="default: those of the configuration")
    add("--devices", type=int, default=1, help="devices that share the work")
    add("--price", type=float, help="of a device for an hour, in any currency")
    add("--dim", type=int, default=1280, help="width of the image-text space (default: 1280, of ViT-bigG-14)")
    add("--batch_size", type=int, help="clouds per step, on a device; default: those of the configuration")
    add("--samples_per_second", type=float, help="of a device, measured elsewhere: nothing is measured here")
    add("--device", help="default: a GPU if there is one")
    add("--repeats", type=int, default=3, help="steps of which the median is taken")
    options = parser.parse_args(argv)
    recipe = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        defaults = Ulip2TrainingArguments(folder, use_cpu=True, num_train_epochs=recipe.get("num_train_epochs", 250))
    batch_size = options.batch_size or recipe.get("per_device_train_batch_size", defaults.per_device_train_batch_size)
    if options.samples_per_second:
        cost = StepCost(batch_size, {"encoder": batch_size / options.samples_per_second}, 0, "elsewhere")
    else:
        device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        bf16 = bool(recipe.get("bf16")) and device.type == "cuda"
        model, num_points = configured_model(recipe, options.dim)
        names = PointAugmentation.__dataclass_fields__
        augmentation = PointAugmentation(**{name: recipe[name] for name in names if name in recipe})
        cost = measure_step(model, num_points, batch_size, device, bf16, options.repeats, augmentation)
        print(
            f"{options.config.name}: {model.num_parameters():,} parameters, {batch_size} clouds of {num_points:,} "
            f"points, {'bf16' if bf16 else 'float32'}, {cost.device}"
        )
        for name, seconds in cost.parts.items():
            print(f"  {name:<10}{1e3 * seconds:>11.1f} ms")
        print(f"  most memory{cost.memory / 2**30:>9.2f} GiB")
    print(f"  a step    {1e3 * cost.seconds:>11.1f} ms, {cost.samples_per_second:.1f} samples per second and device")
    if "data" in cost.parts:
        cores = cost.parts["data"] / cost.seconds
        print(f"  {cores:.1f} cores prepare batches as fast as a device takes them")
    if options.rows:
        epochs = options.epochs or defaults.num_train_epochs
        hours = options.rows * epochs / cost.samples_per_second / options.devices / 3600
        print(
            f"{options.rows:,} shapes x {epochs:g} epochs on {options.devices} device(s): {hours:,.1f} hours, "
            f"{hours * options.devices:,.1f} device hours"
            + (
                f", {hours * options.devices * options.price:,.0f} at {options.price:g} an hour"
                if options.price
                else ""
            )
        )
    return cost


if __name__ == "__main__":
    main()
