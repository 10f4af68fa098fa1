"""From a file to an embedding: where a cloud lies, and what is up in its file, changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from modeling_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.geometry import read_shape
from modeling_ulip2.geometry.axes import rotation_to_y_up
from modeling_ulip2.models.configuration_ulip2 import PointBertConfig
from modeling_ulip2.models.modeling_pointbert import PointBertModel

from .tiny import POINT_CONFIG

CASES = Path(__file__).parents[1] / "geometry" / "cases"


@pytest.fixture(scope="module")
def model() -> PointBertModel:
    torch.manual_seed(0)
    return PointBertModel(PointBertConfig(**POINT_CONFIG)).eval()


@torch.no_grad()
def embed(model: PointBertModel, path: Path, up_axis: str | None = None) -> Tensor:
    extractor = Ulip2FeatureExtractor(num_points=1024, in_channels=model.config.in_channels)
    values = extractor([read_shape(path, 1024, up_axis=up_axis).cloud])["point_values"]  # (1, N, C)
    return model(values).pooled[0]


@pytest.mark.parametrize("name", ["c07_utm.xyz", "c07_utm.npy"])
def test_a_cloud_in_utm_coordinates(model: PointBertModel, name: str) -> None:
    local, utm = embed(model, CASES / "c07_local.xyz"), embed(model, CASES / name)
    assert torch.cosine_similarity(local, utm, dim=0) > 1 - 1e-4


@pytest.mark.parametrize("axis", ["z", "-z", "x"])
def test_a_cloud_that_lies(model: PointBertModel, tmp_path: Path, axis: str) -> None:
    points = np.loadtxt(CASES / "c07_local.xyz") * [1, 3, 2] - [0.25, 0.75, 0.5]
    np.save(tmp_path / "upright.npy", points)
    np.save(tmp_path / "lying.npy", points @ rotation_to_y_up(axis) + 4e6)
    upright = embed(model, tmp_path / "upright.npy")
    lying = embed(model, tmp_path / "lying.npy", axis)
    assert torch.cosine_similarity(upright, lying, dim=0) > 1 - 1e-4
    assert torch.cosine_similarity(upright, embed(model, tmp_path / "lying.npy"), dim=0) < 1 - 1e-3
