import numpy as np
import pytest

from modeling_ulip2.geometry.colors import SRGB_TO_LINEAR, linear_to_srgb, srgb_to_linear, to_uint8, unit_colors


def test_known_values_of_the_srgb_curve():
    # IEC 61966-2-1: half of linear light is sRGB 0.7354; the curve is linear below 0.04045.
    np.testing.assert_allclose(linear_to_srgb(np.array([0.0, 0.5, 1.0])), [0.0, 0.735357, 1.0], atol=1e-6)
    np.testing.assert_allclose(srgb_to_linear(np.array([0.04, 0.5])), [0.04 / 12.92, 0.214041], atol=1e-6)


def test_every_byte_survives_the_way_to_linear_light_and_back():
    assert (to_uint8(linear_to_srgb(SRGB_TO_LINEAR)) == np.arange(256)).all()


@pytest.mark.parametrize(
    ("stored", "red", "told"),
    [
        (np.array([[255, 0, 0]], np.uint8), 1.0, None),
        (np.array([[1, 0, 0]], np.uint8), 1 / 255, None),
        (np.array([[255, 0, 0]], np.int32), 1.0, None),
        (np.array([[255, 0, 0]], np.uint32), 1.0, "32 bits, end at 255"),
        (np.array([[65535, 0, 0]], np.uint16), 1.0, None),
        (np.array([[1.0, 0, 0]]), 1.0, None),
        (np.array([[0.25, 0, 0]]), 0.25, None),
        (np.array([[255.0, 0, 0]]), 1.0, None),
        (np.array([[65535.0, 0, 0]]), 1.0, "count to 65535"),
        (np.array([[1.5, 0.2, 0]]), 1.0, "above 1 was cut"),
        (np.array([[-1.0, 0, 0]]), None, "left out"),
        (np.array([[1000.5, 0, 0]]), None, "left out"),
        (np.array([[np.nan, 0, 0]]), None, "NaN"),
    ],
)
def test_one_rule_scales_the_colors_of_all_formats(stored, red, told):
    warnings: list[str] = []
    unit = unit_colors(stored, warnings)
    assert (unit is None) == (red is None) and (told is None) == (not warnings)
    if unit is not None:
        np.testing.assert_allclose(unit[0, 0], red)
    if told is not None:
        assert told in warnings[0]
