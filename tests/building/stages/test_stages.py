import io
import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_ulip2.building.captioners.base import Captioner, MetadataCaptioner, merged_captions
from modeling_ulip2.building.captioners.labels import LabelsCaptioner, read_vocabulary, with_article
from modeling_ulip2.building.stages.base import ObjectError, RowStage, local_name, object_seed, to_batch, to_rows
from modeling_ulip2.building.stages.colors import NAMED_COLORS, TERMS, ColorNamer
from modeling_ulip2.building.stages.embed import EmbedViews
from modeling_ulip2.building.stages.rank import RankCaptions, rank
from modeling_ulip2.building.stages.read import ReadMesh, SamplePoints
from modeling_ulip2.building.stages.render import RenderViews
from modeling_ulip2.building.stages.tower import resolve_dtype
from modeling_ulip2.data.images import open_view
from modeling_ulip2.geometry import Camera, Material, Mesh, Renderer, camera_ring, read_mesh
from modeling_ulip2.geometry.axes import UP_AXES, rotation_to_y_up
from modeling_ulip2.geometry.colors import srgb_to_linear
from modeling_ulip2.towers import load_tower
from tests.dataset_scripts.shapes import write_bad_meshes, write_box
from tests.towers.world import save_open_clip
from tests.training.world import write_tower


@pytest.fixture(scope="module")
def tower(tmp_path_factory) -> str:
    return str(write_tower(tmp_path_factory.mktemp("tower")))


@pytest.fixture
def folder(tmp_path):
    write_box(tmp_path / "meshes" / "box.obj", size=(2, 1, 0.5))
    write_box(tmp_path / "secret.obj")
    return tmp_path / "meshes"


def make_row(path: str = "box.obj", **columns) -> dict:
    blank = dict.fromkeys(("name", "tags", "category", "group", "creator", "license", "source", "rotation"), "")
    return {"id": path, "path": path, **blank, "error": None, "message": None, **columns}


def read(folder, **columns) -> dict:
    (row,) = to_rows(ReadMesh(str(folder))(to_batch([make_row(**columns)])))
    return row


def rendered(folder, **columns) -> dict:
    batch = ReadMesh(str(folder))(to_batch([make_row(**columns)]))
    (row,) = to_rows(RenderViews(camera_ring(4), 48, image_format="png")(batch))
    return row


def test_rows_become_batches_and_rows_again():
    rows = [{"id": "a", "x": 1}, {"id": "b", "x": 2}]
    assert to_batch(rows) == {"id": ["a", "b"], "x": [1, 2]} and to_rows(to_batch(rows)) == rows
    assert to_rows(to_batch([{"id": "a"}, {"id": "b", "x": 2}])) == [{"id": "a", "x": None}, {"id": "b", "x": 2}]


def test_the_seed_of_an_object_depends_on_its_id_and_the_seed_alone():
    assert object_seed(0, "a") == object_seed(0, "a")
    assert len({object_seed(0, "a"), object_seed(1, "a"), object_seed(0, "b")}) == 3


def test_an_object_that_fails_keeps_its_place_and_later_stages_leave_it_alone():
    class Picky(RowStage):
        def process(self, row):
            if row["x"] == 0:
                raise ObjectError("zero", "x must not be 0")
            return {"y": 6 // row["x"] if row["x"] != 7 else None + 1}

    batch = {"id": ["a", "b", "c", "d"], "x": [2, 0, 7, 3], "error": [None] * 4, "message": [None] * 4}
    batch = Picky()(Picky()(batch))
    assert batch["error"] == [None, "zero", "internal_error", None] and batch["y"] == [3, None, None, 2]
    assert batch["message"][1] == "x must not be 0"
    assert batch["message"][2].startswith("TypeError: ") and "test_stages.py, line" in batch["message"][2]


@pytest.mark.parametrize(
    "stage",
    [
        partial(ReadMesh, folder="meshes"),
        partial(SamplePoints, num_points=10, seed=0),
        partial(RenderViews, cameras=camera_ring(4), size=48),
        partial(MetadataCaptioner),
        partial(LabelsCaptioner, tower="tower"),
        partial(RankCaptions, tower="tower"),
    ],
)
def test_stages_travel_to_workers_unmade(stage):
    assert pickle.loads(pickle.dumps(stage)).keywords == stage.keywords


def test_reading_gives_a_mesh(folder):
    row = read(folder)
    np.testing.assert_allclose(row["mesh"].bounds, [[-2, -1, -0.5], [2, 1, 0.5]])
    assert row["warnings"] == []


def test_a_rotation_turns_the_mesh(folder):
    row = read(folder, rotation="1 0 0 0 0 1 0 -1 0")  # y' = z, z' = -y
    np.testing.assert_allclose(row["mesh"].bounds, [[-2, -0.5, -1], [2, 0.5, 1]])
    corner = row["mesh"].vertices[np.isclose(row["mesh"].vertices, [-2, -0.5, 1]).all(axis=1)]
    assert len(corner) > 0  # was (-2, -1, -0.5)


@pytest.mark.parametrize(
    "rotation", ["1 0 0", "a b c", "2 0 0 0 2 0 0 0 2", "-1 0 0 0 1 0 0 0 1", "nan 0 0 0 1 0 0 0 1"]
)
def test_a_bad_rotation_is_an_error_of_the_object(folder, rotation):
    assert read(folder, rotation=rotation)["error"] == "bad_rotation"


@pytest.mark.parametrize("path", ["../secret.obj", "/etc/passwd", "a/../../secret.obj", "..\\secret.obj"])
def test_files_outside_the_folder_are_refused(folder, path):
    assert read(folder, path=path)["error"] == "outside_folder"


def test_links_out_of_the_folder_are_refused(folder):
    (folder / "link.obj").symlink_to(folder.parent / "secret.obj")
    assert read(folder, path="link.obj")["error"] == "outside_folder"


def test_bad_meshes_get_their_reason_and_no_path_of_this_machine(tmp_path):
    expected = write_bad_meshes(tmp_path) | {"absent.obj": "missing"}
    batch = ReadMesh(str(tmp_path))(to_batch([make_row(path=path) for path in expected]))
    assert dict(zip(batch["id"], batch["error"], strict=True)) == expected
    assert all(message and str(tmp_path) not in message for message in batch["message"])


def test_limits_are_kept(folder):
    assert [ReadMesh(str(folder), max_faces=4)(to_batch([make_row()]))["error"][0]] == ["too_many_faces"]
    assert [ReadMesh(str(folder), max_bytes=20)(to_batch([make_row()]))["error"][0]] == ["too_large"]


def test_a_missing_texture_is_a_warning_or_with_strict_an_error(folder):
    (folder / "box.mtl").write_text("newmtl paint\nKd 1 0 0\nmap_Kd absent.png\n")
    row = read(folder)
    assert row["error"] is None and "absent.png" in row["warnings"][0]
    assert ReadMesh(str(folder), strict=True)(to_batch([make_row()]))["error"] == ["texture_missing"]


def test_points_are_raw_and_seeded_by_the_object(folder):
    batch = ReadMesh(str(folder))(to_batch([make_row(), make_row() | {"id": "twin"}]))
    first, again = (SamplePoints(100, seed=0)(batch) for _ in range(2))
    assert first["xyz"][0].dtype == np.float16 and first["rgb"][0].dtype == np.uint8
    assert np.abs(first["xyz"][0]).max(axis=0) == pytest.approx([2, 1, 0.5], abs=1e-2)  # the file's own scale
    assert (first["rgb"][0] == [255, 0, 0]).all()
    np.testing.assert_array_equal(first["xyz"][0], again["xyz"][0])
    assert (first["xyz"][0] != first["xyz"][1]).any()
    assert (first["xyz"][0] != SamplePoints(100, seed=1)(batch)["xyz"][0]).any()


def test_views_are_images_of_the_object(folder):
    row = rendered(folder)
    assert row["mesh"] is None and row["azimuths"] == [0, 90, 180, 270] and len(set(row["elevations"])) == 1
    images = [np.asarray(Image.open(io.BytesIO(view["bytes"])).convert("RGB")) for view in row["views"]]
    assert row["alpha"].shape == (4, 48, 48)
    wide, narrow = (alpha.any(axis=0).sum() / alpha.any(axis=1).sum() for alpha in row["alpha"][:2])
    assert wide > 3 * narrow  # the front is twice as wide as high, the side half as wide; both fill their pictures
    for image, alpha in zip(images, row["alpha"], strict=True):
        assert image.shape == (48, 48, 3) and (image[alpha == 0] == 0).all()
        assert (image[alpha == 255][:, 0] > image[alpha == 255][:, 1].astype(int) + 80).all()  # red


@pytest.mark.parametrize(("image_format", "pil"), [("webp", "WEBP"), ("png", "PNG"), ("jpeg", "JPEG")])
def test_views_are_stored_as_asked(folder, image_format, pil):
    batch = ReadMesh(str(folder))(to_batch([make_row()]))
    views = RenderViews(camera_ring(1), 32, image_format=image_format, background=(255, 255, 255))(batch)["views"][0]
    image = Image.open(io.BytesIO(views[0]["bytes"]))
    assert image.format == pil and min(image.convert("RGB").getpixel((0, 0))) > 245  # white, up to what is lost


def test_depth_is_metric(folder):
    batch = ReadMesh(str(folder))(to_batch([make_row()]))
    row = to_rows(RenderViews([Camera(0, 0, distance=10.0)], 64, depth=True)(batch))[0]
    depth = np.asarray(Image.open(io.BytesIO(row["depths"][0]["bytes"])))
    assert depth.dtype == np.uint16 and (depth[row["alpha"][0] == 0] == 0).all()
    front = depth[32, 32] * row["depth_scale"]
    assert front == pytest.approx(10 - 0.5, abs=1e-3)  # the box's front is half its depth before its middle


def test_views_with_nothing_in_them_are_an_error(folder):
    glass = (folder / "box.mtl").read_text() + "d 0.0005\n"
    (folder / "box.mtl").write_text(glass)
    assert rendered(folder)["error"] == "blank_views"


def test_captions_are_clean_and_said_once():
    assert merged_captions(["a  chair\n", ""], ["a chair", "\t", "a lamp"]) == ["a chair", "a lamp"]


def test_several_captioners_add_up_per_view():
    class Counting(Captioner):
        def caption(self, batch):
            return [[[f"{name} {view}"] for view in range(len(views))] for name, views in rows(batch)]

    class Shared(Captioner):
        def caption(self, batch):
            return [[["thing"], []] for _ in batch["id"]]

    def rows(batch):
        return zip(batch["name"], batch["views"], strict=True)

    batch = {"id": ["a", "b"], "name": ["x", "y"], "views": [[1, 2], None], "error": [None, "empty"]}
    assert Shared()(Counting()(batch))["captions"] == [[["x 0", "thing"], ["x 1"]], None]


def caption_metadata(num_captions: int = 6, **columns) -> list[list[str]]:
    batch = to_batch([make_row(views=[None, None], **columns)])
    return MetadataCaptioner(num_captions)(batch)["captions"][0]


def test_metadata_words_name_tags_and_group():
    captions = caption_metadata(name="Arm {chair}", tags="Seat, Wood", group="Living room", id="a")
    assert captions[0] == captions[1] and len(captions[0]) == 6
    assert all("arm {chair}" in caption for caption in captions[0])
    details = [c for c in captions[0] if any(f"arm {{chair}}, {d}" in c for d in ("seat", "wood", "living room"))]
    assert len(details) == 2
    assert captions != caption_metadata(name="Arm {chair}", tags="Seat, Wood", group="Living room", id="b")
    assert captions == caption_metadata(name="Arm {chair}", tags="Seat, Wood", group="Living room", id="a")


def test_metadata_without_a_name_says_nothing():
    assert caption_metadata(tags="Seat") == [[], []]


def test_metadata_gives_no_more_captions_than_there_are_templates():
    assert len(caption_metadata(1000, name="chair")[0]) == 64


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((5, 5, 5), "black"),
        ((110, 110, 110), "gray"),
        ((190, 190, 190), "white"),  # as the renderer's light shows it
        ((160, 10, 10), "red"),
        ((190, 90, 5), "orange"),
        ((190, 180, 20), "yellow"),
        ((20, 90, 30), "green"),
        ((10, 50, 160), "blue"),
        ((90, 30, 110), "purple"),
        ((190, 100, 140), "pink"),
        ((75, 45, 20), "brown"),
        ((170, 150, 110), "beige"),
        ((83, 102, 76), "green"),  # muted, as a bush in shade
        ((99, 78, 61), "brown"),
        ((80, 64, 86), "purple"),
        ((58, 74, 92), "blue"),
        ((78, 74, 70), "gray"),
    ],
)
def test_colors_have_their_everyday_names(rgb, name):
    assert name in TERMS
    picture = np.full((8, 8, 3), rgb, dtype=np.uint8)
    assert ColorNamer()(picture, np.full((8, 8), 255, dtype=np.uint8)) == [name]


@pytest.mark.parametrize("name", TERMS)
def test_rendered_things_are_called_by_the_color_of_their_material(name):
    """A cube, three sides of which are lit unlike, is called as its material is, in every shade of the term."""
    renderer, corners = Renderer(size=48), [[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)]
    faces = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6],
             [0, 6, 4], [1, 5, 7], [1, 7, 3]]  # fmt: skip
    for shade in NAMED_COLORS[name]:
        color = np.ones(4, np.float32)
        color[:3] = srgb_to_linear(np.array(list(bytes.fromhex(shade))) / 255)
        mesh = Mesh(np.array(corners), np.array(faces), [Material(base_color=color)])
        picture = renderer.render(mesh, [Camera(30)])
        assert ColorNamer()(picture.rgb[0], picture.alpha[0])[0] == name, shade


def test_main_colors_are_those_of_the_object_by_share():
    picture = np.zeros((10, 10, 3), dtype=np.uint8)
    alpha = np.zeros((10, 10), dtype=np.uint8)
    alpha[:, :8] = 255
    picture[:, :5], picture[:, 5:8] = (75, 45, 20), (190, 190, 190)
    namer = ColorNamer()
    assert namer(picture, alpha) == ["brown", "white"]
    picture[:, 5:7] = (75, 45, 20)
    assert namer(picture, alpha) == ["brown"]  # an eighth of white is no main color
    assert namer(picture, alpha * 0) == []


def test_vocabularies(tmp_path):
    names = read_vocabulary("objaverse_lvis")
    assert len(names) > 1100 and {"alarm clock", "fan", "wineglass"} & set(names) == {"alarm clock", "wineglass"} | (
        {"fan"} & set(names)
    )
    assert not any("_" in name or "(" in name for name in names)
    (tmp_path / "names.txt").write_text("park_bench\n\nfan_(electric)\nfan\n(what)\n")
    assert read_vocabulary(str(tmp_path / "names.txt")) == ["park bench", "fan"]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="has no names"):
        read_vocabulary(str(tmp_path / "empty.txt"))
    with pytest.raises(ValueError, match="no_such_list"):
        read_vocabulary("no_such_list")


def test_articles():
    assert [with_article(words) for words in ("orange chair", "red chair")] == ["an orange chair", "a red chair"]


def test_views_are_embedded_as_they_are_stored(folder, tower):
    stage = EmbedViews(tower)
    row = rendered(folder)
    failed = row | {"id": "failed", "error": "empty", "views": None}
    batch = stage(to_batch([row, failed, row]))
    images = [Image.open(io.BytesIO(view["bytes"])) for view in row["views"]]
    expected = load_tower(tower).encode_images(images).numpy()
    np.testing.assert_allclose(batch["image_embeds"][0], expected, atol=1e-5)
    np.testing.assert_allclose(batch["image_embeds"][2], expected, atol=1e-5)
    assert batch["image_embeds"][1] is None
    assert stage.describe()["fingerprint"] == load_tower(tower).fingerprint


def test_labels_name_what_the_tower_sees_and_its_color(folder, tower, tmp_path, monkeypatch):
    (tmp_path / "names.txt").write_text("stool\narmchair\npiano\n")
    captioner = LabelsCaptioner(tower, vocabulary=str(tmp_path / "names.txt"), num_names=2)
    row = to_rows(EmbedViews(tower)(to_batch([rendered(folder)])))[0]
    monkeypatch.setattr(captioner, "name_embeds", np.eye(3, dtype=np.float32))
    row["image_embeds"] = np.eye(3, dtype=np.float32)[[2, 0, 2, 2]]  # piano, stool, piano, piano
    row["alpha"][3] = 0
    captions = captioner(to_batch([row]))["captions"][0]
    assert captions[0] == ["a red piano", "a red stool"]
    assert captions[1] == ["a red stool", "a red piano"]  # though the other views say piano
    assert [len(own) for own in captions] == [2, 2, 2, 0]
    assert captioner.describe()["vocabulary"]["names"] == 3


def test_ranking_puts_the_nearest_caption_first():
    embeds = np.eye(3, dtype=np.float32)
    captions, scores, order = rank(["a", "b", "c"], embeds, np.array([0.1, 0.9, 0.1], dtype=np.float32))
    assert captions == ["b", "a", "c"] and scores == pytest.approx([0.9, 0.1, 0.1])  # equals keep their order
    np.testing.assert_array_equal(order, embeds[[1, 0, 2]].astype(np.float16))


def test_every_caption_keeps_its_score_and_embedding(tower):
    loaded = load_tower(tower)
    texts = ["a chair", "a red chair made of wood", "a lamp"]
    rng = np.random.default_rng(0)
    views = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(2, loaded.dim))).float(), dim=-1).numpy()
    row = make_row(captions=[texts, texts[1:]], image_embeds=views)
    other = row | {"id": "other", "captions": [["a table"], []]}
    nameless = row | {"id": "nameless", "captions": [[], []]}
    failed = make_row(path="failed", captions=None, image_embeds=None) | {"error": "empty"}
    batch = RankCaptions(tower)(to_batch([row, nameless, failed, other]))
    assert batch["error"] == [None, "no_captions", "empty", None]
    for view, own in enumerate((texts, texts[1:])):
        captions, scores = batch["captions"][0][view], batch["caption_scores"][0][view]
        assert sorted(captions) == sorted(own) and scores == sorted(scores, reverse=True)
        exact = loaded.encode_text(captions).numpy()
        np.testing.assert_allclose(scores, exact @ views[view], atol=1e-5)
        np.testing.assert_allclose(batch["text_embeds"][0][view], exact, atol=1e-3)
    assert batch["captions"][3] == [["a table"], []] and batch["caption_scores"][3][1] == []
    assert batch["text_embeds"][3][1].shape == (0, loaded.dim)
    assert batch["image_embeds"][0].dtype == np.float16


def test_an_open_clip_model_ranks(folder, tmp_path):
    name = f"open_clip:{save_open_clip(tmp_path / 'tiny')}"
    row = to_rows(EmbedViews(name, device="cpu")(to_batch([rendered(folder)])))[0]
    batch = RankCaptions(name, device="cpu")(to_batch([row | {"captions": [["a chair", "a red box", "a lamp"]] * 4}]))
    tower = load_tower(name, device="cpu")
    images = tower.encode_images([open_view(view) for view in row["views"]]).numpy()
    for captions, scores, image in zip(batch["captions"][0], batch["caption_scores"][0], images, strict=True):
        assert len(captions) == 3 and scores == sorted(scores, reverse=True)
        np.testing.assert_allclose(scores, tower.encode_text(captions).numpy() @ image, atol=1e-5)
    assert local_name(name) == "open_clip:tiny" and str(tmp_path) not in str(RankCaptions(name).describe())


def test_captions_longer_than_the_tower_reads_are_ranked(tower):
    row = make_row(captions=[["chair " * 200]], image_embeds=np.ones((1, 24), np.float32))
    batch = RankCaptions(tower)(to_batch([row]))
    assert batch["error"] == [None] and np.isfinite(batch["caption_scores"][0][0]).all()


def test_the_tower_runs_in_the_type_asked_for(tower):
    assert resolve_dtype("float32") == torch.float32 and resolve_dtype("bfloat16") == torch.bfloat16
    assert resolve_dtype("auto", "cpu") in (torch.float32, torch.bfloat16)
    exact, fast = (RankCaptions(tower, device="cpu", dtype=dtype) for dtype in ("float32", "bfloat16"))
    assert fast.describe() == exact.describe() | {"dtype": "bfloat16"}  # the same fingerprint
    embeds = [stage.tower.encode_text(["a chair"]).numpy() for stage in (exact, fast)]
    assert embeds[1].dtype == np.float32 and (embeds[0] @ embeds[1].T).item() > 0.999


def test_older_versions_of_torch_stay_with_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert resolve_dtype("auto", "cpu") == torch.float32


def test_what_points_up_is_turned_y_up(tmp_path):
    upright = read_mesh(write_box(tmp_path / "box.obj")).vertices * [1, 2, 3] + [0, 5, 0]
    for axis in UP_AXES:
        lying = upright @ rotation_to_y_up(axis)
        lines = [f"v {x} {y} {z}" for x, y, z in lying.tolist()]
        faces = [line for line in (tmp_path / "box.obj").read_text().splitlines() if line.startswith("f ")]
        (tmp_path / "lying.obj").write_text("\n".join([*lines, *faces]))
        rows = to_batch([make_row("lying.obj"), make_row("lying.obj", rotation="1 0 0 0 1 0 0 0 1")])
        turned, by_table = to_rows(ReadMesh(str(tmp_path), up_axis=axis)(rows))
        assert np.array_equal(turned["mesh"].vertices, upright)
        assert np.array_equal(by_table["mesh"].vertices, lying)  # the table has the last word
        (unsaid,) = to_rows(ReadMesh(str(tmp_path))(to_batch([make_row("lying.obj")])))
        assert np.array_equal(unsaid["mesh"].vertices, lying)
    with pytest.raises(ValueError, match="up_axis"):
        ReadMesh(str(tmp_path), up_axis="up")


def test_a_mesh_far_from_the_origin_keeps_its_shape(tmp_path):
    near = read_mesh(write_box(tmp_path / "box.obj"))
    far = replace(near, vertices=near.vertices * 0.25 + [691234.5, 5336789.25, 515.0])
    for mesh in (near, far):
        mesh.warnings.clear()
    rows = [SamplePoints(500, seed=0)(to_batch([make_row() | {"mesh": mesh}]))["xyz"][0] for mesh in (near, far)]
    centered = [xyz.astype(np.float64) - xyz.astype(np.float64).mean(axis=0) for xyz in rows]
    np.testing.assert_allclose(centered[1] * 4, centered[0], atol=4e-3)  # float16 of a unit box
