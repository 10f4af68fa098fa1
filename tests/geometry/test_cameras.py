import numpy as np
import pytest

from modeling_ulip2.geometry import Camera, camera_ring

from .builders import cube, sphere


def eye(camera: Camera) -> np.ndarray:
    """Direction from the object to the camera."""
    return camera.rotation[2]


def test_azimuth_0_looks_at_the_front_and_90_at_the_side():
    np.testing.assert_allclose(eye(Camera(0, elevation=0)), [0, 0, 1], atol=1e-12)
    np.testing.assert_allclose(eye(Camera(90, elevation=0)), [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(eye(Camera(0, elevation=90)), [0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(Camera(0, elevation=0).rotation[0], [1, 0, 0], atol=1e-12)  # x to the right


@pytest.mark.parametrize("azimuth", [0, 30, 200])
@pytest.mark.parametrize("elevation", [-90, -20, 0, 45, 90])
def test_rotations_are_proper(azimuth, elevation):
    rotation = Camera(azimuth, elevation).rotation
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


def test_ring():
    ring = camera_ring(12)
    assert [camera.azimuth for camera in ring] == list(range(0, 360, 30))
    assert len({camera.elevation for camera in ring}) == 1
    assert [camera.azimuth for camera in camera_ring(3, azimuth=300)] == [300, 60, 180]


@pytest.mark.parametrize("fov", [10.0, 40.0, 90.0])
@pytest.mark.parametrize("elevation", [-60.0, 0.0, 15.0, 90.0])
@pytest.mark.parametrize("fill", [0.3, 0.75, 1.0])
def test_no_view_of_a_full_turn_leaves_its_share_of_the_frame(fov, elevation, fill):
    points = sphere(8).vertices * [3.0, 0.5, 1.0] + [0.0, 0.0, 0.2]
    cameras = [c.fitted(points) for c in camera_ring(72, fov=fov, elevation=elevation, fill=fill)]
    assert len({c.distance for c in cameras}) == 1  # one scale for the whole ring, however it is split
    extents = []
    for camera in cameras:
        seen = points @ camera.rotation.T
        depth = camera.distance - seen[:, 2]
        assert (depth > 0).all()
        extents.append(np.abs(seen[:, :2] / depth[:, None]).max() / np.tan(np.radians(fov) / 2))
    assert max(extents) <= fill + 1e-9
    if fill < 1.0 or fov < 90.0:
        assert max(extents) > 0.95 * fill  # and no farther away than that needs


def test_impossible_cameras_are_refused():
    for wrong in ({"fov": 0}, {"fov": 170}, {"fill": 0}, {"fill": 1.5}, {"elevation": 100}, {"distance": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Camera(**wrong)
    with pytest.raises(ValueError, match="num_views"):
        camera_ring(0)
    with pytest.raises(ValueError, match="inside the object"):
        Camera(distance=1.5).fitted(cube().vertices)
    assert Camera(distance=5.0).fitted(cube().vertices).distance == 5.0
