"""Settings of a pre-training run."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field

from transformers import SchedulerType, TrainingArguments

from modeling_ulip2.training.grad_cache import BATCH_NORMS, WHOLE
from modeling_ulip2.utils.cpus import available_cores

logger = logging.getLogger(__name__)

# Share of a training that its warm-up takes where the one that was asked for does not fit.
SHORT_WARMUP = 0.1


# More workers than this wait for memory rather than for each other.
MAX_WORKERS = 12


def automatic_workers(cores: int, processes: int, on_cpu: bool) -> int:
    """Workers for each of the training processes of a machine: the cores that training itself leaves idle.

    Args:
        cores: that the processes may run on.
        processes: of the training, on this machine.
        on_cpu: the model is trained on these cores, too.
    """
    if on_cpu:
        return 0
    return max(0, min(MAX_WORKERS, cores // max(processes, 1) - 1))


@dataclass
class Ulip2TrainingArguments(TrainingArguments):
    """`TrainingArguments` with the defaults of ULIP's pre-training and settings of its own.

    ULIP-2's optimizer settings were never published. The defaults are those of the first ULIP for Point-BERT and
    PointNet++ (its PointMLP and PointNeXt used a learning rate of 1e-3): AdamW, 250 epochs, 64 clouds on each of 8
    GPUs. No gradient clipping was published, so there is none by default.

    With `lr_scheduler_type="cosine"` the learning rate rises linearly from `start_learning_rate` for `warmup_epochs`
    (or for `warmup_steps`, where those are given; for a tenth of a run that is no longer than its warm-up) and then
    follows half a cosine to `final_learning_rate`, step by step; other schedulers are those of transformers.

    Not to be changed lightly: `remove_unused_columns=False`, as the collator reads the columns;
    `dataloader_drop_last=True`, as a smaller batch has fewer negatives and another loss; and
    `logging_nan_inf_filter=False`, as the trainer stops at the first loss that is not finite instead of hiding it.

    Gradient accumulation keeps the contrastive batch whole: a step compares `gradient_accumulation_steps` batches of
    `per_device_train_batch_size` on each process, all with all, in two passes of the encoder (`grad_cache`). With
    `grad_cache_chunk_size`, a batch is divided further: memory is that of a chunk, whatever the batch. See
    `training.grad_cache`.
    """

    learning_rate: float = field(default=3e-3, metadata={"help": "Peak learning rate (ULIP: 3e-3 for Point-BERT)."})
    start_learning_rate: float = field(default=1e-6, metadata={"help": "Learning rate of the first warm-up step."})
    final_learning_rate: float = field(default=1e-5, metadata={"help": "Learning rate at the end of the cosine."})
    warmup_epochs: float = field(default=1.0, metadata={"help": "Length of the warm-up, in epochs of the schedule."})
    sync_batch_norm: bool = field(
        default=True,
        metadata={"help": "Compute BatchNorm statistics over all processes, so that their number changes nothing."},
    )
    grad_cache: bool = field(
        default=True,
        metadata={
            "help": "With gradient accumulation, compare all clouds of a step, in two passes; "
            "false: each batch by itself, which has fewer negatives."
        },
    )
    grad_cache_chunk_size: int | None = field(
        default=None, metadata={"help": "Clouds in memory at a time; default: per_device_train_batch_size."}
    )
    grad_cache_batch_norm: str = field(
        default=WHOLE,
        metadata={
            "help": "BatchNorm of a step in several parts: 'step', of all its clouds, as in one pass; 'part', of each "
            "part, cheaper where an encoder has many such layers.",
            "choices": list(BATCH_NORMS),
        },
    )

    weight_decay: float = field(default=0.1, metadata={"help": "Decay of matrices; vectors and biases feel none."})
    adam_beta1: float = field(default=0.9, metadata={"help": "First beta of AdamW."})
    adam_beta2: float = field(default=0.98, metadata={"help": "Second beta of AdamW."})
    adam_epsilon: float = field(default=1e-8, metadata={"help": "Epsilon of AdamW."})
    max_grad_norm: float = field(default=0.0, metadata={"help": "Norm to clip gradients to; 0: no clipping."})
    num_train_epochs: float = field(default=250.0, metadata={"help": "Passes over the data."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Clouds per device and step."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Clouds per device and evaluation step."})
    lr_scheduler_type: SchedulerType | str = field(default="cosine", metadata={"help": "Learning-rate schedule."})
    logging_steps: float = field(default=10, metadata={"help": "Log the loss every so many steps."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints to keep."})
    eval_accumulation_steps: int | None = field(
        default=8, metadata={"help": "Evaluation steps after which embeddings leave the device."}
    )

    dataloader_num_workers: int = field(
        default=-1,
        metadata={"help": "Processes that prepare batches, for each device; -1: by the cores of the machine."},
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay False."})
    dataloader_drop_last: bool = field(default=True, metadata={"help": "Leave out the last, smaller batch of a pass."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide losses that are not finite."})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "See TrainingArguments."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.remove_unused_columns:
            raise ValueError("remove_unused_columns must stay False: the collator reads the columns of the triplets")
        if self.dataloader_num_workers < 0:
            self.dataloader_num_workers = automatic_workers(
                available_cores(), int(os.environ.get("LOCAL_WORLD_SIZE", 1)), self.device.type == "cpu"
            )
        if self.grad_cache_chunk_size is not None and self.grad_cache_chunk_size < 1:
            raise ValueError(f"grad_cache_chunk_size must be at least 1, not {self.grad_cache_chunk_size}")
        if self.grad_cache_chunk_size is not None and not self.grad_cache:
            raise ValueError("grad_cache_chunk_size is a setting of grad_cache, which is off")
        if self.grad_cache_batch_norm not in BATCH_NORMS:
            raise ValueError(f"grad_cache_batch_norm must be {' or '.join(BATCH_NORMS)}")
        if self.num_train_epochs <= 0 and self.max_steps <= 0:
            raise ValueError(f"num_train_epochs must be positive, not {self.num_train_epochs}")
        if self.uses_published_schedule and self.warmup_steps == 0 and self.warmup_epochs >= self.num_train_epochs:
            fitting = SHORT_WARMUP * self.num_train_epochs
            logger.warning(
                f"a warm-up of {self.warmup_epochs:g} epochs does not fit into {self.num_train_epochs:g}: it is "
                f"shortened to {fitting:g}"
            )
            self.warmup_epochs = fitting

    @property
    def uses_published_schedule(self) -> bool:
        return SchedulerType(self.lr_scheduler_type) is SchedulerType.COSINE

    def warmup_steps_of(self, num_training_steps: int) -> int:
        """Warm-up steps of a run of `num_training_steps`, from `warmup_steps` or else from `warmup_epochs`.

        Where `max_steps` sets the length of the run, `num_train_epochs` is the number of epochs that it stands for.
        """
        if self.warmup_steps:
            return self.get_warmup_steps(num_training_steps)
        return round(num_training_steps * self.warmup_epochs / self.num_train_epochs)
