"""What happens around the optimizer steps of pre-training."""

from __future__ import annotations

import logging
import math
from collections import deque
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

logger = logging.getLogger(__name__)

# A loss that stands still says that nothing is left to learn where it is this small, or this share of the first one.
# At this cross-entropy the right answer has a probability of 99 %.
SMALL_LOSS, SMALL_SHARE = 0.01, 0.5


class LogitScaleClamp(TrainerCallback):
    """Keeps the logit scale of the model in its range after every optimizer step."""

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        model.clamp_logit_scale()


class PassNumber(TrainerCallback):
    """Tells whoever draws which pass over the data begins, so that a resumed run draws what it would have drawn.

    Its `listeners`, by what they are, have `set_epoch`, as a `CloudCollator` and a `TripletSampler` do.
    """

    def __init__(self) -> None:
        self.listeners: dict[str, Any] = {}

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # a fraction where the run was resumed within a pass; the margin is for the rounding of whole numbers
        for own in self.listeners.values():
            own.set_epoch(math.floor((state.epoch or 0.0) + 1e-6))


class NothingLearnedError(RuntimeError):
    """A training whose loss shows that it cannot learn."""


class LossGuard:
    """Stops a run whose loss shows that nothing can come of it.

    A loss may stand still for two reasons. Near its first value (or above it, when all embeddings have become the
    same) the model learns nothing, and the run stops. Near zero or far below its first value nothing is left to learn;
    that is logged once, and the run goes on.

    Args:
        patience: so many equal losses in a row stand still.
        first: loss at the beginning of the run, where this process did not see it; None: the first that is checked.
    """

    def __init__(self, patience: int = 25, first: float | None = None):
        self.recent: deque[float] = deque(maxlen=patience)
        self.first = first
        self._converged = False

    def check(self, loss: float, where: str) -> None:
        """Raises FloatingPointError on NaN or infinity, NothingLearnedError on a loss that stands still too high."""
        if not math.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at {where}. Nothing of this step is saved; the last checkpoint is sound. "
                "Usual causes: a learning rate that is too high (or too short a warm-up), or fp16 where bf16 is needed"
            )
        self.first = loss if self.first is None else self.first
        self.recent.append(loss)
        if len(self.recent) < (self.recent.maxlen or 0) or len(set(self.recent)) > 1:
            return
        if loss <= max(SMALL_LOSS, SMALL_SHARE * self.first):
            if not self._converged:
                logger.warning(
                    f"the loss has been exactly {loss} for {len(self.recent)} steps up to {where}: nothing is left to "
                    "learn. The run goes on; fewer steps or more data would do"
                )
            self._converged = True
            return
        raise NothingLearnedError(
            f"the loss has been exactly {loss} for {len(self.recent)} steps up to {where} (it began at {self.first}): "
            "nothing is learned. Usual causes: all embeddings are the same, all parameters are frozen, or the "
            "learning rate is 0"
        )
