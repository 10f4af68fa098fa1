"""Aligns a point encoder with a frozen image-text model on triplets, as ULIP-2 does.

    python examples/pretrain.py --dataset outputs/triplets --tower outputs/conse --output_dir outputs/model
    python examples/pretrain.py --config examples/configs/ulip2_pointbert.yaml --dataset … --tower … --output_dir …
    torchrun --nproc_per_node 8 examples/pretrain.py --config …

The output folder holds the model and its processor (`AutoModel` and `AutoProcessor` load it), checkpoints from which
the same command goes on after a stop, `trainer_state.json` with the loss curve, and the last evaluation in
`eval_results.json`. Options come from the command line or from a YAML file of the same names; the command line wins.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

from datasets import Dataset, IterableDataset
from transformers import set_seed

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model, Ulip2Processor
from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.data.collator import TripletCollator
from modeling_ulip2.data.labels import read_labels
from modeling_ulip2.data.reading import TripletDataset, read_split, read_triplets, select_ids
from modeling_ulip2.data.stream import TripletStream
from modeling_ulip2.evaluation import load_templates
from modeling_ulip2.evaluation.held_out import HeldOutCallback, HeldOutEvaluation
from modeling_ulip2.towers import Tower, load_tower
from modeling_ulip2.training import Ulip2Trainer, Ulip2TrainingArguments
from modeling_ulip2.training.features import DEFAULT_CACHE, streamed_features, tower_features
from modeling_ulip2.training.options import claim_output_dir, parse_options
from modeling_ulip2.utils.scripts import run_main

logger = logging.getLogger("modeling_ulip2.pretrain")

RUN_FILE = "pretrain.json"


@dataclass
class ModelArguments:
    """The point encoder. Sizes that are not given are those of the released ULIP-2 Point-BERT."""

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
        default=True, metadata={"help": "Let gradients flow through embeddings of other processes."}
    )

    ENCODER_FIELDS = (
        "hidden_size num_hidden_layers num_attention_heads num_groups group_size encoder_dims drop_path_rate "
        "in_channels"
    ).split()


@dataclass
class DataArguments:
    """What is learned from, and what is measured on."""

    dataset: str = field(metadata={"help": "Triplets: a folder of dataset_scripts/build_triplets.py, or a hub name."})
    tower: str = field(metadata={"help": "Frozen image-text model: a folder, hub name or open_clip:MODEL/TAG."})
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
    templates: str = field(default="modelnet40_64", metadata={"help": "Prompts of a category."})
    top_k: int = field(default=1, metadata={"help": "Captions of the view, best first (ULIP-2: 1)."})
    use_depth: bool = field(default=False, metadata={"help": "Draw among RGB and depth views."})
    use_features: bool = field(
        default=True,
        metadata={
            "help": "Take the tower's embeddings from the dataset or compute them once; else run the tower. "
            "A stream takes them from the dataset or runs the tower."
        },
    )
    feature_cache: str = field(default=str(DEFAULT_CACHE), metadata={"help": "Where computed embeddings are kept."})
    streaming: bool = field(default=False, metadata={"help": "Read the dataset as it arrives; needs max_steps."})
    shuffle_buffer: int = field(default=1024, metadata={"help": "Rows among which a stream is shuffled."})


Arguments = tuple[ModelArguments, DataArguments, PointAugmentation, Ulip2TrainingArguments]


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Runs the training and returns the metrics of the last evaluation."""
    model_args, data_args, augmentation, args = parse_arguments(argv)
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("modeling_ulip2").setLevel(logging.INFO if args.should_log else logging.WARNING)
    checkpoint = claim_output_dir(args, asdict(model_args) | asdict(data_args) | asdict(augmentation), RUN_FILE)
    set_seed(args.seed)

    tower = load_tower(data_args.tower, device=args.device)
    processor, model = build_model(model_args, data_args, tower)
    train, held_out = read_data(data_args, args, tower)
    features, held_out_features = None, None
    if data_args.use_features:
        cache = Path(data_args.feature_cache)
        if isinstance(train, Dataset):
            features = tower_features(data_args.dataset, train, tower, data_args.use_depth, cache)
        if held_out is not None:
            source = data_args.eval_dataset or data_args.dataset
            held_out_features = tower_features(source, held_out, tower, cache_dir=cache)
    if features is None and not (isinstance(train, TripletStream) and train.has_features):
        # one copy in memory serves evaluation and training
        reference = model.config.clip_name_or_path
        model.set_clip_model(tower.pretrained_model)
        model.config.clip_name_or_path = reference

    trainer = Ulip2Trainer(
        model=model,
        args=args,
        data_collator=TripletCollator(
            processor,
            data_args.top_k,
            data_args.use_depth,
            augmentation,
            args.seed if args.data_seed is None else args.data_seed,
        ),
        train_dataset=TripletDataset(train, features) if isinstance(train, Dataset) else train,
        eval_dataset=None if held_out is None else TripletDataset(held_out, held_out_features),
        processing_class=processor,
    )
    if held_out is not None:
        evaluation = HeldOutEvaluation(
            held_out,
            tower,
            processor.feature_extractor,
            read_labels(data_args.labels_file, held_out["id"]) if data_args.labels_file else None,
            load_templates(data_args.templates),
            held_out_features,
            args.eval_batch_size,
            args.seed,
        )
        trainer.add_callback(HeldOutCallback(trainer, evaluation))
    return trainer.train_and_save(checkpoint, once=True)


def parse_arguments(argv: list[str] | None = None) -> Arguments:
    """Command line, with the options of `--config FILE.yaml` as defaults."""
    model_args, data_args, augmentation, args = parse_options(
        (ModelArguments, DataArguments, PointAugmentation, Ulip2TrainingArguments), argv, __doc__
    )
    return model_args, data_args, augmentation, args


def build_model(
    model_args: ModelArguments, data_args: DataArguments, tower: Tower
) -> tuple[Ulip2Processor, Ulip2Model]:
    """A model in the tower's space and its processor."""
    local = Path(data_args.tower)
    reference = str(local.resolve()) if local.is_dir() else data_args.tower
    given = {name: getattr(model_args, name) for name in model_args.ENCODER_FIELDS}
    given = {name: value for name, value in given.items() if value is not None}
    if model_args.model_name_or_path is None:
        config = Ulip2Config(
            point_config={"model_type": model_args.point_encoder, **given},
            projection_dim=tower.dim,
            clip_name_or_path=reference,
            gather_with_grad=model_args.gather_with_grad,
        )
        model = Ulip2Model(config)
        extractor = Ulip2FeatureExtractor(in_channels=config.point_config.in_channels)
    else:
        if given:
            raise ValueError(f"{', '.join(given)}: sizes are fixed by {model_args.model_name_or_path}")
        model = Ulip2Model.from_pretrained(
            model_args.model_name_or_path, clip_name_or_path=reference, gather_with_grad=model_args.gather_with_grad
        )
        extractor = Ulip2FeatureExtractor.from_pretrained(model_args.model_name_or_path)
        if model.config.projection_dim != tower.dim:
            raise ValueError(
                f"{model_args.model_name_or_path} projects to {model.config.projection_dim} dimensions, but "
                f"{tower.name} has {tower.dim}: it was trained in another space"
            )
    if model_args.num_points is not None:
        extractor.num_points = model_args.num_points
    return Ulip2Processor(extractor, tower.tokenizer, tower.image_processor), model


def read_data(
    data_args: DataArguments, args: Ulip2TrainingArguments, tower: Tower
) -> tuple[Dataset | TripletStream, Dataset | None]:
    """The training triplets and the held-out ones, if any; of those a stream has the tower's embeddings with them."""
    split = read_split(data_args.split_file) if data_args.split_file else None
    with args.main_process_first(desc="reading the triplets"):
        triplets = read_triplets(data_args.dataset, data_args.streaming)
        held_out = read_triplets(data_args.eval_dataset) if data_args.eval_dataset else None
    if isinstance(triplets, IterableDataset):
        if args.max_steps <= 0:
            raise ValueError("--streaming needs --max_steps, as the length of a stream is not known")
        joined = streamed_features(data_args.dataset, tower, data_args.use_depth) if data_args.use_features else None
        if joined is None:
            logger.info("the tower runs in every step")
        stream = TripletStream(
            triplets if joined is None else joined,
            split["train"] if split else None,
            args.seed,
            data_args.shuffle_buffer,
            args.process_index,
            args.world_size,
        )
        return stream, held_out
    if split is None:
        return triplets, held_out
    if held_out is None and split["test"]:
        held_out = select_ids(triplets, split["test"], "test")
    return select_ids(triplets, split["train"], "training"), held_out


if __name__ == "__main__":
    run_main(main)
