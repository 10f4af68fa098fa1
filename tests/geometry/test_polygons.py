"""Polygons of any shape are covered once, in the plane they lie in, wound as they are."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError, polygons, read_mesh
from modeling_ulip2.geometry.polygons import triangulate

CASES = Path(__file__).parent / "cases"


def newell(points: np.ndarray) -> np.ndarray:
    """(3,) area vector of a polygon."""
    return 0.5 * np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0)


def cut(*shapes: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """The (F, 3) triangles of each polygon, as positions within it, and the (F', 3) triangles' area vectors."""
    points = np.concatenate(shapes)
    sizes = np.array([len(shape) for shape in shapes])
    triangles, polygon = triangulate(points, np.arange(len(points)), sizes)
    assert (np.diff(polygon) >= 0).all()
    begin = np.cumsum(sizes) - sizes
    a, b, c = (points[triangles[:, i]] for i in range(3))
    return [triangles[polygon == i] - begin[i] for i in range(len(shapes))], 0.5 * np.cross(b - a, c - a)


def outline(triangles: np.ndarray) -> set[tuple[int, int]]:
    """The directed edges of triangles that no neighbor runs the other way."""
    edges = Counter((int(t[i]), int(t[i - 2])) for t in triangles for i in range(3))
    return set((edges - Counter({(b, a): n for (a, b), n in edges.items()})).keys())


def check(shape: np.ndarray, rel: float = 1e-6) -> np.ndarray:
    """A simple polygon is covered once: areas add up, all face one way, its edges are the outline."""
    (triangles,), areas = cut(shape)
    whole = newell(shape - shape[0])
    assert (areas @ whole >= -1e-9 * (whole @ whole)).all()
    np.testing.assert_allclose(areas.sum(axis=0), whole, rtol=0, atol=rel * np.linalg.norm(whole))
    signed = areas @ whole / np.linalg.norm(whole)
    assert np.abs(signed).sum() == pytest.approx(np.linalg.norm(whole), rel=rel)
    return triangles


def flat(*corners: tuple[float, float]) -> np.ndarray:
    return np.array([(x, y, 0.0) for x, y in corners])


def star(corners: int, inner: float = 0.3, seed: int | None = None) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    radius = np.where(np.arange(corners) % 2, inner, 1.0)
    if seed is not None:
        radius = np.random.default_rng(seed).uniform(inner, 1.0, corners)
    return np.column_stack([radius * np.cos(angle), radius * np.sin(angle), np.zeros(corners)])


L_SHAPE = flat((0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3))
DART = flat((0, 0), (2, 1), (0, 2), (0.5, 1))
COMB = flat(
    *[p for i in range(40) for p in ((2 * i, 0), (2 * i, 9), (2 * i + 1, 9), (2 * i + 1, 0))], (80, -1), (-1, -1)
)
TURNS = np.linspace(0, 6 * np.pi, 200)
SPIRAL = np.column_stack([np.cos(TURNS), np.sin(TURNS), 0 * TURNS])
SPIRAL = np.concatenate([SPIRAL * (TURNS + 1)[:, None], (SPIRAL * (TURNS + 3)[:, None])[::-1]])
SIMPLE = {"L": L_SHAPE, "dart": DART, "star": star(10), "ragged": star(300, 0.1, 1), "comb": COMB, "spiral": SPIRAL}


@pytest.mark.parametrize("name", SIMPLE)
def test_every_start_winding_plane_place_and_scale(name):
    shape = SIMPLE[name]
    rng = np.random.default_rng(0)
    edges = {(i, (i + 1) % len(shape)) for i in range(len(shape))}
    for start in range(0, len(shape), max(1, len(shape) // 12)):
        assert outline(check(np.roll(shape, start, axis=0))) == edges
        assert outline(check(np.roll(shape, start, axis=0)[::-1])) == edges
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        tilted = shape @ turn
        assert outline(check(tilted)) == edges
        check(tilted * 1e-12)
        check(tilted * 1e12)
        check(tilted + rng.normal(size=3) * 1e6, rel=1e-4)
        bumpy = (shape + rng.normal(size=shape.shape) * [0, 0, 1e-3]) @ turn
        check(bumpy)


def test_convex_polygons_stay_fans():
    ring = star(24, 1.0)
    square = flat((0, 0), (1, 0), (1, 1), (0, 1))
    (a, b), _ = cut(ring, square)
    np.testing.assert_array_equal(a, polygons.fan(np.array([24]))[0])
    np.testing.assert_array_equal(b, [[0, 1, 2], [0, 2, 3]])


def test_corners_on_a_line_or_repeated():
    check(flat((0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1)))
    check(flat((0, 0), (1, 0), (3, 0), (3, 1), (2, 1), (1, 1), (1, 2), (1, 3), (0, 3), (0, 1)))
    check(np.repeat(L_SHAPE, 2, axis=0))
    check(np.repeat(star(10), 3, axis=0))


def test_holes_that_a_doubled_edge_joins():
    hole = [(1, 1), (1, 3), (3, 3), (3, 1)]  # runs the other way round
    frame = flat((0, 0), *hole, (1, 1), (0, 0), (4, 0), (4, 4), (0, 4))
    check(frame)
    for start in range(len(frame)):
        check(np.roll(frame, start, axis=0))
        check(np.roll(frame, start, axis=0)[::-1])
    (triangles,), _ = cut(frame)
    middle = frame[triangles].mean(axis=1)
    assert not ((middle > 1.01) & (middle < 2.99))[:, :2].all(axis=1).any()  # nothing in the hole
    two = flat((0, 0), (1, 1), (1, 2), (2, 2), (2, 1), (1, 1), (0, 0), (9, 0), (6, 1), (5, 1), (6, 2), (6, 1), (9, 0),
               (9, 3), (0, 3))  # fmt: skip
    check(two)


def test_polygons_that_touch_themselves():
    check(flat((0, 0), (2, 0), (1, 1), (2, 2), (0, 2), (1, 1)))  # two triangles that share a corner
    check(flat((0, 0), (4, 0), (4, 4), (2, 0), (0, 4)))  # a corner on an edge
    check(flat((0, 0), (3, 0), (3, 3), (5, 3), (3, 3), (0, 3)))  # an edge there and back


def test_polygons_without_area_or_with_crossings_do_no_harm():
    line = flat((0, 0), (1, 0), (2, 0), (1, 0))
    point = np.zeros((5, 3))
    bow_tie = flat((0, 0), (2, 2), (2, 0), (0, 2))
    crossing = np.random.default_rng(0).normal(size=(60, 3))
    broken = np.vstack([L_SHAPE, [[np.nan, np.inf, 0]]])
    pieces, areas = cut(line, L_SHAPE, point, bow_tie, L_SHAPE, crossing, broken, DART[:2], DART)
    assert np.linalg.norm(areas[: len(pieces[0])]).sum() == 0
    for piece, size in zip(pieces, (4, 6, 5, 4, 6, 60, 7, 2, 4), strict=True):
        assert len(piece) <= max(size - 2, 0) and piece.min(initial=0) >= 0 and piece.max(initial=0) < size
    for index in (1, 4):
        np.testing.assert_array_equal(pieces[index], pieces[1])
    assert len(pieces[3]) > 0


def test_an_overlapping_fan_of_positive_triangles_is_found_out():
    """A polygon that winds more than a full turn around its first corner has positive triangles in its fan."""
    angle = np.linspace(0, 4 * np.pi, 30)
    wound = np.column_stack([np.cos(angle) * (1 + angle / 9), np.sin(angle) * (1 + angle / 9), 0 * angle])
    wound = np.vstack([[[0.0, 0, 0]], wound])
    (triangles,), _ = cut(wound)
    assert not np.array_equal(triangles, polygons.fan(np.array([31]))[0])


def test_hostile_polygons_are_refused_before_they_take_minutes():
    huge = star(100_000)
    with pytest.raises(MeshError) as error:
        cut(huge)
    assert error.value.reason == "unsupported" and "100000 corners" in str(error.value)
    ring = star(100_000, 1.0)  # a convex one costs nothing
    assert len(cut(ring)[0][0]) == 99_998
    check(star(5001, 0.5, 3))


@pytest.mark.parametrize(
    ("name", "area"), [("c01_concave_L.obj", 5.0), ("c01_concave_star.obj", 1.117), ("c01_concave_star.ply", 1.117)]
)
def test_cases(name, area):
    assert read_mesh(CASES / name).face_areas().sum() == pytest.approx(area, abs=5e-4)


def test_attributes_stay_with_their_corners_in_every_format(tmp_path):
    """Colors are a function of the place, so a corner that goes astray shows."""
    points = star(10)
    rows = ["{:.9g} {:.9g} {:.9g}".format(*p) for p in points]
    shades = np.round((points[:, 0] + 1) * 127).astype(int)
    index = " ".join(str(i) for i in range(10))
    (tmp_path / "a.obj").write_text(
        "".join(f"v {row} {s} 0 255\nvt 0 {s / 255}\n" for row, s in zip(rows, shades, strict=True))
        + "vn 0 0 1\nf " + " ".join(f"{i}/{i}/1" for i in range(1, 11)) + "\n"
    )  # fmt: skip
    (tmp_path / "a.off").write_text(
        "COFF\n10 2 0\n" + "".join(f"{row} {s} 0 255\n" for row, s in zip(rows, shades, strict=True))
        + f"10 {index}\n3 0 1 2\n"
    )  # fmt: skip
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 10\nproperty float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nelement face 2\n"
        "property list uchar int vertex_indices\nend_header\n"
        + "".join(f"{row} {s} 0 255\n" for row, s in zip(rows, shades, strict=True)) + f"10 {index}\n3 0 1 2\n"
    )  # fmt: skip
    from modeling_ulip2.geometry.colors import srgb_to_linear

    for suffix in ("obj", "off", "ply"):
        mesh = read_mesh(tmp_path / f"a.{suffix}")
        extra = 0.0 if suffix == "obj" else 0.5 * abs(np.cross(points[1] - points[0], points[2] - points[0])[2])
        assert mesh.face_areas().sum() == pytest.approx(abs(newell(points)[2]) + extra, rel=1e-5)
        expected = srgb_to_linear(np.round((mesh.vertices[:, 0] + 1) * 127) / 255)
        np.testing.assert_allclose(mesh.vertex_colors[:, 0], expected, atol=1e-5)
