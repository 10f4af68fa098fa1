"""Which columns are what: by name, and where there are no names by values."""

from __future__ import annotations

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError
from modeling_ulip2.geometry.columns import color_bytes, named_cloud, plain_name, unnamed_cloud

RNG = np.random.default_rng(0)
XYZ = RNG.normal(size=(200, 3))
RGB = RNG.integers(0, 256, size=(200, 3))
NORMALS = XYZ / np.linalg.norm(XYZ, axis=1, keepdims=True)
SHADES = RNG.random((200, 3)) * 0.9
SHORTS = RNG.integers(0, 65536, size=(200, 3))
INTENSITY = RNG.integers(-2000, 2000, size=(200, 1))


def cloud(*columns, **options):
    return unnamed_cloud(np.column_stack([XYZ, *columns]), **options)


@pytest.mark.parametrize("digits", [2, 6, 16])
def test_normals(digits: int):
    found = cloud(NORMALS.round(digits))
    assert found.rgb is None and "columns 4 to 6 are normals" in found.warnings[0] and len(found.warnings) == 1
    assert cloud(np.abs(NORMALS)).rgb is None  # all of them in one octant
    unknown = NORMALS.copy()
    unknown[:100] = 0  # could not be estimated
    assert cloud(unknown).rgb is None


@pytest.mark.parametrize(
    ("colors", "expected"),
    [(RGB, RGB), (SHADES, np.floor(SHADES * 255 + 0.5)), (SHORTS, np.floor(SHORTS / 65535 * 255 + 0.5)),
     (np.tile([255, 0, 0], (200, 1)), np.tile([255, 0, 0], (200, 1))),
     (np.zeros((200, 3)), np.zeros((200, 3)))],
)  # fmt: skip
def test_colors(colors, expected):
    found = cloud(colors)
    assert found.rgb.dtype == np.uint8 and np.array_equal(found.rgb, expected)
    assert len(found.warnings) == (colors is SHORTS)


def test_colors_that_could_be_normals_are_said_to_be_guessed():
    for colors in (np.tile([0.0, 0.0, 1.0], (200, 1)), np.eye(3)[RNG.integers(0, 3, 200)]):
        found = cloud(colors)
        assert np.array_equal(found.rgb, colors * 255) and "taken as colors" in found.warnings[0]


@pytest.mark.parametrize(
    "values", [XYZ, SHADES * 2 - 1, SHADES * 3000, RGB * 1000.0, SHADES * 2, np.full((200, 3), np.nan)]
)
def test_neither_is_left_out_with_a_warning(values):
    found = cloud(values)
    assert found.rgb is None and len(found.warnings) == 1 and "left out" in found.warnings[0]


def test_intensity_and_alpha():
    assert np.array_equal(cloud(INTENSITY, RGB, intensity_first=True).rgb, RGB)
    assert np.array_equal(cloud(INTENSITY, RGB).rgb, RGB)  # no color is negative
    sure = cloud(RGB, np.full(200, 255))
    assert np.array_equal(sure.rgb, RGB) and sure.warnings == []
    guessed = cloud(RGB, RGB[:, :1])
    assert np.array_equal(guessed.rgb, RGB) and "4 to 6 of 7" in guessed.warnings[0]
    pts = cloud(RGB[:, :1], RGB, intensity_first=True)
    assert np.array_equal(pts.rgb, RGB) and pts.warnings == []
    alone = cloud(INTENSITY)
    assert alone.rgb is None and "column 4" in alone.warnings[0]


def test_normals_and_colors():
    for columns in ((NORMALS, RGB), (RGB, NORMALS), (INTENSITY, RGB, NORMALS), (RGB, np.full(200, 255), NORMALS)):
        found = cloud(*columns)
        assert np.array_equal(found.rgb, RGB) and "normals" in found.warnings[0]
    with pytest.raises(MeshError, match="two colors; name the columns"):
        cloud(RGB, RGB)
    with pytest.raises(MeshError, match="8 numbers"):
        cloud(RGB, INTENSITY, INTENSITY)
    with pytest.raises(MeshError, match="transposed"):
        unnamed_cloud(XYZ.T)


def test_names_decide():
    assert [plain_name(name) for name in ("//X", "Normal_X [m]", '"R"', "f_dc_0", "pos.y")] == [
        "x", "normalx", "r", "fdc0", "posy"
    ]  # fmt: skip
    columns = dict(zip(("b", "nx", "z", "R", "x", "G", "y", "label"),
                       [RGB[:, 2], XYZ[:, 0], XYZ[:, 2], RGB[:, 0], XYZ[:, 0], RGB[:, 1], XYZ[:, 1], XYZ[:, 0]],
                       strict=True))  # fmt: skip
    found = named_cloud(columns)
    assert np.array_equal(found.xyz, XYZ) and np.array_equal(found.rgb, RGB) and found.warnings == []
    plain = dict(zip(("x", "y", "z", "nx", "ny", "nz"), [*XYZ.T, *NORMALS.T], strict=True))
    assert named_cloud(plain).rgb is None and named_cloud(plain).warnings == []
    grid = dict(zip(("Elevation", "Easting (m)", "Northing (m)"), XYZ.T[[2, 0, 1]], strict=True))
    assert np.array_equal(named_cloud(grid).xyz, XYZ)
    with pytest.raises(MeshError, match="no columns x, y and z"):
        named_cloud({"x": XYZ[:, 0], "y": XYZ[:, 1]})


@pytest.mark.parametrize(
    "names", [("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b"),
              ("Rf", "Gf", "Bf"), ("color_r", "color_g", "color_b")],
)  # fmt: skip
@pytest.mark.parametrize("type", [np.uint8, np.int32, np.uint16, np.uint32, np.float32, np.float64])
def test_named_colors_of_any_type(names, type):
    columns = dict(zip(("x", "y", "z", *names), [*XYZ.T, *RGB.T.astype(type)], strict=True))
    assert np.array_equal(named_cloud(columns).rgb, RGB)


def test_splats():
    harmonics = RNG.normal(size=(200, 3)) * 2
    columns = dict(zip(("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "nx", "ny", "nz"),
                       [*XYZ.T, *harmonics.T, *np.zeros((3, 200))], strict=True))  # fmt: skip
    expected = np.clip(0.5 + 0.28209479 * harmonics, 0, 1) * 255
    np.testing.assert_allclose(named_cloud(columns).rgb, expected, atol=0.51)
    columns["f_dc_1"] = np.full(200, np.nan)
    assert named_cloud(columns).rgb is None and "NaN" in named_cloud(columns).warnings[0]


@pytest.mark.parametrize(
    ("colors", "word"),
    [(SHADES * 2 - 1, "from -0.99"), (RGB - 128, "from -128"), (RGB * 1000, "65535"), (SHADES * 9000, "from 0"),
     (np.where(RGB > 250, np.nan, SHADES), "NaN")],
)  # fmt: skip
def test_named_colors_that_are_none_are_left_out_with_a_warning(colors, word):
    warnings: list[str] = []
    assert color_bytes(colors, warnings) is None
    assert len(warnings) == 1 and word in warnings[0] and "left out" in warnings[0]


def test_no_color_is_cut_silently():
    warnings: list[str] = []
    colors = SHADES * 1.6
    assert np.array_equal(color_bytes(colors, warnings), np.floor(np.clip(colors, 0, 1) * 255 + 0.5))
    assert "above 1 was cut" in warnings[0]
