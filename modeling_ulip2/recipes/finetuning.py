"""Fine-tuning for classification, or a probe of the frozen encoder: all of the training clouds, or a few per class."""

from __future__ import annotations

import copy
import itertools
import json
import logging
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, set_seed

from modeling_ulip2 import CardFacts, CardResult, Ulip2Config, Ulip2FeatureExtractor, Ulip2ForPointCloudClassification
from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.data.labeled import (
    ClassificationCollator,
    LabeledClouds,
    LabeledSplit,
    labeled_triplets,
    read_labeled_split,
)
from modeling_ulip2.embedding.loading import locate_model
from modeling_ulip2.evaluation.metrics.classification import (
    accuracies,
    classification_metrics,
    encode_clouds,
    fit_linear_probe,
    predict_logits,
)
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult
from modeling_ulip2.evaluation.reports.run_table import run_table
from modeling_ulip2.recipes.finetuning_options import (
    DESCRIPTION,
    FINETUNE,
    LINEAR_PROBE,
    OPTIONS,
    PRETRAINED,
    SCRATCH,
    FinetuningDataArguments,
    FinetuningModelArguments,
    FinetuningRunArguments,
)
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.recipes.options import log_to_terminal, parse_options
from modeling_ulip2.training.classification import ClassificationTrainer, ClassificationTrainingArguments
from modeling_ulip2.training.options import claim_output_dir
from modeling_ulip2.utils.command_line import config_field
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.places import named_or_own

logger = logging.getLogger(__name__)

RUN_FILE, RESULT_FILE = "finetune.json", "result.json"


@dataclass(frozen=True)
class Run:
    """One training or probe."""

    initialization: str
    method: str
    shots: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.initialization}-{self.method}-{f'{self.shots}_shots' if self.shots else 'all'}-seed_{self.seed}"


@dataclass
class Options:
    """All of the command line."""

    model: FinetuningModelArguments
    data: FinetuningDataArguments
    runs: FinetuningRunArguments
    augmentation: PointAugmentation
    hub: HubArguments
    training: ClassificationTrainingArguments


def main(argv: list[str] | None = None, prog: str | None = None) -> list[dict[str, Any]]:
    """Makes the runs that a command line asks for; `finetune` says what it returns.

    Args:
        argv: its words; None: those of this process.
        prog: what the command is called in its own messages; None: the name of the script.
    """
    return finetune(parse_arguments(argv, prog))


def parse_arguments(argv: list[str] | None = None, prog: str | None = None) -> Options:
    """Command line, with the options of `--config FILE.yaml` as defaults."""
    return Options(*parse_options((*OPTIONS, ClassificationTrainingArguments), argv, DESCRIPTION, prog))


def finetune(options: Options) -> list[dict[str, Any]]:
    """Makes all runs, skips those that are done, and sums them up.

    Returns:
        the result of each run, as in its `result.json`.

    Raises:
        ValueError: settings that contradict one another, or a folder that holds another run.
        OSError: data or model are not there.
    """
    log_to_terminal(options.training.should_log)
    name_model(options.model)
    runs = plan_runs(options)
    if options.model.model_name_or_path is not None:
        # or a sentence, before anything is read
        locate_model(options.model.model_name_or_path, **options.hub.of_model)
    with options.training.main_process_first(desc="reading the clouds"):
        split = read_labeled_clouds(options.data, options.hub)
    logger.info(
        f"{len(split.train)} training and {len(split.test)} test clouds of {len(split.test.class_names)} classes"
    )
    results, frozen = [], FrozenFeatures(split, options)
    for run in runs:
        results.append(make_run(run, split, options, frozen))
        if options.training.should_save:
            write_summary(Path(str(options.training.output_dir)), results, split, options)
    return results


def name_model(model: FinetuningModelArguments) -> None:
    """Fills in what a command line leaves open: the encoder, and where its weights come from.

    Raises:
        ValueError: `pretrained` with nothing but the sizes of an encoder.
        PlaceError: no model is named, and the repository's own is not here.
    """
    if model.model_name_or_path is None and not model.point_config and model.initializations != [SCRATCH]:
        model.model_name_or_path = named_or_own(None, "--model_name_or_path")
    model.initializations = model.initializations or [PRETRAINED if model.model_name_or_path else SCRATCH]
    if PRETRAINED in model.initializations and model.model_name_or_path is None:
        raise ValueError("--initializations pretrained needs --model_name_or_path: --point_config has no weights")
    if model.model_name_or_path is None:
        model.point_config = model.point_config or ["model_type=ulip2_pointnext"]


def plan_runs(options: Options) -> list[Run]:
    """All combinations; a linear probe of all clouds draws nothing, so that one seed of it is enough.

    Raises:
        ValueError: an unknown method or initialization, or numbers that are out of range.
    """
    model, runs = options.model, options.runs
    for given, known in ((runs.methods, (FINETUNE, LINEAR_PROBE)), (model.initializations, (PRETRAINED, SCRATCH))):
        unknown = sorted(set(given) - set(known))
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: known are {' and '.join(known)}")
    if min(runs.shots) < 0 or runs.votes < 1 or not runs.seeds:
        raise ValueError("--shots must not be negative, --votes at least 1, and --seeds not empty")
    planned = [Run(*parts) for parts in itertools.product(model.initializations, runs.methods, runs.shots, runs.seeds)]
    once = {(run.initialization, run.method): run.seed for run in reversed(planned)}
    return [
        run
        for run in planned
        if (run.initialization, run.method, run.shots) != (PRETRAINED, LINEAR_PROBE, 0)
        or run.seed == once[run.initialization, run.method]
    ]


def read_labeled_clouds(data: FinetuningDataArguments, hub: HubArguments) -> LabeledSplit:
    if data.labels_file is not None:
        if data.split_file is None:
            raise ValueError("triplets (--labels_file) need a --split_file with the ids of training and test")
        split = labeled_triplets(data.dataset, data.labels_file, data.split_file, **hub.of_dataset)
    else:
        parts = (data.train_split, data.test_split)
        split = read_labeled_split(data.dataset, data.dataset_config, *parts, **hub.of_dataset)
    return split.with_at_least(data.min_train_clouds) if data.min_train_clouds > 1 else split


class FrozenFeatures:
    """Pooled features of all clouds by encoders that no run changes; each encoder reads each cloud once."""

    def __init__(self, split: LabeledSplit, options: Options):
        self.split, self.batch_size = split, options.training.eval_batch_size
        self._known: dict[tuple[str, int], dict[str, torch.Tensor]] = {}

    def __call__(
        self,
        run: Run,
        model: Ulip2ForPointCloudClassification,
        collator: ClassificationCollator,
        clouds: LabeledClouds,
    ) -> torch.Tensor:
        """Features (len(clouds), D) of some of the clouds."""
        # random encoders differ from seed to seed
        key = (run.initialization, run.seed if run.initialization == SCRATCH else 0)
        if key not in self._known:
            model.eval()
            known: dict[str, torch.Tensor] = {}
            self._known[key] = known
            for part in (self.split.train, self.split.test):
                features = encode_clouds(
                    model, "pooled", collator, part, self.batch_size, f"{run.initialization} encoder"
                )
                known.update(zip(part.ids, features, strict=True))
        return torch.stack([self._known[key][name] for name in clouds.ids])


def make_run(run: Run, split: LabeledSplit, options: Options, frozen: FrozenFeatures) -> dict[str, Any]:
    """Trains and measures, or reads the result of the same run before."""
    args = copy.deepcopy(options.training)
    args.output_dir, args.seed = str(Path(str(args.output_dir)) / run.name), run.seed
    settings = asdict(run) | asdict(options.model) | asdict(options.data) | asdict(options.augmentation)
    settings |= options.hub.decisive
    settings |= {name: getattr(args, name) for name in ("schedule_epochs", "layer_decay", "label_smoothing")}
    settings |= {
        "resampling_pool": options.runs.resampling_pool,
        "votes": options.runs.votes,
        "ways": options.runs.ways,
    }
    # which other runs the command asked for changes nothing in this one
    settings.pop("initializations")
    checkpoint = claim_output_dir(args, settings, RUN_FILE)
    result_file = Path(args.output_dir) / RESULT_FILE
    if result_file.exists():
        logger.info(f"{run.name}: done before")
        return json.loads(result_file.read_text(encoding="utf-8"))
    if run.shots:
        split = split.few_shot(run.shots, run.seed, options.runs.ways)
    set_seed(run.seed)
    model: Any
    model, extractor = build_model(run, split.train.class_names, options)
    augmentation = options.augmentation if run.method == FINETUNE else None
    collator = ClassificationCollator(extractor, augmentation, run.seed, options.runs.resampling_pool)
    start = time.monotonic()
    if run.method == LINEAR_PROBE:
        model.to(args.device)
        logits = probe(run, model, collator, split, frozen)
        measured: dict[str, Any] = {}
    else:
        args.per_device_train_batch_size = min(
            args.per_device_train_batch_size, max(2, len(split.train) // args.world_size)
        )
        measured = train(model, collator, split, args, checkpoint)
        logits = predict_logits(model, collator, split.test, args.eval_batch_size)
    measured["train_seconds"] = round(time.monotonic() - start, 1)
    measured |= measure(logits, split)
    # a linear probe learns from clouds that are not augmented, so that there is nothing to vote on
    if options.runs.votes > 1 and run.method == FINETUNE:
        voted = predict_logits(model, collator, split.test, args.eval_batch_size, options.runs.votes)
        measured |= {f"voted_{name}": value for name, value in measure(voted, split).items() if name != "per_class"}
    result = asdict(run) | {
        "classes": split.test.class_names,
        "train_clouds": len(split.train),
        "test_clouds": len(split.test),
        "classes_without_test_cloud": split.untested,
        "parameters": model.num_parameters(),
        **measured,
    }
    if args.should_save:
        finish(model, extractor, result, args, options)
    return result


def build_model(
    run: Run, class_names: list[str], options: Options
) -> tuple[Ulip2ForPointCloudClassification, Ulip2FeatureExtractor]:
    """The classifier of a run with its head untrained, and the feature extractor of its clouds."""
    given, source = options.model, options.model.model_name_or_path
    head: dict[str, Any] = {
        "id2label": dict(enumerate(class_names)),
        "label2id": {name: label for label, name in enumerate(class_names)},
        "classifier_dims": () if run.method == LINEAR_PROBE else given.classifier_dims,
        "classifier_norm": given.classifier_norm,
        "classifier_dropout": given.classifier_dropout,
        "label_smoothing": options.training.label_smoothing,
    }
    place, hub = ("", {}) if source is None else locate_model(source, **options.hub.of_model)
    if run.initialization == PRETRAINED:
        # a folder that was fine-tuned on other classes has another head
        model = Ulip2ForPointCloudClassification.from_pretrained(place, ignore_mismatched_sizes=True, **head, **hub)
    elif source is not None:
        model = Ulip2ForPointCloudClassification(AutoConfig.from_pretrained(place, **head, **hub))
    else:
        fields = dict(config_field(text) for text in given.point_config)
        model = Ulip2ForPointCloudClassification(Ulip2Config(point_config=fields, **head))
    if source is not None:
        extractor = Ulip2FeatureExtractor.from_pretrained(place, **hub)
    else:
        extractor = Ulip2FeatureExtractor(in_channels=model.config.point_config.in_channels)
    extractor.num_points = given.num_points or extractor.num_points
    extractor.sampling = given.sampling or extractor.sampling
    return model, extractor


def train(
    model: Ulip2ForPointCloudClassification,
    collator: ClassificationCollator,
    split: LabeledSplit,
    args: ClassificationTrainingArguments,
    checkpoint: str | None,
) -> dict[str, Any]:
    """Trains all of the model, and tells what its evaluations on the way said."""
    trainer = ClassificationTrainer(
        model=model,
        args=args,
        data_collator=collator,
        train_dataset=split.train,
        eval_dataset=split.test,
        processing_class=collator.feature_extractor,
        compute_metrics=classification_metrics,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()
    evaluations = [entry for entry in trainer.state.log_history if "eval_accuracy" in entry]
    if not evaluations:
        return {}
    best = max(evaluations, key=lambda entry: entry["eval_accuracy"])
    # what published figures usually are; chosen on the test clouds, and therefore too good
    return {
        "best_epoch": round(best["epoch"], 2),
        "best_epoch_accuracy": best["eval_accuracy"],
        "best_epoch_class_average_accuracy": best["eval_class_average_accuracy"],
    }


def probe(
    run: Run,
    model: Ulip2ForPointCloudClassification,
    collator: ClassificationCollator,
    split: LabeledSplit,
    frozen: FrozenFeatures,
) -> torch.Tensor:
    """Fits the linear head of a model to its frozen encoder; returns the logits of the test clouds (N, classes)."""
    features = frozen(run, model, collator, split.train)  # (clouds, D)
    layer = fit_linear_probe(features, torch.from_numpy(split.train.labels), model.num_labels)
    model.classifier[-1].load_state_dict(layer.state_dict())
    return layer(frozen(run, model, collator, split.test)).detach()


def measure(logits: torch.Tensor, split: LabeledSplit) -> dict[str, Any]:
    """Accuracies on the test clouds, overall and of each class."""
    result = ZeroShotResult.from_logits(logits, torch.from_numpy(split.test.labels), split.test.class_names)
    return accuracies(result) | {"per_class": result.per_class}


def finish(
    model: Ulip2ForPointCloudClassification,
    extractor: Ulip2FeatureExtractor,
    result: dict[str, Any],
    args: ClassificationTrainingArguments,
    options: Options,
) -> None:
    """Saves the model, then the result, which marks the run as done."""
    folder = Path(str(args.output_dir))
    data = name_of(options.data)
    start = options.model.model_name_or_path if result["initialization"] == PRETRAINED else "random weights"
    model.card_facts = CardFacts(
        training=f"{result['method']} on {result['train_clouds']} clouds of {data}, from "
        f"{Path(str(start)).name if start else 'random weights'}, seed {result['seed']}.",
        results=[
            CardResult(data, name.replace("_", " "), round(result[name], 4), "classification")
            for name in ("accuracy", "class_average_accuracy")
        ],
    )
    model.save_pretrained(folder)
    extractor.save_pretrained(folder)
    write_text(folder / RESULT_FILE, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    if not options.runs.keep_checkpoints:
        for path in folder.glob("checkpoint-*"):
            shutil.rmtree(path)


def write_summary(folder: Path, results: list[dict[str, Any]], split: LabeledSplit, options: Options) -> None:
    """`results.json`, with every run, and `results.md`, with means and deviations over seeds."""
    table = run_table(results)
    write_text(folder / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
    lines = [
        f"{name_of(options.data)}: {size_of(split)}. Per cent; mean and standard deviation over seeds; after the last "
        "epoch unless a column says otherwise.",
        "",
        *table,
    ]
    if split.untested:
        lines += ["", f"Without a test cloud: {', '.join(split.untested)}."]
    write_text(folder / "results.md", "\n".join(lines) + "\n")
    print("\n".join(table), flush=True)


def name_of(data: FinetuningDataArguments) -> str:
    return Path(data.dataset).name + (f", {data.dataset_config}" if data.dataset_config else "")


def size_of(split: LabeledSplit) -> str:
    classes = len(split.test.class_names)
    return f"{len(split.train)} training and {len(split.test)} test clouds of {classes} classes"
