import numpy as np
import pytest

from modeling_ulip2.geometry import Camera, Mesh, Renderer, camera_ring
from modeling_ulip2.geometry.cameras import PUBLISHED_RING

from .builders import CUBE_FACES, CUBE_VERTICES, cube, sphere


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
    cameras = [c.fitted(points) for c in camera_ring(72, fov=fov, elevation=elevation, fill=fill, fit="ring")]
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


def solids():
    """Closed and open shapes of many proportions: boxes, plates, poles, ellipsoids, a cone that stands on its tip."""
    rng = np.random.default_rng(0)
    for sides in ((1, 1, 1), (3, 0.02, 2), (0.2, 2, 0.2), (2, 0.8, 0.9), (0.05, 1, 1), (4, 0.5, 1), (1, 3, 0.5)):
        yield Mesh(CUBE_VERTICES * sides, CUBE_FACES)
    for _ in range(5):
        ball = sphere(12)
        yield Mesh(ball.vertices * rng.uniform(0.1, 1, 3) + rng.normal(size=3) * 10, ball.faces)
    around = np.linspace(0, 2 * np.pi, 24, False)
    rim = np.stack([np.cos(around), np.ones(24), np.sin(around)], axis=1)
    cone = np.concatenate([[[0, -1, 0]], rim])
    yield Mesh(cone, np.array([[0, i + 1, (i + 1) % 24 + 1] for i in range(24)]))


@pytest.mark.parametrize("elevation", [-30.0, 0.0, 15.0, 25.0, 60.0])
def test_every_view_fills_the_frame_and_lies_in_its_middle(elevation):
    size = 128
    renderer = Renderer(size=size)
    for mesh in solids():
        for alpha in renderer.render(mesh, camera_ring(5, elevation=elevation, azimuth=7)).alpha:
            rows, columns = (np.flatnonzero((alpha > 127).any(axis=axis)) for axis in (1, 0))
            extents = [(np.ptp(place) + 1) / size for place in (rows, columns)]
            assert 0.83 <= max(extents) <= 0.87
            for place in (rows, columns):
                assert abs(place[0] + place[-1] + 1 - size) <= 3  # as far from the one edge as from the other


@pytest.mark.parametrize("fov", [5.0, 40.0, 100.0])
@pytest.mark.parametrize("fill", [0.3, 0.85, 1.0])
def test_a_fitted_view_is_tight_in_exact_numbers(fov, fill):
    rng = np.random.default_rng(1)
    slope = fill * np.tan(np.radians(fov) / 2)
    for _ in range(50):
        points = rng.normal(size=(30, 3)) * rng.uniform(0.3, 1, 3)
        camera = Camera(rng.uniform(0, 360), rng.uniform(-89, 89), fov, fill).fitted(points)
        seen = points @ camera.rotation.T
        depth = camera.distance - seen[:, 2]
        projected = (seen[:, :2] - camera.shift) / depth[:, None]
        assert (depth > 0).all() and np.abs(projected).max() <= slope * (1 + 1e-9)
        low, high = projected.min(axis=0), projected.max(axis=0)
        np.testing.assert_allclose(low, -high, atol=1e-6 * slope)
        if depth.max() < 10 * depth.min():
            assert high.max() == pytest.approx(slope)


def test_the_published_ring_keeps_one_scale_and_looks_at_the_middle():
    cameras = [camera.fitted(cube().vertices) for camera in camera_ring(12, **PUBLISHED_RING)]
    assert len({camera.distance for camera in cameras}) == 1 and {camera.shift for camera in cameras} == {(0.0, 0.0)}
    assert {(camera.elevation, camera.fill) for camera in cameras} == {(15.0, 0.68)}


def test_impossible_cameras_are_refused():
    for wrong in (
        {"fov": 0},
        {"fov": 170},
        {"fill": 0},
        {"fill": 1.5},
        {"elevation": 100},
        {"distance": -1},
        {"fit": "all"},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Camera(**wrong)
    with pytest.raises(ValueError, match="num_views"):
        camera_ring(0)
    with pytest.raises(ValueError, match="inside the object"):
        Camera(distance=1.5).fitted(cube().vertices)
    assert Camera(distance=5.0).fitted(cube().vertices).distance == 5.0
