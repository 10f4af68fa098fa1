"""What the training commands share: options from a command line and a YAML file, and the claim on an output folder."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

logger = logging.getLogger(__name__)

# Training settings that decide what is learned; a stopped run goes on only with the same ones.
DECISIVE = (
    "learning_rate start_learning_rate final_learning_rate warmup_epochs warmup_steps lr_scheduler_type weight_decay "
    "adam_beta1 adam_beta2 adam_epsilon max_grad_norm num_train_epochs max_steps per_device_train_batch_size "
    "gradient_accumulation_steps seed bf16 fp16"
).split()


def parse_options(
    classes: Sequence[Any],
    argv: list[str] | None = None,
    description: str | None = None,
    prog: str | None = None,
) -> list[Any]:
    """An instance of each dataclass from the command line, with the options of `--config FILE.yaml` as defaults.

    Args:
        classes: dataclasses whose fields are the options.
        argv: words of the command line; None: those of this process.
        description: of the command, for `--help`.
        prog: name of the command; None: that of the script.

    Raises:
        ValueError: the YAML file holds something else than options of these classes.
    """
    parser = HfArgumentParser(
        tuple(classes), prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", help="YAML file of the options below.")
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config")
    config, rest = before.parse_known_args(sys.argv[1:] if argv is None else argv)
    if config.config is not None:
        rest = [*_options_of(Path(config.config), {own.name for cls in classes for own in fields(cls)}), *rest]
    return list(parser.parse_args_into_dataclasses(rest)[: len(classes)])


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


def claim_output_dir(args: TrainingArguments, settings: Mapping[str, Any], run_file: str) -> str | None:
    """Checks that this run may write into `output_dir`, notes its settings there, and finds the checkpoint to go on
    from.

    Args:
        args: of the trainer.
        settings: what decides the outcome of the run beside the training settings in `DECISIVE`.
        run_file: name of the file in `output_dir` that keeps both.

    Raises:
        ValueError: the folder holds another run, or a model of unknown origin.
        OSError: it cannot be written.
    """
    settings = dict(settings) | {name: getattr(args, name) for name in DECISIVE if hasattr(args, name)}
    settings = json.loads(json.dumps(settings, default=str))
    output_dir = Path(str(args.output_dir))
    path = output_dir / run_file
    with args.main_process_first(local=False, desc="checking the output folder"):
        output_dir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            changed = sorted(name for name in settings if settings[name] != before.get(name))
            if changed:
                differences = ", ".join(f"{name} {before.get(name)} -> {settings[name]}" for name in changed)
                raise ValueError(
                    f"{output_dir} holds a run with other settings ({differences}): choose another --output_dir"
                )
        elif (output_dir / "config.json").exists() or last_checkpoint(output_dir):
            raise ValueError(f"{output_dir} holds a model that this script did not write: choose another --output_dir")
        elif args.should_save:
            path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
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
