"""Fine-tuning for classification: settings and trainer."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from modeling_ulip2.training.arguments import Ulip2TrainingArguments
from modeling_ulip2.training.param_groups import encoder_depths
from modeling_ulip2.training.trainer import Ulip2Trainer

logger = logging.getLogger(__name__)


@dataclass
class ClassificationTrainingArguments(Ulip2TrainingArguments):
    """`Ulip2TrainingArguments` with the defaults of PointNeXt's fine-tuning on ScanObjectNN (ULIP-2 follows it).

    AdamW at 2e-3, weight decay 0.05, gradients clipped at norm 10, 250 epochs of which the cosine takes
    `schedule_epochs` (200) on its way to `final_learning_rate` (1e-4). The published code changes the learning rate
    once per epoch, here it changes with every step.
    """

    learning_rate: float = field(default=2e-3, metadata={"help": "Peak learning rate, of the head."})
    final_learning_rate: float = field(default=1e-4, metadata={"help": "Learning rate at the end of the cosine."})
    warmup_epochs: float = field(default=0.0, metadata={"help": "Length of the warm-up, in epochs."})
    schedule_epochs: float | None = field(
        default=None, metadata={"help": "Length of warm-up and cosine, in epochs; default: num_train_epochs."}
    )
    layer_decay: float = field(
        default=1.0, metadata={"help": "Factor of the learning rate from each layer to the one below it; 1: none."}
    )
    label_smoothing: float = field(
        default=0.0, metadata={"help": "Share of the target that the wrong classes have between them."}
    )
    weight_decay: float = field(default=0.05, metadata={"help": "Decay of matrices; vectors and biases feel none."})
    adam_beta2: float = field(default=0.999, metadata={"help": "Second beta of AdamW."})
    max_grad_norm: float = field(default=10.0, metadata={"help": "Norm to clip gradients to; 0: no clipping."})
    num_train_epochs: float = field(default=250.0, metadata={"help": "Passes over the data."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Clouds per device and step."})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay must lie in (0, 1], not {self.layer_decay}")
        if self.label_smoothing_factor:
            raise ValueError("use label_smoothing, which smooths as the published fine-tuning does")
        if self.schedule_epochs is not None and self.schedule_epochs > self.num_train_epochs:
            logger.warning(
                f"a schedule of {self.schedule_epochs:g} epochs is longer than the training: it is shortened to "
                f"{self.num_train_epochs:g}"
            )
            self.schedule_epochs = self.num_train_epochs
        if self.schedule_epochs is not None and not self.warmup_epochs < self.schedule_epochs:
            raise ValueError(
                f"schedule_epochs ({self.schedule_epochs:g}) must be more than warmup_epochs ({self.warmup_epochs:g})"
            )


class ClassificationTrainer(Ulip2Trainer):
    """Trainer of a `Ulip2ForPointCloudClassification` on `LabeledClouds`.

    `data_collator` should be a `ClassificationCollator`; evaluation uses it without augmentation. With
    `compute_metrics=classification_metrics` (of `evaluation.metrics.classification`) it reports `accuracy` (overall)
    and `class_average_accuracy`.
    """

    args: ClassificationTrainingArguments

    def _check_batch(self, why: str = "BatchNorm") -> None:
        super()._check_batch(why)

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """AdamW whose groups have their own learning rates where `layer_decay` says so."""
        made = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if made and self.args.layer_decay != 1:
            groups = list(optimizer.param_groups)
            optimizer.param_groups.clear()
            for group in groups:
                for rate, parameters in _by_rate(model or self.model, group, self.args.layer_decay).items():
                    optimizer.add_param_group({**group, "params": parameters, "lr": rate})
        return optimizer

    def _schedule_steps(self, num_training_steps: int) -> int:
        epochs = self.args.schedule_epochs or self.args.num_train_epochs
        return max(1, round(num_training_steps * epochs / self.args.num_train_epochs))


def _by_rate(model: nn.Module | None, group: dict[str, Any], decay: float) -> dict[float, list[nn.Parameter]]:
    """The parameters of a group by learning rate: that of the group in the head, and less from layer to layer."""
    assert model is not None
    depths, own = encoder_depths(model), {id(parameter) for parameter in group["params"]}
    rates: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in own:
            rate = group["lr"] * decay ** (max(depths.values()) - depths[name])
            rates.setdefault(rate, []).append(parameter)
    return rates
