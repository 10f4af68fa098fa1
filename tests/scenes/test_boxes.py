"""Boxes around objects."""

from __future__ import annotations

import numpy as np
import pytest

from modeling_ulip2.scenes.boxes import axis_aligned_box, oriented_box

SIZE, CENTER = np.array([2.0, 0.7, 0.9]), np.array([3.0, 1.0, -4.0])


def turned(angle: float, size=SIZE, count: int = 3000) -> np.ndarray:
    """A full box that was turned counterclockwise as seen from above."""
    rng = np.random.default_rng(0)
    signs = np.stack(np.meshgrid([-0.5, 0.5], [-0.5, 0.5], [-0.5, 0.5]), axis=-1).reshape(-1, 3)
    local = np.concatenate([signs, rng.random((count, 3)) - 0.5]) * size
    u, v = np.array([np.cos(angle), 0, -np.sin(angle)]), np.array([np.sin(angle), 0, np.cos(angle)])
    return local[:, :1] * u + local[:, 1:2] * [0, 1, 0] + local[:, 2:] * v + CENTER


@pytest.mark.parametrize("degrees", [0, 10, -30, 44])
def test_a_turned_box_is_found_as_it_was_turned(degrees):
    found = oriented_box(turned(np.radians(degrees)).astype(np.float32))

    assert found.dtype == np.float32 and found.shape == (7,)
    assert found[:3] == pytest.approx(CENTER, abs=1e-4)
    assert found[3:6] == pytest.approx(SIZE, abs=1e-3)
    assert np.degrees(found[6]) == pytest.approx(degrees, abs=0.05)


@pytest.mark.parametrize("degrees", [60, 90, 170])
def test_of_the_names_of_a_box_the_one_that_turns_least_is_taken(degrees):
    found = oriented_box(turned(np.radians(degrees)))

    turn = (degrees + 45) % 90 - 45
    swapped = round((degrees - turn) / 90) % 2
    assert np.degrees(found[6]) == pytest.approx(turn, abs=0.05)
    assert found[3:6] == pytest.approx(SIZE[::-1] if swapped else SIZE, abs=1e-3)


def test_what_is_flat_or_thin_or_a_point_has_a_box():
    wall = turned(0.3, np.array([3.0, 2.0, 0.0]))
    assert oriented_box(wall)[[3, 4, 5, 6]] == pytest.approx([3, 2, 0, 0.3], abs=1e-3)
    pole = CENTER + np.linspace(0, 1, 20)[:, None] * [0, 1, 0]
    assert oriented_box(pole)[3:] == pytest.approx([0, 1, 0, 0], abs=1e-6)
    assert oriented_box(CENTER[None]) == pytest.approx([*CENTER, 0, 0, 0, 0])
    assert oriented_box(np.repeat(CENTER[None], 9, axis=0)) == pytest.approx([*CENTER, 0, 0, 0, 0])


def test_the_box_along_the_axes_holds_all_points():
    xyz = turned(0.4)
    low, high = axis_aligned_box(xyz)
    assert low == pytest.approx(xyz.min(axis=0), abs=1e-6) and high == pytest.approx(xyz.max(axis=0), abs=1e-6)
