"""What happens around the optimiser steps of pre-training."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from modeling_ulip2.triplets.collator import CloudCollator


class LogitScaleClamp(TrainerCallback):
    """Keeps the logit scale of the model in its range after every optimiser step."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        model.clamp_logit_scale()


class CollatorEpoch(TrainerCallback):
    """Tells the collator which pass over the data begins, so that a resumed run draws what it would have drawn."""

    def __init__(self, collator: CloudCollator):
        self.collator = collator

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # a fraction where the run was resumed within a pass; the margin is for the rounding of whole numbers
        self.collator.set_epoch(math.floor((state.epoch or 0.0) + 1e-6))


class LossGuard:
    """Stops a run whose loss shows that nothing can come of it.

    Args:
        patience: so many equal losses in a row mean that nothing is learned.
    """

    def __init__(self, patience: int = 25):
        self.recent: deque[float] = deque(maxlen=patience)

    def check(self, loss: float, where: str) -> None:
        """Raises FloatingPointError on NaN or infinity, RuntimeError on a loss that does not change at all."""
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at {where}. Nothing of this step is saved; the last checkpoint is sound. "
                "Usual causes: a learning rate that is too high (or too short a warm-up), or fp16 where bf16 is needed"
            )
        self.recent.append(loss)
        if len(self.recent) == self.recent.maxlen and len(set(self.recent)) == 1:
            raise RuntimeError(
                f"the loss has been exactly {loss} for {len(self.recent)} steps up to {where}: nothing is learned. "
                "Usual causes: all embeddings are the same, all parameters are frozen, or the learning rate is 0"
            )
