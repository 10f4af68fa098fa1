from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist

from modeling_ulip2.evaluation.robustness.corruptions import CORRUPTIONS, Cloud, CorruptedClouds, shape_rng
from modeling_ulip2.models.feature_extraction_ulip2 import FILL_COLOR, unit_sphere

POINTS = 200


def cloud(seed: int = 0) -> Cloud:
    rng = np.random.default_rng(seed)
    return Cloud(
        unit_sphere(rng.normal(size=(POINTS, 3)) * [1, 2, 0.5]), rng.integers(256, size=(POINTS, 3), dtype=np.uint8)
    )


def corrupted(name: str, level: float, seed: int = 0, own: Cloud | None = None) -> Cloud:
    return CORRUPTIONS[name].apply(own or cloud(), level, np.random.default_rng(seed))


def rows_of(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The rows of `whole` that `part` consists of."""
    return np.array([np.flatnonzero((whole == point).all(axis=1))[0] for point in part])


@pytest.mark.parametrize(("name", "level"), [("points", 50), ("half_space", 0.25), ("ball", 0.6)])
def test_what_removes_points_keeps_the_others_with_their_colors(name, level):
    before, after = cloud(), corrupted(name, level)
    kept = rows_of(after.xyz, before.xyz)
    assert len(set(kept)) == len(kept) == (level if name == "points" else POINTS - round(level * POINTS))
    assert (after.rgb == before.rgb[kept]).all()


def test_a_plane_separates_what_is_left_from_what_is_cut_off():
    before = cloud()
    kept = rows_of(corrupted("half_space", 0.3).xyz, before.xyz)
    gone = np.setdiff1d(np.arange(POINTS), kept)
    direction = np.random.default_rng(0).standard_normal(3)
    assert (before.xyz[kept] @ direction).max() <= (before.xyz[gone] @ direction).min()


def test_a_ball_around_a_point_of_the_cloud_is_missing():
    before = cloud()
    kept = rows_of(corrupted("ball", 0.3).xyz, before.xyz)
    gone = np.setdiff1d(np.arange(POINTS), kept)
    # some removed point is nearer to all removed points than to any that is left
    distances = np.linalg.norm(before.xyz[gone][:, None] - before.xyz[None], axis=-1)  # (gone, N)
    assert (distances[:, gone].max(axis=1) <= distances[:, kept].min(axis=1)).any()


@pytest.mark.parametrize("name", ["rotation", "rotation_y"])
@pytest.mark.parametrize("level", [15.0, 180.0])
def test_rotations_keep_distances_and_handedness(name, level):
    before, after = cloud(), corrupted(name, level)
    np.testing.assert_allclose(pdist(after.xyz), pdist(before.xyz), atol=1e-12)
    turn = np.linalg.lstsq(before.xyz, after.xyz, rcond=None)[0].T
    assert np.linalg.det(turn) == pytest.approx(1)
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    assert 0 < angle <= level + 1e-6
    if name == "rotation_y":
        np.testing.assert_allclose(after.xyz[:, 1], before.xyz[:, 1], atol=1e-12)
        np.testing.assert_allclose(turn @ [0, 1, 0], [0, 1, 0], atol=1e-9)


def test_rotations_of_every_angle_are_uniform():
    """The mean angle of uniform rotations is pi/2 + 2/pi; any fixed vector goes everywhere alike."""
    one = Cloud(np.eye(3), None)
    turned = np.stack([corrupted("rotation", 180.0, seed, one).xyz for seed in range(1500)])  # (1500, 3, 3)
    angles = np.arccos(np.clip((np.trace(turned, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert angles.mean() == pytest.approx(np.pi / 2 + 2 / np.pi, abs=0.05)
    assert np.abs(turned[:, 0].mean(axis=0)).max() < 0.06
    np.testing.assert_allclose(np.cov(turned[:, 0].T), np.eye(3) / 3, atol=0.04)


def test_noise_has_the_deviation_that_its_level_says():
    noise = corrupted("noise", 0.05, own=Cloud(np.zeros((20000, 3)), None)).xyz
    assert noise.std() == pytest.approx(0.05, rel=0.02) and abs(noise.mean()) < 2e-3


def test_lost_colors_are_the_gray_of_the_feature_extractor():
    before, after = cloud(), corrupted("color", 0.4)
    lost = (after.rgb == FILL_COLOR).all(axis=1)
    assert lost.mean() == pytest.approx(0.4, abs=0.1)
    np.testing.assert_allclose(after.rgb[~lost], before.rgb[~lost] / 255)
    assert (corrupted("color", 1.0).rgb == FILL_COLOR).all()
    with pytest.raises(ValueError, match="has no rgb"):
        corrupted("color", 0.5, own=Cloud(cloud().xyz, None))


def test_the_first_level_changes_nothing_and_the_others_nest():
    before = cloud()
    for name in ("noise", "half_space", "ball", "rotation", "rotation_y"):
        after = corrupted(name, CORRUPTIONS[name].levels[0])
        np.testing.assert_allclose(after.xyz, before.xyz, atol=1e-12)
    for name in ("half_space", "ball"):
        mild, harsh = (set(rows_of(corrupted(name, level).xyz, before.xyz)) for level in (0.25, 0.75))
        assert harsh < mild, "a harsher level takes more of the same"


def test_draws_belong_to_seed_corruption_and_shape():
    rows = [{"id": name, "xyz": cloud().xyz, "rgb": cloud().rgb} for name in ("a", "b")]
    clouds = CorruptedClouds(rows, "noise", 0.1, seed=1)
    assert (clouds[0]["xyz"] == CorruptedClouds(rows[:1], "noise", 0.1, seed=1)[0]["xyz"]).all()
    assert (clouds[0]["xyz"] != clouds[1]["xyz"]).any()
    assert (clouds[0]["xyz"] != CorruptedClouds(rows, "noise", 0.1, seed=2)[0]["xyz"]).any()
    assert shape_rng(0, "noise", "a").random() != shape_rng(0, "ball", "a").random()
    assert ConvexHull(clouds[0]["xyz"]).volume > 0 and len(clouds) == 2


def test_impossible_levels_are_refused():
    with pytest.raises(ValueError, match="cannot draw 300 different points from 200"):
        corrupted("points", 300)
    with pytest.raises(ValueError, match=r"\[0, 1\), not 1"):
        corrupted("ball", 1.0)
