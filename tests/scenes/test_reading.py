import numpy as np
import pytest
import trimesh

from modeling_ulip2.geometry import MeshError
from modeling_ulip2.models.axes import rotation_to_y_up
from modeling_ulip2.scenes.reading import UNITS, read_scene

from .homes import CHAIR, ROOM, home_xml, write_home

SIZE = np.array([6.0, 2.5, 4.0])  # meters, y up


def room(count: int = 6000, ceiling: bool = False) -> np.ndarray:
    """(count, 3) points of a floor and four walls, y up, meters, the floor at 0."""
    rng = np.random.default_rng(0)
    points = rng.random((count, 3)) * SIZE
    side = rng.integers(0, 6 if ceiling else 5, count)
    for number, (axis, value) in enumerate([(1, 0), (0, 0), (0, 6), (2, 0), (2, 4), (1, 2.5)]):
        points[side == number, axis] = value
    return points


def written(path, points, rgb=None):
    path.write_bytes(trimesh.PointCloud(points, rgb).export(file_type=path.suffix[1:]))
    return path


def turned(points: np.ndarray, up: str) -> np.ndarray:
    return points @ rotation_to_y_up(up)  # the inverse of the turn to y up


def is_room(xyz: np.ndarray) -> None:
    assert xyz.dtype == np.float32
    np.testing.assert_allclose(xyz.max(axis=0) - xyz.min(axis=0), SIZE, atol=0.02)
    # the floor is below, the open side above
    height = xyz[:, 1] - xyz[:, 1].min()
    assert (height < 0.05).mean() > 0.15 > (height > 2.45).mean()


@pytest.mark.parametrize("unit", ["m", "cm", "mm"])
@pytest.mark.parametrize("up", ["y", "z"])
def test_axis_and_unit_are_guessed_and_said(tmp_path, up, unit):
    scene = read_scene(written(tmp_path / "room.ply", turned(room(), up) / UNITS[unit]))
    is_room(scene.xyz)
    assert scene.id == "room" and scene.source == "room.ply" and scene.instance is None
    assert sum(f"{up} is taken as up" in warning for warning in scene.warnings) == 1
    named = {"m": "meters", "cm": "centimeters", "mm": "millimeters"}[unit]
    assert any(named in warning for warning in scene.warnings) == (unit != "m")


@pytest.mark.parametrize("up", ["y", "z", "-z", "x"])
@pytest.mark.parametrize("unit", list(UNITS))
def test_what_the_caller_says_is_no_guess(tmp_path, up, unit):
    scene = read_scene(written(tmp_path / "room.ply", turned(room(600), up) / UNITS[unit]), up, unit)
    is_room(scene.xyz)
    assert scene.warnings == []


def test_a_flat_scan_is_measured_by_its_plan(tmp_path):
    floor = room()
    floor[:, 1] = 0
    for unit in ("m", "cm"):
        scene = read_scene(written(tmp_path / "floor.ply", floor / UNITS[unit]))
        assert np.ptp(scene.xyz[:, 0]) == pytest.approx(6, abs=0.02)


def test_las_and_gltf_say_what_is_up(tmp_path):
    laspy = pytest.importorskip("laspy")
    header = laspy.LasHeader(point_format=2, version="1.2")
    header.scales, header.offsets = [0.001] * 3, [4.3e5, 5.4e6, 0]
    las = laspy.LasData(header)
    las.x, las.y, las.z = (turned(room(), "z") + [4.3e5, 5.4e6, 0]).T
    las.write(tmp_path / "room.las")
    scene = read_scene(tmp_path / "room.las")
    is_room(scene.xyz)
    assert np.abs(scene.xyz).max() < 10 and any("far from the origin" in warning for warning in scene.warnings)
    box = trimesh.creation.box(SIZE * [1, 4, 1])  # a tower: higher than wide
    box.export(tmp_path / "tower.glb")
    tower = read_scene(tmp_path / "tower.glb")
    np.testing.assert_allclose(np.ptp(tower.xyz, axis=0), SIZE * [1, 4, 1], atol=0.1)
    assert tower.warnings == []


def test_a_dense_mesh_gives_its_vertices_and_a_coarse_one_its_surface(tmp_path):
    box = trimesh.creation.box(SIZE)
    box.export(tmp_path / "coarse.ply")
    coarse = read_scene(tmp_path / "coarse.ply", "y", density=100)
    area = 2 * (6 * 2.5 + 6 * 4 + 2.5 * 4)
    assert len(coarse.xyz) == pytest.approx(100 * area, abs=1) and coarse.rgb is None
    again = read_scene(tmp_path / "coarse.ply", "y", density=100)
    np.testing.assert_array_equal(coarse.xyz, again.xyz)
    dense = box.subdivide_to_size(0.1)
    dense.visual.vertex_colors = np.tile([10, 200, 30, 255], (len(dense.vertices), 1)).astype(np.uint8)
    dense.export(tmp_path / "dense.ply")
    scene = read_scene(tmp_path / "dense.ply", "y")
    assert len(scene.xyz) == len(dense.vertices)
    np.testing.assert_array_equal(scene.rgb, np.tile([10, 200, 30], (len(scene.xyz), 1)))
    # normals look outwards, and turn with the points
    for read in (scene, read_scene(written_turned(dense, tmp_path / "turned.ply"), "z")):
        inside = np.abs(read.xyz) < SIZE / 2 - 0.01
        on_top = inside[:, 0] & inside[:, 2] & (read.xyz[:, 1] > 1.2)
        assert on_top.sum() > 100
        np.testing.assert_allclose(read.normals[on_top], np.tile([0, 1, 0], (on_top.sum(), 1)), atol=1e-5)


def written_turned(mesh: trimesh.Trimesh, path):
    turned_mesh = mesh.copy()
    turned_mesh.apply_transform(np.vstack([np.c_[rotation_to_y_up("z").T, np.zeros(3)], [0, 0, 0, 1]]))
    turned_mesh.export(path)
    return path


@pytest.mark.parametrize("suffix", [".ply", ".xyz", ".npy", ".pcd"])
def test_nan_points_are_left_out_with_a_warning(tmp_path, suffix):
    points = room(500).astype(np.float32)
    points[[3, 77, 400]] = np.nan
    points[[5]] = np.inf if suffix == ".ply" else points[[5]]
    path = tmp_path / f"room{suffix}"
    if suffix == ".npy":
        np.save(path, points)
    elif suffix == ".ply":
        written(path, points)
    else:
        rows = "\n".join(" ".join(map(str, row)) for row in points)
        head = "FIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 500\nHEIGHT 1\nPOINTS 500\nDATA ascii\n"
        path.write_text((head if suffix == ".pcd" else "") + rows)
    scene = read_scene(path, "y", "m")
    left_out = 4 if suffix == ".ply" else 3
    assert len(scene.xyz) == 500 - left_out
    assert any(str(left_out) in warning and "NaN" in warning for warning in scene.warnings)


def test_a_mesh_with_nan_vertices_is_still_a_scan(tmp_path):
    mesh = trimesh.creation.box(SIZE).subdivide_to_size(0.2)
    vertices = mesh.vertices.copy()
    vertices[4] = np.nan
    trimesh.Trimesh(vertices, mesh.faces, process=False).export(tmp_path / "a.ply")
    scene = read_scene(tmp_path / "a.ply", "y", "m")
    assert len(scene.xyz) == len(vertices) - 1 and any("NaN" in warning for warning in scene.warnings)


def test_a_home_is_scanned_complete(tmp_path):
    scene = read_scene(write_home(tmp_path / "mine.sh3d", home_xml(ROOM + CHAIR.format(""))), density=100)
    assert scene.id == "mine" and scene.categories == ["wall"] * 4 + ["floor", "ceiling", "chair"]
    assert set(np.unique(scene.instance)) == set(range(7))


def test_bad_files_say_what_to_do(tmp_path):
    path = tmp_path / "huge.ply"
    columns = "".join(f"property float {axis}\n" for axis in "xyz")
    path.write_text(f"ply\nformat binary_little_endian 1.0\nelement vertex 100000000\n{columns}end_header\n")
    with pytest.raises(MeshError, match=r"huge.ply.*100000000.*thin the scan") as error:
        read_scene(path)
    assert error.value.reason == "too_many_points"
    with pytest.raises(MeshError, match="density") as error:
        read_scene(written_box(tmp_path / "hall.ply"), "y", "m", density=1e6)
    (tmp_path / "empty.xyz").write_text("# nothing\n")
    (tmp_path / "nan.xyz").write_text("nan nan nan\n" * 3)
    for name in ("empty.xyz", "nan.xyz"):
        with pytest.raises(MeshError) as error:
            read_scene(tmp_path / name)
        assert error.value.reason == "empty" and error.value.path == tmp_path / name
    with pytest.raises(MeshError, match="none of") as error:
        read_scene(tmp_path / "scan.e57")
    with pytest.raises(MeshError, match="no such file"):
        read_scene(tmp_path / "absent.ply")
    with pytest.raises(ValueError, match="unit is 'km'"):
        read_scene(path, unit="km")
    with pytest.raises(ValueError, match="up_axis"):
        read_scene(path, "w")


def written_box(path):
    trimesh.creation.box([60.0, 10.0, 60.0]).export(path)
    return path
