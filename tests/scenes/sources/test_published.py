import json

import numpy as np
import pytest
import trimesh

from modeling_ulip2.geometry import MeshError
from modeling_ulip2.scenes.reading import read_scene
from modeling_ulip2.scenes.sources.layouts import LayoutError
from modeling_ulip2.scenes.sources.published import find_published, read_published
from modeling_ulip2.scenes.sources.scannet import read_scannet
from modeling_ulip2.scenes.sources.scannet_labels import SCANNET20, SCANNET200

# Two squares of 4 vertices and a vertex of no face, z up: a floor, and a chair above it.
FLOOR = np.array([[0, 0, 0], [1, 0, 0], [1, 2, 0], [0, 2, 0]], float)
XYZ = np.concatenate([FLOOR, FLOOR * 0.5 + [0, 0, 1], [[9, 9, 3]]])
RGB = np.arange(27, dtype=np.uint8).reshape(9, 3) * 9
FACES = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
Y_UP = np.stack([XYZ[:, 0], XYZ[:, 2], -XYZ[:, 1]], axis=1)
SEGMENTS = [5, 5, 7, 7, 900, 900, 900, 900, 12]
GROUPS = [
    {"id": 0, "objectId": 0, "segments": [5, 7], "label": "floor"},
    {"id": 1, "objectId": 1, "segments": [900], "label": "office chair"},
]
TABLE = "id\traw_category\tcategory\tnyu40id\n3\tfloor\tfloor\t2\n10\toffice chair\tchair\t5\n400\todd thing\todd\t0\n"


def write_ply(path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mesh = trimesh.Trimesh(XYZ, FACES, vertex_colors=RGB, process=False)
    path.write_bytes(mesh.export(file_type="ply"))


def scannet(root, name="scene0000_00", groups=None, segments=None):
    folder = root / name
    write_ply(folder / f"{name}_vh_clean_2.ply")
    told = {"segIndices": SEGMENTS if segments is None else segments}
    (folder / f"{name}_vh_clean_2.0.010000.segs.json").write_text(json.dumps(told))
    told = {"segGroups": GROUPS if groups is None else groups}
    (folder / f"{name}.aggregation.json").write_text(json.dumps(told))
    (root / "scannetv2-labels.combined.tsv").write_text(TABLE)
    return folder


def check(scene, categories, instance=(0, 0, 0, 0, 1, 1, 1, 1, -1)):
    np.testing.assert_allclose(scene.xyz, Y_UP, atol=1e-6)
    np.testing.assert_array_equal(scene.rgb, RGB)
    assert scene.categories == categories
    np.testing.assert_array_equal(scene.instance, instance)
    assert scene.warnings == []


def test_label_sets_are_the_published_ones():
    assert len(SCANNET20) == 20 and len(SCANNET200) == 200
    assert SCANNET20[5] == SCANNET200[2] == "chair" and SCANNET20[39] == "otherfurniture"
    assert SCANNET200[1191] == "mattress" and SCANNET200[1163] == "object" and SCANNET200[11] == "bed"


def test_scannet(tmp_path):
    folder = scannet(tmp_path)
    check(read_scene(folder), ["floor", "office chair"])
    check(read_scannet(folder, "scannet20"), ["floor", "chair"])
    check(read_scannet(folder, "scannet200"), ["floor", "office chair"])
    assert read_scannet(folder, "scannet20").names == ["floor", "office chair"]
    with pytest.raises(ValueError, match="scannet20, scannet200"):
        read_scannet(folder, "nyu")
    # an object outside the set is none; so is one whose label the table lacks
    groups = [*GROUPS, {"id": 2, "segments": [12], "label": "odd thing"}, {"id": 3, "segments": [1], "label": "new"}]
    folder = scannet(tmp_path, groups=groups)
    check(read_scannet(folder, "scannet200"), ["floor", "office chair"])
    check(read_scannet(folder), ["floor", "office chair", "odd thing", "new"], (0, 0, 0, 0, 1, 1, 1, 1, 2))


def test_scannet_is_aligned_where_its_text_says_how(tmp_path):
    folder = scannet(tmp_path)
    told = "axisAlignment = 0 -1 0 2 1 0 0 3 0 0 1 4 0 0 0 1\ncolorHeight = 968\n"
    (folder / "scene0000_00.txt").write_text(told)
    xyz = read_scannet(folder).xyz
    turned = np.stack([-XYZ[:, 1] + 2, XYZ[:, 0] + 3, XYZ[:, 2] + 4], axis=1)
    np.testing.assert_allclose(xyz, np.stack([turned[:, 0], turned[:, 2], -turned[:, 1]], axis=1), atol=1e-6)
    (folder / "scene0000_00.txt").write_text("axisAlignment = 1 2 3\n")
    with pytest.raises(LayoutError, match="axisAlignment"):
        read_scannet(folder)


def test_scenes_of_the_test_split_have_no_annotation(tmp_path):
    write_ply(tmp_path / "scene0707_00" / "scene0707_00_vh_clean_2.ply")
    scene = read_scene(tmp_path / "scene0707_00")
    assert scene.id == "scene0707_00" and scene.instance is None and scene.categories == []
    write_ply(tmp_path / "abc" / "scans" / "mesh_aligned_0.05.ply")
    scene = read_scene(tmp_path / "abc")
    assert scene.id == "abc" and scene.instance is None


def test_scannetpp(tmp_path):
    scans = tmp_path / "0a5c013435" / "scans"
    write_ply(scans / "mesh_aligned_0.05.ply")
    (scans / "segments.json").write_text(json.dumps({"segIndices": SEGMENTS}))
    (scans / "segments_anno.json").write_text(json.dumps({"segGroups": GROUPS}))
    for place in (scans.parent, scans):
        scene = read_scene(place)
        check(scene, ["floor", "office chair"])
        assert scene.id == "0a5c013435"
    (scans / "segments.json").unlink()
    with pytest.raises(LayoutError, match="segments.json is missing"):
        read_published(scans)


def replica_ply(objects=(4, 4, 7, 7), extra="property int object_id\n") -> bytes:
    rows = [" ".join(map(str, [*point, *color])) for point, color in zip(XYZ, RGB, strict=True)]
    faces = [
        f"3 {a} {b} {c}" + (f" {number}" if extra else "") for (a, b, c), number in zip(FACES, objects, strict=True)
    ]
    columns = "".join(f"property float {axis}\n" for axis in "xyz")
    columns += "".join(f"property uchar {color}\n" for color in ("red", "green", "blue"))
    head = (
        f"ply\nformat ascii 1.0\nelement vertex 9\n{columns}element face 4\nproperty list uchar int vertex_indices\n"
    )
    return f"{head}{extra}end_header\n{chr(10).join(rows + faces)}\n".encode()


def test_replica(tmp_path):
    habitat = tmp_path / "room_0" / "habitat"
    habitat.mkdir(parents=True)
    (habitat / "mesh_semantic.ply").write_bytes(replica_ply())
    objects = [
        {"id": 7, "class_id": 20, "class_name": "chair"},
        {"id": 4, "class_id": 40, "class_name": "floor"},
        {"id": 9, "class_id": -1, "class_name": "undefined"},
    ]
    (habitat / "info_semantic.json").write_text(json.dumps({"objects": objects, "classes": []}))
    for place in (habitat.parent, habitat):
        scene = read_scene(place)
        check(scene, ["chair", "floor"], (1, 1, 1, 1, 0, 0, 0, 0, -1))
        assert scene.id == "room_0"
    # an object without a class is none, and a vertex belongs to the object of most faces around it
    (habitat / "mesh_semantic.ply").write_bytes(replica_ply((9, 9, 7, 4)))
    np.testing.assert_array_equal(read_scene(habitat).instance[[0, 1, 5, 7, 8]], [-1, -1, 0, 1, -1])
    (habitat / "mesh_semantic.ply").write_bytes(replica_ply(extra=""))
    with pytest.raises(LayoutError, match="object_id"):
        read_scene(habitat)


def test_s3dis(tmp_path):
    folder = tmp_path / "Area_3" / "office_1" / "Annotations"
    folder.mkdir(parents=True)
    for name, rows in (("floor_1", slice(0, 4)), ("chair_12", slice(4, 8)), ("clutter_1", slice(8, 9))):
        table = np.column_stack([XYZ[rows], RGB[rows]])
        np.savetxt(folder / f"{name}.txt", table, fmt="%.3f %.3f %.3f %d %d %d")
    scene = read_scene(folder.parent)
    assert scene.id == "Area_3/office_1" and scene.names == ["chair_12", "clutter_1", "floor_1"]
    assert scene.categories == ["chair", "clutter", "floor"]
    np.testing.assert_array_equal(scene.instance, [0, 0, 0, 0, 1, 2, 2, 2, 2])
    order = [4, 5, 6, 7, 8, 0, 1, 2, 3]
    np.testing.assert_allclose(scene.xyz, Y_UP[order], atol=1e-6)
    np.testing.assert_array_equal(scene.rgb, RGB[order])
    (folder / "wall_1.txt").write_text("1 2 3 4 5 6\n1 2 3 185\x10187 5 6\n")
    with pytest.raises(MeshError, match=r"wall_1.txt.*line 2") as error:
        read_scene(folder.parent)
    assert error.value.reason == "corrupt"


def test_files_that_do_not_belong_together(tmp_path):
    with pytest.raises(LayoutError, match="two scans"):
        read_scannet(scannet(tmp_path / "a", segments=SEGMENTS[:-1]))
    with pytest.raises(LayoutError, match="segs.json is missing"):
        read_scannet(_half(tmp_path / "b"))
    with pytest.raises(LayoutError, match="whole numbers"):
        read_scannet(scannet(tmp_path / "c", segments=[*SEGMENTS[:-1], "x"]))
    with pytest.raises(LayoutError, match="lacks 'label'"):
        read_scannet(scannet(tmp_path / "d", groups=[{"segments": [5]}]))
    folder = scannet(tmp_path / "e")
    (tmp_path / "e" / "scannetv2-labels.combined.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(LayoutError, match="raw_category and nyu40id"):
        read_scannet(folder, "scannet20")
    (tmp_path / "e" / "scannetv2-labels.combined.tsv").unlink()
    with pytest.raises(LayoutError, match="give its path"):
        read_scannet(folder, "scannet20")
    (folder / "scene0000_00.aggregation.json").write_text("{")
    with pytest.raises(LayoutError, match="no JSON"):
        read_scannet(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayoutError, match="no scene of ScanNet, ScanNet"):
        read_scene(tmp_path / "empty")


def _half(root):
    folder = scannet(root)
    (folder / "scene0000_00_vh_clean_2.0.010000.segs.json").unlink()
    return folder


def test_scenes_are_found_below_a_folder(tmp_path):
    scannet(tmp_path, "scene0001_00")
    scannet(tmp_path, "scene0000_01")
    assert [path.name for path in find_published(tmp_path)] == ["scene0000_01", "scene0001_00"]
    assert find_published(tmp_path / "scene0000_01") == [tmp_path / "scene0000_01"]
    (tmp_path / "nothing").mkdir()
    with pytest.raises(LayoutError, match="holds no scene"):
        find_published(tmp_path / "nothing")
