"""What every training on point clouds adds to `transformers.Trainer`."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
from accelerate.utils import broadcast_object_list
from huggingface_hub import HfApi
from torch import nn
from torch.utils.data import DataLoader
from transformers import IntervalStrategy, Trainer, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy

from modeling_ulip2.data.collator import CloudCollator
from modeling_ulip2.data.origin import DataOrigin, origin_of
from modeling_ulip2.models.model_card import CardFacts, CardMixin, CardResult
from modeling_ulip2.models.references import ReferringConfigMixin
from modeling_ulip2.training.callbacks import LossGuard, PassNumber
from modeling_ulip2.training.checkpoints import is_whole_json
from modeling_ulip2.utils.publishing import check_paths, glob_escaped, published_files

logger = logging.getLogger(__name__)

# As `Trainer.save_metrics` names them.
TRAIN_RESULTS, EVAL_RESULTS = "train_results.json", "eval_results.json"


class CloudTrainer(Trainer):
    """Takes what `Trainer` takes; with a `CloudCollator`, draws follow the epoch, and evaluation draws nothing anew.

    A loss that is lost stops the training with a clear message. Uploads hold the model, its processor, its card and
    its figures, whatever `hub_strategy` says, and nothing that a training leaves beside them.
    """

    # what the model's maker says of it, and what a card of this training has made of that
    _given_facts: CardFacts | None = None
    _told_facts: CardFacts | None = None
    # what cards call the rows on which it is evaluated
    held_out_name = "held-out triplets"

    def __init__(self, *arguments: Any, **kwargs: Any):
        args = kwargs.get("args", arguments[1] if len(arguments) > 1 else None)
        if args is not None and kwargs.get("eval_dataset", arguments[4] if len(arguments) > 4 else None) is None:
            _without_evaluation(args)
        super().__init__(*arguments, **kwargs)
        if self.args.push_to_hub and self.args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
            logger.warning(
                f"hub_strategy {HubStrategy(self.args.hub_strategy).value} uploads the weights of checkpoints, but no "
                "optimizer and random states: a training goes on from its output folder alone"
            )
        self.loss_guard = LossGuard()
        self.passes = PassNumber()
        self.add_callback(self.passes)
        if isinstance(self.data_collator, CloudCollator):
            self.passes.listeners["collator"] = self.data_collator

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
        with uploads_of_models():
            return super().push_to_hub(*arguments, **kwargs)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """As in transformers, with the remote code and the card, which it leaves for the end of the training."""
        if self.is_world_process_zero() and self.args.hub_strategy != HubStrategy.END:
            self._check_upload()
            for code in Path(checkpoint_folder).glob("*.py"):
                shutil.copy(code, str(self.args.output_dir))
            self.create_model_card()
        with uploads_of_models():
            super()._push_from_checkpoint(checkpoint_folder)

    def _check_upload(self) -> None:
        config = getattr(self.accelerator.unwrap_model(self.model), "config", None)
        if isinstance(config, ReferringConfigMixin):
            try:
                config.check_publishable()
            except ValueError as error:
                raise ValueError(
                    f"{error} A trainer cannot: train without push_to_hub, and upload the model."
                ) from None

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: Any = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: Any = None,
        dataset_tags: Any = None,
        dataset: Any = None,
        dataset_args: Any = None,
    ) -> None:
        """Writes the model's own card with this run in it; called by `Trainer.push_to_hub`.

        Of the arguments, `license`, `tags`, `model_name` and `dataset_tags` (hub names) enter the card. What they and
        the model's `card_facts` leave out is told by the training rows: the repositories and licenses of the data.
        """
        if not self.is_world_process_zero() or self.model is None:
            return
        model: Any = self.accelerator.unwrap_model(self.model)
        if not isinstance(model, CardMixin):  # of transformers itself
            super().create_model_card(
                language, license, tags, model_name, finetuned_from, tasks, dataset_tags, dataset, dataset_args
            )
            return
        if model.card_facts is not self._told_facts:  # else those of an earlier step
            self._given_facts = model.card_facts
        facts, origin = self._given_facts or CardFacts(), self._origin()
        sentences = (self._training_summary(), "" if license or facts.license else origin.sentence())
        model.card_facts = self._told_facts = replace(
            facts,
            license=license or facts.license or origin.license,
            title=model_name or facts.title,
            tags=_listed(tags) or facts.tags,
            datasets=_listed(dataset_tags) or facts.datasets or origin.datasets,
            training=facts.training or "\n\n".join(filter(None, sentences)),
            results=facts.results or self._last_results(),
        )
        model.write_card(str(self.args.output_dir), getattr(self, "hub_model_id", None) or "FOLDER")

    def _origin(self) -> DataOrigin:
        known = getattr(self.train_dataset, "origin", None)
        return known if isinstance(known, DataOrigin) else origin_of(self.train_dataset)

    def _training_summary(self) -> str:
        args, state = self.args, self.state
        clouds = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
        return (
            f"{state.global_step:,} steps ({state.epoch or 0:g} epochs) of {clouds} clouds with "
            f"`{type(self).__name__}`: AdamW, learning rate {args.learning_rate:g} at its peak, "
            f"weight decay {args.weight_decay:g}, "
            f"seed {args.seed}."
        )

    def _last_results(self) -> list[CardResult]:
        """Figures of the last evaluation."""
        evaluations = [entry for entry in self.state.log_history if any(name.startswith("eval_") for name in entry)]
        speed = ("_runtime", "_per_second")
        return [
            CardResult(self.held_out_name, name.removeprefix("eval_"), round(value, 4), "evaluation after training")
            for name, value in (evaluations[-1] if evaluations else {}).items()
            if name.startswith("eval_") and isinstance(value, (int, float)) and not name.endswith(speed)
        ]

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(model, inputs, *arguments, **kwargs)
        # Trainer divides the loss of each part of a step
        self._check_loss(loss, 1 if self.model_accepts_loss_kwargs else self.current_gradient_accumulation_steps)
        return loss

    def _check_loss(self, loss: torch.Tensor, divided_by: int = 1) -> None:
        """Before the optimizer uses the gradients; one synchronization per step, as Trainer's own filter costs."""
        if self.loss_guard.first is None:
            # what a resumed run began with
            self.loss_guard.first = next((entry["loss"] for entry in self.state.log_history if "loss" in entry), None)
        self.loss_guard.check(loss.item() * divided_by, f"step {self.state.global_step + 1}")

    def _save_checkpoint(self, *arguments: Any, **kwargs: Any) -> None:
        """As in transformers, such that a checkpoint with a `trainer_state.json` is whole; see `is_whole_checkpoint`.

        What is left of an earlier try at the same step goes first: its state would vouch for files half written.
        """
        folder = Path(self._get_output_dir(None)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.is_world_process_zero() and folder.is_dir():
            shutil.rmtree(folder)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(*arguments, **kwargs)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        # the first process writes the state next, and then removes older checkpoints
        self.accelerator.wait_for_everyone()

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
        self.create_model_card()
        self.save_state()
        return metrics

    def _is_done(self, output_dir: Path) -> bool:
        """Does the folder hold the end of a training? All processes get the first one's answer."""
        # written last
        done = [all(is_whole_json(output_dir / name) for name in (TRAINER_STATE_NAME, TRAIN_RESULTS))]
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


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


class _ModelUploads:
    """A client of the hub that uploads of a folder what a model is made of, and nothing else."""

    def __init__(self, api: HfApi) -> None:
        self._api = api

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    def upload_folder(self, *, folder_path: str, ignore_patterns: Any = None, **upload: Any) -> Any:
        files = published_files(Path(folder_path))
        check_paths(Path(folder_path), files)
        return self._api.upload_folder(
            folder_path=folder_path, allow_patterns=[glob_escaped(name) for name in files], **upload
        )


@contextmanager
def uploads_of_models() -> Iterator[None]:
    """While it lasts, `Trainer` uploads no optimizer and random states, arguments, checkpoints and logs."""
    api = _ModelUploads(transformers.trainer.hf_api())
    with attributes(transformers.trainer, hf_api=lambda: api):
        yield


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
