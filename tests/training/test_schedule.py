from __future__ import annotations

import pytest
import torch
from torch import nn

from modeling_ulip2.training.schedule import warmup_cosine, warmup_cosine_scheduler


def optimizer(*rates: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def test_ramp_peak_and_end():
    rates = [warmup_cosine(step, 100, 10, 3e-3, 1e-6, 1e-5) for step in range(102)]
    assert rates[0] == 1e-6 and rates[9] == pytest.approx(3e-3) and rates[10] == pytest.approx(3e-3)
    assert all(a < b for a, b in zip(rates[:9], rates[1:10], strict=True))
    assert all(a > b for a, b in zip(rates[10:100], rates[11:101], strict=True))
    assert rates[100] == rates[101] == 1e-5 < rates[99]


@pytest.mark.parametrize("warmup", [0, 1])
def test_without_a_ramp_the_peak_comes_first_or_second(warmup):
    assert warmup_cosine(warmup, 10, warmup, 1.0) == pytest.approx(1.0)


def test_each_group_has_its_own_peak():
    groups = optimizer(1e-3, 1e-4)
    scheduler = warmup_cosine_scheduler(groups, 20, 0, final=0.0)
    for _ in range(10):
        groups.step()
        scheduler.step()
    assert [group["lr"] for group in groups.param_groups] == pytest.approx([5e-4, 5e-5])


def test_groups_keep_their_proportion_down_to_the_last_rate():
    groups = optimizer(1e-3, 1e-5)
    scheduler = warmup_cosine_scheduler(groups, 4, 2, start=1e-6, final=1e-4)
    for _ in range(6):
        first, second = (group["lr"] for group in groups.param_groups)
        assert second == pytest.approx(first / 100)
        groups.step()
        scheduler.step()
    assert groups.param_groups[0]["lr"] == pytest.approx(1e-4), "stays there after the end of the cosine"


def test_state_goes_on_where_it_stopped():
    first, second = optimizer(1e-3), optimizer(1e-3)
    straight, stopped = warmup_cosine_scheduler(first, 20, 4), warmup_cosine_scheduler(second, 20, 4)
    for scheduler, own, steps in ((straight, first, 12), (stopped, second, 7)):
        for _ in range(steps):
            own.step()
            scheduler.step()
    third = optimizer(1e-3)
    resumed = warmup_cosine_scheduler(third, 20, 4)
    third.load_state_dict(second.state_dict())
    resumed.load_state_dict(stopped.state_dict())
    for _ in range(5):
        third.step()
        resumed.step()
    assert third.param_groups[0]["lr"] == first.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("steps", "warmup", "rate", "message"), [(10, 11, 1e-3, "do not fit"), (10, 1, 0.0, "positive")]
)
def test_impossible_schedules_are_refused(steps, warmup, rate, message):
    with pytest.raises(ValueError, match=message):
        warmup_cosine_scheduler(optimizer(rate), steps, warmup)
