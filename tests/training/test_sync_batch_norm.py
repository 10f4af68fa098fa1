from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from modeling_ulip2.training.sync_batch_norm import SyncBatchNorm, synchronize_batch_norm

SHAPES = {"vectors": (7, 3), "sequences": (7, 3, 5)}
# the two processes hold batches of different sizes
SPLIT = 3


def layer(**kwargs) -> nn.BatchNorm1d:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3, **kwargs)
    if norm.affine:
        nn.init.uniform_(norm.weight)
        nn.init.normal_(norm.bias)
    return norm


LAYERS = {
    "usual": {},
    "cumulative": {"momentum": None},
    "plain": {"affine": False},
    "untracked": {"track_running_stats": False},
}


def batch(name: str) -> torch.Tensor:
    # a mean much larger than the spread: sums of squares would lose it
    return torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(1)) + 1000


def run(norm: nn.Module, values: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """Two training steps; output, gradient of the input, gradients and buffers."""
    values = values.clone().requires_grad_()
    norm(values)
    output = norm(values)
    (output * weight).sum().backward()
    return [output.detach(), values.grad, *(p.grad for p in norm.parameters()), *norm.buffers()]


def process(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for shape in SHAPES:
        for kind, kwargs in LAYERS.items():
            values = batch(shape)
            part = slice(0, SPLIT) if rank == 0 else slice(SPLIT, None)
            norm = synchronize_batch_norm(nn.Sequential(layer(**kwargs)))
            weight = torch.linspace(-1, 1, values.numel()).view_as(values)
            results[shape, kind] = run(norm, values[part], weight[part])
            results[shape, kind].append(norm.eval()(values[part]))
    torch.save(results, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path):
    mp.start_processes(process, (tmp_path,), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for (shape, kind), kwargs in ((key, LAYERS[key[1]]) for key in first):
        norm, values = layer(**kwargs), batch(shape)
        expected = run(norm, values, torch.linspace(-1, 1, values.numel()).view_as(values))
        expected.append(norm.eval()(values))
        parameters = len(list(norm.parameters()))
        for index, (one, two, whole) in enumerate(zip(first[shape, kind], second[shape, kind], expected, strict=True)):
            if index in (0, 1, len(expected) - 1):  # a row for each sample
                one, two = torch.cat([one, two]), whole
            elif index < 2 + parameters:  # each process has its part of the gradient
                one, two = one + two, whole
            else:  # both keep the same buffers
                torch.testing.assert_close(one, two, rtol=0, atol=0)
                two = whole
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4, msg=lambda m: f"{shape}/{kind}, {index}: {m}")  # noqa: B023


def test_conversion_keeps_names_values_and_references():
    model = nn.Sequential(nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4), nn.Sequential(nn.BatchNorm2d(2)))
    before = copy.deepcopy(model.state_dict())
    parameters = dict(model.named_parameters())
    converted = synchronize_batch_norm(model)
    assert isinstance(converted[1], SyncBatchNorm) and isinstance(converted[2][0], SyncBatchNorm)
    assert list(converted.state_dict()) == list(before)
    for name, value in converted.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    assert all(value is parameters[name] for name, value in converted.named_parameters())


@pytest.mark.parametrize("training", [True, False])
def test_alone_it_is_an_ordinary_batch_norm(training):
    norm, values = layer().train(training), batch("sequences")
    converted = synchronize_batch_norm(copy.deepcopy(norm))
    torch.testing.assert_close(converted(values), norm(values), rtol=0, atol=0)
    torch.testing.assert_close(converted.running_var, norm.running_var, rtol=0, atol=0)
