"""LAS and LAZ files, written by laspy."""

from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError, read_shape
from modeling_ulip2.geometry.points import read_cloud

laspy = pytest.importorskip("laspy")
pytest.importorskip("lazrs")

RNG = np.random.default_rng(0)
XYZ = RNG.random((300, 3)) + [691234.0, 5336789.0, 515.0]
RGB = RNG.integers(0, 256, size=(300, 3))


def write(path: Path, rgb: np.ndarray | None = None, version: str = "1.2", point_format: int | None = None) -> Path:
    header = laspy.LasHeader(version=version, point_format=point_format or (0 if rgb is None else 2))
    header.scales, header.offsets = [1e-4] * 3, [691000, 5336000, 0]
    las = laspy.LasData(header)
    las.x, las.y, las.z = XYZ.T
    if rgb is not None:
        las.red, las.green, las.blue = rgb.T
    las.write(str(path))
    return path


def reason(path: Path, **options) -> str:
    with pytest.raises(MeshError) as caught:
        read_cloud(path, **options)
    assert caught.value.path == path
    return caught.value.reason


@pytest.mark.parametrize("suffix", [".las", ".laz"])
@pytest.mark.parametrize(("version", "point_format"), [("1.2", 2), ("1.4", 7)])
def test_colors_of_8_and_16_bits(tmp_path, suffix, version, point_format):
    path = tmp_path / f"a{suffix}"
    cloud = read_cloud(write(path, RGB * 257, version, point_format))
    np.testing.assert_allclose(cloud.xyz, XYZ, atol=1e-4)  # the file's own steps, at UTM coordinates
    assert np.array_equal(cloud.rgb, RGB) and cloud.warnings == []
    small = read_cloud(write(path, RGB, version, point_format))
    assert np.array_equal(small.rgb, RGB) and "count to 255" in small.warnings[0]


def test_no_color(tmp_path):
    cloud = read_cloud(write(tmp_path / "a.las"))
    assert cloud.rgb is None and cloud.warnings == []
    black = read_cloud(write(tmp_path / "a.las", RGB * 0))
    assert black.rgb is None and "0 everywhere" in black.warnings[0]


def test_the_format_fixes_its_axis(tmp_path):
    path = write(tmp_path / "a.laz", RGB)
    shape = read_shape(path, 10)
    assert shape.up_axis == "y" and shape.warnings
    np.testing.assert_allclose(shape.xyz, XYZ[:, [0, 2, 1]] * [1, 1, -1], atol=1e-4)
    np.testing.assert_allclose(read_shape(path, 10, up_axis="y").xyz, XYZ, atol=1e-4)


@pytest.mark.parametrize("suffix", [".las", ".laz"])
def test_limits_and_damage(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", RGB)
    whole = path.read_bytes()
    assert reason(path, max_points=299) == "too_many_points"
    path.write_bytes(whole[:-40] if suffix == ".las" else whole[: len(whole) // 2])
    assert reason(path) in ("truncated", "corrupt")
    path.write_bytes(whole[:107] + (2**32 - 1).to_bytes(4, "little") + whole[111:])  # the count of points
    assert reason(path) == "too_many_points"
    path.write_bytes(whole[:107] + (10**7).to_bytes(4, "little") + whole[111:])
    assert reason(path) in ("truncated", "corrupt")
    path.write_bytes(whole[:100] + (2**32 - 1).to_bytes(4, "little") + whole[104:])  # the count of records
    assert reason(path) in ("truncated", "corrupt")
    path.write_bytes(b"LASF")
    assert reason(path) == "truncated"
    path.write_bytes(b"ply\nformat")
    assert reason(path) == "unsupported"
    for seed in range(25):
        rng, broken = np.random.default_rng(seed), bytearray(whole)
        for place in rng.integers(0, len(broken), 4):
            broken[place] = rng.integers(0, 256)
        path.write_bytes(broken)
        try:
            assert len(read_cloud(path).xyz) <= 20_000_000
        except MeshError:
            pass


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "a.las")
    original = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "laspy":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MeshError, match=r"modeling-ulip2\[las\]"):
        read_cloud(path)
