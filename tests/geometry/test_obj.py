import numpy as np
import pytest

from modeling_ulip2.geometry import Mesh, MeshError, read_mesh, sample_points

from .builders import png

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
SQUARE_UV = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def write(tmp_path, obj: str, mtl: str | None = None, **images: bytes):
    (tmp_path / "a.obj").write_text(obj)
    if mtl is not None:
        (tmp_path / "a.mtl").write_text(mtl)
    for name, data in images.items():
        (tmp_path / name.replace("_png", ".png")).write_bytes(data)
    return tmp_path / "a.obj"


def error_of(path, **kwargs) -> str:
    with pytest.raises(MeshError) as error:
        read_mesh(path, **kwargs)
    return error.value.reason


def colors(mesh: Mesh) -> list[list[int]]:
    """The distinct colors on a mesh's surface."""
    return np.unique(sample_points(mesh, 400, 0)[1], axis=0).tolist()


def test_polygons_become_fans(tmp_path):
    mesh = read_mesh(write(tmp_path, SQUARE + "v 0.5 2 0\nf 1 2 3 5 4\n"))
    assert mesh.num_faces == 3 and mesh.face_areas().sum() == pytest.approx(1.5)
    assert (mesh.face_normals()[:, 2] > 0).all()


def test_kd_is_srgb_and_materials_stay_with_their_faces(tmp_path):
    mtl = "newmtl red\nKd 1 0 0\nnewmtl my gray\nKd 0.5 0.5 0.5\n"
    obj = "mtllib a.mtl\n" + SQUARE + "usemtl my gray\nf 1 2 3\nusemtl red\nf 1 3 4\nusemtl my gray\nf 2 3 4\n"
    mesh = read_mesh(write(tmp_path, obj, mtl))
    assert [mesh.materials[i].name for i in mesh.face_material] == ["my gray", "red", "my gray"]
    assert colors(mesh) == [[128, 128, 128], [255, 0, 0]]


def test_without_materials_it_is_white(tmp_path):
    assert colors(read_mesh(write(tmp_path, SQUARE + "usemtl nothing\nf 1 2 3 4\n"))) == [[255, 255, 255]]


def test_relative_indices_count_from_their_own_line(tmp_path):
    far = "v 10 0 0\nv 11 0 0\nv 10 1 0\n"
    mesh = read_mesh(write(tmp_path, SQUARE + "f -4 -3 -2\n" + far + "f -3 -2 -1\n"))
    np.testing.assert_allclose(mesh.vertices[mesh.faces[0]].mean(axis=0), [2 / 3, 1 / 3, 0])
    assert mesh.vertices[mesh.faces[1]].min(axis=0)[0] == 10
    assert error_of(write(tmp_path, SQUARE + "f -1 -2 -5\n")) == "corrupt"


TOP_RED = png([[[255, 0, 0]], [[0, 0, 255]]])


def test_texture_stands_upright_and_replaces_kd(tmp_path):
    obj = "mtllib a.mtl\nusemtl m\n" + SQUARE + SQUARE_UV + "f 1/1 2/2 3/3 4/4\n"
    mesh = read_mesh(write(tmp_path, obj, "newmtl m\nKd 1 1 1\nmap_Kd t.png\n", t_png=TOP_RED))
    xyz, rgb = sample_points(mesh, 1000, 0)
    assert (rgb[(xyz[:, 1] > 0.55) & (xyz[:, 1] < 0.7), 0] > 200).all()
    assert (rgb[(xyz[:, 1] < 0.45) & (xyz[:, 1] > 0.3), 2] > 200).all()

    for before in ("0 0 0", "0.64 0.64 0.64", "0.52 0.25 0.15", "1 1 1"):  # what exporters write beside a texture
        mtl = f"newmtl m\nKd {before}\nmap_Kd t.png\n"
        assert colors(read_mesh(write(tmp_path, obj, mtl, t_png=png([[[9, 99, 199]]])))) == [[9, 99, 199]]
    (tmp_path / "t.png").unlink()
    assert colors(read_mesh(write(tmp_path, obj, "newmtl m\nKd 1 0 0\nmap_Kd t.png\n"), strict=False)) == [[255, 0, 0]]


def test_what_shines_adds_its_light(tmp_path):
    obj = "mtllib a.mtl\nusemtl m\n" + SQUARE + SQUARE_UV + "f 1/1 2/2 3/3 4/4\n"
    assert colors(read_mesh(write(tmp_path, obj, "newmtl m\nKd 0 0 0\nKe 1 0.5 0\n"))) == [[255, 128, 0]]
    assert colors(read_mesh(write(tmp_path, obj, "newmtl m\nKd 1 0 0\nKe 0 0 1\n"))) == [[255, 0, 255]]
    mtl = "newmtl m\nKd 0 0 0\nmap_Ke t.png\n"
    assert colors(read_mesh(write(tmp_path, obj, mtl, t_png=png([[[9, 99, 199]]])))) == [[9, 99, 199]]
    bare = obj.replace("1/1 2/2 3/3 4/4", "1 2 3 4")
    assert colors(read_mesh(write(tmp_path, bare, mtl))) == [[0, 0, 0]]


@pytest.mark.parametrize(
    ("statements", "opacity"),
    [
        ("illum 4\nTf 1 1 1", 1.0),  # what Maya writes beside everything that is opaque
        ("illum 4\nTf 0.5 0.4 0.3", 0.4),
        ("illum 4\nTf 0 0 0", 0.3),  # as clear as glass gets
        ("Tf 0.5\nillum 6", 0.5),
        ("illum 2\nTf 0.5 0.5 0.5", 1.0),  # nothing passes an opaque model, filtered or not
        ("illum 9\nTf 0.5 0.5 0.5\nd 0.8", 0.8),  # a stated opacity counts
        ("illum 7\nTf 1 1 1\nTr 0.75", 0.25),
        ("illum 4\nTf spectral glass.rfl", 1.0),
        ("illum 9", 1.0),
        ("illum\nTf 0.5 0.5 0.5", 1.0),
    ],
)
def test_which_statement_says_how_clear_a_material_is(tmp_path, statements, opacity):
    obj = "mtllib a.mtl\nusemtl m\n" + SQUARE + "f 1 2 3 4\n"
    (material,) = read_mesh(write(tmp_path, obj, f"newmtl m\n{statements}\n")).materials
    assert material.base_color[3] == pytest.approx(opacity)
    assert material.alpha_mode == ("OPAQUE" if opacity == 1.0 else "BLEND")


@pytest.mark.parametrize("statement", ["d 0.3", "Tr 0.7", "d 0.05", "illum 4\nTf 0.1 0.1 0.1"])
def test_glass_is_pale_and_tinted_in_points(tmp_path, statement):
    obj = "mtllib a.mtl\nusemtl m\n" + SQUARE + "f 1 2 3 4\n"
    (clear,) = colors(read_mesh(write(tmp_path, obj, f"newmtl m\nKd 0.4 0.4 0.4\n{statement}\n")))
    assert min(clear) > 170 and np.ptp(clear) < 30  # neither the gray of its Kd nor white
    (green,) = colors(read_mesh(write(tmp_path, obj, f"newmtl m\nKd 0 0.5 0\n{statement}\n")))
    assert green[1] - green[0] > int(clear[1]) - clear[0]  # greener than gray glass


def test_uv_outside_the_image_repeats_unless_clamped(tmp_path):
    obj = "mtllib a.mtl\nusemtl m\n" + SQUARE + "vt 0 5.75\n" + "f 1/1 2/1 3/1 4/1\n"
    texture = png([[[255, 0, 0]], [[0, 255, 0]], [[0, 0, 255]], [[255, 255, 0]]])
    # v = 5.75 is 0.25 from the top after wrapping: half way between the first and the second of four rows.
    mesh = read_mesh(write(tmp_path, obj, "newmtl m\nmap_Kd t.png\n", t_png=texture))
    np.testing.assert_allclose(colors(mesh), [[188, 188, 0]], atol=1)
    mesh = read_mesh(write(tmp_path, obj, "newmtl m\nmap_Kd -clamp on t.png\n", t_png=texture))
    assert colors(mesh) == [[255, 0, 0]]


def test_scale_and_offset_of_a_map_move_its_own_faces_only(tmp_path):
    obj = "mtllib a.mtl\n" + SQUARE + "vt 0.1 0.875\nusemtl plain\nf 1/1 2/1 3/1\nusemtl moved\nf 1/1 3/1 4/1\n"
    mtl = "newmtl plain\nmap_Kd t.png\nnewmtl moved\nmap_Kd -s 1 0.5 -o 0 -0.3125 t.png\n"
    rows = [[[255, 0, 0]], [[0, 255, 0]], [[0, 0, 255]], [[255, 255, 0]]]
    mesh = read_mesh(write(tmp_path, obj, mtl, t_png=png(rows)))  # v = 0.875 is the first row, 0.125 the last
    xyz, rgb = sample_points(mesh, 300, 0)
    assert (rgb[xyz[:, 0] > xyz[:, 1]] == [255, 0, 0]).all()
    assert (rgb[xyz[:, 0] < xyz[:, 1]] == [255, 255, 0]).all()


@pytest.mark.parametrize(
    "statement",
    ["map_Kd -s 1 1 1 -o 0 0 my wood.PNG", "map_Kd -bm 0.5 -blendu off my wood.PNG", 'map_Kd "my wood.png"',
     "map_kd .\\MY WOOD.png", "  map_Kd\tmy wood.png  "],
)  # fmt: skip
def test_options_and_spellings_of_a_map(tmp_path, statement):
    obj = "mtllib a.mtl\nusemtl m\n" + SQUARE + SQUARE_UV + "f 1/1 2/2 3/3 4/4\n"
    path = write(tmp_path, obj, f"newmtl m\n{statement}\n")
    (tmp_path / "My Wood.png").write_bytes(png([[[10, 20, 30]]]))
    assert colors(read_mesh(path)) == [[10, 20, 30]]


def test_faces_without_texture_coordinates_show_the_plain_color(tmp_path):
    obj = "mtllib a.mtl\nusemtl m\n" + SQUARE + SQUARE_UV + "f 1/1 2/2 3/3\nf 1 3 4\n"
    mesh = read_mesh(write(tmp_path, obj, "newmtl m\nKd 1 0 0\nmap_Kd t.png\n", t_png=png([[[255, 255, 255]]])))
    xyz, rgb = sample_points(mesh, 300, 0)
    assert (rgb[xyz[:, 0] > xyz[:, 1]] == [255, 255, 255]).all()
    assert (rgb[xyz[:, 0] < xyz[:, 1]] == [255, 0, 0]).all()
    mesh = read_mesh(write(tmp_path, obj, "newmtl m\nKd 1 0 0\nmap_Kd t.png\n", t_png=png([[[0, 255, 255]]])))
    xyz, rgb = sample_points(mesh, 300, 0)
    assert (rgb[xyz[:, 0] > xyz[:, 1]] == [0, 255, 255]).all()
    assert (rgb[xyz[:, 0] < xyz[:, 1]] == [255, 0, 0]).all()


def test_normals_with_and_without_uv(tmp_path):
    head = SQUARE + "vt 0 0\nvn 0 0 2\nvn 0 1 0\n"
    mesh = read_mesh(write(tmp_path, head + "f 1//1 2//1 3//2\nf 1/1/1 3/1/1 4/1/1\nf 2 3 4\n"))
    corner_normals = mesh.normals[mesh.faces]
    np.testing.assert_allclose(corner_normals[0], [[0, 0, 1], [0, 0, 1], [0, 1, 0]])
    np.testing.assert_allclose(corner_normals[1], [[0, 0, 1]] * 3)
    np.testing.assert_allclose(corner_normals[2], 0.0)


def test_vertex_colors_behind_the_coordinates_are_srgb(tmp_path):
    text = "v 0 0 0 0.5 0 1\nv 1 0 0 0.5 0 1\nv 0 1 0 0.5 0 1\nf 1 2 3\n"
    assert colors(read_mesh(write(tmp_path, text))) == [[128, 0, 255]]
    assert colors(read_mesh(write(tmp_path, text.replace("0.5 0 1\n", "128 0 255\n")))) == [[128, 0, 255]]


def test_transparency(tmp_path):
    def material(mtl: str, **images: bytes):
        obj = "mtllib a.mtl\nusemtl m\n" + SQUARE + SQUARE_UV + "f 1/1 2/2 3/3 4/4\n"
        return read_mesh(write(tmp_path, obj, "newmtl m\n" + mtl, **images)).materials[0]

    glass = material("d 0.25\n")
    assert (glass.alpha_mode, glass.base_color[3]) == ("BLEND", 0.25)
    assert material("Tr 0.75\n").base_color[3] == 0.25
    assert material("d -halo 0.5\n").base_color[3] == 0.5
    solid = material("d 0\n")  # exporters that mix up d and Tr
    assert (solid.alpha_mode, solid.base_color[3]) == ("OPAQUE", 1.0)
    stencil = material(
        "map_Kd t.png\nmap_d d.png\n", t_png=png([[[9, 9, 9]] * 2] * 2), d_png=png([[[255] * 3, [0] * 3]] * 2)
    )
    assert stencil.alpha_mode == "MASK" and stencil.texture[0, :, 3].tolist() == [255, 0]
    leaf = material("map_Kd t.png\n", t_png=png([[[9, 9, 9, 255], [9, 9, 9, 0]]]))
    assert leaf.alpha_mode == "MASK"
    tinted = material("map_Kd t.png\n", t_png=png([[[9, 9, 9, 128], [9, 9, 9, 128]]]))
    assert tinted.alpha_mode == "BLEND"


def test_several_libraries_comments_and_continued_lines(tmp_path):
    (tmp_path / "b.mtl").write_text("newmtl b\nKd 0 1 0\n")
    obj = "# head\r\nmtllib a.mtl b.mtl\r\n" + SQUARE + "usemtl b # green\nf 1 2 \\\n 3 # half\nusemtl a\nf 1 3 4\n"
    mesh = read_mesh(write(tmp_path, obj.replace(" # green", ""), "newmtl a\nKd 0 0 1\n"))
    assert colors(mesh) == [[0, 0, 255], [0, 255, 0]]


def test_blocks_of_rows_are_joined(tmp_path, monkeypatch):
    from modeling_ulip2.geometry import obj

    monkeypatch.setattr(obj._Table, "_BLOCK", 3)
    text = "".join(f"v {i} {i * i} 0 # note\n" if i % 5 == 0 else f"v {i} {i * i} 0\n" for i in range(20))
    mesh = read_mesh(write(tmp_path, text + "".join(f"f {i} {i + 1} {i + 2}\n" for i in range(1, 19))))
    np.testing.assert_array_equal(mesh.vertices, [[i, i * i, 0] for i in range(20)])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("# nothing\n", "empty"),
        (SQUARE, "empty"),
        (SQUARE + "l 1 2\n", "empty"),
        (SQUARE + "f 1 2\n", "empty"),
        ("f 1 2 3\n", "empty"),
        (SQUARE + "f 1 2 9\n", "corrupt"),
        (SQUARE + "f 0 1 2\n", "corrupt"),
        (SQUARE + "f 1 2 x\n", "corrupt"),
        ("v 0 0\nv 1 0\nv 0 1\nf 1 2 3\n", "corrupt"),
        ("v 0 zero 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "corrupt"),
        ("v 0 nan 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "non_finite"),
        ("v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n", "zero_area"),
        (SQUARE + f"f 1 2 {10**30}\n", "corrupt"),
        ("mtllib gone.mtl\n" + SQUARE + "f 1 2 3\n", "missing"),
        ("mtllib ../a.mtl\n" + SQUARE + "f 1 2 3\n", "external_uri"),
        ("mtllib /etc/passwd\n" + SQUARE + "f 1 2 3\n", "external_uri"),
    ],
)
def test_bad_files(tmp_path, text, reason):
    path = tmp_path / "a.obj"
    path.write_text(text)
    assert error_of(path) == reason


def test_binary_data_is_no_obj(tmp_path):
    (tmp_path / "a.obj").write_bytes(b"v 0 0 0\0\1\2")
    assert error_of(tmp_path / "a.obj") == "unsupported"


def test_limits(tmp_path):
    assert error_of(write(tmp_path, SQUARE + "f 1 2 3 4\n" * 3), max_faces=5) == "too_many_faces"
    assert read_mesh(tmp_path / "a.obj", max_faces=6).num_faces == 6
    assert error_of(write(tmp_path, "vn 0 0 1\n" * 100), max_faces=10) == "too_large"


TEXTURED = "mtllib a.mtl\nusemtl m\n" + SQUARE + SQUARE_UV + "f 1/1 2/2 3/3 4/4\n"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("gone.png", "texture_missing"), ("C:\\wood.png", "external_uri"), ("../t.png", "external_uri"),
     ("http://host/t.png", "external_uri"), ("t.png", "texture_corrupt")],
)  # fmt: skip
def test_unusable_textures_are_errors_or_said(tmp_path, name, reason):
    path = write(tmp_path, TEXTURED, f"newmtl m\nKd 0 1 0\nmap_Kd {name}\n", t_png=b"no image")
    assert error_of(path) == reason
    mesh = read_mesh(path, strict=False)
    assert colors(mesh) == [[0, 255, 0]]
    assert len(mesh.warnings) == 1 and "plain color" in mesh.warnings[0]


def test_an_unused_material_needs_no_texture(tmp_path):
    mesh = read_mesh(write(tmp_path, TEXTURED, "newmtl m\nKd 1 1 0\nnewmtl other\nmap_Kd gone.png\n"))
    assert colors(mesh) == [[255, 255, 0]] and mesh.warnings == []
