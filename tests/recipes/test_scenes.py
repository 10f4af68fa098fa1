"""The whole command on fabricated rooms: the table, the pictures, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_ulip2.recipes import scene_objects, scenes
from modeling_ulip2.scenes import Scene
from modeling_ulip2.scenes.dataset import write_card, write_scenes
from tests.evaluation.world import World, build_world

ROOMS = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rooms of a floor, a wall and a box for each of four objects, complete and without what lies far from a walk."""
    folder = tmp_path_factory.mktemp("rooms")
    for config, share in (("complete", 1.0), ("walk", 0.6)):
        for number in range(ROOMS):
            write_scenes(folder / config / f"train-{number:05d}-of-{ROOMS:05d}.parquet", [room(number, share)])
    write_card(folder, "Rooms", {"complete": "all of it", "walk": "a part"}, "Made here.", 0)
    return folder


def room(number: int, share: float) -> Scene:
    rng = np.random.default_rng(number)
    plane = rng.uniform(0, 4, size=(4000, 2))
    parts = [np.insert(plane, 1, 0.0, axis=1), np.insert(plane * [1, 0.6], 2, 0.0, axis=1)]
    for place in range(4):
        box = rng.uniform(-1, 1, size=(900, 3))
        side = np.abs(box).argmax(axis=1)
        box[np.arange(900), side] = np.sign(box[np.arange(900), side])  # on the surface of a cube
        parts.append(box * rng.uniform(0.15, 0.3, size=3) + [0.7 + place % 2 * 1.8, 0.5, 1 + place // 2 * 1.7])
    xyz = np.concatenate(parts).astype(np.float32)
    instance = np.repeat(np.arange(6), [len(own) for own in parts]).astype(np.int32)
    kept = rng.random(len(xyz)) < share
    rgb = (instance[:, None] * [37, 90, 11] % 256).astype(np.uint8)
    names = ["floor", "wall", *rng.permutation(["chair", "lamp", "table", "chair"])]
    return Scene(f"room {number}", xyz[kept], rgb[kept], instance=instance[kept], categories=[str(n) for n in names])


def words(world: World, rooms: Path, output: Path, *more: str) -> list[str]:
    given = {"model": world.model, "dataset": rooms, "output_dir": output, "num_tuning": 1}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))] + list(more)


def test_the_table_has_all_figures_beside_their_controls(world: World, rooms: Path, tmp_path: Path) -> None:
    record = scenes.main(words(world, rooms, tmp_path, "--pictures", "1", "--tower_views", "1"))
    assert record["classes"] == ["chair", "lamp", "table"] and set(record["configs"]) == {"complete", "walk"}
    for config in record["configs"].values():
        assert [row["id"] for row in config["scenes"]] == [f"room {number}" for number in range(ROOMS)]
        assert all(row["peak_memory"] > 2**20 and row["proposals"] > 1 for row in config["scenes"])
        tuning, reported = config["tuning"], config["reported"]
        assert (tuning["objects"], reported["objects"]) == (4, 8)
        assert set(reported["arms"]) == {
            "the model",
            "shuffled embeddings",
            "chance",
            "image tower on rendered points",
        }
        for name, arm in reported["arms"].items():
            measured = {"top1", "top5", "top1_class_average", "given_ap", "given_ap50", "given_ap25"}
            if name != scenes.TOWER:
                measured |= {"proposed_ap", "proposed_ap50", "proposed_ap25", "miou"}
            assert measured <= set(arm) and all(0 <= value <= 1 for value in arm.values())
        # floor and wall are planes, whatever the objects are called
        assert all(row["iou"] > 0.7 for row in reported["semantic_per_class"] if row["class"] in ("floor", "wall"))
        assert reported["class_agnostic"]["ap25"] > 0.1
        assert reported["recall"]["objects"] == 8 and reported["recall"]["recall25"] > 0.5
    assert json.loads((tmp_path / "scenes.json").read_text())["configs"]["walk"]["reported"]["scenes"] == 2
    table = (tmp_path / "scenes.md").read_text()
    assert table.count("| the model |") == 4 and "prop. AP50" in table and "peak, GiB" in table
    for config in ("complete", "walk"):
        with Image.open(tmp_path / f"{config}.png") as picture:
            assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 20


def test_proposals_and_tower_can_be_left_out_and_nothing_is_seen_twice(
    world: World, rooms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--configs", "walk", "--proposals", "false", "--tower_views", "0", "--pictures", "0", "--limit", "2"]
    record = scenes.main(words(world, rooms, tmp_path, *options))
    assert list(record["configs"]) == ["walk"] and len(record["configs"]["walk"]["scenes"]) == 2
    arms = record["configs"]["walk"]["reported"]["arms"]
    assert set(arms) == {"the model", "shuffled embeddings", "chance"} and "proposed_ap" not in arms["the model"]
    assert "recall" not in record["configs"]["walk"]["reported"]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("what was seen is kept")

    monkeypatch.setattr(scene_objects, "embed_objects", never)
    again = scenes.main(words(world, rooms, tmp_path, *options))
    assert again["configs"]["walk"]["reported"] == record["configs"]["walk"]["reported"]
    assert not list(tmp_path.glob("*.png"))


def test_scenes_of_walls_alone_and_missing_configs_are_refused(world: World, rooms: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="complete, walk"):
        scenes.main(words(world, rooms, tmp_path, "--configs", "scanned"))
    options = ["--configs", "walk", "--proposals", "false", "--tower_views", "0", "--min_region_size", "2000"]
    with pytest.raises(ValueError, match="no named object of the tuning scenes has 2000 points"):
        scenes.main(words(world, rooms, tmp_path, *options))
    bare = room(0, 1.0)
    bare.categories = ["wall"] * 6
    write_scenes(tmp_path / "bare" / "complete" / "train-00000-of-00001.parquet", [bare])
    write_card(tmp_path / "bare", "Bare", {"complete": "walls"}, "Made here.", 0)
    with pytest.raises(ValueError, match="nothing to measure"):
        scenes.main(words(world, tmp_path / "bare", tmp_path, "--configs", "complete"))
