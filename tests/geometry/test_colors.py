import numpy as np

from modeling_ulip2.geometry.colors import SRGB_TO_LINEAR, linear_to_srgb, srgb_to_linear, to_uint8, to_unit


def test_known_values_of_the_srgb_curve():
    # IEC 61966-2-1: half of linear light is sRGB 0.7354; the curve is linear below 0.04045.
    np.testing.assert_allclose(linear_to_srgb(np.array([0.0, 0.5, 1.0])), [0.0, 0.735357, 1.0], atol=1e-6)
    np.testing.assert_allclose(srgb_to_linear(np.array([0.04, 0.5])), [0.04 / 12.92, 0.214041], atol=1e-6)


def test_every_byte_survives_the_way_to_linear_light_and_back():
    assert (to_uint8(linear_to_srgb(SRGB_TO_LINEAR)) == np.arange(256)).all()


def test_to_unit_scales_integers_by_their_range_and_leaves_floats():
    np.testing.assert_allclose(to_unit(np.array([0, 255], np.uint8)), [0, 1])
    np.testing.assert_allclose(to_unit(np.array([0, 65535], np.uint16)), [0, 1])
    np.testing.assert_allclose(to_unit(np.array([0.25], np.float64)), [0.25])
