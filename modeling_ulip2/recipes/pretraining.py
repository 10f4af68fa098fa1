"""Pre-training: a point encoder is aligned with a frozen image-text model on triplets, as ULIP-2 does (section 3.3).

The output folder holds the model and its processor (`AutoModel` and `AutoProcessor` load it), checkpoints from which
the same command goes on after a stop, `trainer_state.json` with the loss curve, and the last evaluation in
`eval_results.json`.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
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
from modeling_ulip2.recipes.options import log_to_terminal, parse_options
from modeling_ulip2.recipes.pretraining_options import (
    DESCRIPTION,
    OPTIONS,
    PretrainingDataArguments,
    PretrainingModelArguments,
)
from modeling_ulip2.towers import Tower, load_tower
from modeling_ulip2.training import Ulip2Trainer, Ulip2TrainingArguments
from modeling_ulip2.training.features import streamed_features, tower_features
from modeling_ulip2.training.options import claim_output_dir

logger = logging.getLogger(__name__)

RUN_FILE = "pretrain.json"

Arguments = tuple[PretrainingModelArguments, PretrainingDataArguments, PointAugmentation, Ulip2TrainingArguments]


def main(argv: list[str] | None = None, prog: str | None = None) -> dict[str, float]:
    """Runs the training that a command line asks for.

    Args:
        argv: its words; None: those of this process.
        prog: what the command is called in its own messages; None: the name of the script.

    Returns:
        the metrics of the last evaluation.
    """
    return pretrain(*parse_arguments(argv, prog))


def pretrain(
    model_args: PretrainingModelArguments,
    data_args: PretrainingDataArguments,
    augmentation: PointAugmentation,
    args: Ulip2TrainingArguments,
) -> dict[str, float]:
    """Trains a point encoder on triplets and writes model, processor and the last evaluation into `args.output_dir`.

    Returns:
        the metrics of the last evaluation.

    Raises:
        ValueError: settings that contradict one another, or a folder that holds another run.
        OSError: data or tower are not there.
        NothingLearnedError: the loss stands still.
    """
    log_to_terminal(args.should_log)
    checkpoint = claim_output_dir(args, asdict(model_args) | asdict(data_args) | asdict(augmentation), RUN_FILE)
    set_seed(args.seed)

    tower = load_tower(data_args.tower, device=args.device)
    processor, model = build_model(model_args, data_args, tower)
    train, held_out = read_data(data_args, args, tower)
    features, held_out_features = None, None
    if data_args.use_features:
        cache = Path(data_args.feature_cache)
        if isinstance(train, Dataset):
            features = tower_features(
                data_args.features or data_args.dataset, train, tower, data_args.use_depth, cache
            )
        if held_out is not None:
            source = data_args.features or data_args.eval_dataset or data_args.dataset
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


def parse_arguments(argv: list[str] | None = None, prog: str | None = None) -> Arguments:
    """Command line, with the options of `--config FILE.yaml` as defaults."""
    parsed = parse_options((*OPTIONS, Ulip2TrainingArguments), argv, DESCRIPTION, prog)
    return parsed[0], parsed[1], parsed[2], parsed[3]


def build_model(
    model_args: PretrainingModelArguments, data_args: PretrainingDataArguments, tower: Tower
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
        extractor = Ulip2FeatureExtractor(in_channels=model.config.point_config.in_channels)
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
    data_args: PretrainingDataArguments, args: Ulip2TrainingArguments, tower: Tower
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
