"""Text formats as people and their programs write them: encodings, line ends, comments, and what is left out."""

from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError, read_mesh, sample_points

CASES = Path(__file__).parent / "cases"
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def mean(mesh) -> np.ndarray:
    return sample_points(mesh, 4000, 0)[1].mean(axis=0)


def read(tmp_path, text: str | bytes, name: str = "a.obj", **kwargs):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_mesh(tmp_path / name, **kwargs)


@pytest.mark.parametrize(
    ("name", "area", "color", "warned"),
    [
        ("c02_bom_mtllib.obj", 6, (255, 0, 0), 0),
        ("c08_cr.obj", 6, (255, 255, 255), 0),
        ("c13_specgloss_spec.glb", None, (255, 231, 124), 0),  # 1, 0.8, 0.2: the extension's factors are linear
        ("c14_ind.stl", 0.5, (255, 255, 255), 0),
        ("nonormal.stl", 0.5, (255, 255, 255), 0),
        ("c15_multitex.ply", 1, (127.5, 0, 127.5), 0),
        ("c16_coff_float.off", 0.5, (255, 0, 0), 0),
        ("c17_partial_colors.obj", 1, (255, 127.5, 127.5), 0),
        ("c17_partial_colors2.obj", 1, (255, 127.5, 127.5), 0),
        ("vn_missing.obj", 1, (255, 255, 255), 1),
        ("vn_short.obj", 1, (255, 255, 255), 1),
        ("vt_missing.obj", 1, (255, 255, 255), 1),
        ("nul_end.obj", 1, (255, 255, 255), 0),
        ("nan_color.obj", 0.5, (255, 255, 255), 1),
        ("inline_comment.obj", 1, (255, 0, 0), 0),
        ("mtl_comment.obj", 1, (255, 0, 0), 0),
        ("freeform.off", 1, (255, 255, 255), 0),
    ],
)
def test_cases(name, area, color, warned):
    mesh = read_mesh(CASES / name)
    assert area is None or mesh.face_areas().sum() == pytest.approx(area)
    np.testing.assert_allclose(mean(mesh), color, atol=4)
    assert len(mesh.warnings) == warned


def test_cases_that_contradict_their_header():
    for name, line in (("vertex_extra.ply", 10), ("float_index.ply", 14)):
        with pytest.raises(MeshError, match=f"line {line}\\b") as error:
            read_mesh(CASES / name)
        assert error.value.reason == "corrupt"


WRITTEN = {
    ".obj": ("mtllib m.mtl\nusemtl Größe\n" + SQUARE + "f 1 2 3 4\n"),
    ".off": "OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3 255 0 0\n",
    ".ply": (
        "ply\nformat ascii 1.0\ncomment größe\nelement vertex 4\n"
        "property float x\nproperty float y\nproperty float z\n"
        "property uchar red\nproperty uchar green\nproperty uchar blue\nelement face 1\n"
        "property list uchar int vertex_indices\nend_header\n"
        "0 0 0 255 0 0\n1 0 0 255 0 0\n1 1 0 255 0 0\n0 1 0 255 0 0\n4 0 1 2 3\n"
    ),
    ".stl": (
        "solid größe\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 1 1 0\nendloop\nendfacet\n"
        "facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 1 0\nvertex 0 1 0\nendloop\nendfacet\nendsolid größe\n"
    ),
    ".gltf": None,
}
DRESS = {
    "plain": lambda text: text.encode(),
    "mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "CR": lambda text: text.replace("\n", "\r").encode(),
    "NUL": lambda text: text.encode() + b"\0",
    "NULs": lambda text: text.encode() + b"\r\n\0\0\0",
    "Ctrl-Z": lambda text: text.encode() + b"\x1a",
    "UTF-16 LE": lambda text: b"\xff\xfe" + text.encode("utf-16-le"),
    "UTF-16 BE": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "UTF-16 CRLF": lambda text: b"\xff\xfe" + text.replace("\n", "\r\n").encode("utf-16-le"),
    "no end": lambda text: text.rstrip("\n").encode(),
    "blanks": lambda text: text.encode() + b"\n \n\t\n",
    "Latin": lambda text: text.encode("cp1252"),
}


@pytest.mark.parametrize("dress", DRESS)
@pytest.mark.parametrize("suffix", WRITTEN)
def test_encodings_and_line_ends_change_nothing(tmp_path, suffix, dress):
    text = WRITTEN[suffix]
    if suffix == ".gltf":
        if dress == "Latin":
            pytest.skip("JSON is Unicode")
        from .builders import Gltf, quad

        document, square = Gltf(), quad(side=1.0)
        pbr = {"baseColorFactor": [1, 0, 0, 1]}
        attributes = {"POSITION": square.vertices.astype(np.float32)}
        material = document.material(pbrMetallicRoughness=pbr, name="größe")
        document.node(mesh=document.mesh(attributes, square.faces.astype(np.uint16).reshape(-1), material=material))
        text = document.write(tmp_path / "b.gltf").read_text().replace(", ", ",\n")
    (tmp_path / "m.mtl").write_bytes(DRESS[dress]("newmtl Größe\nKd 1 0 0\n"))
    mesh = read(tmp_path, DRESS[dress](text), f"a{suffix}")
    assert mesh.face_areas().sum() == pytest.approx(1.0) and mesh.warnings == []
    if suffix != ".stl":
        np.testing.assert_array_equal(mean(mesh), [255, 0, 0])


@pytest.mark.parametrize("usemtl", ["usemtl red", "usemtl red # note", "usemtl  red\t# note", "usemtl RED"])
@pytest.mark.parametrize("newmtl", ["newmtl red", "newmtl red # note", "newmtl\tred"])
def test_names_with_comments(tmp_path, usemtl, newmtl):
    (tmp_path / "m.mtl").write_text(
        f"# head\n{newmtl}\nKa 0 0 0\nKd 1 0 0 # red\nd 1 # solid\nnewmtl blue\nKd 0 0 1\n"
    )
    mesh = read(tmp_path, f"mtllib m.mtl # here\n{SQUARE}{usemtl}\nf 1 2 3 4 # all\n")
    assert (mean(mesh) == [255, 0, 0]).all() and mesh.warnings == []


def test_a_hash_may_belong_to_a_name(tmp_path):
    (tmp_path / "m #1.mtl").write_text(
        "newmtl Material #25\nKd 1 0 0\nnewmtl Material #26\nKd 0 1 0\nnewmtl a#b\nKd 0 0 1\n"
    )
    text = f"mtllib m #1.mtl\n{SQUARE}usemtl Material #26\nf 1 2 3\nusemtl a#b\nf 1 3 4\n"
    mesh = read(tmp_path, text)
    assert {tuple(color) for color in sample_points(mesh, 99)[1]} == {(0, 255, 0), (0, 0, 255)}
    from .builders import png

    for name, written in (("wood #1.png", "wood #1.png"), ("wood.png", "wood.png # oak"), ("a#b.png", "a#b.png\t#c")):
        (tmp_path / name).write_bytes(png([[[1, 2, 3]]]))
        (tmp_path / "m.mtl").write_text(f"newmtl m\nmap_Kd {written}\n")
        mesh = read(tmp_path, f"mtllib m.mtl\n{SQUARE}vt 0 0\nusemtl m\nf 1/1 2/1 3/1\n")
        assert (mean(mesh) == [1, 2, 3]).all()
        (tmp_path / name).unlink()


def test_the_only_material_serves_faces_that_name_none(tmp_path):
    (tmp_path / "m.mtl").write_text("newmtl red\nKd 1 0 0\n")
    mesh = read(tmp_path, f"mtllib m.mtl\n{SQUARE}f 1 2 3 4\n")
    assert (mean(mesh) == [255, 0, 0]).all() and "'red'" in mesh.warnings[0]
    (tmp_path / "m.mtl").write_text("newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\n")
    assert (mean(read(tmp_path, f"mtllib m.mtl\n{SQUARE}f 1 2 3 4\n")) == 255).all()
    mesh = read(tmp_path, f"{SQUARE}usemtl red\nf 1 2 3 4\n")
    assert (mean(mesh) == 255).all() and len(mesh.warnings) == 1


def test_missing_normals_and_texture_coordinates_leave_the_rest(tmp_path):
    from .builders import png

    (tmp_path / "t.png").write_bytes(png([[[0, 255, 0]]]))
    (tmp_path / "m.mtl").write_text("newmtl m\nKd 1 1 1\nmap_Kd t.png\n")
    head = f"mtllib m.mtl\nusemtl m\n{SQUARE}vt 0 0\nvn 0 0 1\n"
    mesh = read(tmp_path, head + "f 1/1/1 2/1/1 3/1/1\nf 1/1/1 3/9/7 4/1/1\n")
    xyz, rgb = sample_points(mesh, 500, 0)
    assert (rgb[xyz[:, 0] > xyz[:, 1]] == [0, 255, 0]).all() and (rgb[xyz[:, 0] < xyz[:, 1]] == 255).all()
    assert len(mesh.warnings) == 2 and np.isfinite(mesh.normals).all()
    for corners in ("-4/-5/-6 -3/-1/-1 -2/-1/-1", "1/0/0 2/0/0 3/0/0", "1/-9 2/-9 3/-9"):
        assert read(tmp_path, head + f"f {corners}\n").face_areas().sum() == pytest.approx(0.5)
    with pytest.raises(MeshError):
        read(tmp_path, head + "f -9 -3 -2\n")


def test_colors_on_some_vertices(tmp_path):
    """Where the colors stand in the file, and which numbers the others have, makes no difference."""
    red, plain = "v {} 0 {} 255 0 0\nv {} 1 {} 255 0 0\nv {} 0 1{} 255 0 0\n", "v {} 0 {}\nv {} 1 {}\nv {} 0 1{}\n"
    for first, second in ((red, plain), (plain, red)):
        text = first.format(*"000000") + second.format(*"505050") + "f 1 2 3\nf 4 5 6\n"
        for filler in ("", "# " + "x" * 9 + "\n"):
            mesh = read(tmp_path, text.replace("v 5", filler + "v 5"))
            xyz, rgb = sample_points(mesh, 400, 0)
            colored = (xyz[:, 0] < 2.5) == (first is red)
            assert (rgb[colored] == [255, 0, 0]).all() and (rgb[~colored] == 255).all()
    (tmp_path / "m.mtl").write_text("newmtl blue\nKd 0 0 1\n")  # the plain part has the material's
    mesh = read(
        tmp_path, "mtllib m.mtl\nusemtl blue\n" + plain.format(*"000000") + red.format(*"505050") + "f 1 2 3\n"
    )
    assert (mean(mesh) == [0, 0, 255]).all()


def test_broken_colors_go_and_the_shape_stays(tmp_path):
    from .builders import TRIANGLE, Gltf

    off = "COFF\n3 1 0\n0 0 0 nan 0 0 1\n1 0 0 1 0 0 1\n0 1 0 1 0 0 1\n3 0 1 2\n"
    ply = (
        "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        "property float red\nproperty float green\nproperty float blue\nelement face 1\n"
        "property list uchar int vertex_indices\nend_header\n0 0 0 nan 0 0\n1 0 0 1 0 0\n0 1 0 1 inf 0\n3 0 1 2\n"
    )
    document = Gltf()
    document.node(mesh=document.mesh({"POSITION": TRIANGLE, "COLOR_0": np.full((3, 3), np.nan, np.float32)}))
    meshes = [
        read(tmp_path, off, "a.off"),
        read(tmp_path, ply, "a.ply"),
        read_mesh(document.write(tmp_path / "a.glb")),
    ]
    for mesh in [*meshes, read(tmp_path, "v 0 0 0 1 inf 0\nv 1 0 0 1 0 0\nv 0 1 0 1 0 0\nf 1 2 3\n")]:
        assert mesh.face_areas().sum() == pytest.approx(0.5) and mesh.vertex_colors is None
        assert len(mesh.warnings) == 1 and "color" in mesh.warnings[0]


CORNERS = "0 0 0\n1 0 0\n1 1 0\n0 1 0\n"


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("OFF\n4 1 0\n" + CORNERS + "4 0 1\n2\n3 1 0 0\n", (255, 0, 0)),  # the color ends with the line
        ("OFF 4 1 0 " + CORNERS.replace("\n", " ") + " 4 0 1 2 3", (255, 255, 255)),
        ("OFF\n4\n1\n0\n" + CORNERS.replace(" ", "\n") + "4\n0\n1\n2\n3\n", (255, 255, 255)),
        ("OFF\n4 2 0\n" + CORNERS + "3 0 1 2 3 0 2 3\n", (255, 255, 255)),  # two faces on one line
        ("OFF\n4 1\n" + CORNERS + "4 0 1 2 3\n", (255, 255, 255)),
        ("OFF4 1 0\n" + CORNERS + "4 0 1 2 3 # square\n", (255, 255, 255)),
        ("# note\nOFF # here\n# there\n4 1 0\n\n" + CORNERS + "\n4 0 1 2 3 0 0 1\n", (0, 0, 255)),
        ("OFF\n4 2 0\n" + CORNERS + "3 0 1 2 255 0 0\n3 0 2 3 255 0 0 255\n", (255, 0, 0)),
        ("COFF\n4 1 0\n" + CORNERS.replace("0\n", "0 1 0 0 1\n") + "4 0 1 2 3\n", (255, 0, 0)),
        ("COFF\n4 1 0\n" + CORNERS.replace("0\n", "0 0 1 0\n") + "4 0 1 2 3\n", (0, 255, 0)),
        ("COFF\n4 1 0\n" + CORNERS.replace("0\n", "0 255 0 0 255\n") + "4 0 1 2 3\n", (255, 0, 0)),
        ("COFF 4 1 0 " + CORNERS.replace("0\n", "0 0.0 0.0 1.0 1.0 ") + "4 0 1 2 3\n", (0, 0, 255)),
        ("NOFF\n4 1 0\n" + CORNERS.replace("0\n", "0 0 0 1\n") + "4 0 1 2 3 0 1 0\n", (0, 255, 0)),
        ("NCOFF\n4 1 0\n", None),
        ("CNOFF\n4 1 0\n" + CORNERS.replace("0\n", "0 0 0 1 1 0 0 1\n") + "4 0 1 2 3\n", (255, 0, 0)),
        ("STOFF\n4 1 0\n" + CORNERS.replace("0\n", "0 0.5 0.5\n") + "4 0 1 2 3\n", (255, 255, 255)),
        ("STCOFF\n4 1 0\n" + CORNERS.replace("0\n", "0 0 1 0 0.5 0.5\n") + "4 0 1 2 3\n", (0, 255, 0)),
        ("STCNOFF\n4 1 0\n" + CORNERS.replace("0\n", "0 0 0 1 0 1 0 1 2 2\n") + "4 0 1 2 3\n", (0, 255, 0)),
    ],
)
def test_off_in_free_form_and_its_variants(tmp_path, text, color):
    if color is None:
        with pytest.raises(MeshError):
            read(tmp_path, text, "a.off")
        return
    mesh = read(tmp_path, text, "a.off")
    assert mesh.face_areas().sum() == pytest.approx(1.0) and mesh.warnings == []
    assert (mean(mesh) == color).all()


def test_off_palettes_are_left_out_with_a_warning(tmp_path):
    mesh = read(tmp_path, "OFF\n4 1 0\n" + CORNERS + "4 0 1 2 3 7\n", "a.off")
    assert (mean(mesh) == 255).all() and "palette" in mesh.warnings[0]


@pytest.mark.parametrize(
    "text",
    [
        "4 0 1 2.7 3\n",
        "4 0 1 2 x\n",
        "4 0 1 2 3.5\n3 0 1 2\n",
        "4.5 0 1 2 3\n",
        "-1 0 1 2\n",
        "3 0 1 2 red 0 0\n",
        "3 0 1\n99999999999999999999\n",
    ],
)
def test_off_faces_that_are_not_whole(tmp_path, text):
    with pytest.raises(MeshError) as error:
        read(tmp_path, f"OFF\n4 {1 + text.count(chr(10) + '3')} 0\n" + CORNERS + text, "a.off")
    assert error.value.reason == "corrupt"


PLY = (
    "ply\nformat ascii 1.0\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    "property uchar red\n"
    "property uchar green\nproperty uchar blue\nelement face {n}\nproperty list uchar {kind} vertex_indices\n"
    "property list uchar float texcoord\nproperty int texnumber\nend_header\n"
)
PLY_ROWS = "0 0 0 9 9 9\n1 0 0 9 9 9\n1 1 0 9 9 9\n0 1 0 9 9 9\n"
FIRST = 15  # the line of the first row


@pytest.mark.parametrize(
    ("rows", "faces", "line"),
    [
        (PLY_ROWS.replace("1 0 0 9 9 9", "1 0 0 9 9"), "4 0 1 2 3 0 0\n", FIRST + 1),
        (PLY_ROWS.replace("1 1 0 9 9 9", "1 1 0 9 9 9 9"), "4 0 1 2 3 0 0\n", FIRST + 2),
        (PLY_ROWS.replace("1 1 0 9 9 9", "1 1 0 9 9 300"), "4 0 1 2 3 0 0\n", FIRST + 2),
        (PLY_ROWS.replace("1 1 0 9 9 9", "1 one 0 9 9 9"), "4 0 1 2 3 0 0\n", FIRST + 2),
        (PLY_ROWS.replace("1 1 0", "\n\n1 1 0").replace("0 1 0", "0 1"), "4 0 1 2 3 0 0\n", FIRST + 5),
        (PLY_ROWS, "4 0 1 2 0 0\n3 0 1 2 0 0\n", FIRST + 4),
        (PLY_ROWS, "4 0 1 2 3 0 0 7\n", FIRST + 4),
        (PLY_ROWS, "3 0 1 2 0 0\n3 0 2 3 0 0.5\n", FIRST + 5),
        (PLY_ROWS, "3 0 1 2 0 0\n3 0 2 -3 0 0\n", FIRST + 5),
        (PLY_ROWS, "3 0 1 2 0 0\n3 0 2.7 3 0 0\n", FIRST + 5),
        (PLY_ROWS, "3 0 1 2 0 0\n3.5 0 2 3 0 0\n", FIRST + 5),
        (PLY_ROWS, "3 0 1 2 0 0\n-3 0 2 3 0 0\n", FIRST + 5),
        (PLY_ROWS, "3 0 1 2 0 0\n3 0 2 3 6 0 0 1 1 0\n3 0 2 3 0 0\n", FIRST + 5),
        (PLY_ROWS, "3 0 1 2 0 0\n3 0 2 nan 0 0\n", FIRST + 5),
    ],
)
def test_ply_rows_that_contradict_the_header(tmp_path, rows, faces, line):
    text = PLY.format(n=faces.count("\n"), kind="uint") + rows + faces
    for end in ("\n", "\r\n", "\r"):
        with pytest.raises(MeshError, match=f"line {line}\\b") as error:
            read(tmp_path, text.replace("\n", end), "a.ply")
        assert error.value.reason == "corrupt"


def test_ply_rows_behind_the_last_one_are_not_passed_over(tmp_path):
    text = PLY.format(n=1, kind="uint") + PLY_ROWS + "4 0 1 2 3 0 0\n3 0 1 2 0 0\n"
    with pytest.raises(MeshError, match=f"line {FIRST + 5}"):
        read(tmp_path, text, "a.ply")


def test_ply_rows_of_several_lists(tmp_path):
    faces = "3 0 1 2 6 0 0 0 0 0 0 1\n4 0 1 2 3 0 -1\n0 2 0 0 5\n3 0 2 3 2 0 0 0\n"
    mesh = read(tmp_path, PLY.format(n=4, kind="int") + PLY_ROWS + faces, "a.ply")
    assert mesh.num_faces == 4 and mesh.face_areas().sum() == pytest.approx(2.0)


@pytest.mark.parametrize("kind", ["binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_binary_ply_with_any_line_ends_in_its_header(tmp_path, kind, end):
    order = "<" if "little" in kind else ">"
    head = (
        f"ply\nformat {kind} 1.0\ncomment end_header\nelement vertex 3\n"
        "property float x\nproperty float y\nproperty float z\n"
        "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    )
    # The first byte of the data is 10, which is a line end, too.
    rows = np.array([[1.0, 0, 0], [2, 0, 0], [1, 1, 0]], order + "f4")
    rows.view(np.uint8)[0, 0 if order == "<" else 3] = 10
    data = rows.tobytes() + b"\3" + np.arange(3, dtype=order + "i4").tobytes()
    for mark in (b"", b"\xef\xbb\xbf"):
        mesh = read(tmp_path, mark + head.replace("\n", end).encode() + data, "a.ply")
        assert mesh.face_areas().sum() == pytest.approx(0.5, abs=1e-5)


def test_each_texture_of_a_ply_is_for_its_faces(tmp_path):
    from .builders import png

    (tmp_path / "red.png").write_bytes(png([[[255, 0, 0]]]))
    (tmp_path / "blue.png").write_bytes(png([[[0, 0, 255]]]))
    head = "ply\nformat ascii 1.0\ncomment TextureFile red.png\ncomment TextureFile blue.png\n"
    body = PLY.format(n=4, kind="int").partition("1.0\n")[2] + PLY_ROWS.replace("9 9 9", "255 255 255")
    faces = [f"3 {a} 6 0 0 1 0 0 1 {n}\n" for a, n in (("0 1 2", 1), ("0 2 3", 0), ("1 2 3", -1))] + ["3 0 1 3 0 0\n"]
    mesh = read(tmp_path, head + body + "".join(faces), "a.ply")
    shown = [mesh.materials[i].texture for i in mesh.face_material]
    assert shown[0][0, 0].tolist() == [0, 0, 255, 255] and shown[1][0, 0].tolist() == [255, 0, 0, 255]
    assert shown[2] is None and shown[3] is None and mesh.warnings == []
    (tmp_path / "blue.png").unlink()
    with pytest.raises(MeshError):
        read_mesh(tmp_path / "a.ply")
    mesh = read_mesh(tmp_path / "a.ply", strict=False)
    assert [mesh.materials[i].texture is None for i in mesh.face_material] == [True, False, True, True]
    assert len(mesh.warnings) == 1 and "blue.png" in mesh.warnings[0]
    faces = [f"{face[:-2]}\n" for face in faces[:2]] + ["3 0 1 2 0\n"] * 2
    text = head + body.replace("property int texnumber\n", "") + "".join(faces)
    mesh = read(tmp_path, text, "a.ply", strict=False)
    assert "which face has which" in " ".join(mesh.warnings)


@pytest.mark.parametrize(
    "facet",
    ["facet\nouter loop\n", "facet normal\nouter loop\n", "facet normal 1.#QNAN nan -1.#IND\nouter loop\n",
     "facet normal 0 0\nouter loop\n", "FACET NORMAL 0 0 1\n  OUTER  LOOP\n", "facet normal 0 0 1 outer\tloop\n",
     "facet  normal  oops\nouter loop\n", "facet normal 0 0 1\n\nouter loop "],
)  # fmt: skip
def test_stl_normals_do_not_matter(tmp_path, facet):
    corners = "vertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n"
    mesh = read(
        tmp_path,
        f"solid vertex facet\n{(facet + corners) * 2}endsolid\nsolid b\n{facet}{corners}endsolid b\n",
        "a.stl",
    )
    assert mesh.num_faces == 3 and mesh.face_areas().sum() == pytest.approx(1.5)


def test_numbers_that_are_none_in_normals_and_colors(tmp_path):
    text = "v 0 0 0\nv 1 0 0\nv 0 1 0\nvn -1.#IND00 1.#QNAN 0\nf 1//1 2//1 3//1\n"
    mesh = read(tmp_path, text)
    assert (mesh.normals == 0).all()
    with pytest.raises(MeshError) as error:
        read(tmp_path, text.replace("v 1 0 0", "v 1.#INF 0 0"))
    assert error.value.reason == "non_finite"
