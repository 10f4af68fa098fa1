from __future__ import annotations

import numpy as np
import pytest

from modeling_ulip2.data.augmentation import (
    PointAugmentation,
    change_colors,
    drop_colors,
    drop_points,
    farthest_from_drawn,
    jitter_points,
    mix_clouds,
    perturb_rotation,
    random_sample,
    rotate_about_y,
    rotate_freely,
    scale_points,
    shift_points,
    stretch_points,
)
from modeling_ulip2.data.scan_changes import occlude, one_side, stand_in_room
from modeling_ulip2.models.feature_extraction_ulip2 import FILL_COLOR, unit_sphere
from tests.data.clouds import cloud, sphere

MOVES = (scale_points, shift_points, jitter_points, perturb_rotation, rotate_about_y, rotate_freely, stretch_points)
CHANGES = (drop_points, *MOVES, one_side, occlude, stand_in_room, change_colors)
EVERYTHING = PointAugmentation(
    stretch_share=0.5,
    one_side_share=0.5,
    occlusion_share=0.5,
    floor_share=0.5,
    color_strength=0.4,
    hue=0.1,
    color_dropout=0.3,
    jitter_sigma=0.01,
    jitter_share=0.5,
)
OFF = {"max_dropout": 0.0, "scale_low": 1.0, "scale_high": 1.0, "shift": 0.0, "angle_sigma": 0.0, "rotate_y": False}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("change", [*CHANGES, PointAugmentation(), EVERYTHING])
def test_shape_and_dtype_stay_and_the_input_is_left_alone(change, dtype):
    points = cloud(dtype=dtype)
    before = points.copy()
    changed = change(points, np.random.default_rng(0))
    assert changed.shape == points.shape and changed.dtype == dtype
    np.testing.assert_array_equal(points, before)
    assert not np.array_equal(changed, points)


@pytest.mark.parametrize("change", [*CHANGES, PointAugmentation(), EVERYTHING])
def test_the_same_seed_gives_the_same_cloud_and_another_seed_another(change):
    points = cloud()
    once, again, other = (change(points, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


@pytest.mark.parametrize("change", MOVES)
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


@pytest.mark.parametrize("change", [perturb_rotation, rotate_about_y, rotate_freely])
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
    points = cloud()
    np.testing.assert_array_equal(PointAugmentation(**OFF)(points, np.random.default_rng(0)), points)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_dropout": 1.5},
        {"scale_low": 2.0},
        {"scale_low": 0.0},
        {"mix_share": -0.1},
        {"one_side_share": 2.0},
        {"occlusion_share": 1.5},
        {"occlusion": 1.0},
        {"floor_share": -0.5},
        {"jitter_share": 1.5},
        {"color_strength": 1.1},
        {"stretch": 0.5},
        {"jitter_sigma": -1.0},
    ],
)
def test_bad_settings_are_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))}|scale range"):
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


@pytest.mark.parametrize("points", [np.zeros((40, 6), np.float32), cloud(1), cloud(2)])
def test_clouds_without_extent_stay_finite(points):
    for seed in range(3):
        changed = EVERYTHING(points, np.random.default_rng(seed))
        assert np.isfinite(changed).all() and changed.shape == points.shape


def test_each_axis_is_stretched_by_its_own_factor_and_the_cloud_normalized():
    points, factors = np.abs(sphere(400)), []
    for seed in range(40):
        changed = stretch_points(points, np.random.default_rng(seed), 2.0)
        np.testing.assert_allclose(np.linalg.norm(changed[:, :3], axis=1).max(), 1, atol=1e-5)
        ranges = np.ptp(changed[:, :3], axis=0) / np.ptp(points[:, :3], axis=0)
        factors.append(ranges / ranges[0])
    most = np.abs(np.log2(np.array(factors)[:, 1:]))
    assert 1 < most.max() <= 2.001  # one axis twice as long, another half as long


def test_colors_change_as_a_whole_and_stay_colors():
    points = cloud()
    points[:, 3:] = 0.3 + 0.4 * (points[:, 3:] + 1) / 2  # far from the ends: nothing is cut off
    means, spreads = [], []
    for seed in range(50):
        changed = change_colors(points, np.random.default_rng(seed), 0.3)
        np.testing.assert_array_equal(changed[:, :3], points[:, :3])
        assert changed[:, 3:].min() >= 0 and changed[:, 3:].max() <= 1
        means.append(changed[:, 3:].mean()), spreads.append(changed[:, 3:].std())
    assert np.std(means) > 0.05 and np.std(spreads) > 0.01
    strong = change_colors(points, np.random.default_rng(0), 1.0)
    assert strong[:, 3:].min() >= 0 and strong[:, 3:].max() <= 1


def test_hues_turn_and_grays_stay():
    points = cloud(6)
    points[:, 3:] = [
        [0.5, 0.5, 0.5],
        [0.2, 0.2, 0.2],
        [0.8, 0.2, 0.2],
        [0.2, 0.8, 0.2],
        [0.2, 0.2, 0.8],
        [0.6, 0.3, 0.3],
    ]
    turned = change_colors(points, np.random.default_rng(2), 0.0, hue=0.5)
    np.testing.assert_allclose(turned[:2, 3:], points[:2, 3:], atol=1e-6)
    assert np.abs(turned[2:, 3:] - points[2:, 3:]).max() > 0.1
    # by no angle, nothing
    np.testing.assert_allclose(change_colors(points, np.random.default_rng(2), 0.0), points, atol=1e-6)


def test_clouds_without_color_have_none_afterwards():
    points = drop_colors(cloud())
    assert (points[:, 3:] == np.float32(FILL_COLOR)).all()
    np.testing.assert_array_equal(change_colors(points, np.random.default_rng(0), 1.0, 0.5), points)
    for channels in (3, 4):  # nothing but places, or places and height
        bare = cloud(channels=channels)
        np.testing.assert_array_equal(drop_colors(bare), bare)
        np.testing.assert_array_equal(change_colors(bare, np.random.default_rng(0), 1.0), bare)
    lost = [
        (
            PointAugmentation(**OFF, color_dropout=0.3)(cloud(), np.random.default_rng(seed))[:, 3:] == points[:, 3:]
        ).all()
        for seed in range(200)
    ]
    assert 0.2 < np.mean(lost) < 0.4


def test_a_part_of_one_cloud_stands_in_for_a_part_of_another():
    one, other = sphere(1000), sphere(1000, seed=1)
    one[:, 3:], other[:, 3:] = 0.0, 1.0
    shares = []
    for seed in range(30):
        mixed, share = mix_clouds(one, other, np.random.default_rng(seed))
        guests = mixed[:, 3] == 1
        assert share == pytest.approx(1 - guests.mean()) and 0.5 <= share <= 0.9
        shares.append(share)
        # both parts are in one piece: a plane parts them, as they are caps of one sphere
        axis = mixed[guests, :3].mean(axis=0) - mixed[~guests, :3].mean(axis=0)
        heights = mixed[:, :3] @ (axis / np.linalg.norm(axis))
        assert np.quantile(heights[guests], 0.05) > np.quantile(heights[~guests], 0.95)
    assert np.ptp(shares) > 0.2
    same, share = mix_clouds(one, other, np.random.default_rng(0), 1.0, 1.0)
    assert share == 1 and np.array_equal(same, one)


@pytest.mark.parametrize("augmentation", [PointAugmentation(), PointAugmentation(max_dropout=0), EVERYTHING])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("channels", [3, 6, 7])
def test_the_compiled_loop_gives_every_digit_of_the_plain_one(
    channels: int, dtype: type, augmentation: PointAugmentation, monkeypatch: pytest.MonkeyPatch
):
    pytest.importorskip("numba")
    points = cloud(333, channels, dtype)
    for seed in range(4):
        compiled = augmentation(points, np.random.default_rng(seed))
        with monkeypatch.context() as patched:
            patched.setattr("modeling_ulip2.models.compiled.HAS_NUMBA", False)
            plain = augmentation(points, np.random.default_rng(seed))
        assert compiled.dtype == plain.dtype == dtype
        np.testing.assert_array_equal(compiled, plain)


@pytest.mark.parametrize("option", ["one_side_share", "occlusion_share", "floor_share", "jitter_share"])
def test_changes_by_share_reach_that_share_of_the_clouds(option):
    points = cloud()
    points[:, :3] = unit_sphere(points[:, :3])
    augment = PointAugmentation(**OFF, **{"jitter_sigma": 0.01 * (option == "jitter_share"), option: 0.3})
    changed = [not np.allclose(augment(points, np.random.default_rng(seed)), points, atol=1e-5) for seed in range(300)]
    assert 0.2 < np.mean(changed) < 0.4


def test_options_that_are_off_draw_nothing():
    """A training of before draws the same with options that came later."""
    rng, before = np.random.default_rng(4), np.random.default_rng(4)
    PointAugmentation(**OFF)(cloud(), rng)
    assert rng.random() == before.random()
