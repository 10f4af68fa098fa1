"""Training of a captioner: a language model learns to describe shapes that a frozen ULIP-2 encoder sees."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer, set_seed

from modeling_ulip2 import Ulip2CaptioningProcessor, Ulip2FeatureExtractor, Ulip2ForConditionalGeneration
from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.data.captions import CaptionCollator, CaptionDataset, read_captioned_shapes, read_texts
from modeling_ulip2.data.reading import read_split, select_ids
from modeling_ulip2.models.captioning_card import PROMPT
from modeling_ulip2.models.language import load_language_tokenizer
from modeling_ulip2.models.processing_captioning_ulip2 import PLAIN_TEMPLATE
from modeling_ulip2.models.references import model_location
from modeling_ulip2.recipes.captioner_training_options import (
    DESCRIPTION,
    OPTIONS,
    CaptionerDataArguments,
    CaptionerModelArguments,
)
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.recipes.options import log_to_terminal, parse_options
from modeling_ulip2.training.captioning import CaptioningArguments, CaptioningTrainer
from modeling_ulip2.training.options import claim_output_dir
from modeling_ulip2.training.point_features import point_features
from modeling_ulip2.training.word_alignment import align_with_words, steps_of_pass
from modeling_ulip2.utils.places import find_model, named_or_own

logger = logging.getLogger(__name__)

RUN_FILE = "train_captioning.json"


Arguments = tuple[
    CaptionerModelArguments, CaptionerDataArguments, PointAugmentation, CaptioningArguments, HubArguments
]


def main(argv: list[str] | None = None, prog: str | None = None) -> dict[str, float]:
    """Runs the training that a command line asks for.

    Args:
        argv: its words; None: those of this process.
        prog: what the command is called in its own messages; None: the name of the script.

    Returns:
        the metrics of the last evaluation.
    """
    return train_captioner(*parse_arguments(argv, prog))


def train_captioner(
    model_args: CaptionerModelArguments,
    data_args: CaptionerDataArguments,
    augmentation: PointAugmentation,
    args: CaptioningArguments,
    hub: HubArguments | None = None,
) -> dict[str, float]:
    """Trains a connector, or an adapter of the language model, and writes the model into `args.output_dir`.

    Returns:
        the metrics of the last evaluation.

    Raises:
        ValueError: settings that contradict one another, or a folder that holds another run.
        OSError: data or models are not there.
    """
    data_args = replace(data_args, prompt=data_args.prompt or PROMPT)
    log_to_terminal(args.should_log)
    if data_args.augment and data_args.use_features:
        raise ValueError("--augment changes the clouds in every step: it needs --use_features false")
    if model_args.model_name_or_path is None:
        model_args = replace(model_args, point_model=named_or_own(model_args.point_model, "--point_model"))
    hub = hub or HubArguments()
    settings = asdict(model_args) | asdict(data_args) | asdict(augmentation) | hub.decisive
    checkpoint = claim_output_dir(args, settings, RUN_FILE)
    set_seed(args.seed)

    with args.main_process_first(desc="reading the shapes"):
        shapes = read_captioned_shapes(data_args.dataset, **hub.of_dataset)
    train, held_out = split_shapes(shapes, data_args)
    processor, model = build_model(model_args, hub)
    model.to(args.device)

    def learnable(part: Dataset) -> CaptionDataset:
        texts = read_texts(data_args.texts, part, data_args.top_k, **hub.of_others)
        if not data_args.use_features:
            return CaptionDataset(part, texts)
        cache = Path(data_args.feature_cache)
        return CaptionDataset(part, texts, point_features(model, processor.feature_extractor, part, cache))

    collator = CaptionCollator(
        processor,
        data_args.prompt or PROMPT,
        augmentation if data_args.augment else None,
        args.seed if args.data_seed is None else args.data_seed,
    )
    train_dataset = learnable(train)
    trainer = CaptioningTrainer(
        model=model,
        args=args,
        data_collator=collator,
        train_dataset=train_dataset,
        eval_dataset=None if held_out is None else learnable(held_out),
        processing_class=processor,
    )
    passes = alignment_passes(model_args, len(train_dataset))
    if passes and model_args.model_name_or_path is None and checkpoint is None:
        align_with_words(model, collator, train_dataset, passes, args.seed)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    logger.info(f"{trained:,} of {model.num_parameters():,} parameters are trained")
    return trainer.train_and_save(checkpoint, once=True)


def parse_arguments(argv: list[str] | None = None, prog: str | None = None) -> Arguments:
    """Command line, with the options of `--config FILE.yaml` as defaults."""
    parsed = parse_options((*OPTIONS, CaptioningArguments), argv, DESCRIPTION, prog)
    return parsed[0], parsed[1], parsed[2], parsed[4], parsed[3]


def alignment_passes(model_args: CaptionerModelArguments, texts: int) -> int:
    """Passes over the texts in which the connector learns words."""
    if model_args.align_epochs and model_args.align_steps:
        raise ValueError("--align_epochs and --align_steps say the same: give one of them")
    return model_args.align_epochs or -(-model_args.align_steps // steps_of_pass(texts))


def split_shapes(shapes: Dataset, data_args: CaptionerDataArguments) -> tuple[Dataset, Dataset | None]:
    """Shapes to train on, and those to measure on, if any."""
    held_out = None
    if data_args.split_file is not None:
        split = read_split(data_args.split_file)
        held_out = select_ids(shapes, split["test"], "test") if split["test"] else None
        shapes = select_ids(shapes, split["train"], "training")
    if data_args.max_shapes is not None:
        shapes = shapes.select(range(min(data_args.max_shapes, len(shapes))))
    return shapes, held_out


def build_model(model_args: CaptionerModelArguments, hub: HubArguments) -> tuple[Any, Any]:
    """The processor and the model, new or from stage 1, with an adapter if one is wanted."""
    lora = model_args.lora_config()
    if model_args.model_name_or_path is not None:
        given = {"point_model": model_args.point_model, "language_model": model_args.language_model}
        moved: dict[str, Any] = {f"{part}_name_or_path": place for part, place in given.items() if place is not None}
        place, options = find_model(model_args.model_name_or_path, **hub.of_model), hub.of_model
        model = Ulip2ForConditionalGeneration.from_pretrained(place, **moved, **options)
        processor = Ulip2CaptioningProcessor.from_pretrained(place, **options)
        set_template(processor, model_args.chat_template)
        if lora is not None:
            model.add_lora(lora)
        return processor, model
    if model_args.language_model is None or model_args.point_model is None:
        raise ValueError("a new connector needs --language_model, or name a captioner by --model_name_or_path")
    config = model_args.connector_config()
    if model_args.qformer_from is not None:
        from modeling_ulip2.conversion.qformer import initialize_qformer, qformer_config_of

        config["qformer_config"] = qformer_config_of(model_args.qformer_from, **hub.of_others)
    model = Ulip2ForConditionalGeneration.from_point_language_pretrained(
        absolute(model_args.point_model),
        absolute(model_args.language_model),
        point_model_kwargs=hub.of_model,
        language_model_kwargs=hub.of_others,
        **config,
    )
    if model_args.qformer_from is not None:
        initialize_qformer(model, model_args.qformer_from, **hub.of_others)
    if lora is not None:
        model.add_lora(lora)
    place, inside = model_location(model_args.point_model)
    fetching: dict[str, Any] = inside | hub.of_model
    qformer_tokenizer: Any = model_args.qformer_tokenizer
    if qformer_tokenizer is not None:
        qformer_tokenizer = AutoTokenizer.from_pretrained(qformer_tokenizer, **hub.of_others)
    processor = Ulip2CaptioningProcessor.from_model(
        model,
        qformer_tokenizer=qformer_tokenizer,
        tokenizer=load_language_tokenizer(model_args.language_model, **hub.of_others),
        feature_extractor=Ulip2FeatureExtractor.from_pretrained(place, **fetching),
    )
    set_template(processor, model_args.chat_template)
    return processor, model


def set_template(processor: Any, chat_template: str | None) -> None:
    """Makes a chat template the processor's own, so that whoever loads the model speaks to it as it was trained."""
    if chat_template is not None:
        processor.chat_template = PLAIN_TEMPLATE if chat_template == "plain" else chat_template


def absolute(name_or_path: str) -> str:
    """A folder by its full path, so that the checkpoint finds it from anywhere; a hub name as it is."""
    return str(Path(name_or_path).resolve()) if Path(name_or_path).exists() else name_or_path
