"""The order of the coordinates that a model was trained with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2 import Ulip2FeatureExtractor


def cloud() -> np.ndarray:
    return np.random.default_rng(0).random((40, 6))


def test_xzy_exchanges_y_and_z_and_nothing_else() -> None:
    plain = Ulip2FeatureExtractor(num_points=30)(cloud())["point_values"]
    swapped = Ulip2FeatureExtractor(num_points=30, axes="xzy")(cloud())["point_values"]
    assert np.array_equal(swapped, plain[..., [0, 2, 1, 3, 4, 5]])


def test_axes_apply_after_the_turn_to_y_up() -> None:
    z_up = cloud()[:, [0, 2, 1, 3, 4, 5]] * np.array([1, -1, 1, 1, 1, 1])
    turned = Ulip2FeatureExtractor(num_points=30, up_axis="z", axes="xzy")(z_up)["point_values"]
    expected = Ulip2FeatureExtractor(num_points=30, axes="xzy")(cloud())["point_values"]
    np.testing.assert_allclose(turned, expected, atol=1e-6)


def test_axes_are_saved(tmp_path: Path) -> None:
    Ulip2FeatureExtractor(axes="xzy").save_pretrained(tmp_path)
    assert Ulip2FeatureExtractor.from_pretrained(tmp_path).axes == "xzy"


@pytest.mark.parametrize(
    ("fields", "message"), [({"axes": "zyx"}, "xzy"), ({"axes": "xzy", "in_channels": 4}, "height")]
)
def test_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ulip2FeatureExtractor(**fields)
