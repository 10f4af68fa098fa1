import numpy as np
import pytest

from modeling_ulip2.geometry.mesh import Material, Mesh
from modeling_ulip2.scenes.scanning import Floor, SceneMesh, Walk, scan_complete, scan_walk
from modeling_ulip2.scenes.scanning.rays import RayCaster

SIZE = np.array([5.0, 2.5, 4.0])


def box(low, high, inwards: bool = False) -> tuple[np.ndarray, np.ndarray]:
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * (np.array(high) - low) + low
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6],
                      [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])  # fmt: skip
    return corners, faces[:, ::-1] if inwards else faces


def room(glass: bool = False) -> SceneMesh:
    """A room with a table in its middle, and a screen of glass or wood in front of one wall."""
    parts = [box([0, 0, 0], SIZE, inwards=True), box([2, 0, 1.5], [3, 0.8, 2.5]), box([0, 0, 0.3], [5, 2.5, 0.32])]
    vertices = np.concatenate([part[0] for part in parts])
    faces = np.concatenate([part[1] + 8 * index for index, part in enumerate(parts)])
    screen = Material(base_color=np.array([1, 1, 1, 0.3 if glass else 1], np.float32))
    screen.alpha_mode = "BLEND" if glass else "OPAQUE"
    paint = [Material(base_color=np.array([1, 0, 0, 1], np.float32)), Material(), screen]
    number = np.repeat(np.arange(3), 12)
    return SceneMesh(
        id="room",
        mesh=Mesh(vertices=vertices, faces=faces, materials=paint, face_material=number),
        face_object=number.astype(np.int32),
        categories=["wall", "table", "screen"],
        names=["", "A table", ""],
        floors=[Floor("room", np.array([[0, 0], [5, 0], [5, 4], [0, 4]], float), [], 0.0, 2.5)],
        license="cc0-1.0",
    )


QUICK = Walk(views=6, width=96, height=72)


def test_a_complete_scan_is_uniform_and_knows_its_objects():
    scene = scan_complete(room(), 100)
    area = room().mesh.face_areas()
    assert len(scene.xyz) == round(area.sum() * 100)
    assert scene.categories == ["wall", "table", "screen"] and scene.license == "cc0-1.0"
    share = np.bincount(scene.instance) / len(scene.xyz)
    np.testing.assert_allclose(share, [area[n * 12 : n * 12 + 12].sum() / area.sum() for n in range(3)], atol=0.02)
    table = scene.xyz[scene.instance == 1]
    assert (table.min(axis=0) >= [2, 0, 1.5]).all() and (table.max(axis=0) <= [3, 0.8001, 2.5]).all()
    np.testing.assert_array_equal(
        scene.rgb[scene.instance == 0], np.tile([255, 0, 0], ((scene.instance == 0).sum(), 1))
    )
    again, other = scan_complete(room(), 100), scan_complete(room(), 100, seed=1)
    np.testing.assert_array_equal(scene.xyz, again.xyz)
    assert not np.array_equal(scene.xyz, other.xyz)
    with pytest.raises(ValueError, match="less densely"):
        scan_complete(room(), 1e7)
    with pytest.raises(ValueError, match="above 0"):
        scan_complete(room(), 0)


def test_a_walk_sees_what_a_person_sees():
    scene = scan_walk(room(), QUICK, seed=3)
    assert scene.xyz.dtype == np.float32 and np.isfinite(scene.xyz).all()
    assert set(np.unique(scene.instance)) == {0, 1, 2}
    # nothing below the table's top from inside, nothing behind the screen
    inside = (scene.xyz > [2.1, 0.05, 1.6]).all(axis=1) & (scene.xyz < [2.9, 0.7, 2.4]).all(axis=1)
    behind = (scene.xyz > [0.8, 0.3, -1]).all(axis=1) & (scene.xyz < [4.2, 2.0, 0.1]).all(axis=1)
    assert inside.sum() == 0 and behind.sum() == 0
    # but the table's top, seen from above, with normals that look up
    top = (scene.instance == 1) & (np.abs(scene.xyz[:, 1] - 0.8) < 0.02) & (scene.normals[:, 1] > 0.9)
    assert top.sum() > 50
    again = scan_walk(room(), QUICK, seed=3)
    np.testing.assert_array_equal(scene.xyz, again.xyz)
    np.testing.assert_array_equal(scene.instance, again.instance)
    assert not np.array_equal(scene.xyz, scan_walk(room(), QUICK, seed=4).xyz)


def test_noise_grows_with_depth():
    still = Walk(views=6, width=96, height=72, noise=(0.0, 0.0), voxel=1e-3)
    exact = scan_walk(room(), still)
    # without noise every point lies on a surface
    outside = np.abs(np.concatenate([exact.xyz, SIZE - exact.xyz], axis=1)).min(axis=1)
    assert outside[exact.instance == 0].max() < 1e-4
    rough = Walk(views=6, width=96, height=72, noise=(0.0, 0.02), voxel=1e-3, max_range=9)
    noisy = scan_walk(room(), rough)
    away = np.abs(np.concatenate([noisy.xyz, SIZE - noisy.xyz], axis=1)).min(axis=1)[noisy.instance == 0]
    assert np.percentile(away, 90) > 0.02 and np.percentile(away, 10) < 0.01


def test_one_point_is_kept_of_a_voxel_and_nothing_beyond_the_range():
    area = float(room().mesh.face_areas().sum())
    for noise in ((0.0, 0.0), (0.0, 0.02)):
        scene = scan_walk(room(), Walk(views=6, width=96, height=72, voxel=0.1, noise=noise))
        assert 30 * area < len(scene.xyz) < 110 * area  # one for each 10 cm x 10 cm, whatever the noise
    near = Walk(views=6, width=96, height=72, max_range=1.6, spacing=9)
    assert len(scan_walk(room(), near).xyz) < 0.5 * len(scan_walk(room(), Walk(views=6, width=96, height=72)).xyz)


def test_the_camera_sees_through_glass():
    scene = scan_walk(room(glass=True), QUICK)
    assert 2 not in scene.instance
    behind = (scene.xyz > [0.8, 0.3, -1]).all(axis=1) & (scene.xyz < [4.2, 2.0, 0.1]).all(axis=1)
    assert behind.sum() > 100


def test_one_stands_on_free_floor_only():
    from modeling_ulip2.scenes.scanning.walk import standing_places

    scene = room()
    places = standing_places(scene, RayCaster(scene.mesh), Walk(spacing=0.7), np.random.default_rng(0))
    assert len(places) > 5 and np.allclose(places[:, 1], 1.5)
    on_table = (np.abs(places[:, [0, 2]] - [2.5, 2.0]) < 0.5).all(axis=1)
    assert not on_table.any() and (places[:, 2] > 0.6).all()
    full = room()
    full.floors = [Floor("shelf", np.array([[2, 1.5], [3, 1.5], [3, 2.5], [2, 2.5]], float), [], 0.0, 2.5)]
    with pytest.raises(ValueError, match="no free floor"):
        scan_walk(full)
    with pytest.raises(ValueError, match="at least one view"):
        Walk(views=0)


def test_rays_meet_what_is_nearest_also_from_inside():
    scene = room()
    caster = RayCaster(scene.mesh)
    origins = np.array([[2.5, 1.5, 2.0], [2.5, 1.5, 2.0], [2.5, 0.4, 2.0], [9, 9, 9]])
    directions = np.array([[0, -1, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], dtype=float)
    hits = caster.cast(origins, directions, 100)
    assert scene.face_object[hits.face[:3]].tolist() == [1, 0, 1] and hits.face[3] == -1
    np.testing.assert_allclose(hits.distance[:3], [0.7, 2.5, 0.4], atol=1e-5)
    assert caster.cast(origins[:1], directions[:1], 0.5).face[0] == -1
    point = np.einsum("k,kc->c", hits.barycentric[1], scene.mesh.vertices[scene.mesh.faces[hits.face[1]]])
    np.testing.assert_allclose(point, [5, 1.5, 2], atol=1e-5)
