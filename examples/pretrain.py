"""Aligns a point encoder with a frozen image-text model on triplets, as ULIP-2 does.

    python examples/pretrain.py --dataset outputs/triplets --tower outputs/conse --output_dir outputs/model
    python examples/pretrain.py --config examples/configs/ulip2_pointbert.yaml --dataset … --tower … --output_dir …
    torchrun --nproc_per_node 8 examples/pretrain.py --config …

The output folder holds the model and its processor (`AutoModel` and `AutoProcessor` load it), checkpoints from which
the same command goes on after a stop, `trainer_state.json` with the loss curve, and the last evaluation in
`eval_results.json`. Options come from the command line or from a YAML file of the same names; the command line wins.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import yaml
from datasets import Dataset, IterableDataset
from transformers import HfArgumentParser, set_seed
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model, Ulip2Processor
from modeling_ulip2.evaluation import load_templates
from modeling_ulip2.evaluation.split import read_labels
from modeling_ulip2.towers import Tower, load_tower
from modeling_ulip2.training import Ulip2Trainer, Ulip2TrainingArguments
from modeling_ulip2.training.data import TripletDataset, TripletStream, read_split, read_triplets, select_ids
from modeling_ulip2.training.features import DEFAULT_CACHE, tower_features
from modeling_ulip2.training.held_out import HeldOutCallback, HeldOutEvaluation
from modeling_ulip2.triplets.augmentation import PointAugmentation
from modeling_ulip2.triplets.collator import TripletCollator

logger = logging.getLogger("modeling_ulip2.pretrain")

RUN_FILE = "pretrain.json"
# Training settings that decide what is learned; a stopped run goes on only with the same ones.
DECISIVE = (
    "learning_rate start_learning_rate final_learning_rate warmup_epochs warmup_steps lr_scheduler_type weight_decay "
    "adam_beta1 adam_beta2 adam_epsilon max_grad_norm num_train_epochs max_steps per_device_train_batch_size "
    "gradient_accumulation_steps seed bf16 fp16"
).split()


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
    tower: str = field(metadata={"help": "Frozen image-text model: a folder or hub name."})
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
        metadata={"help": "Take the tower's embeddings from the dataset or compute them once; else run the tower."},
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
    checkpoint = claim_output_dir(model_args, data_args, augmentation, args)
    set_seed(args.seed)

    tower = load_tower(data_args.tower, device=args.device)
    processor, model = build_model(model_args, data_args, tower)
    train, held_out = read_data(data_args, args)
    features, held_out_features = None, None
    if data_args.use_features:
        cache = Path(data_args.feature_cache)
        if isinstance(train, TripletStream):
            logger.info("a stream has no embeddings computed beforehand: the tower runs in every step")
        else:
            features = tower_features(data_args.dataset, train, tower, data_args.use_depth, cache)
        if held_out is not None:
            source = data_args.eval_dataset or data_args.dataset
            held_out_features = tower_features(source, held_out, tower, cache_dir=cache)
    if features is None:
        # one copy in memory serves evaluation and training
        reference = model.config.clip_name_or_path
        model.set_clip_model(tower.model)
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
            read_labels(data_args.labels_file) if data_args.labels_file else None,
            load_templates(data_args.templates),
            held_out_features,
            args.eval_batch_size,
            args.seed,
        )
        trainer.add_callback(HeldOutCallback(trainer, evaluation))

    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", result.metrics)
    metrics: dict[str, float] = {}
    if held_out is not None:
        metrics = trainer.evaluate()
        trainer.save_metrics("eval", metrics)
    trainer.save_state()
    return metrics


def parse_arguments(argv: list[str] | None = None) -> Arguments:
    """Command line, with the options of `--config FILE.yaml` as defaults."""
    classes = (ModelArguments, DataArguments, PointAugmentation, Ulip2TrainingArguments)
    parser = HfArgumentParser(classes, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="YAML file of the options below.")
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config")
    config, rest = before.parse_known_args(sys.argv[1:] if argv is None else argv)
    if config.config is not None:
        rest = [*_options_of(Path(config.config), {own.name for cls in classes for own in fields(cls)}), *rest]
    parsed = parser.parse_args_into_dataclasses(rest)
    return parsed[0], parsed[1], parsed[2], parsed[3]


def _options_of(path: Path, known: set[str]) -> list[str]:
    """The entries of a YAML file as command-line options."""
    options = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(options, dict):
        raise ValueError(f"{path} must map option names to values")
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"{path}: unknown options {', '.join(unknown)}")
    words = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *map(str, values)] if value is not None else []
    return words


def claim_output_dir(
    model_args: ModelArguments, data_args: DataArguments, augmentation: PointAugmentation, args: Ulip2TrainingArguments
) -> str | None:
    """Checks that this run may write into `output_dir`, notes its settings there, and finds the checkpoint to go on
    from.

    Raises:
        ValueError: the folder holds another run, or a model of unknown origin.
        OSError: it cannot be written.
    """
    settings = asdict(model_args) | asdict(data_args) | asdict(augmentation)
    settings |= {name: getattr(args, name) for name in DECISIVE}
    settings = json.loads(json.dumps(settings, default=str))
    output_dir = Path(args.output_dir)
    run_file = output_dir / RUN_FILE
    with args.main_process_first(local=False, desc="checking the output folder"):
        output_dir.mkdir(parents=True, exist_ok=True)
        if run_file.exists():
            before = json.loads(run_file.read_text(encoding="utf-8"))
            changed = sorted(name for name in settings if settings[name] != before.get(name))
            if changed:
                differences = ", ".join(f"{name} {before.get(name)} -> {settings[name]}" for name in changed)
                raise ValueError(
                    f"{output_dir} holds a run with other settings ({differences}): choose another --output_dir"
                )
        elif (output_dir / "config.json").exists() or last_checkpoint(output_dir):
            raise ValueError(f"{output_dir} holds a model that this script did not write: choose another --output_dir")
        elif args.should_save:
            run_file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    if args.resume_from_checkpoint not in (None, "True", "true", True):
        return str(args.resume_from_checkpoint)
    checkpoint = last_checkpoint(output_dir)
    if checkpoint is None:
        return None
    logger.info(f"going on from {checkpoint}")
    return str(checkpoint)


def last_checkpoint(output_dir: Path) -> Path | None:
    """The last checkpoint that was saved whole: Trainer writes its state last."""
    saved = [path.parent for path in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{TRAINER_STATE_NAME}")]
    return max(saved, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


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
    data_args: DataArguments, args: Ulip2TrainingArguments
) -> tuple[Dataset | TripletStream, Dataset | None]:
    """The training triplets and the held-out ones, if any."""
    split = read_split(data_args.split_file) if data_args.split_file else None
    with args.main_process_first(desc="reading the triplets"):
        triplets = read_triplets(data_args.dataset, data_args.streaming)
        held_out = read_triplets(data_args.eval_dataset) if data_args.eval_dataset else None
    if isinstance(triplets, IterableDataset):
        if args.max_steps <= 0:
            raise ValueError("--streaming needs --max_steps, as the length of a stream is not known")
        train_ids = split["train"] if split else None
        stream = TripletStream(
            triplets, train_ids, args.seed, data_args.shuffle_buffer, args.process_index, args.world_size
        )
        return stream, held_out
    if split is None:
        return triplets, held_out
    if held_out is None:
        held_out = select_ids(triplets, split["test"], "test")
    return select_ids(triplets, split["train"], "training"), held_out


if __name__ == "__main__":
    main()
