from __future__ import annotations

import numpy as np
import pytest

from modeling_ulip2.geometry.cameras import Camera
from modeling_ulip2.scenes import ObjectMasks, Scene
from modeling_ulip2.scenes.pictures import draw_points, object_views


def plate(z: float, half: float, count: int = 60) -> np.ndarray:
    line = np.linspace(-half, half, count)
    return np.stack([*np.meshgrid(line, line), np.full((count, count), z)], axis=-1).reshape(-1, 3)


def test_a_surface_has_no_holes_and_what_is_near_is_in_front():
    near, far = plate(0.5, 0.5), plate(-0.5, 1.0)
    rgb = np.concatenate([np.tile([250, 0, 0], (len(near), 1)), np.tile([0, 0, 250], (len(far), 1))]).astype(np.uint8)
    picture = draw_points(np.concatenate([near, far]), rgb, camera=Camera(0.0, 0.0), size=64)
    assert (picture[32, 32] == [250, 0, 0]).all() and (picture[32, 8] == [0, 0, 250]).all()
    assert (picture[0, 0] == 255).all()
    rows, columns = np.nonzero((picture != 255).any(axis=-1))
    inside = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert (inside != 255).any(axis=-1).all()
    behind = draw_points(np.concatenate([near, far]), rgb, camera=Camera(180.0, 0.0), size=64)
    assert not (behind == [250, 0, 0]).all(axis=-1).any()


def test_up_is_up_and_right_is_right():
    xyz = np.concatenate([plate(0, 0.1) + [0.6, 0.6, 0], plate(0, 0.1) - [0.6, 0.6, 0]])
    rgb = np.repeat(np.array([[9, 200, 9], [9, 9, 200]], np.uint8), 3600, axis=0)
    picture = draw_points(xyz, rgb, camera=Camera(0.0, 0.0), size=50)
    rows, columns = np.nonzero((picture == [9, 200, 9]).all(axis=-1))
    assert rows.mean() < 15 and columns.mean() > 35


def test_slanted_surfaces_are_darker_and_clouds_without_color_gray():
    normals = np.tile([0.0, 0.0, 1.0], (3600, 1))
    front = draw_points(plate(0, 1), normals=normals, camera=Camera(0.0, 0.0), size=40)[20, 20]
    slanted = draw_points(plate(0, 1), normals=normals, camera=Camera(70.0, 0.0), size=40)[20, 20]
    assert front.tolist() == [160] * 3 and slanted[0] < 130


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_points_and_points_in_one_place_are_drawn(count):
    assert (draw_points(np.zeros((count, 3)), size=20) != 255).any()
    assert (draw_points(np.arange(count * 3).reshape(count, 3), size=20) != 255).any()
    with pytest.raises(ValueError, match="no point"):
        draw_points(np.empty((0, 3)))


def test_each_object_is_seen_alone_from_several_sides():
    xyz = np.concatenate([plate(0, 0.5), plate(0, 0.2) + [5, 0, 0]]).astype(np.float32)
    rgb = np.zeros((len(xyz), 3), np.uint8)
    rgb[3600:] = [200, 9, 9]
    scene = Scene("s", xyz, rgb)
    masks = ObjectMasks([np.arange(3600, dtype=np.int32), np.arange(3600, 7200, dtype=np.int32)])
    first, second = object_views(scene, masks, num_views=2, size=32, max_points=500)
    assert len(first) == len(second) == 2 and first[0].shape == (32, 32, 3)
    assert not (first[0] == [200, 9, 9]).all(axis=-1).any() and (second[0] == [200, 9, 9]).all(axis=-1).any()
    assert not np.array_equal(first[0], first[1])
    again = object_views(scene, masks, num_views=2, size=32, max_points=500)
    assert np.array_equal(again[0][0], first[0])
