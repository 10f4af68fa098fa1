"""Your own point encoder: a configuration, a model and one call of `register_point_encoder`.

    python examples/custom_encoder.py --dataset outputs/triplets --output_dir outputs/custom

Trains a small DeepSets-like encoder on a triplets dataset and saves a model that `from_pretrained` loads again after
`import examples.custom_encoder`, as the code of your encoder is yours to ship.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import HfArgumentParser, PreTrainedConfig, PreTrainedModel, set_seed
from transformers.trainer_utils import TrainOutput

from modeling_ulip2 import (
    PointEncoderOutput,
    Ulip2Config,
    Ulip2FeatureExtractor,
    Ulip2Model,
    Ulip2Processor,
    register_point_encoder,
)
from modeling_ulip2.data.collator import TripletCollator
from modeling_ulip2.data.reading import TripletDataset, read_triplets
from modeling_ulip2.towers import load_tower
from modeling_ulip2.training import Ulip2Trainer, Ulip2TrainingArguments
from modeling_ulip2.utils.places import OWN_TOWER, named_or_own
from modeling_ulip2.utils.scripts import run_main


class DeepSetsConfig(PreTrainedConfig):
    model_type = "deep_sets"

    in_channels: int = 6
    hidden_size: int = 128

    @property
    def output_dim(self) -> int:
        return self.hidden_size


class DeepSetsModel(PreTrainedModel):
    """Every point through an MLP, the maximum through another (Zaheer et al., Deep Sets, equation 2)."""

    config_class = DeepSetsConfig
    main_input_name = "point_values"

    def __init__(self, config: DeepSetsConfig):
        super().__init__(config)
        width = config.hidden_size
        self.point_mlp = nn.Sequential(nn.Linear(config.in_channels, width), nn.GELU(), nn.Linear(width, width))
        self.cloud_mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.post_init()

    def forward(self, point_values: torch.Tensor, **_: Any) -> PointEncoderOutput:
        """(B, N, in_channels) -> every point is a token (B, N, C) and its own center; pooled (B, C)."""
        tokens = self.point_mlp(point_values)  # (B, N, C)
        pooled = self.cloud_mlp(tokens.max(dim=1).values)  # (B, C)
        return PointEncoderOutput(tokens=tokens, pooled=pooled, centers=point_values[..., :3])


register_point_encoder("deep_sets", DeepSetsConfig, DeepSetsModel)


@dataclass
class Arguments:
    dataset: str = field(metadata={"help": "Folder or hub name of a triplets dataset."})
    tower: str | None = field(
        default=None,
        metadata={"help": f"Folder or hub name of the frozen image-text model; default: {OWN_TOWER}."},
    )
    hidden_size: int = field(default=128, metadata={"help": "Width of the encoder."})
    num_points: int = field(default=2048, metadata={"help": "Points per cloud."})


def main(argv: list[str] | None = None) -> TrainOutput:
    parser = HfArgumentParser((Arguments, Ulip2TrainingArguments))
    own, args = parser.parse_args_into_dataclasses(argv)
    set_seed(args.seed)
    place = named_or_own(own.tower, "--tower", OWN_TOWER)
    tower = load_tower(place, device=args.device)
    config = Ulip2Config(
        point_config={"model_type": "deep_sets", "hidden_size": own.hidden_size},
        projection_dim=tower.dim,
        clip_name_or_path=place,
    )
    processor = Ulip2Processor(Ulip2FeatureExtractor(own.num_points), tower.tokenizer, tower.image_processor)
    trainer = Ulip2Trainer(
        model=Ulip2Model(config),
        args=args,
        data_collator=TripletCollator(processor, seed=args.seed),
        train_dataset=TripletDataset(read_triplets(own.dataset)),
        processing_class=processor,
    )
    result = trainer.train()
    trainer.save_model()
    trainer.save_state()
    return result


if __name__ == "__main__":
    run_main(main)
