"""What every training on point clouds adds to `transformers.Trainer`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer

from modeling_ulip2.training.callbacks import CollatorEpoch, LossGuard
from modeling_ulip2.triplets.collator import CloudCollator


class CloudTrainer(Trainer):
    """Takes what `Trainer` takes; with a `CloudCollator`, draws follow the epoch, and evaluation draws nothing anew.

    A loss that is lost stops the training with a clear message.
    """

    def __init__(self, *arguments: Any, **kwargs: Any):
        super().__init__(*arguments, **kwargs)
        self.loss_guard = LossGuard()
        if isinstance(self.data_collator, CloudCollator):
            self.add_callback(CollatorEpoch(self.data_collator))

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(model, inputs, *arguments, **kwargs)
        # before the optimiser uses the gradients; costs one synchronisation a step, as Trainer's own filter does
        self.loss_guard.check(loss.item(), f"step {self.state.global_step + 1}")
        return loss

    def train_and_save(self, checkpoint: str | None = None) -> dict[str, float]:
        """Trains, perhaps on from a checkpoint, and measures on the held-out rows, if there are any.

        The output folder then holds the model with its processor, `trainer_state.json`, and the metrics of both, of
        which those of the evaluation are returned ({} without held-out rows).
        """
        result = self.train(resume_from_checkpoint=checkpoint)
        self.save_model()
        self.save_metrics("train", result.metrics)
        metrics: dict[str, float] = {}
        if self.eval_dataset is not None:
            metrics = self.evaluate()
            self.save_metrics("eval", metrics)
        self.save_state()
        return metrics

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        with attributes(self, data_collator=_for_evaluation(self.data_collator)):
            # every held-out row counts, also those of the last, smaller batch
            with attributes(self.args, dataloader_drop_last=False):
                return super().get_eval_dataloader(eval_dataset)


@contextmanager
def attributes(owner: Any, **values: Any) -> Iterator[None]:
    """Sets attributes of `owner` for as long as it lasts."""
    before = {name: getattr(owner, name) for name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(owner, name, value)


def _for_evaluation(collator: Any) -> Any:
    return collator.for_evaluation() if isinstance(collator, CloudCollator) else collator
