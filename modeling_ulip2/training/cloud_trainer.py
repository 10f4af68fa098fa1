"""What every training on point clouds adds to `transformers.Trainer`."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import nn
from torch.utils.data import DataLoader
from transformers import IntervalStrategy, Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from modeling_ulip2.data.collator import CloudCollator
from modeling_ulip2.models.references import ReferringConfigMixin
from modeling_ulip2.training.callbacks import CollatorEpoch, LossGuard

logger = logging.getLogger(__name__)

# As `Trainer.save_metrics` names them.
TRAIN_RESULTS, EVAL_RESULTS = "train_results.json", "eval_results.json"


class CloudTrainer(Trainer):
    """Takes what `Trainer` takes; with a `CloudCollator`, draws follow the epoch, and evaluation draws nothing anew.

    A loss that is lost stops the training with a clear message.
    """

    def __init__(self, *arguments: Any, **kwargs: Any):
        args = kwargs.get("args", arguments[1] if len(arguments) > 1 else None)
        if args is not None and kwargs.get("eval_dataset", arguments[4] if len(arguments) > 4 else None) is None:
            _without_evaluation(args)
        super().__init__(*arguments, **kwargs)
        self.loss_guard = LossGuard()
        if isinstance(self.data_collator, CloudCollator):
            self.add_callback(CollatorEpoch(self.data_collator))

    def init_hf_repo(self, *arguments: Any, **kwargs: Any) -> None:
        """As in transformers, but before anything is created or trained it is seen whether the model can be uploaded.

        Raises:
            ValueError: the model refers to a folder of this machine.
        """
        self._check_upload()
        super().init_hf_repo(*arguments, **kwargs)

    def push_to_hub(self, *arguments: Any, **kwargs: Any) -> Any:
        """As in transformers; raises as `init_hf_repo` does."""
        self._check_upload()
        return super().push_to_hub(*arguments, **kwargs)

    def _check_upload(self) -> None:
        config = getattr(self.accelerator.unwrap_model(self.model), "config", None)
        if isinstance(config, ReferringConfigMixin):
            try:
                config.check_publishable()
            except ValueError as error:
                raise ValueError(
                    f"{error} A trainer cannot: train without push_to_hub, and upload the model."
                ) from None

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(model, inputs, *arguments, **kwargs)
        # before the optimizer uses the gradients; costs one synchronization per step, as Trainer's own filter does
        if self.loss_guard.first is None:
            self.loss_guard.first = self._first_loss()
        self.loss_guard.check(loss.item(), f"step {self.state.global_step + 1}")
        return loss

    def _first_loss(self) -> float | None:
        """The loss that a resumed run began with, as its steps have it now; None where nothing was logged."""
        logged = next((entry["loss"] for entry in self.state.log_history if "loss" in entry), None)
        if logged is None or self.model_accepts_loss_kwargs:
            return logged
        return logged / self.args.gradient_accumulation_steps  # Trainer divides each part of a step

    def train_and_save(self, checkpoint: str | None = None, once: bool = False) -> dict[str, float]:
        """Trains, perhaps on from a checkpoint, and measures on the held-out rows, if there are any.

        The output folder then holds the model with its processor, `trainer_state.json`, and the metrics of both, of
        which those of the evaluation are returned ({} without held-out rows).

        Args:
            once: the folder is known to hold this very training (`claim_output_dir`): where it is done it is not done
                again, its record stays, and its metrics are returned.
        """
        output_dir = Path(str(self.args.output_dir))
        if once and self._is_done(output_dir):
            logger.warning(f"{output_dir}: this training is done; choose another --output_dir to train anew")
            known = output_dir / EVAL_RESULTS
            return json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
        begun = 0 if checkpoint is None else _steps_of(Path(checkpoint))
        result = self.train(resume_from_checkpoint=checkpoint)
        self.save_model()
        if checkpoint is not None and result.global_step == begun:
            # stopped after its last step: Trainer has measured a training of no steps
            self._forget_empty_training(result.metrics)
        self.save_metrics("train", result.metrics)
        metrics: dict[str, float] = {}
        if self.eval_dataset is not None:
            metrics = self.evaluate()
            self.save_metrics("eval", metrics)
        self.save_state()
        return metrics

    def _is_done(self, output_dir: Path) -> bool:
        """Does the folder hold the end of a training? All processes get the first one's answer."""
        # written last
        done = [(output_dir / TRAINER_STATE_NAME).is_file() and (output_dir / TRAIN_RESULTS).is_file()]
        return bool(broadcast_object_list(done)[0])

    def _forget_empty_training(self, metrics: dict[str, float]) -> None:
        """Puts the loss of the logged steps in the place of a zero."""
        logged = [entry["loss"] for entry in self.state.log_history if "loss" in entry]
        self.state.log_history = [entry for entry in self.state.log_history if entry.get("train_loss") != 0]
        metrics.clear()
        metrics["epoch"] = round(self.state.epoch or 0.0, 4)
        if logged:
            metrics["train_loss"] = sum(logged) / len(logged)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        with attributes(self, data_collator=_for_evaluation(self.data_collator)):
            # every held-out row counts, also those of the last, smaller batch
            with attributes(self.args, dataloader_drop_last=False):
                return super().get_eval_dataloader(eval_dataset)


def _without_evaluation(args: TrainingArguments) -> None:
    """Takes back what a configuration says of evaluations, where there is nothing to measure on."""
    if args.eval_strategy == IntervalStrategy.NO:
        return
    logger.warning(
        f"there are no held-out rows: eval_strategy {IntervalStrategy(args.eval_strategy).value} is left out "
        "(--split_file or --eval_dataset names some)"
    )
    args.eval_strategy, args.do_eval, args.eval_on_start = IntervalStrategy.NO, False, False
    args.load_best_model_at_end = False


def _steps_of(checkpoint: Path) -> int:
    return TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME)).global_step


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
