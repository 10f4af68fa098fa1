"""`Ulip2Trainer`: `transformers.Trainer` for the alignment of a point encoder with a frozen image-text space."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader
from transformers import EvalPrediction, IntervalStrategy

from modeling_ulip2.data.stream import TripletStream
from modeling_ulip2.training.arguments import Ulip2TrainingArguments
from modeling_ulip2.training.callbacks import LogitScaleClamp
from modeling_ulip2.training.cloud_trainer import CloudTrainer, attributes
from modeling_ulip2.training.held_out_loss import held_out_loss
from modeling_ulip2.training.param_groups import decay_parameter_names
from modeling_ulip2.training.schedule import warmup_cosine_scheduler
from modeling_ulip2.training.sync_batch_norm import synchronize_batch_norm
from modeling_ulip2.utils.private_apis import batch_size_now, tell_scheduler_created

logger = logging.getLogger(__name__)


class Ulip2Trainer(CloudTrainer):
    """Trainer of a `Ulip2Model` on triplets; takes what `Trainer` takes.

    Beyond `Trainer`: ULIP's parameter groups and learning-rate schedule, the clamp of the logit scale, augmentation
    that follows the epoch, BatchNorm over all processes, and a clear stop when the loss is lost. The contrastive
    loss itself is the model's: each process compares its clouds with the texts and images of all.

    `data_collator` should be a `TripletCollator`; evaluation uses it without augmentation. `eval_loss` compares every
    held-out shape with `eval_loss_candidates` shapes, whatever the number of processes and the size of the last batch.
    """

    args: Ulip2TrainingArguments

    def __init__(self, *arguments: Any, **kwargs: Any):
        super().__init__(*arguments, **kwargs)
        # the loss is a mean over the batch, not a sum over tokens to be divided by their number
        self.model_accepts_loss_kwargs = False
        self._check_batch()
        if self.args.world_size > 1 and self.args.sync_batch_norm and self.model is not None:
            self.model = self.model_wrapped = synchronize_batch_norm(self.model)
        if hasattr(self.model, "clamp_logit_scale"):
            self.add_callback(LogitScaleClamp())
        # a batch's own loss would depend on its size: embeddings are collected and compared once all are there
        self._compares_embeddings = self.compute_metrics is None and hasattr(self.model, "logit_scale")
        if self._compares_embeddings:
            self.compute_metrics = self._held_out_loss
        if isinstance(self.train_dataset, TripletStream):
            self._count_in_steps()

    def _count_in_steps(self) -> None:
        """A stream has no end of an epoch, at which checkpoints and evaluations would come."""
        for what in ("save", "eval"):
            if getattr(self.args, f"{what}_strategy") == IntervalStrategy.EPOCH:
                logger.warning(f"a stream has no epochs: {what}_strategy becomes steps, ten of them in the run")
                setattr(self.args, f"{what}_strategy", IntervalStrategy.STEPS)
                setattr(self.args, f"{what}_steps", 0.1)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor | None, Any, torch.Tensor | None]:
        if not self._compares_embeddings or prediction_loss_only:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**{**inputs, "return_loss": False})
        found = (outputs.point_embeds, outputs.text_embeds, outputs.image_embeds)
        embeds = tuple(own.detach() for own in found if own is not None)  # (b, D) each
        # Trainer computes metrics where there are labels: here row i belongs to row i
        return None, embeds, torch.zeros(len(embeds[0]), dtype=torch.long, device=embeds[0].device)

    def _held_out_loss(self, prediction: EvalPrediction) -> dict[str, float]:
        """`loss` and `loss_candidates`, see `held_out_loss`; groups have the size of a device's evaluation batch."""
        points, *partners = (torch.as_tensor(own) for own in prediction.predictions)
        model: Any = self.accelerator.unwrap_model(self.model)
        logit_scale = model.logit_scale.detach()
        if hasattr(logit_scale, "full_tensor"):  # sharded by FSDP
            logit_scale = logit_scale.full_tensor()
        scale = float(logit_scale.float().exp())
        loss, candidates = held_out_loss(points, partners, scale, self.args.per_device_eval_batch_size)
        return {"loss": loss, "loss_candidates": candidates}

    def _check_batch(self, why: str = "a contrastive loss") -> None:
        if self.train_dataset is None:
            return
        needed = self.args.train_batch_size * self.args.world_size
        if needed < 2:
            raise ValueError(f"{why} needs at least 2 clouds per step: raise per_device_train_batch_size")
        size = _length(self.train_dataset)
        if size is not None and size < needed and self.args.dataloader_drop_last:
            raise ValueError(
                f"{size} training shapes do not fill one batch of {needed}: lower per_device_train_batch_size"
            )

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        return decay_parameter_names(model)

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> LRScheduler:
        optimizer = optimizer or self.optimizer
        if self.lr_scheduler is not None or optimizer is None or not self.args.uses_published_schedule:
            return super().create_scheduler(num_training_steps, optimizer)
        self.lr_scheduler = warmup_cosine_scheduler(
            optimizer,
            self._schedule_steps(num_training_steps),
            self.args.warmup_steps_of(num_training_steps),
            self.args.start_learning_rate,
            self.args.final_learning_rate,
        )
        tell_scheduler_created(self)
        return self.lr_scheduler

    def _schedule_steps(self, num_training_steps: int) -> int:
        """Steps after which the learning rate has come down to its last value."""
        return num_training_steps

    def get_train_dataloader(self) -> DataLoader:
        if not isinstance(self.train_dataset, TripletStream):
            return super().get_train_dataloader()
        # the stream is split among the processes already; `accelerator.prepare` would split it again
        return DataLoader(
            self.train_dataset,
            batch_size=batch_size_now(self),
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )

    def train(self, *arguments: Any, **kwargs: Any) -> Any:
        # Trainer writes the special tokens of whatever has a tokenizer into the model's configuration: ours has none
        saved = SimpleNamespace(save_pretrained=getattr(self.processing_class, "save_pretrained", None))
        with attributes(self, processing_class=saved if self.processing_class is not None else None):
            return super().train(*arguments, **kwargs)


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None
