"""Options of `ulip2 pretrain` beside those of the training itself (`Ulip2TrainingArguments`)."""

from __future__ import annotations

from dataclasses import dataclass, field

from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.utils.places import default_feature_cache

DESCRIPTION = """Align a point encoder with a frozen image-text model on triplets, as ULIP-2 does.

Options come from the command line or from a YAML file of the same names (--config); the command line wins. The output
folder holds the model and its processor, checkpoints, the loss curve (trainer_state.json) and the last evaluation
(eval_results.json). After a stop the same command goes on from the last checkpoint.
"""


@dataclass
class PretrainingModelArguments:
    """The point encoder. Sizes that are not given are those of the released ULIP-2 Point-BERT."""

    _argument_group_name = "model"

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Ulip2Model to start from, a folder or hub name; default: random weights."}
    )
    point_encoder: str = field(default="ulip2_pointbert", metadata={"help": "model_type of the point encoder."})
    hidden_size: int | None = field(default=None, metadata={"help": "Width.", "aliases": ["--trans_dim"]})
    num_hidden_layers: int | None = field(default=None, metadata={"help": "Depth."})
    num_attention_heads: int | None = field(default=None, metadata={"help": "Attention heads."})
    num_groups: int | None = field(default=None, metadata={"help": "Patches of a cloud."})
    group_size: int | None = field(default=None, metadata={"help": "Points of a patch."})
    encoder_dims: int | None = field(default=None, metadata={"help": "Channels of a patch token."})
    drop_path_rate: float | None = field(default=None, metadata={"help": "Stochastic depth of the last block."})
    in_channels: int | None = field(default=None, metadata={"help": "6: xyz and rgb; 3: xyz."})
    num_points: int | None = field(default=None, metadata={"help": "Points of a cloud that the encoder sees."})
    gather_with_grad: bool = field(
        default=True,
        metadata={"help": "Let gradients flow through embeddings of other processes; false: as in the paper's code."},
    )
    loss_type: str = field(
        default="clip",
        metadata={"help": "'clip': cross-entropy over the batch (ULIP-2); 'siglip': each pair by itself."},
    )
    text_loss_weight: float = field(default=1.0, metadata={"help": "Of points against texts in the loss (ULIP-2: 1)."})
    image_loss_weight: float = field(
        default=1.0, metadata={"help": "Of points against images in the loss (ULIP-2: 1)."}
    )
    loss_chunk_size: int | None = field(
        default=None, metadata={"help": "Rows that the loss compares with the whole batch at a time; default: all."}
    )

    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "Attention of the encoder: sdpa, eager, flash_attention_2 …; default: transformers'. Few patches "
            "train faster with eager on a CPU."
        },
    )

    ENCODER_FIELDS = (
        "hidden_size num_hidden_layers num_attention_heads num_groups group_size encoder_dims drop_path_rate "
        "in_channels"
    ).split()
    LOSS_FIELDS = "gather_with_grad loss_type text_loss_weight image_loss_weight loss_chunk_size".split()


@dataclass
class PretrainingDataArguments:
    """What is learned from, and what is measured on."""

    _argument_group_name = "data"

    dataset: list[str] = field(
        metadata={"help": "Triplets: a folder that `ulip2 build` wrote, or a hub name; several are mixed."}
    )
    tower: str = field(metadata={"help": "Frozen image-text model: a folder, hub name or open_clip:MODEL/TAG."})
    dataset_weights: list[float] | None = field(
        default=None, metadata={"help": "Share of each dataset in what is learned from; default: by their rows."}
    )
    distinct_in_batch: bool = field(
        default=False, metadata={"help": "No shape twice in a batch, which a mixture by weights may draw again."}
    )
    near_duplicates: str | None = field(
        default=None,
        metadata={"help": "CSV with columns a and b: ids of shapes that look alike; no batch holds two of them."},
    )
    near_duplicate_kinds: list[str] | None = field(
        default=None, metadata={"help": "Those of the table's kinds that count: copy, variant; default: both."}
    )
    split_file: str | None = field(
        default=None,
        metadata={"help": '{"train": [ids], "test": [ids]} as JSON; default: train on all rows.'},
    )
    eval_dataset: str | None = field(
        default=None, metadata={"help": "Triplets to measure on, all of them, instead of the test ids of split_file."}
    )
    labels_file: str | None = field(
        default=None, metadata={"help": "CSV with columns path and category: adds zero-shot classification."}
    )
    retrieval_pictures: bool | None = field(
        default=None,
        metadata={"help": "Draw the best held-out shapes for some names at each evaluation; default: for trackers."},
    )
    templates: str = field(default="modelnet40_64", metadata={"help": "Prompts of a category."})
    caption_sources: list[str] | None = field(
        default=None,
        metadata={
            "help": "Learn from these captioners' captions alone; the dataset was built with --caption-sources."
        },
    )
    num_views: int | None = field(
        default=None, metadata={"help": "Learn from so many views of each shape, evenly spread; default: all."}
    )
    top_k: int = field(default=1, metadata={"help": "Captions of the view, best first (ULIP-2: 1)."})
    use_depth: bool = field(default=False, metadata={"help": "Draw among RGB and depth views."})
    use_features: bool = field(
        default=True,
        metadata={
            "help": "Take the tower's embeddings from the dataset or compute them once; else run the tower. "
            "A stream takes them from the dataset or runs the tower."
        },
    )
    features: str | None = field(
        default=None,
        metadata={"help": "Dataset with the tower's embeddings by id, such as a fitted tower's, before `dataset`'s."},
    )
    feature_cache: str = field(
        default_factory=default_feature_cache, metadata={"help": "Where computed embeddings are kept."}
    )
    streaming: bool = field(default=False, metadata={"help": "Read the dataset as it arrives; needs max_steps."})
    shuffle_buffer: int = field(default=1024, metadata={"help": "Rows among which a stream is shuffled."})


OPTIONS = (PretrainingModelArguments, PretrainingDataArguments, PointAugmentation, HubArguments)
