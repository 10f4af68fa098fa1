"""Settings and trainer of a captioning model."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from transformers import SchedulerType, TrainingArguments

from modeling_ulip2.training.arguments import SHORT_WARMUP
from modeling_ulip2.training.cloud_trainer import CloudTrainer

logger = logging.getLogger(__name__)


@dataclass
class CaptioningArguments(TrainingArguments):
    """`TrainingArguments` with the published defaults of X-InstructBLIP as ULIP-2 used it.

    AdamW at 1e-5 after 1,000 steps of warm-up, weight decay 0.05, 65,000 steps of 8 x 16 texts. The shape of the
    schedule after the warm-up was not published with ULIP-2; BLIP-2's cosine is the default.

    Not to be changed: `remove_unused_columns=False`, as the collator reads the rows.
    """

    learning_rate: float = field(default=1e-5, metadata={"help": "Peak learning rate."})
    warmup_steps: float = field(default=1000, metadata={"help": "Steps, or as a fraction of all steps."})
    weight_decay: float = field(default=0.05, metadata={"help": "Decay of matrices."})
    max_steps: int = field(default=65_000, metadata={"help": "Steps; -1: by num_train_epochs."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Texts per device and step."})
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "Texts per device and evaluation step."})
    lr_scheduler_type: SchedulerType | str = field(default="cosine", metadata={"help": "Learning-rate schedule."})
    logging_steps: float = field(default=10, metadata={"help": "Log the loss every so many steps."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})

    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False."})
    prediction_loss_only: bool = field(default=True, metadata={"help": "Evaluations measure the loss alone."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are not finite."})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.label_names = ["labels"]
        if 0 < self.max_steps <= self.warmup_steps:
            logger.warning(
                f"a warm-up of {self.warmup_steps:g} steps does not fit into {self.max_steps}: it takes a tenth"
            )
            self.warmup_steps = SHORT_WARMUP
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must stay False: the collator reads the rows of the dataset")


class CaptioningTrainer(CloudTrainer):
    """Trainer of a `Ulip2ForConditionalGeneration` on a `CaptionDataset` with a `CaptionCollator`.

    Checkpoints hold what is trained: the connector, and in the second stage the adapter of the language model.
    """

    args: CaptioningArguments
    held_out_name = "held-out captions"

    def __init__(self, *arguments: Any, **kwargs: Any):
        super().__init__(*arguments, **kwargs)
        if self.model is not None and not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError("nothing of the model is trainable: its connector is frozen, and it has no adapter")
