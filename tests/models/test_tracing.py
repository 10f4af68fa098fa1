"""What torch.export, FakeTensorMode and the meta device leave behind: nothing, whether they succeed or fail."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from modeling_ulip2 import Ulip2Config, Ulip2PointModelWithProjection
from modeling_ulip2.models import point_ops
from modeling_ulip2.models.point_ops import FPS_PPAT, FPSRule, farthest_point_sample
from tests.models import tiny

# Every call gets a number of points of its own, so that no cache knows it before it is traced.
FRESH = itertools.count(61)


def export(model: Callable[..., object], values: torch.Tensor) -> None:
    torch.export.export(model, (values,), strict=False)  # type: ignore[arg-type]


def strict_export(model: Callable[..., object], values: torch.Tensor) -> None:
    torch.export.export(model, (values,), strict=True)  # type: ignore[arg-type]


def run_on_fakes(model: Callable[..., object], values: torch.Tensor) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        model(mode.from_tensor(values))


def run_under_meta(model: Callable[..., object], values: torch.Tensor) -> None:
    with torch.device("meta"):
        model(values)


def run_for_inference(model: Callable[..., object], values: torch.Tensor) -> None:
    with torch.inference_mode():
        model(values)


TRACERS = [export, strict_export, run_on_fakes, run_under_meta, run_for_inference]


@pytest.mark.parametrize("trace", TRACERS, ids=lambda trace: trace.__name__)
@pytest.mark.parametrize("model_type", list(tiny.ENCODERS))
def test_a_model_runs_as_before(model_type: str, trace: Callable[..., None]) -> None:
    torch.manual_seed(0)
    config = Ulip2Config(
        point_config={"model_type": model_type, **tiny.ENCODERS[model_type]}, projection_dim=tiny.PROJECTION_DIM
    )
    model = Ulip2PointModelWithProjection(config).eval()
    values = torch.rand(2, next(FRESH), config.point_config.in_channels)
    try:
        trace(model, values)
    except Exception as error:  # whether this encoder can be traced is another question
        print(f"{trace.__name__}: {type(error).__name__}")
    found = model(values).point_embeds
    assert type(found) is torch.Tensor and found.device == values.device and bool(found.isfinite().all())
    found.sum().backward()
    assert type(model.point_projection.weight.grad) is torch.Tensor


@pytest.mark.parametrize("rule", [FPSRule(), FPS_PPAT], ids=["bit reversed", "plain"])
@pytest.mark.parametrize("trace", TRACERS, ids=lambda trace: trace.__name__)
def test_sampling_gives_the_same_indices(trace: Callable[..., None], rule: FPSRule) -> None:
    class Sample(torch.nn.Module):
        def forward(self, xyz: torch.Tensor) -> torch.Tensor:
            return farthest_point_sample(xyz, 9, rule)

    xyz = torch.randn(1, next(FRESH), 3, generator=torch.Generator().manual_seed(1))
    padded = torch.cat([xyz, xyz[:, -1:]], dim=1)  # another number of points, which is not traced
    expected = farthest_point_sample(padded, 9, rule)
    try:
        trace(Sample(), xyz)
    except Exception as error:
        print(f"{trace.__name__}: {type(error).__name__}")
    assert torch.equal(farthest_point_sample(xyz, 9, rule), farthest_point_sample(xyz, 9, rule, backend="torch"))
    assert torch.equal(farthest_point_sample(padded, 9, rule), expected)


def test_what_is_kept_on_a_device_is_an_ordinary_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if a tracer were at work: a fake one would fail every later pass. A device that is no CPU, but computes."""

    class Device:
        type = "other"

    moved: list[object] = []
    real = torch.Tensor.to

    def to(tensor: torch.Tensor, device: object) -> torch.Tensor:
        moved.append(device)
        return real(tensor, "cpu")

    monkeypatch.setattr(torch.Tensor, "to", to)
    device, points = Device(), next(FRESH)
    arguments = (points, 512, True, device)
    with FakeTensorMode():
        assert isinstance(point_ops._tie_order(*arguments), FakeTensor)  # type: ignore[arg-type]
    with torch.inference_mode():
        order = point_ops._tie_order(*arguments)  # type: ignore[arg-type]
    assert type(order) is torch.Tensor and not order.is_inference() and sorted(order.tolist()) == list(range(points))
    assert point_ops._tie_order(*arguments) is order and len(moved) == 2  # type: ignore[arg-type]
    monkeypatch.setattr(point_ops, "_MOST_ORDERS", 1)
    point_ops._tie_order(points + 1, 512, True, device)  # type: ignore[arg-type]
    assert list(point_ops._ORDERS) == [(points + 1, 512, True, device)]
    point_ops._ORDERS.clear()
