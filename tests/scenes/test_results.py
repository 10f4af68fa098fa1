"""What was found in a scan, as files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import trimesh
from PIL import Image

from modeling_ulip2.cli.scene import SUFFIXES as COMMAND_SUFFIXES
from modeling_ulip2.cli.scene import UNITS as COMMAND_UNITS
from modeling_ulip2.geometry import read_points
from modeling_ulip2.scenes import Scene, SceneObject
from modeling_ulip2.scenes.boxes import axis_aligned_box, oriented_box
from modeling_ulip2.scenes.reading import AUTO_UNIT, UNITS
from modeling_ulip2.scenes.results import (
    SUFFIXES,
    below_ceiling,
    label_colors,
    name_colors,
    object_table,
    score_colors,
    write_results,
)

from .rooms import furnished


@pytest.fixture(scope="module")
def scene() -> Scene:
    return furnished(density=300).scene()


@pytest.fixture(scope="module")
def objects(scene: Scene) -> list[SceneObject]:
    """A chair, a cushion within it, and what has no name."""
    chair = np.flatnonzero(np.isin(scene.instance, [6, 7])).astype(np.int32)
    cushion = np.flatnonzero(scene.instance == 7).astype(np.int32)
    nothing = np.flatnonzero(scene.instance == 8).astype(np.int32)
    return [
        SceneObject(
            points, label, score, axis_aligned_box(scene.xyz[points]), oriented_box(scene.xyz[points]), np.eye(4)[0]
        )
        for points, label, score in ((chair, "chair", 0.9), (cushion, "a “soft” cushion", 0.4), (nothing, None, 0.1))
    ]


def test_the_command_knows_suffixes_and_units():
    assert COMMAND_SUFFIXES == SUFFIXES and COMMAND_UNITS == (AUTO_UNIT, *UNITS)


def test_points_have_the_color_of_their_name(scene, objects):
    labels = ["chair", "a “soft” cushion", "lamp"]
    rgb, colors = name_colors(scene, objects, labels), label_colors(labels)
    assert len(set(colors.values())) == 3
    assert (rgb[scene.instance == 6] == colors["chair"]).all()
    assert (rgb[scene.instance == 7] == colors["a “soft” cushion"]).all()
    rest = rgb[scene.instance >= 8]
    assert (rest == rest[:, :1]).all()
    many = label_colors([str(number) for number in range(30)])
    assert len(set(many.values())) == 30


def test_points_that_fit_a_text_glow(scene):
    scores = np.zeros(len(scene.xyz), np.float32)
    scores[scene.instance == 6], scores[scene.instance == 7] = 0.2, 0.05
    rgb = score_colors(scene, scores).astype(int)
    redness = rgb[:, 0] - rgb[:, 2]
    assert redness[scene.instance == 6].min() > 150 and (redness[scene.instance >= 8] == 0).all()
    assert (score_colors(scene, scores * 0) == score_colors(scene, scores * 0)[:, :1]).all()


def test_files_hold_what_was_found(scene, objects, tmp_path):
    rgb = name_colors(scene, objects, ["chair", "a “soft” cushion"])
    for suffix in SUFFIXES:
        write_results(tmp_path / "deep" / f"out{suffix}", scene, objects, rgb, asked={"labels": ["chair"]})

    told = json.loads((tmp_path / "deep" / "out.json").read_text("utf-8"))
    assert told["labels"] == ["chair"] and [thing["label"] for thing in told["objects"]][1:] == [
        "a “soft” cushion",
        None,
    ]
    assert told["objects"][0]["box"] == np.round(objects[0].box.astype(float), 4).tolist()

    archive = np.load(tmp_path / "deep" / "out.npz")
    assert archive["masks"].shape == (3, len(scene.xyz)) and archive["masks"].dtype == bool
    assert np.array_equal(np.flatnonzero(archive["masks"][1]), objects[1].points)
    assert archive["names"].tolist() == ["chair", "a “soft” cushion", ""]

    xyz, read = read_points(tmp_path / "deep" / "out.ply")
    assert np.allclose(xyz, scene.xyz) and (read == rgb).all()
    columns = trimesh.load(tmp_path / "deep" / "out.ply").metadata["_ply_raw"]["vertex"]["data"]
    assert (columns["object"][scene.instance == 7] == 1).all() and (columns["object"][scene.instance == 6] == 0).all()
    assert (columns["object"][scene.instance == 9] == -1).all()

    cloud = next(iter(trimesh.load(tmp_path / "deep" / "out.glb").geometry.values()))
    assert np.allclose(cloud.vertices, scene.xyz, atol=1e-6) and len(cloud.colors) == len(scene.xyz)
    xyz, read = read_points(tmp_path / "deep" / "out.glb")
    assert np.abs(read.astype(int) - rgb).max() <= 1

    picture = np.asarray(Image.open(tmp_path / "deep" / "out.png")).reshape(-1, 3).astype(int)
    color = label_colors(["chair"])["chair"]
    assert (np.abs(picture - color).sum(axis=1) < 10).any()
    with pytest.raises(ValueError, match="ends in none of"):
        write_results(tmp_path / "out.txt", scene, objects, rgb)


def test_the_table_has_a_line_for_each_object(objects):
    lines = object_table(objects)
    assert len(lines) == 4 and lines[1].startswith("0.900  chair ") and lines[3].startswith("0.100  - ")
    assert f"{len(objects[0].points)}" in lines[1]
    assert len(object_table([])) == 1


def test_pictures_leave_out_the_ceiling_and_no_table(scene):
    shown = below_ceiling(scene.xyz)
    of = {name: shown[scene.instance == number].mean() for number, name in enumerate(scene.categories)}
    assert of["ceiling"] == 0 and of["floor"] == of["table"] == of["chair"] == 1 and of["wall"] > 0.9
