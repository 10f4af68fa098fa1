import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from modeling_ulip2.building.publishing.dataset import build_problems, card_problems, complete_card
from modeling_ulip2.scenes import Scene
from modeling_ulip2.scenes.dataset import SceneRows, preview, read_scenes, scene_features, write_card, write_scenes

RNG = np.random.default_rng(0)


def scene(name="house/a", count=50, **fields):
    own = {
        "xyz": RNG.random((count, 3)).astype(np.float32) + 1000,
        "rgb": RNG.integers(0, 256, (count, 3), dtype=np.uint8),
        "normals": np.tile(np.array([0, 1, 0], np.float32), (count, 1)),
        "instance": np.resize(np.array([-1, 0, 1], np.int32), count),
        "categories": ["chair", "ceiling"],
        "names": ["Red chair", ""],
        "source": "here",
        "license": "cc0-1.0",
        "warnings": ["something was left out"],
    }
    return Scene(id=name, **{**own, **fields})


def same(a, b):
    for name in ("xyz", "rgb", "normals", "instance"):
        left, right = getattr(a, name), getattr(b, name)
        assert (left is None) == (right is None), name
        if left is not None:
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)
    for name in ("id", "categories", "source", "license", "warnings"):
        assert getattr(a, name) == getattr(b, name)


def bare(name="b"):
    return scene(name, 7, rgb=None, normals=None, instance=None, categories=[], names=[], source="", warnings=[])


def written(tmp_path, *scenes):
    for number, each in enumerate(scenes):
        path = tmp_path / "complete" / f"train-{number:05d}-of-{len(scenes):05d}.parquet"
        write_scenes(path, [each])
    told = {"complete": "all of it.", "walk": "part of it."}
    write_card(tmp_path, "Made", told, "Made by hand.", 1, ["Nothing is real."])
    return tmp_path


def test_scenes_come_back_as_they_were(tmp_path):
    scenes = [scene(), bare(), scene("c", 3)]
    rows = read_scenes(str(written(tmp_path, *scenes)), "complete")
    assert len(rows) == 3 and rows.ids == ["house/a", "b", "c"]
    for before, after in zip(scenes, rows, strict=True):
        same(before, after)
    same(rows[-1], scenes[2])
    same(rows.named("b"), scenes[1])
    assert [each.id for each in rows[1:]] == ["b", "c"]
    with pytest.raises(IndexError):
        rows[3]
    with pytest.raises(KeyError, match="house/a"):
        rows.named("d")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="holds no scenes"):
        read_scenes(str(tmp_path), "bad")
    with pytest.raises(FileNotFoundError, match="it has bad, complete"):
        read_scenes(str(tmp_path), "walk")
    with pytest.raises(FileNotFoundError):
        read_scenes(str(tmp_path / "absent"), "walk")


def test_anyone_can_load_them(tmp_path):
    one, other = scene(), bare()
    rows = load_dataset(str(written(tmp_path, one, other)), "complete", split="train")
    assert rows.features == scene_features()
    for before, after in zip([one, other], SceneRows.of_dataset(rows), strict=True):  # as from the hub
        same(before, after)
    row = rows.with_format("numpy")[0]
    np.testing.assert_array_equal(np.asarray(row["xyz"]), one.xyz)
    np.testing.assert_array_equal(np.asarray(row["instance"]), one.instance)
    assert rows[0]["preview"].size == (512, 512) and rows[1]["rgb"] is None
    streamed = next(iter(load_dataset(str(tmp_path), "complete", split="train", streaming=True)))
    assert streamed["id"] == "house/a" and len(streamed["xyz"]) == 50


def test_the_card_counts(tmp_path):
    written(tmp_path, scene(), scene("c", 2))
    text = (tmp_path / "README.md").read_text()
    assert "| `complete` | 2 | 52 | 3 |" in text and "`walk`" not in text
    assert "license: cc0-1.0" in text and "| chair | 2 |" in text and "Made by hand." in text
    assert "- Nothing is real." in text and "1 scenes could not be read" in text
    assert "- `xyz` [N] of 3 float32: meters, y up; single precision, as half of it would leave steps of 8 mm" in text


def test_a_folder_of_scenes_is_fit_to_be_published(tmp_path):
    written(tmp_path, scene(), scene("c", 2))
    assert [*build_problems(tmp_path), *card_problems(tmp_path)] == []
    complete_card(tmp_path, "someone/rooms")
    text = (tmp_path / "README.md").read_text()
    assert 'load_dataset("someone/rooms", "complete"' in text and "![Scenes from above](samples.jpg)" in text
    with Image.open(tmp_path / "samples.jpg") as sheet:
        assert sheet.size == (512, 256)
    (tmp_path / "complete" / "train-00001-of-00002.parquet").unlink()
    assert "counts 2 rows" in " ".join(card_problems(tmp_path))


def test_the_preview_looks_from_above_below_the_ceiling():
    xyz = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1], [0, 2, 0], [1, 1, 0]], np.float32)
    rgb = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9], [8, 8, 8]], np.uint8)
    made = scene(xyz=xyz, rgb=rgb, normals=None, instance=np.array([0, 0, 0, 1, 0], np.int32))
    picture = np.asarray(preview(made, 64))
    seen = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
    assert (9, 9, 9) not in seen and (255, 0, 0) in seen  # the ceiling does not hide the floor
    assert (8, 8, 8) in seen and (0, 255, 0) not in seen  # what is higher hides what is below
    red, blue = (np.argwhere((picture == color).all(axis=2))[0] for color in (rgb[0], rgb[2]))
    assert blue[0] > red[0] and blue[1] == red[1]  # +z points down in the picture
