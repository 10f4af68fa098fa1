"""Learning rate of every iteration: a linear warm-up, then half a cosine."""

from __future__ import annotations

import math
from functools import partial

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def warmup_cosine(
    step: int, num_steps: int, num_warmup_steps: int, peak: float, start: float = 1e-6, final: float = 1e-5
) -> float:
    """Learning rate of iteration `step` (counted from 0) of `num_steps`.

    As in ULIP's schedule, the ramp from `start` to `peak` includes both ends, and the cosine is divided by the number
    of iterations left, so the last one stays slightly above `final`. From `num_steps` on it is `final`.
    """
    if step >= num_steps:
        return final
    if step < num_warmup_steps:
        return start + (peak - start) * step / max(num_warmup_steps - 1, 1)
    progress = (step - num_warmup_steps) / (num_steps - num_warmup_steps)
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * progress))


def warmup_cosine_scheduler(
    optimizer: Optimizer, num_steps: int, num_warmup_steps: int, start: float = 1e-6, final: float = 1e-5
) -> LambdaLR:
    """A scheduler that follows `warmup_cosine`.

    The peak of each parameter group is its own learning rate. `start` and `final` are those of the group with the
    highest one; the others keep their proportion to it all the way.

    Args:
        num_steps: length of the cosine; a longer training goes on at `final`.
    """
    if not 0 <= num_warmup_steps <= num_steps:
        raise ValueError(f"{num_warmup_steps} warm-up steps do not fit into {num_steps} training steps")
    peaks = [group["lr"] for group in optimizer.param_groups]
    if not all(peak > 0 for peak in peaks):
        raise ValueError(f"the learning rate must be positive, not {min(peaks)}")
    return LambdaLR(optimizer, partial(_factor, num_steps, num_warmup_steps, max(peaks), start, final))


def _factor(num_steps: int, num_warmup_steps: int, peak: float, start: float, final: float, step: int) -> float:
    return warmup_cosine(step, num_steps, num_warmup_steps, peak, start, final) / peak
