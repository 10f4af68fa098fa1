"""The point side of a model as a traced program, for any number of clouds and points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from modeling_ulip2.models.configuration_ulip2 import Ulip2Config
from modeling_ulip2.models.point_encoder import PointEncoderPreTrainedModel

# The sizes of the cloud that is traced. Neither is 1, which torch would take for a constant.
_TRACED_CLOUDS = 2
_TRACED_POINTS = 1024


class PointSide(nn.Module):
    """Clouds (B, N, C) -> `OUTPUTS`; `point_embeds` only of a model with a projection, and not normalized."""

    def __init__(self, model: PreTrainedModel):
        super().__init__()
        self.encoder = getattr(model, "point_model", model)
        self.projection = getattr(model, "point_projection", None)

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("pooled", "tokens", "centers", *(() if self.projection is None else ("point_embeds",)))

    def forward(self, point_values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        encoded = self.encoder(point_values)
        outputs = (encoded.pooled, encoded.tokens, encoded.centers)
        return outputs if self.projection is None else (*outputs, self.projection(encoded.pooled))


def point_side(model: Any) -> PointSide:
    """The point side of a `Ulip2Model`, `Ulip2PointModel`, `Ulip2PointModelWithProjection` or point encoder.

    Raises:
        ValueError: the model is another one, or in training mode.
    """
    config = getattr(model, "config", None)
    if not isinstance(model, PointEncoderPreTrainedModel) and not (
        isinstance(config, Ulip2Config) and hasattr(model, "point_model")
    ):
        raise ValueError(
            f"a {type(model).__name__} cannot be exported: pass a Ulip2Model, Ulip2PointModel, "
            "Ulip2PointModelWithProjection or a point encoder."
        )
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() before it is exported.")
    return PointSide(model).eval()


def example_clouds(side: PointSide, batch: int = _TRACED_CLOUDS, points: int = _TRACED_POINTS) -> torch.Tensor:
    """Random clouds (B, N, C) in the unit cube, on the device of the model."""
    parameter = next(side.parameters())
    generator = torch.Generator().manual_seed(batch * points)
    values = torch.rand(batch, points, side.encoder.config.in_channels, generator=generator)
    values[..., :3] = values[..., :3] * 2 - 1
    return values.to(parameter.device)


def trace(side: PointSide) -> torch.export.ExportedProgram:
    any_size = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}
    with torch.no_grad():
        return torch.export.export(side, (example_clouds(side),), dynamic_shapes={"point_values": any_size})


def largest_deviation(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor]) -> float:
    """The largest distance between what two sides give for a cloud, relative to the length of what is expected.

    Args:
        found, expected: `PointSide.outputs`, (B, ...) each.
    """
    worst = 0.0
    for one, other in zip(found, expected, strict=True):
        if one.shape != other.shape:
            return float("inf")
        one, other = one.float().flatten(1), other.float().flatten(1)
        deviation = (one - other).norm(dim=-1) / other.norm(dim=-1).clamp_min(1e-12)  # (B,)
        worst = float(deviation.max().nan_to_num(float("inf")).clamp_min(worst))
    return worst


def check_deviation(deviation: float, tolerance: float) -> None:
    """Raises ValueError for more than `tolerance`, or NaN."""
    if not deviation <= tolerance:
        raise ValueError(
            f"the export deviates from the model by {deviation:.1e} (relative), more than {tolerance:.0e}; "
            "nothing was written."
        )
