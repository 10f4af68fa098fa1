from __future__ import annotations

import numpy as np
import pytest

from modeling_ulip2.data.augmentation import (
    PointAugmentation,
    drop_points,
    farthest_from_drawn,
    jitter_points,
    perturb_rotation,
    random_sample,
    rotate_about_y,
    scale_points,
    shift_points,
)
from modeling_ulip2.models.feature_extraction_ulip2 import unit_sphere

CHANGES = (drop_points, scale_points, shift_points, jitter_points, perturb_rotation, rotate_about_y)


def cloud(points: int = 200, channels: int = 6, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, size=(points, channels)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("change", [*CHANGES, PointAugmentation()])
def test_shape_and_dtype_stay_and_the_input_is_left_alone(change, dtype):
    points = cloud(dtype=dtype)
    before = points.copy()
    changed = change(points, np.random.default_rng(0))
    assert changed.shape == points.shape and changed.dtype == dtype
    np.testing.assert_array_equal(points, before)
    assert not np.array_equal(changed, points)


@pytest.mark.parametrize("change", [*CHANGES, PointAugmentation()])
def test_the_same_seed_gives_the_same_cloud_and_another_seed_another(change):
    points = cloud()
    once, again, other = (change(points, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


@pytest.mark.parametrize("change", [c for c in CHANGES if c is not drop_points])
def test_color_rides_along(change):
    points = cloud()
    np.testing.assert_array_equal(change(points, np.random.default_rng(0))[:, 3:], points[:, 3:])


def test_dropped_points_become_point_0_with_its_color():
    points = cloud()
    dropped = drop_points(points, np.random.default_rng(3))
    moved = (dropped != points).any(axis=1)
    assert 0 < moved.sum() < len(points)
    np.testing.assert_array_equal(dropped[moved], np.broadcast_to(points[0], (moved.sum(), 6)))


def test_dropout_never_exceeds_its_ratio_by_much():
    points, rng = cloud(2000), np.random.default_rng(0)
    shares = [(drop_points(points, rng, 0.5) != points).any(axis=1).mean() for _ in range(100)]
    # ratios are U(0, 0.5)
    assert max(shares) < 0.55 and 0.2 < np.mean(shares) < 0.3


@pytest.mark.parametrize("change", [perturb_rotation, rotate_about_y])
def test_rotations_keep_distances_and_handedness(change):
    points = cloud(channels=3, dtype=np.float64)
    turned = change(points, np.random.default_rng(5))
    np.testing.assert_allclose(turned @ turned.T, points @ points.T, atol=1e-12)
    assert np.linalg.det(np.linalg.lstsq(points, turned, rcond=None)[0]) == pytest.approx(1)


def test_rotation_about_y_keeps_heights():
    points = cloud()
    turned = rotate_about_y(points, np.random.default_rng(5))
    np.testing.assert_allclose(turned[:, 1], points[:, 1], atol=1e-6)
    assert np.abs(turned[:, [0, 2]] - points[:, [0, 2]]).max() > 0.1


def test_scale_and_shift_stay_in_their_ranges():
    points, rng = cloud(), np.random.default_rng(0)
    for _ in range(50):
        factor = scale_points(points, rng)[:, :3] / points[:, :3]
        assert 0.8 <= factor.min() and factor.max() <= 1.2500001 and np.ptp(factor) < 1e-4
        assert np.abs(shift_points(points, rng)[:, :3] - points[:, :3]).max() <= 0.1000001


def test_farthest_points_cover_a_line():
    line = np.zeros((9, 3))
    line[:, 0] = np.arange(9)
    chosen = farthest_from_drawn(line, 9, np.random.RandomState(0))
    assert sorted(chosen[:, 0]) == list(range(9))
    gaps = [np.diff(np.sort(chosen[:n, 0])).max() for n in (3, 5, 9)]
    assert gaps == sorted(gaps, reverse=True) and gaps[-1] == 1


def test_random_sample_draws_different_rows_and_refuses_too_many():
    points = cloud(50)
    chosen = random_sample(points, 20, np.random.default_rng(0))
    assert len(np.unique(chosen, axis=0)) == 20
    with pytest.raises(ValueError, match="cannot draw 51 different points from 50"):
        random_sample(points, 51, np.random.default_rng(0))


def test_zero_switches_every_change_off():
    off = PointAugmentation(max_dropout=0, scale_low=1, scale_high=1, shift=0, angle_sigma=0, rotate_y=False)
    points = cloud()
    np.testing.assert_array_equal(off(points, np.random.default_rng(0)), points)


@pytest.mark.parametrize("bad", [{"max_dropout": 1.5}, {"scale_low": 2.0}, {"scale_low": 0.0}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match="max_dropout|scale range"):
        PointAugmentation(**bad)


def test_a_factor_for_each_axis_and_the_unit_sphere_again():
    """As PointNeXt fine-tunes: scaling before normalization, which is the same as normalizing once more."""
    rng = np.random.default_rng(0)
    points = np.concatenate([unit_sphere(rng.normal(size=(50, 3))), rng.random((50, 3))], axis=1).astype(np.float32)
    scaled = scale_points(points, np.random.default_rng(1), 0.5, 2.0, by_axis=True)
    factors = scaled[:, :3] / points[:, :3]
    np.testing.assert_allclose(factors, factors[:1].repeat(50, axis=0), rtol=1e-4)
    assert len(set(factors[0].round(3))) == 3 and (factors > 0.5).all() and (factors < 2).all()
    augment = PointAugmentation(
        0, 0.5, 2.0, scale_by_axis=True, normalize_scaled=True, shift=0, angle_sigma=0, rotate_y=False
    )
    again = augment(points, np.random.default_rng(1))
    np.testing.assert_allclose(again[:, :3], unit_sphere(scaled[:, :3].astype(np.float64)), atol=1e-5)
    assert (again[:, 3:] == points[:, 3:]).all() and again.dtype == np.float32
