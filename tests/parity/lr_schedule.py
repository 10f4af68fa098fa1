"""`lr_schedule/<file>`: the learning rate of every iteration, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from modeling_ulip2.training.schedule import warmup_cosine, warmup_cosine_scheduler
from tests.parity import Case, TensorFile, read_json


def cases(folder: Path) -> Iterator[Case]:
    for path in sorted(folder.glob("*.safetensors")):
        declared = set(read_json(path.with_suffix(".json"))["cases"])
        for name in sorted(declared | set(TensorFile(path))):
            yield Case(folder.name, f"{path.stem}/{name}", [path, path.with_suffix(".json")], data=(path, name))


def check(case: Case) -> None:
    path, name = case.data
    expected = TensorFile(path)[name]  # (steps,)
    settings = dict(read_json(path.with_suffix(".json"))["cases"][name])
    per_epoch = settings.pop("niter_per_ep")
    num_steps = settings.pop("epochs") * per_epoch
    warmup = settings.pop("warmup_epochs", 0) * per_epoch
    peak, final = settings.pop("base_value"), settings.pop("final_value")
    start = settings.pop("start_warmup_value", 0)
    assert not settings, f"{case.name}: unknown settings {sorted(settings)}"

    rates = [warmup_cosine(step, num_steps, warmup, peak, start, final) for step in range(num_steps)]
    case.close("rates", torch.tensor(rates, dtype=torch.float64), expected, atol=1e-12, rtol=1e-9)

    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=peak)
    scheduler = warmup_cosine_scheduler(optimizer, num_steps, warmup, start, final)
    stepped = []
    for _ in range(num_steps):
        stepped.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    case.close("rates of the scheduler", torch.tensor(stepped, dtype=torch.float64), expected, atol=1e-12, rtol=1e-9)
