"""`full_configs/<model>.json`: names, shapes and counts of the official models, built on the meta device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from modeling_ulip2.conversion import LAYOUTS, PublishedCheckpoint, convert, pointbert_config, published_name
from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS, POINTMLP_ELITE, UNI3D_SIZES
from tests.parity import Case, read_json

# Configurations with their defaults or presets; the published files do not repeat them.
POINTCONV: dict[str, PreTrainedConfig] = {
    "pointmlp": PointMLPConfig(),
    "pointmlp_elite": PointMLPConfig(**POINTMLP_ELITE),
    "pointnet2_ssg": PointNet2Config(),
    "pointnext_s": PointNextConfig(),
}

ULIP = next(layout for layout in LAYOUTS if layout.name == "ULIP")

# Whole checkpoints, or encoders whose checkpoints put a prefix before every name: prefix, configuration.
CONVERTED: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"ppat_scaling{size}": ("", {}) for size in range(1, 7)},
    **{f"uni3d_{size}": ("point_encoder.", fields) for size, fields in UNI3D_SIZES.items()},
    "ulip1_wrapper_pointbert": ("", {"num_hidden_layers": 12, "in_channels": 3}),
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
    elif case.name in CONVERTED:
        check_converted(case, published)
    else:
        raise AssertionError(f"full_configs/{case.name} is a model that this check does not know")


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
        case.equal("neighbors", [[config.num_neighbors] * len(radii) for radii in config.radii], published["nsample"])


def check_converted(case: Case, published: dict[str, Any]) -> None:
    """The conversion finds a place for every tensor, or a reason to leave it out, and nothing is missing."""
    prefix, expected = CONVERTED[case.name]
    tensors = {prefix + name: value for name, value in shapes(published).items()}
    if prefix:  # an encoder alone; beside it, files hold the logit scale
        tensors["logit_scale"] = torch.empty((), device="meta")
    zero = {name: torch.zeros(value.shape) for name, value in tensors.items() if name.endswith(".k_bias")}
    conversion = convert(PublishedCheckpoint(tensors | zero))
    counted = [conversion.model.num_parameters()]
    if conversion.tower is not None:
        counted.append(conversion.tower.num_parameters() - 1)  # its logit scale is not in the file
    unused = {name.removeprefix(prefix) for name in conversion.unused} & set(published["parameters"])
    counted += [tensors[prefix + name].numel() for name in unused]
    counted.append(-len(conversion.added) if not prefix else -1)  # the logit scale
    case.equal("n_parameters", sum(counted), published["n_parameters"])
    config = conversion.model.config.point_config
    assert expected.items() <= config.to_dict().items()
    declared = {"group_size": "group_size", "num_group": "num_groups", "pc_encoder_dim": "encoder_dims"}
    assert all(published[theirs] == getattr(config, ours) for theirs, ours in declared.items() if theirs in published)
    out = {published[name] for name in ("embed_dim", "out_channel") if name in published}
    assert not out or out == {conversion.model.config.projection_dim}


def check_wrapper(case: Case, published: dict[str, Any]) -> None:
    """Our part of the wrapper under published names; the tower's part belongs to `tests/towers`."""
    with torch.device("meta"):
        model = Ulip2Model(Ulip2Config())
    ours = {published_name(name, ULIP): list(value.shape) for name, value in model.state_dict().items()}
    ours["pc_projection"] = ours["pc_projection"][::-1]
    expected = {**published["parameters"], **published["buffers"]}
    expected = {name: shape for name, shape in expected.items() if not name.startswith("open_clip_model.")}
    assert ours == expected
    undecayed = {name for name in published["no_weight_decay"] if not name.startswith("open_clip_model.")}
    assert undecayed <= {name for name in ours if re.search(r"bias|norm|\.1\.weight|logit_scale", name)}
    case.equal("tensors", len(ours), len(expected))
