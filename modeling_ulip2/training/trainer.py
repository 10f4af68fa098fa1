"""`Ulip2Trainer`: `transformers.Trainer` for the alignment of a point encoder with a frozen image-text space."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Sampler
from transformers import EvalPrediction, IntervalStrategy

from modeling_ulip2.data.mixing import StreamMixture, TripletSampler
from modeling_ulip2.data.stream import TripletStream
from modeling_ulip2.training.arguments import Ulip2TrainingArguments
from modeling_ulip2.training.callbacks import LogitScaleClamp
from modeling_ulip2.training.cloud_trainer import CloudTrainer, attributes
from modeling_ulip2.training.grad_cache import WHOLE, average_gradients, grad_cache_step, split_inputs
from modeling_ulip2.training.held_out_loss import held_out_loss
from modeling_ulip2.training.param_groups import decay_parameter_names
from modeling_ulip2.training.schedule import warmup_cosine_scheduler
from modeling_ulip2.training.sharding import prepare_sharding
from modeling_ulip2.training.step_meter import StepMeter
from modeling_ulip2.training.sync_batch_norm import synchronize_batch_norm
from modeling_ulip2.utils.private_apis import batch_size_now, tell_scheduler_created

logger = logging.getLogger(__name__)

# BatchNorm layers from which on their exact treatment costs more than the rest of a step.
MANY_NORMS = 4


class Ulip2Trainer(CloudTrainer):
    """Trainer of a `Ulip2Model` on triplets; takes what `Trainer` takes.

    Beyond `Trainer`: ULIP's parameter groups and learning-rate schedule, the clamp of the logit scale, augmentation
    that follows the epoch, BatchNorm over all processes, and a clear stop when the loss is lost. The contrastive
    loss itself is the model's: each process compares its clouds with the texts and images of all. Gradient
    accumulation keeps the batch whole: the loss compares all clouds of a step (`grad_cache`).

    Beside the loss, the log tells its parts, the share of clouds that find their text and image in the batch, the
    logit scale, and the clouds per second.

    `data_collator` should be a `TripletCollator`; evaluation uses it without augmentation. `eval_loss` compares every
    held-out shape with `eval_loss_candidates` shapes, whatever the number of processes and the size of the last batch.
    """

    args: Ulip2TrainingArguments

    def __init__(self, *arguments: Any, **kwargs: Any):
        _use_one_gpu(kwargs.get("args", arguments[1] if len(arguments) > 1 else None))
        super().__init__(*arguments, **kwargs)
        # the loss is a mean over the batch, not a sum over tokens to be divided by their number
        self.model_accepts_loss_kwargs = False
        self.meter = StepMeter()
        self._parts: list[dict[str, Any]] = []
        self._check_batch()
        self._check_grad_cache()
        if self.is_fsdp_enabled:
            prepare_sharding(self.model, self.accelerator.state.fsdp_plugin)
        if self.args.world_size > 1 and self.args.sync_batch_norm and self.model is not None:
            self.model = self.model_wrapped = synchronize_batch_norm(self.model)
        if hasattr(self.model, "clamp_logit_scale"):
            self.add_callback(LogitScaleClamp())
        # a batch's own loss would depend on its size: embeddings are collected and compared once all are there
        self._compares_embeddings = self.compute_metrics is None and hasattr(self.model, "logit_scale")
        if self._compares_embeddings:
            self.compute_metrics = self._held_out_loss
        if isinstance(self.train_dataset, (TripletStream, StreamMixture)):
            self._count_in_steps()

    @property
    def _clouds_a_comparison(self) -> int:
        """Clouds that one loss compares."""
        parts = self.args.gradient_accumulation_steps if self.keeps_batch_whole else 1
        return self.args.train_batch_size * self.args.world_size * parts

    @property
    def keeps_batch_whole(self) -> bool:
        """Does a step compare all its clouds, although not all are in memory at once?"""
        args = self.args
        accumulates = args.gradient_accumulation_steps > 1 or args.grad_cache_chunk_size is not None
        return accumulates and args.grad_cache and hasattr(self.model, "compare")

    def _check_grad_cache(self) -> None:
        if not self.keeps_batch_whole or self.args.grad_cache_batch_norm != WHOLE:
            return
        layers = [own for own in self.model.modules() if isinstance(own, _BatchNorm)] if self.model is not None else []
        for why, name in ((self.args.torch_compile, "torch_compile"), (self.is_fsdp_enabled, "FSDP")):
            if why and layers:
                raise ValueError(
                    f"with {name}, a step of several parts needs grad_cache_batch_norm=part: statistics of the whole "
                    "step are collected by passes that end at a layer"
                )
        if len(layers) > MANY_NORMS:
            logger.warning(
                f"this encoder has {len(layers)} BatchNorm layers, and grad_cache_batch_norm=step makes three passes "
                "for each: grad_cache_batch_norm=part takes the statistics of each part, and is many times faster"
            )

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *arguments: Any, **kwargs: Any) -> torch.Tensor:
        if not self.keeps_batch_whole:
            loss = super().training_step(model, inputs, *arguments, **kwargs)
            if self.is_fsdp_enabled and self.accelerator.sync_gradients:
                average_gradients(own for own in model.parameters() if own.ndim == 0)
            return loss
        self._parts.append(inputs)
        if len(self._parts) < self.current_gradient_accumulation_steps:
            return torch.zeros((), device=self.args.device)
        inputs_of_step, self._parts = self._parts, []
        loss = self._whole_step(model, inputs_of_step)
        self._check_loss(loss)
        return loss

    def _whole_step(self, model: nn.Module, inputs: list[dict[str, Any]]) -> torch.Tensor:
        model.train()
        size = self.args.grad_cache_chunk_size or self.args.train_batch_size
        parts = [part for own in inputs for part in split_inputs(self._prepare_inputs(own), size)]
        # without DDP, which wants each gradient once: they are averaged when all parts have given theirs
        own: Any = model if self.is_fsdp_enabled else self.accelerator.unwrap_model(model)
        scaler = self.accelerator.scaler
        with self.compute_loss_context_manager():
            terms = grad_cache_step(
                own,
                self.accelerator.unwrap_model(self.model).compare,
                parts,
                self.args.grad_cache_batch_norm,
                None if scaler is None else scaler.scale,
            )
        average_gradients(own.parameters())
        self.meter.add(terms, sum(len(part["point_values"]) for part in parts) * self.args.world_size)
        return terms.loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if model.training:
            self.meter.add(outputs, len(inputs["point_values"]) * self.args.world_size)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *arguments: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            logs |= self.meter.report(self.accelerator)
            if self._compares_embeddings:
                logs["logit_scale"] = round(self._logit_scale(), 4)
        super().log(logs, *arguments, **kwargs)

    def _logit_scale(self) -> float:
        model: Any = self.accelerator.unwrap_model(self.model)
        return float(model.logit_scale.detach().float().exp())

    def evaluate(self, *arguments: Any, **kwargs: Any) -> dict[str, float]:
        with self.meter.paused():
            return super().evaluate(*arguments, **kwargs)

    def _save_checkpoint(self, *arguments: Any, **kwargs: Any) -> None:
        with self.meter.paused():
            super()._save_checkpoint(*arguments, **kwargs)

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
        loss, candidates = held_out_loss(points, partners, self._logit_scale(), self.args.per_device_eval_batch_size)
        return {"loss": loss, "loss_candidates": candidates}

    def _check_batch(self, why: str = "a contrastive loss") -> None:
        if self.train_dataset is None:
            return
        needed = self._clouds_a_comparison
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

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        """Whole batches alone, of shapes that no batch holds twice; see `TripletSampler`."""
        dataset: Any = self.train_dataset if train_dataset is None else train_dataset
        size, seed = _length(dataset), self.args.seed if self.args.data_seed is None else self.args.data_seed
        if hasattr(dataset, "sampler"):
            sampler = dataset.sampler(self._clouds_a_comparison, seed)
        elif size is None or not self.args.dataloader_drop_last or self.args.train_sampling_strategy != "random":
            return super()._get_train_sampler(train_dataset)
        else:
            sampler = TripletSampler([size], self._clouds_a_comparison, seed=seed)
        self.passes.listeners["sampler"] = sampler
        return sampler

    def get_train_dataloader(self) -> DataLoader:
        if not isinstance(self.train_dataset, (TripletStream, StreamMixture)):
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


def _use_one_gpu(args: Any) -> None:
    """Without a launcher, Trainer would spread a batch over all GPUs, and the loss would compare each part alone."""
    if args is not None and args.n_gpu > 1:
        logger.warning(
            f"this process trains on one of {args.n_gpu} GPUs; `accelerate launch` or `torchrun --nproc_per_node "
            f"{args.n_gpu}` starts one for each"
        )
        args._n_gpu = 1


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except TypeError:
        return None
