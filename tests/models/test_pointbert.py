"""Point-BERT beyond the recorded numbers: precision, checkpointing, batching, bad clouds, initial weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from modeling_ulip2 import PointBertConfig, PointBertModel
from modeling_ulip2.models.modeling_pointbert import PointBertPatchEncoder, sample_patches
from modeling_ulip2.models.transformer_layers import drop_path
from tests.models.tiny import POINT_CONFIG, clouds


@pytest.fixture(scope="module")
def model() -> PointBertModel:
    torch.manual_seed(0)
    model = PointBertModel(PointBertConfig(**POINT_CONFIG)).eval()
    with torch.no_grad():  # statistics of a trained network, so that folding them matters
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return model


def test_output_shapes(model: PointBertModel) -> None:
    output = model(clouds(2))
    config = model.config
    assert output.tokens.shape == (2, config.num_groups, config.hidden_size)
    assert output.pooled.shape == (2, config.output_dim) == (2, 2 * config.hidden_size)
    assert output.centers.shape == (2, config.num_groups, 3)
    assert output.hidden_states is None and output.attentions is None


def test_pooled_is_cls_beside_the_maximum_of_the_tokens(model: PointBertModel) -> None:
    output = model(clouds(2))
    assert torch.equal(output.pooled[:, model.config.hidden_size :], output.tokens.max(dim=1).values)


def test_a_batch_gives_what_its_clouds_give_one_by_one(model: PointBertModel) -> None:
    points = clouds(3)
    together = model(points).pooled
    alone = torch.cat([model(cloud[None]).pooled for cloud in points])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_patch_encoder_equals_the_plain_convolutions(model: PointBertModel) -> None:
    """The computation with the concatenation written out, channels first and BatchNorm by itself."""
    neighborhood = sample_patches(clouds(2), 8, 6)[0]
    encoder = model.encoder
    for mode in (False, True):
        encoder = copy.deepcopy(encoder).train(mode)
        plain = copy.deepcopy(encoder)
        flat = neighborhood.flatten(0, 1).transpose(1, 2)  # (B * G, C, M)
        features = plain.first_conv(flat)
        maximum = features.max(dim=2, keepdim=True).values.expand_as(features)
        expected = plain.second_conv(torch.cat([maximum, features], dim=1)).max(dim=2).values.unflatten(0, (2, 8))
        torch.testing.assert_close(encoder(neighborhood), expected, atol=1e-5, rtol=1e-4)
        for ours, theirs in zip(encoder.buffers(), plain.buffers(), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_gradients_through_folded_batch_norm(model: PointBertModel) -> None:
    """In evaluation mode (a frozen BatchNorm while fine-tuning) gradients are those of the unfolded layers."""
    encoder, neighborhood = copy.deepcopy(model.encoder), sample_patches(clouds(1), 8, 6)[0]
    encoder(neighborhood).square().sum().backward()
    plain = copy.deepcopy(model.encoder)
    features = plain.first_conv(neighborhood.flatten(0, 1).transpose(1, 2))
    maximum = features.max(dim=2, keepdim=True).values.expand_as(features)
    plain.second_conv(torch.cat([maximum, features], dim=1)).max(dim=2).values.square().sum().backward()
    for ours, theirs in zip(encoder.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_implementations_agree(model: PointBertModel, implementation: str) -> None:
    points, expected = clouds(2), model(clouds(2)).pooled
    other = PointBertModel._from_config(model.config, attn_implementation=implementation).eval()
    other.load_state_dict(model.state_dict())
    assert other.config._attn_implementation == implementation
    torch.testing.assert_close(other(points).pooled, expected, atol=1e-5, rtol=1e-4)


def test_attention_weights_need_eager(model: PointBertModel) -> None:
    with pytest.raises(ValueError, match="attn_implementation='eager'"):
        model(clouds(1), output_attentions=True)
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    output = eager(clouds(1), output_attentions=True, output_hidden_states=True)
    tokens = model.config.num_groups + 1
    assert [weights.shape for weights in output.attentions] == [(1, 2, tokens, tokens)] * 2
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(1, 2, tokens))
    assert len(output.hidden_states) == 3


def test_gradient_checkpointing_changes_no_gradient(model: PointBertModel) -> None:
    gradients = []
    for checkpointing in (False, True):
        trained = PointBertModel(PointBertConfig(**POINT_CONFIG | {"drop_path_rate": 0.0}))
        trained.load_state_dict(model.state_dict())
        if checkpointing:
            trained.gradient_checkpointing_enable()
            assert trained.is_gradient_checkpointing
        trained.train()(clouds(2)).pooled.square().sum().backward()
        gradients.append({name: parameter.grad for name, parameter in trained.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], msg=name)


def test_bf16_autocast_keeps_the_groups(model: PointBertModel) -> None:
    points = clouds(2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        groups, output = sample_patches(points, 8, 6), model(points)
    for inside, outside in zip(groups, sample_patches(points, 8, 6), strict=True):
        assert torch.equal(inside, outside)
    assert output.centers.dtype == torch.float32
    exact = model(points).pooled
    assert nn.functional.cosine_similarity(output.pooled.float(), exact).min() > 0.999


def test_bf16_weights(model: PointBertModel) -> None:
    half, points = copy.deepcopy(model).to(torch.bfloat16), clouds(2)
    output = half(points)
    assert output.pooled.dtype == torch.bfloat16
    assert torch.equal(output.centers, model(points).centers)
    assert nn.functional.cosine_similarity(output.pooled.float(), model(points).pooled).min() > 0.99


def test_stochastic_depth_rises_linearly_and_only_works_in_training() -> None:
    config = PointBertConfig(**POINT_CONFIG | {"num_hidden_layers": 5, "drop_path_rate": 0.2})
    model = PointBertModel(config)
    rates = [block.drop_path_rate for block in model.blocks.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    torch.manual_seed(0)
    branch = torch.ones(4000, 2, 3)
    dropped = drop_path(branch, 0.2, training=True)
    assert (dropped == dropped[:, :1, :1]).all()  # a sample goes or stays as a whole
    assert (dropped == 0).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)  # the expectation is kept
    assert torch.equal(drop_path(branch, 0.2, training=False), branch)
    assert not torch.equal(model.train()(clouds(8)).pooled, model(clouds(8)).pooled)


def test_few_points(model: PointBertModel) -> None:
    """Fewer points than groups repeat centers; a patch cannot have more points than the cloud."""
    config = model.config
    output = model(clouds(2, points=config.group_size))
    assert output.centers.shape[1] == config.num_groups > config.group_size
    assert output.pooled.isfinite().all()
    with pytest.raises(ValueError, match="group_size = 6"):
        model(clouds(2, points=config.group_size - 1))


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.zeros(50, 6), "shape"),
        (torch.zeros(1, 50, 3), "rgb after xyz"),
        (torch.zeros(1, 6, 50), "shape"),
        (torch.zeros(1, 50, 6, dtype=torch.long), "floating"),
        ([[0.0] * 6] * 50, "floating tensor, got list"),
    ],
)
def test_wrong_clouds_are_refused(model: PointBertModel, points: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        model(points)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_clouds_that_are_not_finite_are_named(model: PointBertModel, value: float) -> None:
    points = clouds(3)
    points[1, 7, 4] = value
    with pytest.raises(ValueError, match=r"NaN or infinite values in the clouds \[1\]"):
        model(points)


def test_initial_weights_are_those_of_the_published_code() -> None:
    torch.manual_seed(0)
    model = PointBertModel(PointBertConfig(**POINT_CONFIG | {"hidden_size": 128}))
    assert model.cls_token.abs().max() == 0
    assert model.cls_pos.std().item() == pytest.approx(1, abs=0.2)
    weight = model.blocks.blocks[0].mlp.fc1.weight
    assert weight.abs().max() <= 128**-0.5 and weight.std().item() == pytest.approx((128 * 3) ** -0.5, rel=0.05)


def test_tensors_missing_from_a_checkpoint_are_initialized(model: PointBertModel, tmp_path) -> None:
    """Loading builds the model on the meta device: what a checkpoint lacks must not hold garbage."""
    kept = {name: value for name, value in model.state_dict().items() if name.startswith("blocks.")}
    model.save_pretrained(tmp_path, state_dict=kept)
    loaded = PointBertModel.from_pretrained(tmp_path)
    norm = loaded.encoder.first_conv[1]
    assert torch.equal(norm.running_var, torch.ones_like(norm.running_var)) and norm.num_batches_tracked == 0
    assert loaded.cls_token.abs().max() == 0
    assert 0.5 < loaded.cls_pos.std().item() < 2
    assert loaded.pos_embed[0].weight.abs().max() <= 3**-0.5
    for name, value in kept.items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert loaded(clouds(1)).pooled.isfinite().all()


def test_save_and_load(model: PointBertModel, tmp_path) -> None:
    model.save_pretrained(tmp_path)
    loaded = PointBertModel.from_pretrained(tmp_path)
    assert not loaded.training
    assert torch.equal(loaded(clouds(1)).pooled, model(clouds(1)).pooled)


def test_patch_encoder_takes_any_number_of_channels() -> None:
    encoder = PointBertPatchEncoder(in_channels=4, encoder_dims=POINT_CONFIG["encoder_dims"])
    assert encoder(torch.rand(2, 3, 5, 4)).shape == (2, 3, 16)
