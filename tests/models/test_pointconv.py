"""PointNeXt, PointNet++ and PointMLP beyond their recorded vectors: sizes, options, random starts, layers."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modeling_ulip2 import (
    PointMLPConfig,
    PointMLPModel,
    PointNet2Config,
    PointNet2Model,
    PointNextConfig,
    PointNextModel,
)
from modeling_ulip2.conversion.pointconv import pointmlp_config, pointnet2_config, pointnext_config
from modeling_ulip2.models.configuration_ulip2 import POINTMLP_ELITE, POINTNET2_MSG, POINTNEXT_SIZES
from modeling_ulip2.models.modeling_pointmlp import PointMLPGrouper, PointMLPResidual
from modeling_ulip2.models.modeling_pointnet2 import PointNet2SetAbstraction
from modeling_ulip2.models.modeling_pointnext import PointNextBlock, PointSet
from modeling_ulip2.models.point_layers import Pointwise, pointwise, sampling_starts
from modeling_ulip2.models.point_ops import ball_query, gather_points
from tests.models import tiny


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Random statistics and affine parameters, so that no BatchNorm is an identity."""
    generator = torch.Generator().manual_seed(seed)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.running_mean.normal_(0, 0.2, generator=generator)
            norm.running_var.uniform_(0.5, 1.5, generator=generator)
            nn.init.uniform_(norm.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(norm.bias, 0, 0.2, generator=generator)
    return module


def make(model_type: str, **fields: Any) -> Any:
    config_class, model_class = {
        "ulip2_pointmlp": (PointMLPConfig, PointMLPModel),
        "ulip2_pointnet2": (PointNet2Config, PointNet2Model),
    }[model_type]
    torch.manual_seed(0)
    return randomize(model_class(config_class(**tiny.ENCODERS[model_type] | fields))).eval()


RANDOMLY_STARTING = ["ulip2_pointmlp", "ulip2_pointnet2"]


# --- random starts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", RANDOMLY_STARTING)
def test_evaluation_starts_at_point_0_unless_told_otherwise(model_type: str) -> None:
    model, points = make(model_type), tiny.clouds(2, 60, 3)
    with torch.no_grad():
        default = model(points)
        told = model(points, start_indices=torch.zeros(2, 2, dtype=torch.int64))
        first = model(points, generator=torch.Generator().manual_seed(5))
        second = model(points, generator=torch.Generator().manual_seed(5))
        other = model(points, generator=torch.Generator().manual_seed(6))
    assert torch.equal(default.pooled, told.pooled)
    assert torch.equal(first.pooled, second.pooled)
    assert not torch.equal(first.centers, default.centers) and not torch.equal(first.centers, other.centers)
    # a start is the first center, here of both levels
    told = model(points, start_indices=torch.tensor([[9, 3], [0, 0]]))
    assert torch.equal(told.centers[:, 0], torch.stack([points[0, 9], points[1, 3]]))


@pytest.mark.parametrize("model_type", RANDOMLY_STARTING)
def test_training_starts_anywhere_and_a_seed_fixes_it(model_type: str) -> None:
    model, points = make(model_type), tiny.clouds(4, 60, 3)
    centers = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        centers.append(copy.deepcopy(model).train()(points).centers)
    assert torch.equal(centers[0], centers[1])
    assert not torch.equal(centers[0], centers[2])


@pytest.mark.parametrize("model_type", RANDOMLY_STARTING)
def test_starts_are_checked(model_type: str) -> None:
    model, points = make(model_type), tiny.clouds(2, 60, 3)
    with pytest.raises(ValueError, match=r"start_indices must have shape \(2, 2\)"):
        model(points, start_indices=torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"one index in \[0, 60\)"):
        model(points, start_indices=torch.full((2, 2), 60))


def test_draws_cover_every_point_and_no_other() -> None:
    starts = sampling_starts([5, 3], 500, random=True)
    assert starts.shape == (2, 500) and starts.dtype == torch.int64
    assert set(starts[0].tolist()) == set(range(5)) and set(starts[1].tolist()) == set(range(3))
    assert not sampling_starts([5, 3], 500, random=False).any()


def test_attentions_are_refused() -> None:
    for model in (make("ulip2_pointmlp"), make("ulip2_pointnet2")):
        with pytest.raises(ValueError, match="has no attention"):
            model(tiny.clouds(1, 60, 3), output_attentions=True)


# --- layers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_pointwise_is_convolution_and_norm(bias: bool, training: bool) -> None:
    """Values, gradients and statistics are those of the channels-first layers."""
    torch.manual_seed(0)
    ours = randomize(nn.Sequential(nn.Conv2d(5, 7, 1, bias=bias), nn.BatchNorm1d(7))).train(training)
    conv, norm = copy.deepcopy(ours[0]), nn.BatchNorm2d(7).train(training)
    norm.load_state_dict(ours[1].state_dict())
    values = torch.randn(3, 4, 6, 5)
    found = pointwise(values, *ours)
    expected = norm(conv(values.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    weight = torch.randn_like(expected)
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    theirs = [*conv.parameters(), *norm.parameters()]
    for mine, other in zip(ours.parameters(), theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, atol=1e-4, rtol=1e-4)
    for mine, other in zip(ours.buffers(), norm.buffers(), strict=True):
        torch.testing.assert_close(mine, other)


def test_pointwise_sequence_runs_every_layer() -> None:
    layers = randomize(Pointwise(nn.Conv1d(4, 6, 1), nn.BatchNorm1d(6), nn.ReLU(), nn.Conv1d(6, 3, 1))).eval()
    values = torch.randn(2, 9, 4)
    plain = nn.Sequential(*layers)
    torch.testing.assert_close(layers(values), plain(values.mT).mT)


# --- PointNeXt -------------------------------------------------------------------------------------------------------


def test_the_larger_sizes_of_pointnext() -> None:
    """Blocks among the centers have the names and shapes of the published code."""
    counts = {}
    for name, fields in POINTNEXT_SIZES.items():
        with torch.device("meta"):
            model = PointNextModel(PointNextConfig(**fields))
        counts[name] = model.num_parameters()
        shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        width = model.config.width
        for stage, blocks in enumerate(model.config.blocks[:-1]):
            layers = {key.split(".")[3] for key in shapes if key.startswith(f"encoder.encoder.{stage}.")}
            assert layers == {str(i) for i in range(blocks)}
            for block in range(1, blocks):
                channels = width * 2**stage
                prefix = f"encoder.encoder.{stage}.{block}."
                assert shapes[f"{prefix}convs.convs.0.0.weight"] == (channels, channels + 3, 1, 1)
                assert shapes[f"{prefix}convs.convs.0.1.running_var"] == (channels,)
                assert shapes[f"{prefix}pwconv.0.0.weight"] == (4 * channels, channels, 1)
                assert shapes[f"{prefix}pwconv.1.0.weight"] == (channels, 4 * channels, 1)
                assert f"{prefix}pwconv.1.0.bias" not in shapes
    assert counts["small"] < counts["base"] < counts["large"] < counts["xlarge"]
    radii = PointNextConfig(**POINTNEXT_SIZES["base"]).radii
    assert radii[2] == pytest.approx([0.225, 0.3375, 0.3375]) and radii[1] == pytest.approx([0.15, 0.225])


@pytest.mark.parametrize("training", [False, True])
def test_inverted_residual_block(training: bool) -> None:
    """Against the block written out channels first (PointNeXt, section 3.2.2)."""
    torch.manual_seed(0)
    config = PointNextConfig(width=8, num_neighbors=6)
    block = randomize(PointNextBlock(config, 0.3, 8)).train(training)
    plain = copy.deepcopy(block)
    xyz, features = tiny.clouds(2, 40, 3), torch.randn(2, 40, 8)
    found = block(PointSet(xyz, features))
    assert torch.equal(found.xyz, xyz)

    def norm(values: torch.Tensor, of: nn.BatchNorm1d) -> torch.Tensor:
        return F.batch_norm(values, of.running_mean, of.running_var, of.weight, of.bias, training)

    ball = ball_query(xyz, xyz, 0.3, 6)
    offsets = (gather_points(xyz, ball) - xyz[:, :, None]) / 0.3
    values = torch.cat([offsets, gather_points(features, ball)], dim=-1).permute(0, 3, 1, 2)  # (B, 3 + C, N, K)
    conv, bn = plain.convs.convs[0][:2]
    values = norm(F.conv2d(values, conv.weight), bn).relu().amax(dim=3)  # (B, C, N)
    (wide, wide_norm, _), (narrow, narrow_norm) = plain.pwconv
    values = norm(F.conv1d(values, wide.weight), wide_norm).relu()
    values = norm(F.conv1d(values, narrow.weight), narrow_norm)
    torch.testing.assert_close(found.features, (values + features.mT).relu().mT, atol=1e-5, rtol=1e-4)


def test_pointnext_needs_a_point_behind_every_stride() -> None:
    model = PointNextModel(PointNextConfig(width=4)).eval()
    assert model(tiny.clouds(1, 16, 4)).centers.shape == (1, 1, 3)
    with pytest.raises(ValueError, match="fewer than the product of the strides = 16"):
        model(tiny.clouds(1, 15, 4))


def test_pointnext_without_stem() -> None:
    """Stride 2 from the first stage on."""
    config = PointNextConfig(width=4, blocks=(1, 2, 1), strides=(2, 2, 1), head_dims=(6,))
    model = randomize(PointNextModel(config)).eval()
    output = model(tiny.clouds(2, 30, 4), output_hidden_states=True)
    assert [state.shape for state in output.hidden_states] == [(2, 15, 8), (2, 7, 16)]
    assert output.pooled.shape == (2, 6) and config.hidden_size == 16


# --- PointNet++ ------------------------------------------------------------------------------------------------------


def test_multi_scale_network_has_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        model = PointNet2Model(PointNet2Config(**POINTNET2_MSG))
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    levels = {
        "sa1": (0, [[32, 32, 64], [64, 64, 128], [64, 96, 128]]),
        "sa2": (64 + 128 + 128, [[64, 64, 128], [128, 128, 256], [128, 128, 256]]),
    }
    count = 0
    for level, (channels, scales) in levels.items():
        for i, widths in enumerate(scales):
            width_in = 3 + channels
            for j, width in enumerate(widths):
                assert shapes[f"{level}.conv_blocks.{i}.{j}.weight"] == (width, width_in, 1, 1)
                assert shapes[f"{level}.bn_blocks.{i}.{j}.running_mean"] == (width,)
                count += width * width_in + 3 * width
                width_in = width
    for prefix, width_in, widths in (("sa3", 3 + 128 + 256 + 256, [256, 512, 1024]),):
        for j, width in enumerate(widths):
            assert shapes[f"{prefix}.mlp_convs.{j}.weight"] == (width, width_in, 1, 1)
            count += width * width_in + 3 * width
            width_in = width
    count += 1024 * 512 + 3 * 512 + 512 * 256 + 3 * 256
    assert model.num_parameters() == count
    assert model.config.output_dim == 256 and model.config.hidden_size == 640


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("features", [0, 2])
def test_multi_scale_level(training: bool, features: int) -> None:
    """Against the level written out channels first: features come before xyz, scales are concatenated."""
    torch.manual_seed(0)
    config = PointNet2Config(
        multi_scale=True,
        num_centers=(9,),
        radii=((0.2, 0.5),),
        num_neighbors=((4, 7),),
        mlp_dims=(((5, 6), (8,)),),
    )
    level = randomize(PointNet2SetAbstraction(config, 0, features)).train(training)
    plain = copy.deepcopy(level)
    xyz = tiny.clouds(2, 40, 3)
    values = torch.randn(2, 40, features) if features else None
    found = level(xyz, values, torch.zeros(2, dtype=torch.int64))
    expected = []
    for scale, (radius, k) in enumerate([(0.2, 4), (0.5, 7)]):
        ball = found.ball_index[scale]
        assert torch.equal(ball, ball_query(found.centers, xyz, radius, k, include_boundary=True))
        rows = gather_points(xyz, ball) - found.centers[:, :, None]
        if values is not None:
            rows = torch.cat([gather_points(values, ball), rows], dim=-1)
        rows = rows.permute(0, 3, 2, 1)  # (B, C, K, S)
        for conv, bn in zip(plain.conv_blocks[scale], plain.bn_blocks[scale], strict=True):
            rows = F.batch_norm(conv(rows), bn.running_mean, bn.running_var, bn.weight, bn.bias, training).relu()
        expected.append(rows.amax(dim=2).mT)
    torch.testing.assert_close(found.features, torch.cat(expected, dim=-1), atol=1e-5, rtol=1e-4)


def test_pointnet2_reads_further_features() -> None:
    """Six channels: color is a feature of the points and takes no part in the sampling."""
    model, points = make("ulip2_pointnet2", in_channels=6), tiny.clouds(2, 60, 6)
    recolored = torch.cat([points[..., :3], 1 - points[..., 3:]], dim=-1)
    with torch.no_grad():
        one, other = model(points), model(recolored)
    assert torch.equal(one.centers, other.centers) and not torch.allclose(one.pooled, other.pooled, atol=1e-4)


# --- PointMLP --------------------------------------------------------------------------------------------------------


def test_grouped_residual_layers_mix_their_groups() -> None:
    config = PointMLPConfig(groups=2, res_expansion=0.5, hidden_act="gelu", use_bias=True)
    layer = randomize(PointMLPResidual(config, 8))
    shapes = {name: tuple(value.shape) for name, value in layer.named_parameters() if value.ndim > 1}
    assert shapes == {
        "net1.0.weight": (4, 4, 1),
        "net2.0.weight": (8, 2, 1),
        "net2.3.weight": (8, 8, 1),
    }
    # one output channel depends on every input channel
    values = torch.randn(2, 8, 5, requires_grad=True)
    layer.eval()(values)[:, 0].sum().backward()
    assert (values.grad.abs().sum(dim=(0, 2)) > 0).all()


@pytest.mark.parametrize("use_xyz", [False, True])
@pytest.mark.parametrize("normalize", ["anchor", "center", None])
def test_geometric_affine_module(use_xyz: bool, normalize: str | None) -> None:
    stage = {"reducers": (2,), "k_neighbors": (6,), "dim_expansion": (2,), "pre_blocks": (1,), "pos_blocks": (1,)}
    config = PointMLPConfig(num_points=20, **stage, use_xyz=use_xyz, normalize=normalize)
    grouper = PointMLPGrouper(config, 0, 5)
    xyz, features, start = tiny.clouds(2, 40, 3), torch.randn(2, 40, 5) * 7 + 3, torch.zeros(2, dtype=torch.int64)
    centers, rows = grouper(xyz, features, start)
    center_index, neighbor_index = grouper.select(xyz, start)
    width = 5 + 3 * use_xyz
    assert rows.shape == (2, 10, 6, width + 5) and torch.equal(centers, gather_points(xyz, center_index))
    anchors = gather_points(features, center_index)
    assert torch.equal(rows[..., width:], anchors[:, :, None].expand(-1, -1, 6, -1))
    neighbors = gather_points(torch.cat([features, xyz], dim=-1), neighbor_index)[..., :width]
    normal = rows[..., :width]
    if normalize is None:
        assert torch.equal(normal, neighbors)
        return
    # a cloud has unit spread about its means, and moving or scaling features changes nothing
    if normalize == "center":
        torch.testing.assert_close(normal.mean(dim=2), torch.zeros(2, 10, width), atol=1e-5, rtol=0)
    else:
        own = neighbor_index == center_index[:, :, None]
        assert own.any(dim=2).all() and normal[own].abs().max() == 0
    torch.testing.assert_close(normal.flatten(1).std(dim=1), torch.ones(2), atol=1e-4, rtol=0)
    if not use_xyz:
        moved = grouper(xyz, features * 10 - 4, start)[1][..., :width]
        torch.testing.assert_close(moved, normal, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        grouper.affine_alpha.fill_(2.0)
        grouper.affine_beta.fill_(-1.0)
    torch.testing.assert_close(grouper(xyz, features, start)[1][..., :width], 2 * normal - 1)


def test_pointmlp_with_every_option() -> None:
    options = {"groups": 2, "use_xyz": True, "normalize": "center", "use_bias": True, "hidden_act": "gelu"}
    model = make("ulip2_pointmlp", in_channels=6, **options)
    output = model(tiny.clouds(2, 60, 6))
    assert output.pooled.shape == (2, 10) and output.pooled.isfinite().all()


def test_pointmlp_needs_a_group_of_points() -> None:
    model = make("ulip2_pointmlp")
    with pytest.raises(ValueError, match=r"fewer than k_neighbors\[0\] = 8"):
        model(tiny.clouds(1, 7, 3))


# --- configurations --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config_class", "fields", "message"),
    [
        (PointNextConfig, {"in_channels": 2}, "in_channels"),
        (PointNextConfig, {"strides": (1, 2, 2, 2, 2, 2)}, "last stage have stride 1"),
        (PointNextConfig, {"strides": (1, 2, 1, 2, 2, 1)}, "last stage have stride 1"),
        (PointNextConfig, {"blocks": (1, 1, 1, 1, 1, 2)}, "one block"),
        (PointNextConfig, {"blocks": (1, 1)}, "equally long"),
        (PointNextConfig, {"radius": 0}, "radius"),
        (PointNextConfig, {"num_neighbors": 0}, "num_neighbors"),
        (PointNextConfig, {"head_dims": ()}, "head_dims"),
        (PointNet2Config, {"in_channels": 2}, "in_channels"),
        (PointNet2Config, {"radii": ((0.1, 0.2), (0.4,))}, "num_neighbors must have"),
        (PointNet2Config, POINTNET2_MSG | {"multi_scale": False}, "one radius a level"),
        (PointNet2Config, {"num_centers": (512,)}, "each of the 1 levels"),
        (PointNet2Config, {"head_dims": (256,)}, "two entries"),
        (PointMLPConfig, {"in_channels": 2}, "in_channels"),
        (PointMLPConfig, {"pre_blocks": (1, 1)}, "equally long"),
        (PointMLPConfig, {"normalize": "mean"}, "normalize"),
        (PointMLPConfig, {"num_points": 64}, "k_neighbors"),
        (PointMLPConfig, {"num_points": 8, "k_neighbors": (1, 1, 1, 1)}, "centers"),
    ],
)
def test_configurations_that_cannot_work_are_refused(config_class: Any, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_class(**fields)


@pytest.mark.parametrize(
    ("convert", "published", "message"),
    [
        (pointnext_config, {"encoder": {"width": 8, "feature_type": "fj"}, "head": {}}, "feature_type = 'fj'"),
        (pointnext_config, {"encoder": {"depth": 3}, "head": {}}, r"Unknown fields .*\['depth'\]"),
        (pointnext_config, {"encoder": {}, "head": {"num_classes": 40}}, "num_classes = 40"),
        (pointmlp_config, {"pooling": "mean"}, r"Unknown fields .*\['pooling'\]"),
        (pointnet2_config, {"npoint": 3}, r"Unknown fields .*\['npoint'\]"),
    ],
)
def test_published_settings_that_are_not_understood_are_refused(convert: Any, published: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convert(published)


def test_elite_is_smaller() -> None:
    with torch.device("meta"):
        counts = [PointMLPModel(PointMLPConfig(**fields)).num_parameters() for fields in ({}, POINTMLP_ELITE)]
    assert counts == [13_228_224, 705_952]
