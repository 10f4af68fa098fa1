from __future__ import annotations

import numpy as np
import pytest

from modeling_ulip2.data.augmentation import drop_colors
from modeling_ulip2.data.scan_changes import occlude, one_side, seen_from, stand_in_room
from modeling_ulip2.models.feature_extraction_ulip2 import FILL_COLOR, unit_sphere
from tests.data.clouds import cloud, sphere


@pytest.mark.parametrize("points", [300, 2000, 10_000])
@pytest.mark.parametrize("direction", [(0, 0, 1), (0, 1, 0), (0.6, 0.48, -0.64)])
def test_a_camera_sees_the_near_side_and_not_the_far_one(points, direction):
    xyz, towards = sphere(points)[:, :3], np.array(direction, dtype=np.float64)
    near, seen = xyz @ towards, seen_from(xyz, towards)
    assert seen[near > 0.6].mean() > 0.97
    assert seen[near < -0.3].mean() < 0.02


def test_a_wall_hides_what_stands_behind_it():
    grid = np.stack(np.meshgrid(np.linspace(-1, 1, 60), np.linspace(-1, 1, 60)), axis=-1).reshape(-1, 2)
    wall = np.concatenate([grid, np.full((len(grid), 1), 0.5)], axis=1)
    behind = np.concatenate([grid[::4] * 0.5, np.full((len(grid[::4]), 1), -0.5)], axis=1)
    xyz = np.concatenate([wall, behind])
    np.testing.assert_array_equal(seen_from(xyz, np.array([0.0, 0.0, 1.0])), np.arange(len(xyz)) < len(wall))
    back = seen_from(xyz, np.array([0.0, 0.0, -1.0]))
    assert back[len(wall) :].all() and 0.5 < back[: len(wall)].mean() < 0.85  # the rim of the wall shows


def test_one_side_shows_points_that_were_there_with_their_colors_and_fills_the_cloud_again():
    points = sphere(3000)
    seen = one_side(points, np.random.default_rng(1))
    # the color tells which point each one was; both clouds have the same frame up to shift and scale
    places = np.searchsorted(np.sort(points[:, 3]), seen[:, 3])
    original = points[np.argsort(points[:, 3])[places]]
    np.testing.assert_array_equal(original[:, 3:], seen[:, 3:])
    assert 0.25 < len(np.unique(places)) / len(points) < 0.6
    np.testing.assert_allclose(seen[:, :3], unit_sphere(original[:, :3]), atol=1e-5)
    middle = original[:, :3].mean(axis=0)
    assert np.linalg.norm(middle) > 0.3, "what is seen lies on one side"
    np.testing.assert_allclose(np.linalg.norm(seen[:, :3], axis=1).max(), 1, atol=1e-5)


def test_cameras_stand_all_around_and_rather_above():
    middles = []
    for seed in range(60):
        seen = one_side(sphere(500), np.random.default_rng(seed))
        middles.append((seen[:, 3:] * 2 - 1).mean(axis=0))
    turns = np.arctan2(*np.array(middles)[:, [0, 2]].T)
    assert np.histogram(turns, bins=4, range=(-np.pi, np.pi))[0].min() >= 5
    assert np.mean(np.array(middles)[:, 1] > 0) > 0.6


def rows_of(changed: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Which point each one was, as its color tells; -1 for new ones."""
    order = np.argsort(points[:, 3])
    places = np.clip(np.searchsorted(points[order, 3], changed[:, 3]), 0, len(points) - 1)
    rows = order[places]
    return np.where((points[rows, 3:] == changed[:, 3:]).all(axis=1), rows, -1)


def test_what_is_hidden_is_in_one_piece_and_at_most_the_share_that_was_allowed():
    points, planes, shares = sphere(2000), 0, []
    for seed in range(60):
        changed = occlude(points, np.random.default_rng(seed), 0.6)
        rows = rows_of(changed, points)
        assert (rows >= 0).all()
        np.testing.assert_allclose(changed[:, :3], unit_sphere(points[rows, :3]), atol=1e-5)
        left = np.zeros(len(points), bool)
        left[rows] = True
        shares.append(1 - left.mean())
        if shares[-1] < 0.1:
            continue
        axis = points[left, :3].mean(axis=0)
        heights = points[:, :3] @ (axis / np.linalg.norm(axis))
        planes += np.median(heights[left]) > np.quantile(heights[~left], 0.95)
    assert max(shares) <= 0.6 and np.std(shares) > 0.1
    assert planes > 20  # of a sphere, a box around one of its points is nearly a cap, too


def test_a_box_may_hide_the_middle():
    """A thin rod loses a part between two that are left; a plane can only take an end."""
    rod = np.zeros((1000, 6), np.float32)
    rod[:, 1] = np.linspace(-1, 1, 1000)
    rod[:, 3] = np.linspace(0, 1, 1000)
    gaps = 0
    for seed in range(40):
        left = np.unique(rows_of(occlude(rod, np.random.default_rng(seed)), rod))
        gaps += bool(np.diff(left).max() > 5)
    assert 5 < gaps < 30


def test_objects_stand_on_floor_and_before_walls_of_one_color_each():
    points = sphere(3000)
    floors, walls, shares, sides = 0, 0, [], []
    for seed in range(60):
        changed = stand_in_room(points, np.random.default_rng(seed))
        rows = rows_of(changed, points)
        new = rows < 0
        # scale and shift from what stayed
        kept = points[rows[~new], :3]
        scale = np.ptp(changed[~new, 0]) / np.ptp(kept[:, 0])
        xyz = (changed[:, :3] - changed[~new, :3].mean(axis=0)) / scale + kept.mean(axis=0)
        np.testing.assert_allclose(xyz[~new], kept, atol=1e-3)
        shares.append(new.mean())
        low = np.abs(xyz[new, 1] - points[:, 1].min()) < 0.03
        floors += low.mean() > 0.95
        colors = np.unique(changed[new, 3:], axis=0)
        if not low.all() and len(colors) == 2:
            walls += 1
            wall = xyz[new][~low]
            _, spread, axes = np.linalg.svd(wall - wall.mean(axis=0), full_matrices=False)
            assert spread[2] < 0.1 * spread[1], "it is flat"
            assert abs(axes[2][1]) < 0.05, "it is upright"
            behind = wall @ axes[2] * np.sign(wall.mean(axis=0) @ axes[2])
            assert behind.min() > (points[:, :3] @ axes[2]).max() - 0.05, "nothing of the object is behind it"
            sides.append(wall.mean(axis=0)[[0, 2]])
        else:
            assert len(colors) == 1 and low.all()
    assert floors > 20 and walls > 20 and floors + walls == 60
    assert 0.03 < min(shares) and max(shares) < 0.33
    assert (np.sign(sides) == 1).mean() not in (0, 1)


@pytest.mark.parametrize("change", [occlude, stand_in_room])
def test_clouds_without_color_stay_without(change):
    for points in (drop_colors(cloud()), cloud(channels=3)):
        changed = change(points, np.random.default_rng(0))
        assert (changed[:, 3:] == np.float32(FILL_COLOR)).all() and changed.shape == points.shape


@pytest.mark.parametrize("change", [one_side, occlude, stand_in_room])
@pytest.mark.parametrize("points", [np.zeros((40, 6), np.float32), cloud(1), cloud(2)])
def test_clouds_of_one_place_or_point_stay_finite(change, points):
    for seed in range(5):
        changed = change(points, np.random.default_rng(seed))
        assert np.isfinite(changed).all() and changed.shape == points.shape
