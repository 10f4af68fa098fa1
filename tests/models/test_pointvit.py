"""PPAT and Uni3D beyond the recorded numbers: random starts, dropped patches, attention, sizes, checkpointing."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from modeling_ulip2 import PpatConfig, PpatModel, Uni3dConfig, Uni3dModel
from modeling_ulip2.models.configuration_ulip2 import UNI3D_SIZES
from tests.models import tiny

KINDS: dict[str, tuple[type[PreTrainedModel], dict[str, Any]]] = {
    "ppat": (PpatModel, {}),
    "ppat_relative": (PpatModel, {"relative_position_bias": True}),
    "uni3d_gelu": (Uni3dModel, {"mlp_kind": "gelu", "fused_qkv": True}),
    "uni3d_swiglu": (Uni3dModel, {"mlp_kind": "swiglu", "fused_qkv": True}),
    "uni3d_swiglu_norm": (Uni3dModel, {"mlp_kind": "swiglu_norm", "fused_qkv": False}),
}


def build(kind: str, attention: str = "sdpa", **fields: Any) -> PreTrainedModel:
    model_class, own = KINDS[kind]
    config = model_class.config_class(**tiny.ENCODERS[model_class.config_class.model_type] | own | fields)
    torch.manual_seed(0)
    return model_class._from_config(config, attn_implementation=attention).eval()


@pytest.mark.parametrize("kind", list(KINDS))
def test_attention_implementations_agree(kind: str) -> None:
    points = tiny.clouds(2)
    sdpa, eager = build(kind), build(kind, "eager")
    with torch.no_grad():
        output = eager(points, output_attentions=True, output_hidden_states=True)
        torch.testing.assert_close(sdpa(points).pooled, output.pooled, atol=1e-5, rtol=1e-4)
    tokens = output.tokens.shape[1] + 1
    assert len(output.attentions) == len(output.hidden_states) - 1 == eager.config.num_hidden_layers
    assert output.attentions[0].shape == (2, eager.config.num_attention_heads, tokens, tokens)
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones_like(output.attentions[0][..., 0]))
    with pytest.raises(ValueError, match="eager"):
        sdpa(points, output_attentions=True)


@pytest.mark.parametrize("kind", list(KINDS))
def test_gradient_checkpointing_gives_the_same_gradients(kind: str) -> None:
    model, points = build(kind, num_hidden_layers=2), tiny.clouds(2)
    checkpointed = copy.deepcopy(model)
    checkpointed.gradient_checkpointing_enable()
    for m in (model, checkpointed):
        m.train()
        torch.manual_seed(3)  # of PPAT's random start
        m(points).pooled.square().sum().backward()
    for (name, ours), theirs in zip(model.named_parameters(), checkpointed.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_ppat_starts_at_random_in_training_and_at_point_0_in_evaluation() -> None:
    model, points = build("ppat"), tiny.clouds(4)
    with torch.no_grad():
        assert torch.equal(model(points).centers[:, 0], points[:, 0, :3])
        model.train()
        torch.manual_seed(0)
        first = model(points).centers
        torch.manual_seed(0)
        assert torch.equal(model(points).centers, first)
        assert not torch.equal(model(points).centers[:, 0], first[:, 0])


def test_ppat_starts_where_it_is_told() -> None:
    model, points = build("ppat"), tiny.clouds(2)
    starts = torch.tensor([[7, 31]])
    with torch.no_grad():
        centers = model(points, start_indices=starts).centers
    assert torch.equal(centers[:, 0], points[torch.arange(2), starts[0], :3])
    for wrong in (torch.tensor([[7, 60]]), torch.tensor([[-1, 0]]), torch.tensor([7, 3, 1])):
        with pytest.raises(ValueError, match="start"):
            model(points, start_indices=wrong)


def test_generator_draws_in_evaluation_too() -> None:
    model, points = build("ppat"), tiny.clouds(4)
    with torch.no_grad():
        drawn = [model(points, generator=torch.Generator().manual_seed(seed)).centers[:, 0] for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


@pytest.mark.parametrize(("kind", "dropout", "kept"), [("ppat", 2, 4), ("uni3d_gelu", 0.5, 3)])
def test_patches_are_dropped_in_training_only(kind: str, dropout: float, kept: int) -> None:
    model, points = build(kind, patch_dropout=dropout), tiny.clouds(2)
    assert model(points).tokens.shape[1] == model.config.num_groups
    output = model.train()(points)
    assert output.tokens.shape[1] == output.centers.shape[1] == kept


def test_dropped_patches_of_uni3d_are_a_subset_and_reproducible() -> None:
    model, points = build("uni3d_gelu", patch_dropout=0.5), tiny.clouds(2)
    every = model(points).centers
    model.train()
    kept = [model(points, generator=torch.Generator().manual_seed(seed)).centers for seed in (0, 0, 1)]
    assert torch.equal(kept[0], kept[1]) and not torch.equal(kept[0], kept[2])
    distances = torch.cdist(kept[0], every).min(dim=-1).values
    assert torch.equal(distances, torch.zeros_like(distances))


def test_stochastic_depth_of_uni3d() -> None:
    model, points = build("uni3d_gelu", drop_path_rate=0.5, num_hidden_layers=2), tiny.clouds(16)
    with torch.no_grad():
        assert torch.equal(model(points).pooled, model(points).pooled)
        model.train()
        model.encoder.eval()  # BatchNorm apart
        assert not torch.equal(model(points).pooled, model(points).pooled)


def test_one_head_as_wide_as_the_model_has_no_output_layer() -> None:
    """As published, where that case is an identity."""
    model = build("ppat", num_attention_heads=1, head_dim=16)
    assert not [name for name, _ in model.named_parameters() if "to_out" in name]
    assert model(tiny.clouds(1)).pooled.shape == (1, 16)


@pytest.mark.parametrize("size", list(UNI3D_SIZES))
def test_published_sizes_of_uni3d(size: str) -> None:
    """The number of parameters of the paper's table, in millions, without the image model's unused parts."""
    with torch.device("meta"):
        model = Uni3dModel(Uni3dConfig(**UNI3D_SIZES[size]))
    expected = {"tiny": 6.2, "small": 22.6, "base": 88.4, "large": 306.7, "giant": 1016.5}[size]
    assert model.num_parameters() / 1e6 == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("config", "fields", "message"),
    [
        (Uni3dConfig, {"mlp_kind": "relu"}, "mlp_kind"),
        (Uni3dConfig, {"num_attention_heads": 7}, "multiple"),
        (Uni3dConfig, {"patch_dropout": 1.0}, "patch_dropout"),
        (PpatConfig, {"in_channels": 2}, "in_channels"),
        (PpatConfig, {"group_radius": 0.0}, "group_radius"),
        (PpatConfig, {"patch_dropout": 384}, "patch_dropout"),
    ],
)
def test_impossible_configurations(config: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**fields)
