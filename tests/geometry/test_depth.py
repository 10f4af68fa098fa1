from __future__ import annotations

import numpy as np
import pytest

from modeling_ulip2.geometry import Mesh, Renderer, camera_ring
from modeling_ulip2.geometry.depth import visible_points

from .builders import cube, sphere


def test_a_camera_sees_the_near_half_of_a_sphere():
    mesh = sphere(rings=48)
    moved = Mesh(mesh.vertices + [5.0, -2.0, 1.0], mesh.faces)
    (camera,) = camera_ring(1, elevation=20, azimuth=50)
    (points,) = visible_points(moved, [camera], Renderer(size=96, supersampling=1))
    points = points - [5.0, -2.0, 1.0]
    assert len(points) > 1000
    # facets of 48 rings lie up to 1 - cos(pi / 96) within the sphere
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1, atol=2e-3)
    assert (points @ camera.rotation[2] > 0).all(), "nothing of the far side"


def test_points_lie_on_the_faces_of_a_cube():
    views = visible_points(cube(), camera_ring(4, elevation=30, azimuth=20), Renderer(size=64, supersampling=1))
    for points in views:
        np.testing.assert_allclose(np.abs(points).max(axis=1), 1, atol=5e-3)
    everything = np.concatenate(views)
    for face in ((0, 1), (0, -1), (1, 1), (2, 1), (2, -1)):
        assert (np.abs(everything[:, face[0]] - face[1]) < 5e-3).sum() > 100, "all sides but the bottom are seen"
    assert (everything[:, 1] > -0.999).any() and not (everything[:, 1] < -1.01).any()


def test_depth_of_mixed_samples_is_refused():
    with pytest.raises(ValueError, match="supersampling=1, not 2"):
        visible_points(cube(), camera_ring(1), Renderer(size=8))
