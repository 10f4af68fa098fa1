"""Pre-training: a point encoder is aligned with a frozen image-text model on triplets, as ULIP-2 does (section 3.3).

The output folder holds the model and its processor (`AutoModel` and `AutoProcessor` load it), checkpoints from which
the same command goes on after a stop, `trainer_state.json` with the loss curve, and the last evaluation in
`eval_results.json`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, concatenate_datasets
from transformers import set_seed

from modeling_ulip2 import Ulip2Config, Ulip2FeatureExtractor, Ulip2Model, Ulip2Processor
from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.data.collator import TripletCollator
from modeling_ulip2.data.labels import read_labels
from modeling_ulip2.data.mixing import StreamMixture, TripletMixture
from modeling_ulip2.data.near_duplicates import KINDS, near_duplicate_groups
from modeling_ulip2.data.reading import TripletDataset, read_split, read_triplets, select_ids
from modeling_ulip2.data.stream import TripletStream
from modeling_ulip2.embedding.loading import locate_model
from modeling_ulip2.evaluation import load_templates
from modeling_ulip2.evaluation.held_out import HeldOutCallback, HeldOutEvaluation
from modeling_ulip2.recipes.hub_options import HubArguments
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
# As SigLIP starts (arXiv 2303.15343, section 3.2).
SIGLIP_LOGIT_SCALE = math.log(10)

Arguments = tuple[
    PretrainingModelArguments, PretrainingDataArguments, PointAugmentation, Ulip2TrainingArguments, HubArguments
]


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
    hub: HubArguments | None = None,
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
    hub = hub or HubArguments()
    settings = settings_of(model_args, data_args, augmentation) | hub.decisive
    checkpoint = claim_output_dir(args, settings, RUN_FILE)
    set_seed(args.seed)

    tower = load_tower(data_args.tower, device=args.device, **hub.of_others)
    processor, model = build_model(model_args, data_args, tower, hub)
    data = read_data(data_args, args, tower, hub)
    held_out, held_out_features = data.held_out, data.held_out_features
    if not data.has_features:
        # one copy in memory serves evaluation and training
        reference = model.config.clip_name_or_path
        model.set_clip_model(tower.pretrained_model)
        model.config.clip_name_or_path = reference

    sources = data_args.caption_sources
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
        train_dataset=data.train,
        eval_dataset=None if held_out is None else TripletDataset(held_out, held_out_features, sources),
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
            Path(data_args.feature_cache),
        )
        pictures = bool(args.report_to) if data_args.retrieval_pictures is None else data_args.retrieval_pictures
        trainer.add_callback(HeldOutCallback(trainer, evaluation, pictures))
    return trainer.train_and_save(checkpoint, once=True)


def parse_arguments(argv: list[str] | None = None, prog: str | None = None) -> Arguments:
    """Command line, with the options of `--config FILE.yaml` as defaults."""
    parsed = parse_options((*OPTIONS, Ulip2TrainingArguments), argv, DESCRIPTION, prog)
    return parsed[0], parsed[1], parsed[2], parsed[4], parsed[3]


def build_model(
    model_args: PretrainingModelArguments, data_args: PretrainingDataArguments, tower: Tower, hub: HubArguments
) -> tuple[Ulip2Processor, Ulip2Model]:
    """A model in the tower's space and its processor."""
    local = Path(data_args.tower)
    reference = str(local.resolve()) if local.is_dir() else data_args.tower
    given = {name: getattr(model_args, name) for name in model_args.ENCODER_FIELDS}
    given = {name: value for name, value in given.items() if value is not None}
    loss = {name: getattr(model_args, name) for name in model_args.LOSS_FIELDS}
    if model_args.model_name_or_path is None:
        if model_args.loss_type == "siglip":
            loss["logit_scale_init_value"] = SIGLIP_LOGIT_SCALE
        config = Ulip2Config(
            point_config={"model_type": model_args.point_encoder, **given},
            projection_dim=tower.dim,
            clip_name_or_path=reference,
            **loss,
        )
        model = Ulip2Model(config)
        extractor = Ulip2FeatureExtractor(in_channels=model.config.point_config.in_channels)
    else:
        if given:
            raise ValueError(f"{', '.join(given)}: sizes are fixed by {model_args.model_name_or_path}")
        place, options = locate_model(model_args.model_name_or_path, **hub.of_model)
        model = Ulip2Model.from_pretrained(place, clip_name_or_path=reference, **loss, **options)
        extractor = Ulip2FeatureExtractor.from_pretrained(place, **options)
        if model.config.projection_dim != tower.dim:
            raise ValueError(
                f"{model_args.model_name_or_path} projects to {model.config.projection_dim} dimensions, but "
                f"{tower.name} has {tower.dim}: it was trained in another space"
            )
    if model_args.attn_implementation is not None:
        model.set_attn_implementation(model_args.attn_implementation)
    if model_args.num_points is not None:
        extractor.num_points = model_args.num_points
    return Ulip2Processor(extractor, tower.tokenizer, tower.image_processor), model


def settings_of(
    model_args: PretrainingModelArguments, data_args: PretrainingDataArguments, augmentation: PointAugmentation
) -> dict[str, Any]:
    """What decides the outcome of a run, as its folder remembers it."""
    settings = asdict(model_args) | asdict(data_args) | asdict(augmentation)
    if len(data_args.dataset) == 1:  # as before several could be named
        settings["dataset"] = data_args.dataset[0]
    return settings


@dataclass
class PretrainingData:
    """What is learned from, and the held-out rows with their embeddings, if there are any.

    has_features: the towers' embeddings come with the rows of `train`.
    """

    train: TripletMixture | TripletStream | StreamMixture
    has_features: bool
    held_out: Dataset | None = None
    held_out_features: Dataset | None = None


def read_data(
    data_args: PretrainingDataArguments, args: Ulip2TrainingArguments, tower: Tower, hub: HubArguments
) -> PretrainingData:
    """The training triplets, of one dataset or several, and the held-out ones.

    Raises:
        ValueError: options that contradict one another, or no row of a part of the split.
        FileNotFoundError: a dataset is not there.
    """
    split = read_split(data_args.split_file) if data_args.split_file else None
    with args.main_process_first(desc="reading the triplets"):
        triplets = [read_triplets(name, data_args.streaming, **hub.of_dataset) for name in data_args.dataset]
        held_out = read_triplets(data_args.eval_dataset, **hub.of_others) if data_args.eval_dataset else None
    held_out_features = None
    cache = Path(data_args.feature_cache)

    def features_of(name: str, rows: Dataset, use_depth: bool = False) -> Dataset:
        own = hub.of_dataset if name in data_args.dataset and not data_args.features else hub.of_others
        return tower_features(data_args.features or name, rows, tower, use_depth, cache, own)

    if held_out is not None and data_args.use_features:
        held_out_features = features_of(str(data_args.eval_dataset), held_out)
    if data_args.streaming:
        streams = read_streams(triplets, split["train"] if split else None, data_args, args, tower, hub)
        return PretrainingData(streams, streams.has_features, held_out, held_out_features)
    if held_out is None and split is not None and split["test"]:
        parts = select_in_each(triplets, split["test"], "test")
        held_out = _joined(parts)
        if data_args.use_features:
            found = zip(data_args.dataset, parts, strict=True)
            held_out_features = _joined([None if own is None else features_of(name, own) for name, own in found])
    rows = triplets if split is None else select_in_each(triplets, split["train"], "training")
    datasets = []
    for name, own in zip(data_args.dataset, rows, strict=True):
        if own is None:
            raise ValueError(f"{name} holds none of the training ids of {data_args.split_file}")
        features = None
        if data_args.use_features:
            features = features_of(name, own, data_args.use_depth)
        datasets.append(TripletDataset(own, features, data_args.caption_sources, data_args.num_views))
    groups = None
    if data_args.distinct_in_batch or data_args.near_duplicates:
        ids = [name for own in datasets for name in own.ids]
        kinds = data_args.near_duplicate_kinds or KINDS
        first = near_duplicate_groups(ids, data_args.near_duplicates, kinds)  # datasets may share ids
        groups = np.unique([first[name] for name in ids], return_inverse=True)[1]
        logger.info(f"{len(ids)} shapes in {len(set(groups.tolist()))} groups: no batch holds two of a group")
    return PretrainingData(
        TripletMixture(datasets, data_args.dataset_weights, groups),
        data_args.use_features,
        held_out,
        held_out_features,
    )


def read_streams(
    triplets: Sequence[Any],
    ids: Sequence[str] | None,
    data_args: PretrainingDataArguments,
    args: Ulip2TrainingArguments,
    tower: Tower,
    hub: HubArguments,
) -> TripletStream | StreamMixture:
    """The datasets as they arrive, joined with the towers' embeddings where all of them have these."""
    if args.max_steps <= 0:
        raise ValueError("--streaming needs --max_steps, as the length of a stream is not known")
    if data_args.distinct_in_batch or data_args.near_duplicates:
        raise ValueError("a stream does not know what comes: --distinct_in_batch and --near_duplicates need a folder")
    joined: list[Any] = [None] * len(triplets)
    if data_args.caption_sources or data_args.num_views:
        raise ValueError("caption_sources and num_views choose among the rows of a dataset on disk, not of a stream")
    if data_args.use_features:
        joined = [streamed_features(name, tower, data_args.use_depth, **hub.of_dataset) for name in data_args.dataset]
    if any(own is None for own in joined):
        logger.info("the tower runs in every step")
        joined = list(triplets)
    place = (args.process_index, args.world_size)
    streams = [TripletStream(own, ids, args.seed, data_args.shuffle_buffer, *place) for own in joined]
    if len(streams) == 1:
        return streams[0]
    return StreamMixture(streams, data_args.dataset_weights, args.seed, args.process_index)


def select_in_each(datasets: Sequence[Dataset], ids: Sequence[str], what: str) -> list[Dataset | None]:
    """The rows of each dataset with one of `ids`, see `select_ids`; None where it has none and another has."""
    if len(datasets) == 1:
        return [select_ids(datasets[0], ids, what)]
    wanted = set(ids)
    own_ids = [wanted.intersection(own["id"]) for own in datasets]
    missing = wanted.difference(*own_ids)
    if len(missing) == len(wanted):
        raise ValueError(f"none of the {len(wanted)} {what} ids is in the datasets, e.g. {min(wanted, default='')!r}")
    if missing:
        logger.warning(f"{len(missing)} of {len(wanted)} {what} ids are in no dataset, e.g. {min(missing)!r}")
    return [select_ids(own, names, what) if names else None for own, names in zip(datasets, own_ids, strict=True)]


def _joined(parts: Sequence[Dataset | None]) -> Dataset | None:
    """The held-out rows of several datasets in one."""
    present = [own for own in parts if own is not None]
    if len(present) < 2:
        return present[0] if present else None
    columns = set.intersection(*(set(own.column_names) for own in present))
    try:
        return concatenate_datasets([own.select_columns(sorted(columns)) for own in present])
    except ValueError as error:
        raise ValueError(
            f"held-out rows of datasets with other columns or numbers of points cannot be joined ({error}): name one "
            "dataset to measure on with --eval_dataset"
        ) from error
