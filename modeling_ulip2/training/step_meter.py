"""What is told of the steps between two lines of a training's log."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

# Fields of the loss that are told beside it, see `ContrastiveTerms`.
PARTS = ("text_loss", "image_loss", "text_accuracy", "image_accuracy")


class StepMeter:
    """Means over the steps since the last report, and clouds per second; time in `paused` does not count."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))
        self._steps, self._clouds, self._started = 0, 0, time.perf_counter()

    def add(self, terms: Any, clouds: int) -> None:
        """Counts a step over `clouds` clouds of all processes, with `PARTS` as attributes of `terms`."""
        self._steps += 1
        self._clouds += clouds
        for name in PARTS:
            value = getattr(terms, name, None)
            if value is not None:  # stays where it is: no synchronization with the device
                value = value.detach().float()
                self._sums[name] = self._sums[name].to(value.device) + value

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves out what is no step: an evaluation, the writing of a checkpoint."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._started += time.perf_counter() - begun

    def report(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over steps and processes, `samples_per_second`; then counts anew. All processes call it together."""
        if not self._steps:
            return {}
        seconds = max(time.perf_counter() - self._started, 1e-9)
        found = {}
        if self._sums:
            means = torch.stack([value / self._steps for value in self._sums.values()])
            means = accelerator.reduce(means.to(accelerator.device), "mean")
            found = {name: round(value, 4) for name, value in zip(self._sums, means.tolist(), strict=True)}
        found["samples_per_second"] = round(self._clouds / seconds, 2)
        self._sums.clear()
        self._steps, self._clouds, self._started = 0, 0, time.perf_counter()
        return found
