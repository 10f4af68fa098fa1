"""The claim of a training on its output folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from modeling_ulip2.training.checkpoints import last_checkpoint
from modeling_ulip2.utils.files import write_text

logger = logging.getLogger(__name__)

# Training settings that decide what is learned; a stopped run goes on only with the same ones.
DECISIVE = (
    "learning_rate start_learning_rate final_learning_rate warmup_epochs warmup_steps lr_scheduler_type weight_decay "
    "adam_beta1 adam_beta2 adam_epsilon max_grad_norm num_train_epochs max_steps per_device_train_batch_size "
    "gradient_accumulation_steps grad_cache grad_cache_chunk_size grad_cache_batch_norm seed data_seed bf16 fp16"
).split()


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
            # what an earlier version did not know of was as it is by default now
            changed = sorted(name for name in settings if name in before and settings[name] != before[name])
            if changed:
                differences = ", ".join(f"{name} {before.get(name)} -> {settings[name]}" for name in changed)
                raise ValueError(
                    f"{output_dir} holds a run with other settings ({differences}): choose another --output_dir"
                )
        elif (output_dir / "config.json").exists() or last_checkpoint(output_dir):
            raise ValueError(f"{output_dir} holds a model that this script did not write: choose another --output_dir")
        elif args.should_save:
            write_text(path, json.dumps(settings, indent=2) + "\n")
    if args.resume_from_checkpoint not in (None, "True", "true", True):
        return str(args.resume_from_checkpoint)
    checkpoint = last_checkpoint(output_dir)
    if checkpoint is None:
        return None
    logger.info(f"going on from {checkpoint}")
    return str(checkpoint)
