import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from modeling_ulip2.geometry.colors import linear_to_srgb, to_uint8
from modeling_ulip2.geometry.sampling import sample_surface
from modeling_ulip2.scenes.sources.sweet_home import HomeError, build_home, read_home
from modeling_ulip2.scenes.sources.sweet_home.archive import Contents, open_home
from modeling_ulip2.scenes.sources.sweet_home.file import read_home_file
from modeling_ulip2.scenes.sources.sweet_home.words import WORDS, word_of

from ..homes import BOX, CHAIR, DOOR, LAMP, ROOM, WINDOW, home_xml, write_home


def built(tmp_path, body: str = ROOM, **members):
    return read_home_file(write_home(tmp_path / "made.sh3d", home_xml(body), **members))


def corners(scene, category: str, number: int = 0) -> np.ndarray:
    """(P, 3) corners of the triangles of the `number`-th object of a category, meters."""
    found = [index for index, word in enumerate(scene.categories) if word == category]
    return scene.mesh.vertices[scene.mesh.faces[scene.face_object == found[number]]].reshape(-1, 3)


def box_of(scene, category: str, number: int = 0) -> np.ndarray:
    points = corners(scene, category, number)
    return np.stack([points.min(axis=0), points.max(axis=0)])


def area(scene, category: str) -> float:
    return sum(
        float(scene.mesh.face_areas()[scene.face_object == index].sum())
        for index, word in enumerate(scene.categories)
        if word == category
    )


def colors(scene, category: str) -> set[tuple[int, ...]]:
    index = scene.categories.index(category)
    used = np.unique(scene.mesh.face_material[scene.face_object == index])
    return {tuple(to_uint8(linear_to_srgb(scene.mesh.materials[m].base_color[:3])).tolist()) for m in used}


def test_a_room_has_walls_a_floor_and_a_ceiling_at_their_places(tmp_path):
    scene = built(tmp_path)
    assert scene.categories == ["wall"] * 4 + ["floor", "ceiling"]
    assert scene.names[4:] == ["Kitchen floor", "Kitchen ceiling"]
    np.testing.assert_allclose(box_of(scene, "floor"), [[0, 0, 0], [4, 0, 3]], atol=1e-9)
    np.testing.assert_allclose(box_of(scene, "ceiling"), [[0, 2.5, 0], [4, 2.5, 3]], atol=1e-9)
    # walls are mitered: their outer sides reach the corners of the outline
    np.testing.assert_allclose(box_of(scene, "wall", 0), [[-0.05, 0, -0.05], [4.05, 2.5, 0.06 - 0.0]], atol=1e-9)
    np.testing.assert_allclose(box_of(scene, "wall", 1), [[3.95, 0, -0.05], [4.05, 2.5, 3.05]], atol=1e-9)
    # both sides and tops, and nothing where walls meet
    outer, inner = 2 * (4.1 + 3.1) * 2.5, 2 * (3.9 + 2.9) * 2.5
    tops = 4.1 * 3.1 - 3.9 * 2.9
    board = 3.9 * 0.07 + 3.9 * 0.01 + 2 * 0.07 * 0.01
    assert area(scene, "wall") == pytest.approx(outer + inner + tops + board, rel=1e-6)
    assert colors(scene, "wall") == {(0, 0, 255), (0, 255, 0), (16, 16, 16), (112, 0, 0)}
    assert colors(scene, "floor") == {(255, 0, 0)}
    (floor,) = scene.floors
    assert (floor.name, floor.elevation, floor.ceiling) == ("Kitchen", 0, 2.5)


def test_surfaces_look_out_of_what_is_solid(tmp_path):
    scene = built(tmp_path)
    sample = sample_surface(scene.mesh, 4000)
    words = np.array(scene.categories)[scene.face_object[sample.face]]
    np.testing.assert_allclose(sample.normals[words == "floor"], np.tile([0, 1, 0], ((words == "floor").sum(), 1)))
    np.testing.assert_allclose(
        sample.normals[words == "ceiling"], np.tile([0, -1, 0], ((words == "ceiling").sum(), 1))
    )
    inside = (words == "wall") & (np.abs(sample.xyz - [2, 0, 1.5])[:, [0, 2]] < [1.951, 1.451]).all(axis=1)
    inside &= (sample.xyz[:, 1] > 0.1) & (sample.xyz[:, 1] < 2.4)
    towards_middle = ((np.array([2, 0, 1.5]) - sample.xyz) * sample.normals)[:, [0, 2]].sum(axis=1)
    assert inside.sum() > 500 and (towards_middle[inside] > 0).all()


@pytest.mark.parametrize(
    ("told", "size", "middle"),
    [
        ("", (0.4, 0.9, 0.8), (1.0, 0.45, 2.0)),
        ("elevation='20'", (0.4, 0.9, 0.8), (1.0, 0.65, 2.0)),
        ("angle='1.5707963'", (0.8, 0.9, 0.4), (1.0, 0.45, 2.0)),
        # the model turned on its side first: its own y becomes z
        ("modelRotation='1 0 0 0 0 1 0 -1 0'", (0.4, 0.9, 0.8), (1.0, 0.45, 2.0)),
        # lies on its back: depth and height change places
        ("pitch='1.5707963'", (0.4, 0.8, 0.9), (1.0, 0.4, 2.0)),
        ("roll='1.5707963'", (0.9, 0.4, 0.8), (1.0, 0.2, 2.0)),
    ],
)
def test_a_model_fills_its_box(tmp_path, told, size, middle):
    low, high = box_of(built(tmp_path, CHAIR.format(told)), "chair")
    np.testing.assert_allclose(high - low, size, atol=1e-6)
    np.testing.assert_allclose((low + high) / 2, middle, atol=1e-6)


PEAK = BOX + "v 12 1.5 4\nf 7 8 9\n"  # the highest point stands at +x, +z


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ("", (1, 1)),
        ("modelMirrored='true'", (-1, 1)),
        ("angle='1.5707963'", (-1, 1)),  # clockwise from above: +x becomes +z, +z becomes -x
        ("angle='3.1415926'", (-1, -1)),
        ("angle='1.5707963' modelMirrored='true'", (-1, -1)),
    ],
)
def test_turns_and_mirror_images_are_as_in_the_plan(tmp_path, told, where):
    points = corners(built(tmp_path, CHAIR.format(told), **{"0__chair.obj": PEAK}), "chair")
    peak = points[points[:, 1].argmax()]
    np.testing.assert_array_equal(np.sign(peak[[0, 2]] - [1.0, 2.0]), where)


def test_a_mirrored_model_keeps_its_outside(tmp_path):
    for told in ("", "modelMirrored='true'"):
        scene = built(tmp_path, CHAIR.format(told))
        middle = scene.mesh.bounds.mean(axis=0)
        outwards = (scene.mesh.vertices[scene.mesh.faces].mean(axis=1) - middle) * scene.mesh.face_normals()
        assert (outwards.sum(axis=1) > 0).all()


def test_a_door_cuts_its_wall_and_only_it(tmp_path):
    whole, cut = area(built(tmp_path), "wall"), area(built(tmp_path, ROOM + DOOR.format("")), "wall")
    hole = 0.9 * 2.05
    reveals = 2 * 2.05 * 0.1 + 0.9 * 0.1  # two jambs and a head, as thick as the wall
    board = 0.9 * 0.07 + 0.9 * 0.01 - 2 * 0.07 * 0.01  # gives way, and ends twice more
    assert whole - cut == pytest.approx(2 * hole - reveals + board, abs=1e-6)
    scene = built(tmp_path, ROOM + DOOR.format(""))
    sample = sample_surface(scene.mesh, 30_000)
    wall = np.array(scene.categories)[scene.face_object[sample.face]] == "wall"
    inside = (np.abs(sample.xyz[:, 0] - 2) < 0.44) & (sample.xyz[:, 1] < 2.04) & (np.abs(sample.xyz[:, 2]) < 0.07)
    assert (wall & inside).sum() == 0
    # the same door as a piece of furniture, or another wall's, cuts nothing
    furniture = DOOR.format("").replace("doorOrWindow", "pieceOfFurniture")
    assert area(built(tmp_path, ROOM + furniture), "wall") == pytest.approx(whole)
    far = DOOR.format("").replace("y='0'", "y='150'")
    assert area(built(tmp_path, ROOM + far), "wall") == pytest.approx(whole)


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        ("M0,0.5 a0.5,0.5 0 1,0 1,0 a0.5,0.5 0 1,0 -1,0 z", np.pi / 4),
        ("M0,1 L0.5,0 L1,1 z", 0.5),
        ("m 0 0 h 1 v 0.5 h -1 z", 0.5),
    ],
)
def test_windows_of_any_shape(tmp_path, shape, share):
    window = DOOR.format("elevation='20'").replace("M0,0 v1 h1 v-1 z", shape).replace("Door", "Window")
    bare = ROOM.replace("<baseboard", "<other").replace("height='7'", "")
    scene = built(tmp_path, bare + window)
    sides = np.abs(np.abs(scene.mesh.vertices[scene.mesh.faces][:, :, 2]) - 0.05).max(axis=1) < 1e-6
    first = (scene.face_object == 0) & sides
    assert float(scene.mesh.face_areas()[first].sum()) == pytest.approx(
        (4.1 + 3.9) * 2.5 - 2 * share * 0.9 * 2.05, rel=5e-3
    )
    if shape.startswith("M0,1"):  # the triangle stands on its base
        sample = sample_surface(scene.mesh, 60_000)
        on_side = (scene.face_object[sample.face] == 0) & (np.abs(sample.xyz[:, 2] - 0.05) < 1e-6)
        column = on_side & (np.abs(sample.xyz[:, 0] - 1.6) < 0.04)  # near the hole's left end
        assert ((sample.xyz[column, 1] > 0.5) & (sample.xyz[column, 1] < 2.2)).sum() > 10
        assert ((sample.xyz[column, 1] > 0.21) & (sample.xyz[column, 1] < 0.25)).sum() == 0


def test_a_sloping_wall_and_a_round_one(tmp_path):
    sloping = "<wall id='a' xStart='0' yStart='0' xEnd='400' yEnd='0' height='300' heightAtEnd='100' thickness='10'/>"
    scene = built(tmp_path, sloping)
    assert area(scene, "wall") == pytest.approx(2 * 4 * 2 + 0.1 * np.hypot(4, 2) + 0.1 * (3 + 1), rel=1e-6)
    points = corners(scene, "wall")
    assert points[points[:, 0] < 1e-6, 1].max() == pytest.approx(3)
    assert points[points[:, 0] > 4 - 1e-6, 1].max() == pytest.approx(1)
    # half a circle from left to right bulges up in the plan: to -z
    round_wall = (
        "<wall id='a' xStart='0' yStart='0' xEnd='200' yEnd='0' height='100' thickness='10' arcExtent='3.1415926'/>"
    )
    box = box_of(built(tmp_path, round_wall), "wall")
    np.testing.assert_allclose(box, [[-0.05, 0, -1.05], [2.05, 1, 0]], atol=0.01)
    other = box_of(built(tmp_path, round_wall.replace("3.14", "-3.14")), "wall")
    np.testing.assert_allclose(other, [[-0.05, 0, 0], [2.05, 1, 1.05]], atol=0.01)


LEVELS = """
  <level id='l0' name='Below' elevation='0' floorThickness='12' height='250' elevationIndex='0'/>
  <level id='l1' name='Above' elevation='262' floorThickness='12' height='250' elevationIndex='0' visible='false'/>
  <level id='l2' name='Hidden' elevation='524' floorThickness='12' height='250' elevationIndex='0' viewable='false'/>
"""
SQUARE = "<point x='0' y='0'/><point x='400' y='0'/><point x='400' y='300'/><point x='0' y='300'/></room>"


def test_levels_lie_above_each_other_and_stairs_go_through(tmp_path):
    body = LEVELS + "".join(f"<room level='l{n}' name='r{n}'>{SQUARE}" for n in range(3))
    stairs = (
        "<pieceOfFurniture level='l0' name='Staircase' model='0/chair.obj' x='200' y='150' width='100' depth='200' "
        "height='260' staircaseCutOutShape='M0,0 v1 h1 v-1 z'/>"
    )
    chair = CHAIR.format("level='l1' elevation='10'")
    scene = built(tmp_path, body + stairs + chair)
    floors = [index for index, word in enumerate(scene.categories) if word == "floor"]
    assert len(floors) == 2  # the level that one may not view is not there; the one not shown just now is
    np.testing.assert_allclose(box_of(scene, "floor", 0)[:, 1], 0, atol=1e-9)
    np.testing.assert_allclose(box_of(scene, "floor", 1)[:, 1], [2.5, 2.62], atol=1e-9)
    np.testing.assert_allclose(box_of(scene, "chair")[:, 1], [2.72, 3.62], atol=1e-9)
    flat = scene.mesh.face_areas() * (np.ptp(scene.mesh.vertices[scene.mesh.faces][:, :, 1], axis=1) < 1e-9)
    assert float(flat[scene.face_object == floors[0]].sum()) == pytest.approx(12)
    # the stairs' hole in the floor above, and in the ceiling below
    assert float(flat[scene.face_object == floors[1]].sum()) == pytest.approx(12 - 2)
    ceilings = [index for index, word in enumerate(scene.categories) if word == "ceiling"]
    assert float(flat[scene.face_object == ceilings[0]].sum()) == pytest.approx(12 - 2)
    assert [floor.elevation for floor in scene.floors] == pytest.approx([0, 2.62])


def test_hidden_pieces_and_groups_are_left_out_and_groups_of_boxes_are_things(tmp_path):
    box = CHAIR.format("").replace("Chair", "Box").replace("eTeks#chair", "eTeks#texturableBox").replace("100", "{}")
    hidden = CHAIR.format("visible='false'")
    inner = f"<furnitureGroup name='More'>{CHAIR.format('')}</furnitureGroup>"
    body = (
        f"<furnitureGroup name='Fireplace'>{box.format(0)}{box.format(50)}{hidden}</furnitureGroup>"
        f"<furnitureGroup name='Sitting'>{inner}</furnitureGroup>"
        f"<furnitureGroup name='Gone' visible='false'>{CHAIR.format('')}</furnitureGroup>{box.format(90)}"
        f"<furnitureGroup name='Fireplace'>{box.format(500)}</furnitureGroup>"
    )
    scene = built(tmp_path, body)
    assert sorted(zip(scene.categories, scene.names, strict=True)) == [
        ("chair", "Chair"), ("fireplace", "Fireplace"), ("fireplace", "Fireplace"), ("other", "Box"),
    ]  # fmt: skip
    np.testing.assert_allclose(box_of(scene, "fireplace")[:, 0], [-0.2, 0.7], atol=1e-9)


def test_paints_cover_models_but_not_panes(tmp_path):
    told = {"0__chair.obj": WINDOW}
    assert colors(built(tmp_path, CHAIR.format(""), **told), "chair") == {(255, 0, 0), (0, 0, 181)}
    painted = built(tmp_path, CHAIR.format("color='FF00FF00'"), **told)
    assert colors(painted, "chair") == {(0, 255, 0), (0, 0, 181)}
    pane = next(m for m in painted.mesh.materials if m.alpha_mode == "BLEND")
    assert pane.base_color[3] == pytest.approx(0.5)
    one = CHAIR.format("").replace("/>", "><material name='flred' color='FF123456'/></pieceOfFurniture>")
    assert colors(built(tmp_path, one, **told), "chair") == {(18, 52, 86), (0, 0, 181)}
    gone = one.replace("FF123456", "00123456")
    assert colors(built(tmp_path, gone, **told), "chair") == {(0, 0, 181)}
    # a material file of its own counts before the program's defaults
    own = {"0__chair.obj": "mtllib own.mtl\n" + BOX, "0__own.mtl": "newmtl flred\nKd 0 1 1\n"}
    assert colors(built(tmp_path, CHAIR.format(""), **own), "chair") == {(0, 255, 255)}


def test_lights_are_not_seen_but_count_for_the_size(tmp_path):
    lamp = CHAIR.format("").replace("pieceOfFurniture", "light").replace("Chair", "Lamp")
    low, high = box_of(built(tmp_path, lamp, **{"0__chair.obj": LAMP}), "lamp")
    # the light reaches from x = 8 and y = -1: the body takes half of the width and of the height
    np.testing.assert_allclose(high - low, [0.2, 0.45, 0.8], atol=1e-6)


def test_textures_of_floors_and_pieces(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.array([[[255, 0, 0]], [[0, 0, 255]]], np.uint8)).save(buffer, "PNG")  # red above blue
    texture = "<texture attribute='{}' image='1' width='100' height='100'/>"
    floor = f"<room name='A'>{texture.format('floorTexture')}{SQUARE}"
    piece = CHAIR.format("").replace("/>", f">{texture.format('')}</pieceOfFurniture>").replace("attribute='' ", "")
    scene = built(tmp_path, floor + piece, **{"1": buffer.getvalue()})
    sample = sample_surface(scene.mesh, 20_000)
    words = np.array(scene.categories)[scene.face_object[sample.face]]
    away = np.abs(sample.xyz[:, 2] % 0.5 - 0.25) < 0.2
    on_floor = (words == "floor") & away
    # the plan's y points down: the image's first row lies at the far end of each meter
    red = sample.xyz[on_floor, 2] % 1 < 0.5
    np.testing.assert_array_equal(sample.rgb[on_floor][red][:, 0] > 128, True)
    np.testing.assert_array_equal(sample.rgb[on_floor][~red][:, 2] > 128, True)
    chair = sample.rgb[words == "chair"].astype(int)
    assert 0.3 < (chair[:, 0] > 200).mean() < 0.7 and 0.3 < (chair[:, 2] > 200).mean() < 0.7


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("<wall id='w' xStart='nan' yStart='0' xEnd='1' yEnd='0' thickness='1'/>", "xStart of its wall 'w' is nan"),
        ("<wall id='w' xStart='x' yStart='0' xEnd='1' yEnd='0' thickness='1'/>", "no number"),
        ("<wall id='w' yStart='0' xEnd='1' yEnd='0' thickness='1'/>", "has no xStart"),
        ("<wall id='w' xStart='1e9' yStart='0' xEnd='1' yEnd='0' thickness='1'/>", "cannot be"),
        ("<wall id='w' xStart='0' yStart='0' xEnd='1' yEnd='0' thickness='-1'/>", "thickness"),
        (CHAIR.format("level='up'"), "level 'up', which the home lacks"),
        (CHAIR.format("modelRotation='1 2 3'"), "nine numbers"),
        (CHAIR.format("modelRotation='9 0 0 0 9 0 0 0 9'"), "no rotation"),
        (CHAIR.format("color='red'"), "no color"),
        (ROOM + DOOR.format("").replace("M0,0 v1 h1 v-1 z", "Mx,y"), "no path"),
        (ROOM + DOOR.format("").replace("M0,0 v1 h1 v-1 z", "M0,0 h1 z"), "encloses nothing"),
        ("", "shows nothing"),
        ("<room name='r'>" + "<point x='1' y='1'/>" * 2001 + "</room>", "2,001 corners"),
        ("<room/>" * 2001, "2,001 rooms"),
        ("<wall id='w' xStart='0' yStart='0' xEnd='0' yEnd='0' thickness='1'/>", "shows nothing"),
        (CHAIR.format("").replace("width='40'", "width='0'").replace("height='90'", "height='0'"), "no mesh"),
    ],
)
def test_homes_that_cannot_be_say_what_is_wrong(tmp_path, body, message):
    with pytest.raises(HomeError, match=message):
        built(tmp_path, body)


def test_models_that_cannot_be_read_are_left_out_and_said(tmp_path):
    absent = CHAIR.format("").replace("0/chair.obj", "9/absent.obj")
    foreign = CHAIR.format("").replace("0/chair.obj", "0/chair.dae")
    broken = CHAIR.format("").replace("0/chair.obj", "0/broken.obj")
    members = {"0__chair.dae": "<COLLADA/>", "0__broken.obj": "v 0 0 0\nf 1 2 99\n"}
    scene = built(tmp_path, ROOM + absent * 2 + foreign + broken + CHAIR.format(""), **members)
    assert scene.categories.count("chair") == 1
    told = " ".join(scene.warnings)
    assert "2 pieces are left out: it lacks the content '9/absent.obj'" in told and ".dae" in told and "vertex" in told


def test_untrusted_files(tmp_path):
    with pytest.raises(HomeError, match="entities or a document type"):
        read_home(b"<!DOCTYPE home [<!ENTITY a 'b'>]><home>&a;</home>", "x")
    with pytest.raises(HomeError, match="no sound XML"):
        read_home(b"<home", "x")
    with pytest.raises(HomeError, match="not <home>"):
        read_home(b"<house/>", "x")
    for name, content, message in [
        ("text.sh3d", b"no zip", "no home of Sweet Home 3D"),
        ("empty.sh3d", b"", "no home of Sweet Home 3D"),
    ]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(HomeError, match=message), open_home(tmp_path / name):
            pass
    with zipfile.ZipFile(tmp_path / "old.sh3d", "w") as archive:
        archive.writestr("Home", b"java")
    with pytest.raises(HomeError, match="before 5.3"), open_home(tmp_path / "old.sh3d"):
        pass
    # members that would lead out of the folder are not unpacked
    escape = {"0__..__..__evil.mtl": "newmtl a\n", "0__chair.obj": "mtllib ../../evil.mtl\n" + BOX}
    built(tmp_path, CHAIR.format(""), **escape)
    assert not list(tmp_path.parent.rglob("evil.mtl"))


def test_what_unpacks_to_too_much_is_refused(tmp_path):
    path = write_home(tmp_path / "bomb.sh3d", home_xml(CHAIR.format("")), **{"0__chair.obj": b"#" * (2 << 20)})
    with open_home(path) as archive:
        contents = Contents(archive, max_bytes=1 << 20)
        home = read_home(contents.read("Home.xml"), "bomb")
        with pytest.raises(HomeError, match="shows nothing"):
            build_home(home, contents, "bomb")
        with pytest.raises(HomeError, match="more than 1 MiB"):
            contents.read("0/chair.obj")


def test_words():
    assert len(set(WORDS)) == len(WORDS)
    assert word_of("Bed 140x190") == "bed" and word_of("Corner sofa") == "sofa"
    assert word_of("Grandmother's old rocking chair") == "chair"
    assert word_of("Coffee table 2") == "coffee table" and word_of("Aquarium") == "aquarium"
    assert word_of("Strange thing", door_or_window=True) == "other"
