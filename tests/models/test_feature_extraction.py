"""Point clouds as arrays -> `point_values`: shapes, color, sampling, axes, and what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modeling_ulip2 import Ulip2FeatureExtractor


def cloud(points: int = 50, channels: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((points, channels)).astype(np.float32)


def extract(clouds: Any, colors: Any = None, **settings: Any) -> torch.Tensor:
    return Ulip2FeatureExtractor(**{"num_points": 32, **settings})(clouds, colors)["point_values"]


# --- forms of input --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clouds", "batch"),
    [
        (cloud(), 1),
        (cloud(channels=3), 1),
        (torch.from_numpy(cloud()), 1),
        (cloud().astype(np.float16), 1),
        ((cloud() * 100).astype(np.int32)[:, :3], 1),
        (np.stack([cloud(), cloud(seed=1)]), 2),
        ([cloud(), cloud(70, 3), cloud(10)], 3),
        ([torch.rand(50, 3), cloud()], 2),
        ({"xyz": cloud(channels=3), "rgb": np.zeros((50, 3), np.uint8)}, 1),
        ([{"xyz": cloud(channels=3)}, {"xyz": cloud(20, 3), "rgb": np.ones((20, 3))}], 2),
        ({"xyz": np.stack([cloud(channels=3)] * 2), "rgb": np.zeros((2, 50, 3), np.uint8)}, 2),
        (cloud(channels=3).tolist(), None),
    ],
)
def test_forms_of_input(clouds: Any, batch: int | None) -> None:
    if batch is None:  # a nested list is a list of clouds, each of which is a point: refused, not guessed
        with pytest.raises(ValueError, match="Cloud 0 must have shape"):
            extract(clouds)
        return
    values = extract(clouds)
    assert values.shape == (batch, 32, 6) and values.dtype == torch.float32
    torch.testing.assert_close(values[..., :3].norm(dim=-1).max(dim=1).values, torch.ones(batch))


def test_colors_beside_the_clouds() -> None:
    rgb = np.full((50, 3), 51, dtype=np.uint8)
    inside = extract(np.concatenate([cloud(channels=3), rgb / np.float32(255)], axis=1))
    torch.testing.assert_close(extract(cloud(channels=3), rgb), inside)
    torch.testing.assert_close(extract([cloud(channels=3)], [rgb]), inside)
    torch.testing.assert_close(inside[0, :, 3:], torch.full((32, 3), 0.2))


def test_clouds_without_color_are_gray() -> None:
    assert (extract(cloud(channels=3))[..., 3:] == np.float32(0.4)).all()
    assert (extract(cloud(channels=3), fill_color=0.7)[..., 3:] == np.float32(0.7)).all()


def test_three_channels_leave_color_out() -> None:
    assert torch.equal(extract(cloud(), in_channels=3), extract(cloud())[..., :3])


@pytest.mark.parametrize("plain", [3, 6])
def test_height_is_measured_from_the_lowest_point(plain: int) -> None:
    """After turning the axes and normalizing, each cloud by itself."""
    clouds = [cloud() * 9 + 5, cloud(70, seed=1)]
    colors = [values[:, 3:] % 1 for values in clouds]
    clouds = [values[:, :3] for values in clouds]
    values = extract(clouds, colors, in_channels=plain + 1, up_axis="z")
    assert values.shape == (2, 32, plain + 1) and values.dtype == torch.float32
    assert torch.equal(values[..., :plain], extract(clouds, colors, in_channels=plain, up_axis="z"))
    y = values[..., 1]
    assert torch.equal(values[..., -1], y - y.amin(dim=1, keepdim=True))


def test_other_tensor_types() -> None:
    extractor = Ulip2FeatureExtractor(num_points=32, sampling="none")
    arrays = extractor([cloud(40), cloud(50)], return_tensors=None)["point_values"]
    assert [array.shape for array in arrays] == [(40, 6), (50, 6)]
    assert isinstance(extractor(cloud(), return_tensors="np")["point_values"], np.ndarray)


# --- normalization and axes ------------------------------------------------------------------------------------------


def test_unit_sphere() -> None:
    xyz = extract(cloud(channels=3) * 40 + 7, num_points=50, sampling="none", in_channels=3, normalize=True)[0]
    torch.testing.assert_close(xyz.mean(dim=0), torch.zeros(3), atol=1e-6, rtol=0)
    assert xyz.norm(dim=1).max().item() == pytest.approx(1)


def test_a_cloud_far_from_the_origin_keeps_its_shape() -> None:
    """Map coordinates: float32 alone would round them to decimeters before the centroid is removed."""
    xyz = cloud(channels=3).astype(np.float64)
    near, far = extract(xyz), extract(xyz + [4e6, 5e6, 0])
    torch.testing.assert_close(near, far, atol=1e-6, rtol=0)


def test_without_normalization_coordinates_stay() -> None:
    points = cloud(32)
    assert torch.equal(extract(points, normalize=False)[0], torch.from_numpy(points))


@pytest.mark.parametrize(("up_axis", "up"), [("x", [1, 0, 0]), ("y", [0, 1, 0]), ("z", [0, 0, 1])])
def test_up_becomes_y_by_a_rotation(up_axis: str, up: list[int]) -> None:
    basis = np.concatenate([np.eye(3), [up]])
    turned = extract(basis, num_points=4, normalize=False, in_channels=3, up_axis=up_axis)[0]
    assert turned[3].tolist() == [0, 1, 0]
    assert torch.linalg.det(turned[:3]).item() == pytest.approx(1)  # no mirror image


# --- sampling --------------------------------------------------------------------------------------------------------


def rows(values: torch.Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in values.tolist()}


@pytest.mark.parametrize("sampling", ["random", "fps"])
def test_sampling_takes_different_points_with_their_colors(sampling: str) -> None:
    points = cloud(200)
    values = extract(points, sampling=sampling, normalize=False)[0]
    assert len(rows(values)) == 32 and rows(values) <= rows(torch.from_numpy(points))


def test_farthest_points_spread_better_than_random_ones() -> None:
    points = cloud(500, 3)

    def smallest_gap(sampling: str) -> float:
        xyz = extract(points, sampling=sampling, in_channels=3)[0]
        return (torch.cdist(xyz, xyz) + torch.eye(32) * 9).min().item()

    assert smallest_gap("fps") > 3 * smallest_gap("random")


@pytest.mark.parametrize("sampling", ["random", "fps"])
def test_small_clouds_keep_every_point_and_repeat_some(sampling: str) -> None:
    points = cloud(20)
    values = extract(points, sampling=sampling, normalize=False)[0]
    assert rows(values) == rows(torch.from_numpy(points)) and len(values) == 32


@pytest.mark.parametrize("sampling", ["random", "fps"])
def test_a_batch_gives_what_its_clouds_give_one_by_one(sampling: str) -> None:
    clouds = [cloud(100), cloud(20, seed=1), cloud(60, seed=2)]
    together = extract(clouds, sampling=sampling)
    assert torch.equal(together, torch.cat([extract(one, sampling=sampling) for one in clouds]))


def test_seeds() -> None:
    points = cloud(500)
    assert torch.equal(extract(points), extract(points))
    assert not torch.equal(extract(points), extract(points, seed=1))
    assert not torch.equal(extract(points, seed=None), extract(points, seed=None))


# --- what is refused -------------------------------------------------------------------------------------------------


NAN = cloud()
NAN[3, 1] = np.nan
INFINITE = cloud()
INFINITE[4, 0] = np.inf


@pytest.mark.parametrize(
    ("clouds", "colors", "message"),
    [
        (cloud(channels=4), None, r"Cloud 0 must have shape .* got \(50, 4\)"),
        ([cloud(), cloud(channels=5)], None, "Cloud 1 must have shape"),
        (np.zeros(3), None, r"clouds must be an array .* got ndarray of shape \(3,\)"),
        ("chair.glb", None, "got str"),
        (None, None, "got NoneType"),
        ([], None, "empty"),
        ([cloud(), np.zeros((0, 3))], None, "Cloud 1 has no points"),
        ([cloud(), NAN], None, "Cloud 1 has NaN or infinite coordinates in 1 of its 50 points"),
        (INFINITE, None, "Cloud 0 has NaN or infinite"),
        (np.array([["a", "b", "c"]]), None, "must be numbers"),
        (cloud(channels=3) > 0.5, None, "must be numbers, got an array of bool"),
        (cloud(channels=3), np.zeros((49, 3)), r"must have shape \(50, 3\), got \(49, 3\)"),
        (cloud(channels=3), np.full((50, 3), 200.0), "lie in .* got values from 200 to 200. Divide"),
        (cloud(channels=3), np.full((50, 3), np.nan), "Colors of cloud 0"),
        (cloud(), np.zeros((50, 3)), "last three columns and in `colors`"),
        ([cloud(channels=3)] * 2, [np.zeros((50, 3))], "2 clouds but 1 colors"),
    ],
)
def test_bad_clouds_are_refused(clouds: Any, colors: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extract(clouds, colors)


def test_clouds_of_different_sizes_cannot_be_stacked_without_sampling() -> None:
    with pytest.raises(ValueError, match="40 to 50 points cannot be stacked"):
        extract([cloud(40), cloud(50)], sampling="none")


@pytest.mark.parametrize(
    "settings",
    [{"num_points": 0}, {"in_channels": 5}, {"sampling": "grid"}, {"up_axis": "w"}, {"fill_color": 102}],
)
def test_bad_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        Ulip2FeatureExtractor(**settings)


def test_save_and_load(tmp_path: Path) -> None:
    settings = {
        "num_points": 77,
        "in_channels": 3,
        "normalize": False,
        "fill_color": 0.1,
        "sampling": "fps",
        "up_axis": "z",
        "seed": None,
    }
    Ulip2FeatureExtractor(**settings).save_pretrained(tmp_path)
    loaded = Ulip2FeatureExtractor.from_pretrained(tmp_path)
    assert {name: getattr(loaded, name) for name in settings} == settings


@pytest.mark.parametrize("form", ["float64", "list", "torch", "mapping"])
def test_far_from_the_origin_nothing_is_lost(form):
    """A cloud in UTM coordinates is the cloud at the origin, before anything is cast to float32."""
    local = np.round(np.random.default_rng(0).random((60, 3)), 4)
    far = local + [691234.5, 5336789.25, 515.0]
    given = {"float64": far, "list": [far.tolist()], "torch": torch.from_numpy(far), "mapping": {"xyz": far.tolist()}}
    for sampling in ("random", "fps"):
        extractor = Ulip2FeatureExtractor(num_points=40, in_channels=3, sampling=sampling)
        expected = extractor(local)["point_values"]
        cloud = {"xyz": [far.tolist()]} if form == "mapping" else given[form]
        np.testing.assert_allclose(extractor(cloud)["point_values"], expected, atol=1e-6)


@pytest.mark.parametrize(
    "cloud", [np.zeros((50, 3)), np.ones((1, 3)), np.full((50, 3), 5.3e6), np.tile([[0.1, 0.2, 0.3]], (9, 1))]
)
def test_points_in_one_place_are_refused(cloud):
    for sampling in ("random", "none", "fps"):
        with pytest.raises(ValueError, match="Cloud 1 .* in one place"):
            Ulip2FeatureExtractor(num_points=9, sampling=sampling)([np.eye(3), cloud], return_tensors=None)
    kept = Ulip2FeatureExtractor(num_points=9, in_channels=3, normalize=False)(cloud)["point_values"]
    assert torch.isfinite(kept).all()
    two = np.concatenate([cloud[:1], cloud[:1] + 1e-3])
    assert torch.isfinite(Ulip2FeatureExtractor(num_points=9)(two)["point_values"]).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_tensors_of_every_float_type_are_taken(dtype: torch.dtype) -> None:
    points = torch.from_numpy(cloud()).to(dtype)
    extractor = Ulip2FeatureExtractor(num_points=30)
    values = extractor(points)["point_values"]
    torch.testing.assert_close(values, extractor(points.double())["point_values"])
    apart = extractor({"xyz": points[:, :3], "rgb": points[:, 3:]})["point_values"]
    torch.testing.assert_close(values, apart)


def test_coordinates_that_float32_cannot_hold_are_told() -> None:
    extractor = Ulip2FeatureExtractor(num_points=30, normalize=False)
    far = cloud()[:, :3] + np.array([500_000.0, 5_000_000.0, 0.0])
    with pytest.warns(UserWarning, match="Cloud 0 is .* wide and lies .* its shape is lost"):
        extractor(far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extractor(cloud())
        Ulip2FeatureExtractor(num_points=30)(far)


# --- compiled loops --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"normalize": False}, {"up_axis": "z"}, {"up_axis": "x", "axes": "xzy"}])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_compiled_loops_give_every_digit_of_the_plain_ones(
    dtype: type, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    clouds = [
        {"xyz": (rng.normal(size=(n, 3)) * 3 + 1).astype(dtype), "rgb": rgb}
        for n, rgb in [
            (256, np.arange(768).reshape(256, 3).astype(np.uint8)),  # all bytes
            (257, rng.uniform(-1e-3, 1 + 1e-3, size=(257, 3)).astype(np.float32)),
            (1000, rng.random((1000, 3))),
            (31, None),
        ]
    ]
    for sampling, channels in [("none", 6), ("random", 7 if "axes" not in settings else 6), ("fps", 3)]:
        extractor = Ulip2FeatureExtractor(300, channels, sampling=sampling, **settings)
        compiled = extractor(clouds, return_tensors=None)["point_values"]
        with monkeypatch.context() as patched:
            patched.setattr("modeling_ulip2.models.compiled.HAS_NUMBA", False)
            plain = extractor(clouds, return_tensors=None)["point_values"]
        for found, expected in zip(compiled, plain, strict=True):
            assert found.dtype == expected.dtype == np.float32
            np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_found_by_both_loops(
    wrong: float, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not compiled:
        monkeypatch.setattr("modeling_ulip2.models.compiled.HAS_NUMBA", False)
    for column, message in [(1, "NaN or infinite coordinates in 1 of its 50"), (4, "must be uint8 or lie in")]:
        points = cloud()
        points[7, column] = wrong
        with pytest.raises(ValueError, match=message):
            extract(points)
