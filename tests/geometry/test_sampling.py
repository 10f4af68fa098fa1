import numpy as np
import pytest

from modeling_ulip2.geometry import Material, Mesh, sample_points

from .builders import CUBE_FACES, cube, quad, sphere


def test_exactly_n_points_of_the_documented_types():
    for n in (1, 7, 1000):
        xyz, rgb = sample_points(cube(), n, seed=0)
        assert xyz.shape == rgb.shape == (n, 3)
        assert xyz.dtype == np.float64 and rgb.dtype == np.uint8
    with pytest.raises(ValueError, match="n is 0"):
        sample_points(cube(), 0)


def test_the_seed_decides():
    first, again, other = (sample_points(sphere(), 500, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_points_lie_on_the_surface_and_uniformly_by_area():
    xyz, _ = sample_points(cube(), 60_000, seed=0)
    np.testing.assert_allclose(np.abs(xyz).max(axis=1), 1.0, atol=1e-6)
    # Every cell of a 4 x 4 grid on each of the six sides: chi-squared with 95 degrees of freedom.
    side = np.abs(xyz).argmax(axis=1) * 2 + (xyz[np.arange(len(xyz)), np.abs(xyz).argmax(axis=1)] > 0)
    rest = np.stack([np.delete(p, a) for p, a in zip(xyz, np.abs(xyz).argmax(axis=1), strict=True)])
    cell = np.clip(((rest + 1) * 2).astype(int), 0, 3)
    counts = np.bincount(side * 16 + cell[:, 0] * 4 + cell[:, 1], minlength=96)
    expected = len(xyz) / 96
    assert ((counts - expected) ** 2 / expected).sum() < 150


def test_large_triangles_get_more_points_than_small_ones():
    vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0], [9, 0, 0], [10, 0, 0], [9, 1, 0]], float)
    xyz, _ = sample_points(Mesh(vertices, np.array([[0, 1, 2], [3, 4, 5]])), 20_000, 0)
    assert (xyz[:, 0] < 5).mean() == pytest.approx(0.9, abs=0.01)


def test_degenerate_triangles_get_none():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5]], float)
    xyz, _ = sample_points(Mesh(vertices, np.array([[3, 3, 3], [0, 1, 2], [0, 3, 0]])), 1000, 0)
    assert xyz.max() <= 1.0


def test_vertex_colors_are_interpolated_in_linear_light():
    mesh = quad(vertex_colors=np.array([[0, 0, 0], [1, 1, 1], [1, 1, 1], [0, 0, 0]]))
    xyz, rgb = sample_points(mesh, 3000, 0)
    middle = np.abs(xyz[:, 0]) < 0.02
    np.testing.assert_allclose(rgb[middle], 188, atol=3)  # half of the light


def test_face_colors_and_materials_multiply():
    half = Material(base_color=np.array([0.5, 1, 1, 1], np.float32))
    mesh = quad(half, face_colors=np.array([[1, 0.5, 0], [1, 0.5, 0]]))
    assert (sample_points(mesh, 10, 0)[1] == [188, 188, 0]).all()


def test_holes_get_no_points():
    texture = np.full((4, 4, 4), 255, np.uint8)
    texture[:, :2, 3] = 0  # the left half is cut out
    for mode in ("MASK", "BLEND"):
        xyz, _ = sample_points(quad(Material(texture=texture, wrap=("clamp", "clamp"), alpha_mode=mode)), 2000, 0)
        assert len(xyz) == 2000 and (xyz[:, 0] > -0.25).all()
    xyz, _ = sample_points(quad(Material(texture=texture)), 2000, 0)  # OPAQUE ignores alpha
    assert xyz[:, 0].min() < -0.9


def test_a_surface_of_nothing_but_holes_still_gives_points():
    invisible = Material(base_color=np.array([1, 0, 0, 0.0], np.float32), alpha_mode="MASK")
    xyz, rgb = sample_points(quad(invisible), 100, 0)
    assert len(xyz) == 100 and (rgb == [255, 0, 0]).all()


def test_textures_land_where_uv_says():
    texture = np.zeros((2, 2, 4), np.uint8)
    texture[..., 3] = 255
    texture[0, 0, 0] = texture[0, 1, 1] = texture[1, 0, 2] = 255  # red, green over blue, black
    xyz, rgb = sample_points(quad(Material(texture=texture)), 4000, 0)
    for x, y, color in (
        (-0.5, 0.5, [255, 0, 0]),
        (0.5, 0.5, [0, 255, 0]),
        (-0.5, -0.5, [0, 0, 255]),
        (0.5, -0.5, [0, 0, 0]),
    ):
        near = np.hypot(xyz[:, 0] - x, xyz[:, 1] - y) < 0.05
        np.testing.assert_allclose(rgb[near].mean(axis=0), color, atol=70)
        assert (rgb[near].argmax(axis=1) == np.argmax(color)).all() or color == [0, 0, 0]


def test_large_coordinates_keep_their_shape():
    mesh = Mesh(cube().vertices + [4e5, 5e6, 0], CUBE_FACES)
    xyz, _ = sample_points(mesh, 100, 0)
    assert np.isfinite(xyz).all()
    assert np.abs(xyz[:, 0] - 4e5).max() < 1.1


def test_soft_edges_of_a_leaf_keep_its_color_and_panes_are_pale():
    leaf = np.full((4, 4, 4), (20, 120, 30, 255), np.uint8)
    leaf[:, :2, 3] = 120
    assert (sample_points(quad(Material(texture=leaf, alpha_mode="BLEND")), 50, 0)[1] == [20, 120, 30]).all()
    pane = Material(base_color=np.array([0.1, 0.1, 0.1, 0.2], np.float32), alpha_mode="BLEND")
    assert sample_points(quad(pane), 50, 0)[1].min() > 180
