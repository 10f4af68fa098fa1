"""What configurations promise: published sizes by parameter count, and no value that makes no model."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from modeling_ulip2 import Ulip2Config
from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS, POINTBERT_SIZES, UNI3D_SIZES, PointBertConfig
from modeling_ulip2.models.modeling_pointbert import PointBertModel


@pytest.mark.parametrize("size", POINTBERT_SIZES)
@pytest.mark.parametrize("in_channels", [3, 6])
def test_the_scale_ladder_has_the_published_counts(size: str, in_channels: int) -> None:
    with torch.device("meta"):
        model = PointBertModel(PointBertConfig(in_channels=in_channels, **POINTBERT_SIZES[size]))
    assert f"{model.num_parameters() / 1e6:.1f}M" == size


def test_the_released_size_is_the_default() -> None:
    assert PointBertConfig(**POINTBERT_SIZES["32.5M"]).to_dict() == PointBertConfig().to_dict()
    assert list(UNI3D_SIZES) == ["tiny", "small", "base", "large", "giant"]


BAD_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    *[
        (name, {"in_channels": 2}, "in_channels counts x, y and z")
        for name in POINT_ENCODERS
        if name.startswith("ulip2_")
    ],
    *[(name, {"num_groups": 0}, "num_groups") for name in ("ulip2_pointbert", "ulip2_ppat", "ulip2_uni3d")],
    *[(name, {"num_hidden_layers": 0}, "num_hidden_layers") for name in ("ulip2_pointbert", "ulip2_uni3d")],
    *[(name, {"hidden_size": 100}, "multiple of num_attention_heads") for name in ("ulip2_pointbert", "ulip2_uni3d")],
    ("ulip2_pointbert", {"drop_path_rate": 1.0}, "drop_path_rate is a share"),
    ("ulip2_pointbert", {"mlp_ratio": 0}, "mlp_ratio must be positive"),
    ("ulip2_uni3d", {"mlp_kind": "relu"}, "mlp_kind must be"),
    ("ulip2_uni3d", {"patch_dropout": -0.1}, "patch_dropout is a share"),
    ("ulip2_ppat", {"head_dim": 0}, "head_dim"),
    ("ulip2_ppat", {"group_radius": 0}, "group_radius must be positive"),
    ("ulip2_ppat", {"patch_dropout": 384}, "patch_dropout counts patches"),
    ("ulip2_pointnext", {"width": 0}, "width must be at least 1"),
    ("ulip2_pointnext", {"head_dropout": 1.5}, "head_dropout is a share"),
    ("ulip2_pointnext", {"strides": (1, 2)}, "equally long"),
    ("ulip2_pointnet2", {"num_neighbors": ((0,), (64,))}, "num_neighbors must be at least 1"),
    ("ulip2_pointnet2", {"radii": ((0.2,), (-0.4,))}, "radii must be positive"),
    ("ulip2_pointmlp", {"pre_blocks": (-1, 1, 1, 1)}, "pre_blocks must be at least 0"),
    ("ulip2_pointmlp", {"res_expansion": 0}, "res_expansion must be positive"),
    ("ulip2_pointmlp", {"head_dims": (256, 0)}, "head_dims must be at least 1"),
]


@pytest.mark.parametrize(("model_type", "fields", "words"), BAD_FIELDS)
def test_bad_fields_are_refused(model_type: str, fields: dict[str, Any], words: str) -> None:
    """Alone, and inside the configuration of the tri-modal model."""
    with pytest.raises(ValueError, match=words):
        POINT_ENCODERS[model_type].config_class(**fields)
    with pytest.raises(ValueError, match=words):
        Ulip2Config(point_config={"model_type": model_type, **fields})


def test_a_space_without_width_is_refused() -> None:
    with pytest.raises(ValueError, match="projection_dim must be at least 1"):
        Ulip2Config(projection_dim=0)
