"""What every point encoder promises, tested on a small one of each kind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel

from modeling_ulip2 import Ulip2Config, Ulip2Model, Ulip2PointModelWithProjection
from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS
from tests.models import tiny

Encoder = Any


@pytest.fixture(params=list(tiny.ENCODERS))
def model_type(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def encoder(model_type: str) -> Encoder:
    return make_encoder(model_type)


def make_encoder(model_type: str, **fields: Any) -> Encoder:
    torch.manual_seed(0)
    classes = POINT_ENCODERS[model_type]
    assert classes.model_class is not None
    encoder = classes.model_class(classes.config_class(**tiny.ENCODERS[model_type] | fields)).eval()
    for name, buffer in encoder.named_buffers():  # statistics that a BatchNorm can be wrong about
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return encoder


def points_for(encoder: Encoder, batch: int = 2, points: int = 60, seed: int = 0) -> torch.Tensor:
    return tiny.clouds(batch, points, encoder.config.in_channels, seed)


def test_output(encoder: Encoder) -> None:
    with torch.no_grad():
        output = encoder(points_for(encoder, batch=3), output_hidden_states=True)
    tokens, config = output.tokens, encoder.config
    assert output.pooled.shape == (3, config.output_dim)
    assert tokens.ndim == 3 and tokens.shape[0] == 3 and tokens.shape[2] == config.hidden_size
    assert output.centers.shape == (*tokens.shape[:2], 3) and output.centers.dtype == torch.float32
    assert len(output.hidden_states) >= 2
    for values in (output.pooled, tokens, output.centers, *output.hidden_states):
        assert values.isfinite().all()
    for centers, points in zip(output.centers, points_for(encoder, batch=3), strict=True):
        assert (centers[:, None] == points[None, :, :3]).all(dim=-1).any(dim=1).all()


def test_batched_is_one_by_one(encoder: Encoder) -> None:
    points = points_for(encoder, batch=3)
    with torch.no_grad():
        together = encoder(points)
        for i in range(3):
            alone = encoder(points[i : i + 1])
            torch.testing.assert_close(alone.pooled[0], together.pooled[i], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(alone.tokens[0], together.tokens[i], atol=1e-5, rtol=1e-4)
            assert torch.equal(alone.centers[0], together.centers[i])


def test_evaluation_is_deterministic_and_clouds_differ(encoder: Encoder) -> None:
    points = points_for(encoder)
    with torch.no_grad():
        first, second = encoder(points).pooled, encoder(points).pooled
    assert torch.equal(first, second)
    assert not torch.allclose(first[0], first[1], atol=1e-4)


def test_few_points(encoder: Encoder) -> None:
    with torch.no_grad():
        output = encoder(points_for(encoder, batch=1, points=9))
    assert output.pooled.isfinite().all() and output.tokens.isfinite().all()


def test_bf16_autocast(encoder: Encoder) -> None:
    points = points_for(encoder)
    with torch.no_grad():
        exact = encoder(points)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = encoder(points)
    assert torch.equal(rounded.centers, exact.centers)
    assert nn.functional.cosine_similarity(rounded.pooled.float(), exact.pooled).min() > 0.99


def test_bf16_weights(encoder: Encoder) -> None:
    half, points = copy.deepcopy(encoder).to(torch.bfloat16), points_for(encoder)
    with torch.no_grad():
        output, exact = half(points), encoder(points)
    assert output.pooled.dtype == torch.bfloat16
    assert torch.equal(output.centers, exact.centers)
    assert nn.functional.cosine_similarity(output.pooled.float(), exact.pooled).min() > 0.98


@pytest.mark.parametrize("damage", ["shape", "channels", "integers", "nan", "empty"])
def test_wrong_clouds_are_refused(encoder: Encoder, damage: str) -> None:
    points = points_for(encoder)
    messages = {
        "integers": "floating",
        "nan": r"NaN or infinite values in the clouds \[1\]",
        "empty": "0 points per cloud",
    }
    if damage == "shape":
        points = points[0]
    elif damage == "channels":
        points = points[..., :2]
    elif damage == "integers":
        points = points.long()
    elif damage == "nan":
        points[1, 5, 0] = float("nan")
    else:
        points = points[:, :0]
    with pytest.raises(ValueError, match=messages.get(damage, "must have shape")):
        encoder(points)


def test_gradients_reach_every_parameter(encoder: Encoder) -> None:
    """In training mode, and through the points to wherever they come from."""
    encoder.train()
    points = points_for(encoder, batch=4).requires_grad_()
    torch.manual_seed(0)
    output = encoder(points)
    (output.pooled.square().sum() + output.tokens.square().sum()).backward()
    without = [name for name, parameter in encoder.named_parameters() if parameter.grad is None]
    assert not without
    assert points.grad is not None and points.grad.abs().sum() > 0


def test_training_lowers_the_loss(encoder: Encoder) -> None:
    """Four clouds learn four random embeddings."""
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    points = points_for(encoder, batch=4)
    target = torch.randn(4, encoder.config.output_dim, generator=torch.Generator().manual_seed(3)).relu()
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-2)
    losses = []
    for step in range(40):
        torch.manual_seed(step)
        loss = (encoder.train()(points).pooled - target).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(losses[-5:]) < 0.8 * losses[0], losses


def test_save_and_load(encoder: Encoder, tmp_path: Path) -> None:
    encoder.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is type(encoder) and not loaded.training
    assert loaded.config.to_dict() == AutoConfig.from_pretrained(tmp_path).to_dict()
    with torch.no_grad():
        assert torch.equal(loaded(points_for(encoder)).pooled, encoder(points_for(encoder)).pooled)


def test_tensors_missing_from_a_checkpoint_are_initialized(encoder: Encoder, tmp_path: Path) -> None:
    """Loading builds the model on the meta device: what a checkpoint lacks must not hold garbage."""
    name, kept = next((name, value) for name, value in encoder.state_dict().items() if value.ndim > 1)
    encoder.save_pretrained(tmp_path, state_dict={name: kept})
    loaded = type(encoder).from_pretrained(tmp_path)
    fresh = type(encoder)(encoder.config)
    for key, value in loaded.state_dict().items():
        if key == name:
            assert torch.equal(value, kept)
            continue
        reference = fresh.state_dict()[key].float()
        assert value.isfinite().all()
        if (reference == reference.flatten()[0]).all():  # constants: norms, statistics, counters, affine modules
            assert torch.equal(value.float(), reference), key
        else:
            assert value.abs().max() <= 6 * reference.abs().max(), key
            assert value.abs().max() > 0, key


def test_inside_the_tri_modal_model(model_type: str, tmp_path: Path) -> None:
    point_config = {"model_type": model_type, **tiny.ENCODERS[model_type]}
    config = Ulip2Config(point_config=point_config, projection_dim=tiny.PROJECTION_DIM)
    model = Ulip2Model(config).eval()
    points = points_for(model.point_model)
    embeds = torch.randn(2, tiny.PROJECTION_DIM, generator=torch.Generator().manual_seed(0))
    output = model(point_values=points, text_embeds=embeds, image_embeds=embeds.flip(0), return_loss=True)
    assert output.loss.isfinite() and output.point_embeds.shape == (2, tiny.PROJECTION_DIM)
    output.loss.backward()
    model.save_pretrained(tmp_path)
    for implementation in ("eager", "sdpa"):
        loaded = Ulip2Model.from_pretrained(tmp_path, attn_implementation=implementation)
        assert type(loaded.point_model) is POINT_ENCODERS[model_type].model_class
        torch.testing.assert_close(loaded(point_values=points).point_embeds, output.point_embeds)
    projected = Ulip2PointModelWithProjection.from_pretrained(tmp_path)
    unit = nn.functional.normalize(projected(points).point_embeds, dim=-1)
    torch.testing.assert_close(unit, output.point_embeds)
