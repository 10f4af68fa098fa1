"""Options of `ulip2 finetune` beside those of the training itself (`ClassificationTrainingArguments`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.utils.places import OWN_DEFAULT

DESCRIPTION = """Fine-tune a point encoder for classification, or probe it.

Every combination of initialization, method, shots and seed is a run with a folder of its own, which holds the model,
checkpoints from which the same command goes on, and result.json. results.json and results.md sum them up. A second
run of the command skips what is done. Options come from the command line or from a YAML file of the same names
(--config).
"""

PRETRAINED, SCRATCH = "pretrained", "scratch"
FINETUNE, LINEAR_PROBE = "finetune", "linear_probe"


@dataclass
class FinetuningModelArguments:
    """The encoder and its head."""

    _argument_group_name = "model"

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "Pre-trained ULIP-2 folder or hub name; also gives the sizes of `scratch`. Without it and without "
            f"point_config, {OWN_DEFAULT}."
        },
    )
    point_config: list[str] = field(
        default_factory=list,
        metadata={
            "help": "FIELD=VALUE of the point encoder, where there is no model_name_or_path; for `scratch` alone, "
            "default: PointNeXt."
        },
    )
    initializations: list[str] = field(
        default_factory=list,
        metadata={"help": "pretrained, scratch, or both; default: pretrained, but scratch for a point_config alone."},
    )
    classifier_dims: list[int] | None = field(
        default=None, metadata={"help": "Hidden layers of the head; default: as published with the encoder."}
    )
    classifier_norm: bool = field(default=False, metadata={"help": "BatchNorm behind the hidden layers."})
    classifier_dropout: float = field(default=0.5, metadata={"help": "Dropout behind the hidden layers."})
    num_points: int | None = field(default=None, metadata={"help": "Points of a cloud that the encoder sees."})
    sampling: str | None = field(
        default=None, metadata={"help": "Points of a test cloud: random or fps; default: the feature extractor's."}
    )


@dataclass
class FinetuningDataArguments:
    """Labeled clouds."""

    _argument_group_name = "data"

    dataset: str = field(metadata={"help": "Folder or hub name: columns xyz, label, perhaps rgb; or triplets."})
    dataset_config: str | None = field(default=None, metadata={"help": "Config of the dataset, e.g. PB_T50_RS."})
    train_split: str = field(default="train", metadata={"help": "Split to learn from."})
    test_split: str = field(default="test", metadata={"help": "Split to measure on."})
    labels_file: str | None = field(
        default=None, metadata={"help": "CSV with columns path and category: the dataset holds triplets."}
    )
    split_file: str | None = field(
        default=None, metadata={"help": '{"train": [ids], "test": [ids]} as JSON, of triplets.'}
    )
    min_train_clouds: int = field(
        default=1, metadata={"help": "Leave out classes with fewer training clouds, in training and test."}
    )


@dataclass
class FinetuningRunArguments:
    """Which runs there are."""

    _argument_group_name = "runs"

    methods: list[str] = field(default_factory=lambda: [FINETUNE], metadata={"help": "finetune, linear_probe."})
    shots: list[int] = field(
        default_factory=lambda: [0], metadata={"help": "Training clouds of each class; 0: all that there are."}
    )
    ways: int | None = field(default=None, metadata={"help": "Classes of a k-shot run, drawn by its seed."})
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"help": "One run for each."})
    votes: int = field(default=1, metadata={"help": "Also average so many augmented passes over each test cloud."})
    resampling_pool: int = field(
        default=0,
        metadata={"help": "Draw training points from so many farthest ones (published: 1200); 0: from all."},
    )
    keep_checkpoints: bool = field(default=False, metadata={"help": "Keep the checkpoints of runs that are done."})


OPTIONS = (
    FinetuningModelArguments,
    FinetuningDataArguments,
    FinetuningRunArguments,
    PointAugmentation,
    HubArguments,
)
