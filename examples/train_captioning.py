"""Teaches a language model to describe shapes that a frozen ULIP-2 encoder sees.

    python examples/train_captioning.py --config examples/configs/captioning.yaml --point_model MODEL \
        --language_model LM --dataset TRIPLETS --texts DESCRIPTIONS --split_file SPLIT --output_dir OUT
    torchrun --nproc_per_node 8 examples/train_captioning.py --config examples/configs/x_instructblip.yaml …

Stage 1 trains the connector between the two. Stage 2 starts from stage 1's folder with `--model_name_or_path` and adds
a LoRA adapter to the language model (`--lora_r`); a new connector with `--lora_r` trains together with the adapter.

With `--align_epochs` a new connector first learns the language model's words, without running it.

Texts are captions (`--texts` of dataset_scripts/describe_shapes.py or cap3d.py; without it, those of the triplets) or
conversations (dataset_scripts/pointllm.py). The encoder sees every shape once, before the training (`--use_features`),
or in every step, where its clouds are augmented (`--augment`). The same command goes on after a stop.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import set_seed

from modeling_ulip2 import Ulip2CaptioningProcessor, Ulip2ForConditionalGeneration
from modeling_ulip2.data.augmentation import PointAugmentation
from modeling_ulip2.data.captions import CaptionCollator, CaptionDataset, read_shapes, read_texts
from modeling_ulip2.data.reading import read_split, select_ids
from modeling_ulip2.models.captioning_card import PROMPT
from modeling_ulip2.models.processing_captioning_ulip2 import PLAIN_TEMPLATE
from modeling_ulip2.training.captioning import CaptioningArguments, CaptioningTrainer
from modeling_ulip2.training.features import DEFAULT_CACHE
from modeling_ulip2.training.options import claim_output_dir, parse_options
from modeling_ulip2.training.point_features import point_features
from modeling_ulip2.training.word_alignment import align_with_words, steps_of_pass
from modeling_ulip2.utils.scripts import run_main

logger = logging.getLogger("modeling_ulip2.train_captioning")

RUN_FILE = "train_captioning.json"


@dataclass
class ModelArguments:
    """The connector; sizes that are not given are those of the paper."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "Captioning model to start from (stage 2); default: a new connector."}
    )
    point_model: str | None = field(default=None, metadata={"help": "ULIP-2 encoder: a folder or hub name."})
    language_model: str | None = field(default=None, metadata={"help": "Causal LM: a folder, hub name or GGUF file."})
    connector: str = field(default="qformer", metadata={"help": "qformer or mlp.", "choices": ["qformer", "mlp"]})
    point_feature_type: str = field(
        default="tokens", metadata={"help": "What it reads: tokens, pooled, or embeds (the paper's one vector)."}
    )
    num_query_tokens: int = field(default=32, metadata={"help": "Positions of a cloud in the text."})
    instruction_aware: bool = field(default=True, metadata={"help": "The Q-Former reads the instruction, too."})
    qformer_from: str | None = field(
        default=None, metadata={"help": "BLIP-2 or InstructBLIP checkpoint whose Q-Former the connector starts from."}
    )
    qformer_tokenizer: str | None = field(
        default=None, metadata={"help": "BERT's tokenizer, for a Q-Former that reads instructions."}
    )
    qformer_hidden_size: int | None = field(default=None, metadata={"help": "Width of the Q-Former."})
    qformer_num_hidden_layers: int | None = field(default=None, metadata={"help": "Depth of the Q-Former."})
    qformer_num_attention_heads: int | None = field(default=None, metadata={"help": "Heads of the Q-Former."})
    qformer_intermediate_size: int | None = field(default=None, metadata={"help": "Inner width of the Q-Former."})
    compression: str = field(default="pool", metadata={"help": "How the mlp makes few tokens: pool or resample."})
    connector_hidden_size: int = field(default=1024, metadata={"help": "Width of the mlp."})
    chat_template: str | None = field(
        default=None, metadata={"help": "Jinja template of conversations, or plain; default: the language model's."}
    )
    align_epochs: int = field(
        default=0, metadata={"help": "Passes in which a new connector learns the language model's words, beforehand."}
    )
    align_steps: int = field(
        default=0, metadata={"help": "The same in steps, rounded up to whole passes; instead of align_epochs."}
    )
    lora_r: int | None = field(default=None, metadata={"help": "Rank of a LoRA adapter (stage 2); default: none."})
    lora_alpha: float | None = field(default=None, metadata={"help": "Scale of the adapter; default: twice the rank."})
    lora_dropout: float = field(default=0.05, metadata={"help": "Dropout before the adapter."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "v_proj"], metadata={"help": "Layers that the adapter changes."}
    )

    def connector_config(self) -> dict[str, Any]:
        """Fields of `Ulip2CaptioningConfig` that describe a new connector."""
        names = "connector point_feature_type num_query_tokens instruction_aware compression connector_hidden_size"
        config = {name: getattr(self, name) for name in names.split()}
        qformer = {
            name.removeprefix("qformer_"): value
            for name, value in asdict(self).items()
            if name.startswith("qformer_") and name not in ("qformer_from", "qformer_tokenizer") and value is not None
        }
        return config | ({"qformer_config": qformer} if qformer else {})

    def lora_config(self) -> dict[str, Any] | None:
        """Arguments of peft's `LoraConfig`, or None without an adapter."""
        if self.lora_r is None:
            return None
        alpha = 2 * self.lora_r if self.lora_alpha is None else self.lora_alpha
        modules = list(self.lora_target_modules)
        return {
            "r": self.lora_r,
            "lora_alpha": alpha,
            "lora_dropout": self.lora_dropout,
            "target_modules": modules,
        }


@dataclass
class DataArguments:
    """What is learned from, and what is measured on."""

    dataset: str = field(metadata={"help": "Shapes: a triplets dataset, or a folder of texts that holds clouds."})
    texts: str | None = field(
        default=None, metadata={"help": "Captions or conversations by id; default: the captions of the triplets."}
    )
    split_file: str | None = field(
        default=None, metadata={"help": '{"train": [ids], "test": [ids]} as JSON; default: train on all shapes.'}
    )
    top_k: int | None = field(
        default=None, metadata={"help": "Captions of a shape (of each view of a triplet) to draw from; default: all."}
    )
    prompt: str = field(default=PROMPT, metadata={"help": "What the user says before a caption."})
    max_shapes: int | None = field(default=None, metadata={"help": "Train on the first so many shapes only."})
    use_features: bool = field(default=True, metadata={"help": "Let the encoder see every shape once, beforehand."})
    feature_cache: str = field(default=str(DEFAULT_CACHE), metadata={"help": "Where its features are kept."})
    augment: bool = field(default=False, metadata={"help": "Augment the clouds; needs --use_features false."})


Arguments = tuple[ModelArguments, DataArguments, PointAugmentation, CaptioningArguments]


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Runs the training and returns the metrics of the last evaluation."""
    model_args, data_args, augmentation, args = parse_arguments(argv)
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("modeling_ulip2").setLevel(logging.INFO if args.should_log else logging.WARNING)
    if data_args.augment and data_args.use_features:
        raise ValueError("--augment changes the clouds in every step: it needs --use_features false")
    settings = asdict(model_args) | asdict(data_args) | asdict(augmentation)
    checkpoint = claim_output_dir(args, settings, RUN_FILE)
    set_seed(args.seed)

    with args.main_process_first(desc="reading the shapes"):
        shapes = read_shapes(data_args.dataset)
    train, held_out = split_shapes(shapes, data_args)
    processor, model = build_model(model_args)
    model.to(args.device)

    def learnable(part: Dataset) -> CaptionDataset:
        texts = read_texts(data_args.texts, part, data_args.top_k)
        if not data_args.use_features:
            return CaptionDataset(part, texts)
        cache = Path(data_args.feature_cache)
        return CaptionDataset(part, texts, point_features(model, processor.feature_extractor, part, cache))

    trainer = CaptioningTrainer(
        model=model,
        args=args,
        data_collator=CaptionCollator(
            processor,
            data_args.prompt,
            augmentation if data_args.augment else None,
            args.seed if args.data_seed is None else args.data_seed,
        ),
        train_dataset=learnable(train),
        eval_dataset=None if held_out is None else learnable(held_out),
        processing_class=processor,
    )
    passes = alignment_passes(model_args, len(trainer.train_dataset))
    if passes and model_args.model_name_or_path is None and checkpoint is None:
        align_with_words(model, trainer.data_collator, trainer.train_dataset, passes, args.seed)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    logger.info(f"{trained:,} of {model.num_parameters():,} parameters are trained")
    return trainer.train_and_save(checkpoint, once=True)


def parse_arguments(argv: list[str] | None = None) -> Arguments:
    """Command line, with the options of `--config FILE.yaml` as defaults."""
    parsed = parse_options((ModelArguments, DataArguments, PointAugmentation, CaptioningArguments), argv, __doc__)
    return parsed[0], parsed[1], parsed[2], parsed[3]


def alignment_passes(model_args: ModelArguments, texts: int) -> int:
    """Passes over the texts in which the connector learns words."""
    if model_args.align_epochs and model_args.align_steps:
        raise ValueError("--align_epochs and --align_steps say the same: give one of them")
    return model_args.align_epochs or -(-model_args.align_steps // steps_of_pass(texts))


def split_shapes(shapes: Dataset, data_args: DataArguments) -> tuple[Dataset, Dataset | None]:
    """Shapes to train on, and those to measure on, if any."""
    held_out = None
    if data_args.split_file is not None:
        split = read_split(data_args.split_file)
        held_out = select_ids(shapes, split["test"], "test") if split["test"] else None
        shapes = select_ids(shapes, split["train"], "training")
    if data_args.max_shapes is not None:
        shapes = shapes.select(range(min(data_args.max_shapes, len(shapes))))
    return shapes, held_out


def build_model(model_args: ModelArguments) -> tuple[Any, Any]:
    """The processor and the model, new or from stage 1, with an adapter if one is wanted."""
    lora = model_args.lora_config()
    if model_args.model_name_or_path is not None:
        given = {"point_model": model_args.point_model, "language_model": model_args.language_model}
        moved = {f"{part}_name_or_path": place for part, place in given.items() if place is not None}
        model = Ulip2ForConditionalGeneration.from_pretrained(model_args.model_name_or_path, **moved)
        processor = Ulip2CaptioningProcessor.from_pretrained(model_args.model_name_or_path)
        set_template(processor, model_args.chat_template)
        if lora is not None:
            model.add_lora(lora)
        return processor, model
    if model_args.point_model is None or model_args.language_model is None:
        raise ValueError("a new connector needs --point_model and --language_model, or --model_name_or_path")
    config = model_args.connector_config()
    if model_args.qformer_from is not None:
        from modeling_ulip2.conversion.qformer import initialize_qformer, qformer_config_of

        config["qformer_config"] = qformer_config_of(model_args.qformer_from)
    model = Ulip2ForConditionalGeneration.from_point_language_pretrained(
        absolute(model_args.point_model), absolute(model_args.language_model), **config
    )
    if model_args.qformer_from is not None:
        initialize_qformer(model, model_args.qformer_from)
    if lora is not None:
        model.add_lora(lora)
    processor = Ulip2CaptioningProcessor.from_model(model, qformer_tokenizer=model_args.qformer_tokenizer)
    set_template(processor, model_args.chat_template)
    return processor, model


def set_template(processor: Any, chat_template: str | None) -> None:
    """Makes a chat template the processor's own, so that whoever loads the model speaks to it as it was trained."""
    if chat_template is not None:
        processor.chat_template = PLAIN_TEMPLATE if chat_template == "plain" else chat_template


def absolute(name_or_path: str) -> str:
    """A folder by its full path, so that the checkpoint finds it from anywhere; a hub name as it is."""
    return str(Path(name_or_path).resolve()) if Path(name_or_path).exists() else name_or_path


if __name__ == "__main__":
    run_main(main)
