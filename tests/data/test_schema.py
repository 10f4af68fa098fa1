import numpy as np
import pytest

from modeling_ulip2.data.schema import pack_xyz


def shape_error(xyz: np.ndarray, packed: np.ndarray) -> float:
    """Largest deviation of the packed shape from the true one, in radii, after centering and scaling both."""

    def unit(points):
        points = points.astype(np.float64) - points.astype(np.float64).mean(axis=0)
        return points / np.linalg.norm(points, axis=1).max()

    return float(np.abs(unit(packed) - unit(xyz)).max())


@pytest.fixture
def points():
    return np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)


def test_ordinary_coordinates_stay_as_they_are(points):
    np.testing.assert_array_equal(pack_xyz(points), points.astype(np.float16))


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e3, 1e12])
@pytest.mark.parametrize("offset", [0.0, 3.0, 1e3])
def test_half_precision_holds_every_shape(points, scale, offset):
    xyz = (points.astype(np.float64) + offset) * scale
    packed = pack_xyz(xyz)
    assert packed.dtype == np.float16 and np.isfinite(packed).all()
    assert shape_error(xyz, packed) < 2e-3


def test_scaling_is_a_power_of_two(points):
    exact = points.astype(np.float16).astype(np.float64)  # holds no more bits than float16 does
    packed = pack_xyz(exact * 2.0**30).astype(np.float64)
    ratio = exact[0, 0] / packed[0, 0]
    assert np.log2(ratio) == round(np.log2(ratio))
    np.testing.assert_array_equal(packed * ratio, exact)


def test_one_point_repeated_is_packed():
    assert np.isfinite(pack_xyz(np.full((4, 3), 1e9))).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_non_finite_coordinates_are_refused(points, bad):
    points[3, 1] = bad
    with pytest.raises(ValueError, match="finite"):
        pack_xyz(points)
