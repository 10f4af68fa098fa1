"""What a reader leaves out or cannot read is said, in every format; one rule scales the colors of all of them."""

import base64
import io
import json
import struct

import numpy as np
import pytest

from modeling_ulip2.geometry import read_shape
from modeling_ulip2.geometry.errors import MeshError
from modeling_ulip2.geometry.points import read_cloud
from modeling_ulip2.geometry.reading import read_mesh

CORNERS = ["0 0 0", "1 0 0", "1 1 0", "0 1 0"]
VERTEX = "property float x\nproperty float y\nproperty float z\n"
FACE = "element face 1\nproperty list uchar int vertex_indices\n"


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(behind=""):
    return "".join(f"{corner} {behind}\n" for corner in CORNERS)


def ply(vertex=VERTEX, tables=FACE, body=None):
    body = rows() + "4 0 1 2 3\n" if body is None else body
    return f"ply\nformat ascii 1.0\nelement vertex 4\n{vertex}{tables}end_header\n{body}"


def gltf(mode=4, colors=None, **changes):
    """A square of two triangles, or what `mode` makes of its corners, as glTF with all data inside."""
    points = np.array([[float(x) for x in corner.split()] for corner in CORNERS], "<f4")
    corners = np.array([0, 1, 2, 0, 2, 3], "<u2")
    arrays = [(points, 5126, "VEC3")] + ([(corners, 5123, "SCALAR")] if mode == 4 else [])
    primitive = {"attributes": {"POSITION": 0}, "mode": mode} | ({"indices": 1} if mode == 4 else {})
    if colors is not None:
        kinds = {"f": 5126, "u1": 5121, "u2": 5123}
        primitive["attributes"]["COLOR_0"] = len(arrays)
        arrays.append((colors, kinds["f" if colors.dtype.kind == "f" else f"u{colors.dtype.itemsize}"], "VEC4"))
    buffer, views, accessors = b"", [], []
    for array, component, kind in arrays:
        buffer += b"\0" * (-len(buffer) % 4)
        views.append({"buffer": 0, "byteOffset": len(buffer), "byteLength": array.nbytes})
        accessors.append({"bufferView": len(accessors), "componentType": component, "count": len(array), "type": kind})
        buffer += array.tobytes()
    uri = "data:application/octet-stream;base64," + base64.b64encode(buffer).decode()
    document = {
        "asset": {"version": "2.0"},
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "buffers": [{"uri": uri, "byteLength": len(buffer)}],
        "bufferViews": views,
        "accessors": accessors,
    }
    return json.dumps(document | changes)


def color_file(kind, values):
    """A square, or its corners, with the color `values` on every vertex, as a format and kind of number write it."""
    red, green, blue = (f"{value:g}" for value in values)
    form, _, number = kind.partition(" ")
    if form in ("ply", "plycloud"):
        names = "".join(f"property {number} {name}\n" for name in ("red", "green", "blue"))
        vertex, behind = VERTEX + names, rows(f"{red} {green} {blue}")
        return ".ply", ply(vertex, body=behind + "4 0 1 2 3\n") if form == "ply" else ply(vertex, "", behind)
    if form == "plyface":
        names = "".join(f"property {number} {name}\n" for name in ("red", "green", "blue"))
        return ".ply", ply(tables=FACE + names, body=rows() + f"4 0 1 2 3 {red} {green} {blue}\n")
    if form == "obj":
        return ".obj", "".join(f"v {corner} {red} {green} {blue}\n" for corner in CORNERS) + "f 1 2 3 4\n"
    if form == "coff":
        return ".off", "COFF\n4 1 0\n" + rows(f"{red} {green} {blue}") + "4 0 1 2 3\n"
    if form == "off":
        return ".off", "OFF\n4 1 0\n" + rows() + f"4 0 1 2 3 {red} {green} {blue}\n"
    return ".gltf", gltf(colors=np.array([[*values, max(1, *values)]] * 4, number))


@pytest.mark.parametrize(
    "kind",
    [*(f"{form} {number}" for form in ("ply", "plycloud", "plyface") for number in ("uint", "int", "float", "double")),
     "obj", "coff", "off", "gltf <u1", "gltf <f4"],
)  # fmt: skip
def test_colors_count_to_255_whatever_they_are_declared_as(tmp_path, kind):
    suffix, content = color_file(kind, (255, 0, 0))
    shape = read_shape(write(tmp_path, f"a{suffix}", content), 50)
    assert (shape.rgb == [255, 0, 0]).all()


@pytest.mark.parametrize("kind", ["ply float", "plycloud float", "plyface float", "obj", "coff", "off", "gltf <f4"])
@pytest.mark.parametrize(
    ("values", "rgb", "said"),
    [((1.5, 0, 0), (255, 0, 0), "above 1 was cut"), ((-1, 0, 0), None, "left out"), ((70000.5, 0, 0), None, "")],
)
def test_values_that_are_no_colors_are_left_out_with_a_warning(tmp_path, kind, values, rgb, said):
    suffix, content = color_file(kind, values)
    shape = read_shape(write(tmp_path, f"a{suffix}", content), 50)
    if kind.startswith("gltf") and values[0] > 2:
        rgb = (255, 0, 0)  # which glTF has clamped
    white = None if kind.startswith("plycloud") else (255, 255, 255)
    expected = white if rgb is None else rgb
    assert shape.rgb is None if expected is None else (shape.rgb == expected).all()
    assert len(shape.warnings) == 1 and said in shape.warnings[0]


@pytest.mark.parametrize(
    "names", [("Red", "Green", "Blue"), ("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")]
)
def test_columns_of_ply_meshes_go_by_the_names_that_clouds_know(tmp_path, names):
    vertex = VERTEX.replace(" x", " X").replace(" y", " Y").replace(" z", " Z")
    vertex += "".join(f"property uchar {name}\n" for name in names)
    mesh = read_mesh(write(tmp_path, "a.ply", ply(vertex, body=rows("0 255 0") + "4 0 1 2 3\n")))
    assert mesh.face_areas().sum() == 1 and (read_shape(tmp_path / "a.ply", 9).rgb == [0, 255, 0]).all()


@pytest.mark.parametrize(
    "name", ["vertex_indices", "vertex_index", "Vertex_Indices", "vertices", "indices", "corners"]
)
def test_the_corners_of_ply_faces_have_several_names(tmp_path, name):
    path = write(tmp_path, "a.ply", ply(tables=FACE.replace("vertex_indices", name)))
    assert read_mesh(path).face_areas().sum() == 1


@pytest.mark.parametrize(
    ("tables", "body", "said"),
    [
        ("element edge 2\nproperty int vertex1\nproperty int vertex2\n", "0 1\n1 2\n", "edge (2)"),
        (FACE, "2 0 1\n", "face (1)"),
        ("element face 1\nproperty int flags\n", "7\n", "face (1)"),
        (FACE + "element material 1\nproperty int id\n", "4 0 1 2 3\n5\n", "material (1)"),
        (FACE.replace(" 1\n", " 2\n"), "4 0 1 2 3\n2 0 1\n", "1 of its 2 faces have fewer than three corners"),
    ],
)
def test_tables_of_ply_that_are_left_out_are_named(tmp_path, tables, body, said):
    shape = read_shape(write(tmp_path, "a.ply", ply(tables=tables, body=rows() + body)), 50)
    assert len(shape.warnings) == 1 and said in shape.warnings[0]


def test_a_ply_without_faces_is_parsed_once(tmp_path, monkeypatch):
    from modeling_ulip2.geometry import ply as module

    parsed = []
    fill_elements = module.fill_elements
    monkeypatch.setattr(module, "fill_elements", lambda *arguments: parsed.append(1) or fill_elements(*arguments))
    for tables in ("", FACE.replace(" 1\n", " 0\n")):
        parsed.clear()
        assert len(read_shape(write(tmp_path, "a.ply", ply(tables=tables, body=rows())), 50).xyz) == 4
        assert len(parsed) == 1


def test_compressed_splats_are_refused_by_name(tmp_path):
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 1\nproperty uint packed_position\nend_header\n"
    with pytest.raises(MeshError, match="compressed Gaussian splats"):
        read_shape(write(tmp_path, "a.ply", header.encode() + bytes(4)), 50)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("cstype bspline\ndeg 3\ncurv 0 1 1 2 3 4\nend", "free-form curves and surfaces (curv)"),
        ("cstype rat bspline\nsurf 0 1 0 1 1 2 3 4\nend", "free-form curves and surfaces (surf)"),
        ("l 1 2 3", "lines (1)"),
        ("call other.obj", "calls other files"),
        ("f 1 2", "fewer than three corners"),
    ],
)
@pytest.mark.parametrize("face", ["f 1 2 3 4\n", ""])
def test_statements_of_obj_that_are_left_out_are_named(tmp_path, statement, said, face):
    text = "".join(f"v {corner}\n" for corner in CORNERS) + face + statement + "\n"
    if not face and statement == "f 1 2":
        said = "faces beside its points"
    warnings = read_shape(write(tmp_path, "a.obj", text), 50).warnings
    assert len(warnings) == 1 and said in warnings[0]


def test_zbrush_paints_vertices_in_comments(tmp_path):
    text = "".join(f"v {corner}\n" for corner in CORNERS) + "#MRGB ffff0000ffff0000\n#MRGB ffff0000ffff0000\n"
    shape = read_shape(write(tmp_path, "a.obj", text + "f 1 2 3 4\n"), 50)
    assert (shape.rgb == [255, 0, 0]).all() and not shape.warnings
    shape = read_shape(write(tmp_path, "a.obj", text.replace("#MRGB", "#MRGB ff", 1) + "f 1 2 3 4\n"), 50)
    assert (shape.rgb == 255).all() and "painted" in shape.warnings[0]


@pytest.mark.parametrize("index", ["-1", "4", "4294967295"])
def test_a_wrong_index_is_the_one_that_is_named(tmp_path, index):
    content = ply(tables=FACE.replace("int", "double"), body=rows() + f"4 0 1 2 {index}\n")
    for name, text in (("a.ply", content), ("a.off", f"OFF\n4 1 0\n{rows()}4 0 1 2 {index}\n")):
        with pytest.raises(MeshError, match=f"vertex {index}; its 4 vertices count from 0"):
            read_mesh(write(tmp_path, name, text))
    with pytest.raises(MeshError, match="vertex 0; its 4 vertices count from 1"):
        read_mesh(write(tmp_path, "a.obj", "".join(f"v {corner}\n" for corner in CORNERS) + "f 0 1 2\n"))


def test_off_files_of_points_are_clouds(tmp_path):
    shape = read_shape(write(tmp_path, "a.off", "COFF\n4 0 0\n" + rows("255 0 0 255")), 50)
    assert shape.mesh is None and shape.xyz.shape == (4, 3) and (shape.rgb == [255, 0, 0]).all()
    shape = read_shape(write(tmp_path, "a.off", "OFF\n4 1 0\n" + rows() + "2 0 1\n"), 50)
    assert shape.rgb is None and "1 faces have no triangle" in shape.warnings[0]
    with pytest.raises(MeshError, match="at most 3"):
        read_cloud(tmp_path / "a.off", max_points=3)


def test_the_word_off_may_be_missing(tmp_path):
    assert read_mesh(write(tmp_path, "a.off", "4 1 0\n" + rows() + "4 0 1 2 3\n")).face_areas().sum() == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (gltf(mode=1), "lines and no triangle or point"),
        (gltf(extensionsRequired=["EXT_meshopt_compression"]), "compressed with EXT_meshopt_compression"),
        (gltf(extensionsRequired=["VRMC_vrm"]), "requires the glTF extension VRMC_vrm"),
        (gltf(meshes=[], nodes=[{}]), "no triangle or point"),
    ],
)
def test_gltf_that_cannot_be_read_says_why(tmp_path, content, said):
    with pytest.raises(MeshError, match=said):
        read_shape(write(tmp_path, "a.gltf", content), 50)


@pytest.mark.parametrize(
    ("texture", "said"),
    [
        ({"source": 0}, "KTX2"),
        ({"extensions": {"KHR_texture_basisu": {"source": 0}}}, "KHR_texture_basisu alone"),
        ({"extensions": {"EXT_other": {"source": 0}}}, "EXT_other alone"),
        ({"extensions": {"EXT_texture_webp": {"source": 1}}}, "in no format that is read"),
        ({}, "no image in a readable format"),
    ],
)
def test_textures_in_other_formats_are_named(tmp_path, texture, said):
    ktx, junk = (
        {"uri": "data:image/x;base64," + base64.b64encode(data).decode()}
        for data in (b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(99), b"junk" * 9)
    )
    document = json.loads(gltf(extensionsRequired=["KHR_texture_basisu"]))
    primitive = document["meshes"][0]["primitives"][0]
    primitive["material"], primitive["attributes"]["TEXCOORD_0"] = 0, 0
    document |= {
        "materials": [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
        "textures": [texture],
        "images": [ktx, junk],
    }
    shape = read_shape(write(tmp_path, "a.gltf", json.dumps(document)), 50)
    assert len(shape.warnings) == 1 and said in shape.warnings[0] and "0x" not in shape.warnings[0]


def test_facets_of_stl_beyond_its_header_are_told(tmp_path):
    facet = struct.pack("<12fH", 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0)
    mesh = read_mesh(write(tmp_path, "a.stl", bytes(80) + struct.pack("<I", 1) + facet * 2))
    assert mesh.num_faces == 1 and "50 bytes behind" in mesh.warnings[0]
    with pytest.raises(MeshError, match="declares no facet, and 50 bytes follow"):
        read_mesh(write(tmp_path, "a.stl", bytes(80) + struct.pack("<I", 0) + facet))


def pcd(fields, sizes, types, lines, viewpoint="0 0 0 1 0 0 0"):
    return (
        f"VERSION 0.7\nFIELDS {fields}\nSIZE {sizes}\nTYPE {types}\nWIDTH 4\nHEIGHT 1\n"
        f"VIEWPOINT {viewpoint}\nPOINTS 4\nDATA ascii\n{lines}"
    )


def test_a_viewpoint_that_turns_is_told(tmp_path):
    plain = ("x y z", "4 4 4", "F F F", rows())
    assert not read_cloud(write(tmp_path, "a.pcd", pcd(*plain))).warnings
    turned = read_cloud(write(tmp_path, "a.pcd", pcd(*plain, viewpoint="1 2 3 0.7 0.7 0 0")))
    assert len(turned.warnings) == 1 and "VIEWPOINT" in turned.warnings[0]


@pytest.mark.parametrize(("kind", "word"), [("U", 0xFFFF0000), ("I", -65536), ("F", 0xFF0000)])
def test_packed_colors_of_pcd_may_be_signed(tmp_path, kind, word):
    cloud = read_cloud(write(tmp_path, "a.pcd", pcd("x y z rgba", "4 4 4 4", f"F F F {kind}", rows(str(word)))))
    assert (cloud.rgb == [255, 0, 0]).all()


def test_an_intensity_between_0_and_1_is_no_part_of_a_color(tmp_path):
    lines = "".join(f"{corner} 0.{i + 1} 200 100 50\n" for i, corner in enumerate(CORNERS))
    assert (read_cloud(write(tmp_path, "a.xyz", lines)).rgb == [200, 100, 50]).all()


@pytest.mark.parametrize("suffix", [".asc", ".xyzrgb"])
def test_text_of_other_suffixes_is_read_the_same(tmp_path, suffix):
    assert (read_cloud(write(tmp_path, f"a{suffix}", rows("0.5 0 1"))).rgb == [128, 0, 255]).all()


def test_arrays_that_might_be_the_color_are_named(tmp_path):
    def read(**arrays):
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        return read_cloud(write(tmp_path, "a.npz", buffer.getvalue())).warnings

    points = np.eye(4, 3)
    assert not read(xyz=points, normals=points) and not read(xyz=points, rgb=points, mask=points)
    assert "tint" in read(xyz=points, tint=points)[0]


def test_polygons_that_cross_themselves_are_told_where_they_matter(tmp_path):
    bow = "v 0 0 0\nv 1 1 0\nv 1 0 0\nv 0 1 0\nf 1 2 3 4\n"
    mesh = read_mesh(write(tmp_path, "a.obj", bow))
    assert "1 of its polygons cross themselves" in mesh.warnings[0] and np.isclose(mesh.face_areas().sum(), 0.5)
    large = bow + "v 0 0 9\nv 99 0 9\nv 99 99 9\nv 0 99 9\nf 5 6 7 8\n"
    assert not read_mesh(write(tmp_path, "a.obj", large)).warnings
