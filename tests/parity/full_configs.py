"""`full_configs/<model>.json`: names, shapes and counts of the official models, built on the meta device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedConfig

from modeling_ulip2 import (
    PointBertConfig,
    PointBertModel,
    PointMLPConfig,
    PointNet2Config,
    PointNextConfig,
    Ulip2Config,
    Ulip2Model,
)
from modeling_ulip2.configuration_ulip2 import POINT_ENCODERS, POINTMLP_ELITE
from modeling_ulip2.conversion import pointbert_config, published_name
from tests.parity import NOT_BUILT_YET, Case, read_json

# Configurations with their defaults or presets; the published files do not repeat them.
POINTCONV: dict[str, PreTrainedConfig] = {
    "pointmlp": PointMLPConfig(),
    "pointmlp_elite": PointMLPConfig(**POINTMLP_ELITE),
    "pointnet2_ssg": PointNet2Config(),
    "pointnext_s": PointNextConfig(),
}


def cases(folder: Path) -> Iterator[Case]:
    for path in sorted(folder.glob("*.json")):
        yield Case(folder.name, path.stem, [path])


def shapes(published: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Published parameters and buffers as tensors without memory."""
    names = {**published["parameters"], **published["buffers"]}
    return {name: torch.empty(shape, device="meta") for name, shape in names.items()}


def check(case: Case) -> None:
    published = read_json(case.files[0])
    if case.name == "ulip2_wrapper_bigg":
        check_wrapper(case, published)
    elif case.name.startswith("pointbert_"):
        check_pointbert(case, published)
    elif case.name in POINTCONV:
        check_pointconv(case, published)
    else:
        not_built = {
            name: reason for name, reason in NOT_BUILT_YET.items() if case.name.startswith(name.split("_")[0])
        }
        assert not_built, f"full_configs/{case.name} is a model that this check does not know"
        pytest.skip(next(iter(not_built.values())))


def check_pointbert(case: Case, published: dict[str, Any]) -> None:
    expected = shapes(published)
    with torch.device("meta"):
        model = PointBertModel(PointBertConfig(**pointbert_config(published["config"], expected)))
    assert {name: list(p.shape) for name, p in model.named_parameters()} == published["parameters"]
    assert {name: list(b.shape) for name, b in model.named_buffers()} == published["buffers"]
    case.equal("n_parameters", model.num_parameters(), published["n_parameters"])
    case.equal("output_dim", model.config.output_dim, published["output_dim"])
    if case.name == "pointbert_10k_colored":  # the defaults are this model
        defaults, built = PointBertConfig().to_dict(), model.config.to_dict()
        assert {k: v for k, v in built.items() if v != defaults[k]} == {}


def check_pointconv(case: Case, published: dict[str, Any]) -> None:
    config = POINTCONV[case.name]
    with torch.device("meta"):
        model = POINT_ENCODERS[config.model_type].model_class(config)
    assert {name: list(p.shape) for name, p in model.named_parameters()} == published["parameters"]
    assert {name: list(b.shape) for name, b in model.named_buffers()} == published["buffers"]
    case.equal("n_parameters", model.num_parameters(), published["n_parameters"])
    case.equal("output_dim", config.output_dim, published["output_dim"])
    if "radii" in published:
        case.close("radii", config.radii, published["radii"])
        case.equal("neighbours", [[config.num_neighbors] * len(radii) for radii in config.radii], published["nsample"])


def check_wrapper(case: Case, published: dict[str, Any]) -> None:
    """Our part of the wrapper under published names; the tower's part belongs to `tests/towers`."""
    with torch.device("meta"):
        model = Ulip2Model(Ulip2Config())
    ours = {published_name(name): list(value.shape) for name, value in model.state_dict().items()}
    ours["pc_projection"] = ours["pc_projection"][::-1]
    expected = {**published["parameters"], **published["buffers"]}
    expected = {name: shape for name, shape in expected.items() if not name.startswith("open_clip_model.")}
    assert ours == expected
    undecayed = {name for name in published["no_weight_decay"] if not name.startswith("open_clip_model.")}
    assert undecayed <= {name for name in ours if re.search(r"bias|norm|\.1\.weight|logit_scale", name)}
    case.equal("tensors", len(ours), len(expected))
