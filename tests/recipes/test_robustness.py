"""The whole command on fabricated meshes: every curve, resumption, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from modeling_ulip2 import Ulip2FeatureExtractor, Ulip2ForPointCloudClassification
from modeling_ulip2.evaluation.robustness.curves import PARTIAL_VIEWS, MeshClouds, PartialViews, levels_of, mesh_path
from modeling_ulip2.recipes import robustness
from tests.dataset_scripts.shapes import write_box
from tests.evaluation.world import NUM_POINTS, World, build_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("robustness"))


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A box for each shape of the world."""
    folder = tmp_path_factory.mktemp("meshes")
    (folder / "made").mkdir()
    for index in range(12):
        write_box(folder / "made" / f"{index:02d}.obj", size=(1, 1 + index / 4, 0.5))
    return folder


def words(world: World, output: Path, *more: str) -> list[str]:
    given = {
        "model": world.model,
        "dataset": world.dataset,
        "labels_file": world.labels_file,
        "split_file": world.split_file,
        "output_dir": output,
        "templates": "modelnet40_64",
    }
    return [word for name, value in given.items() for word in (f"--{name}", str(value))] + list(more)


@pytest.fixture(scope="module")
def classifier(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifiers") / "fine-tuned"
    # one class more, and in another order, than the test shapes have
    names = {0: "table", 1: "bed", 2: "lamp", 3: "chair"}
    Ulip2ForPointCloudClassification.from_pretrained(world.model, id2label=names).save_pretrained(folder)
    Ulip2FeatureExtractor.from_pretrained(world.model).save_pretrained(folder)
    return folder


def test_all_curves_and_their_picture(
    world: World, meshes: Path, classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = words(world, tmp_path, "--meshes", str(meshes), "--classifiers", str(classifier), "--limit", "4")
    chosen = ["noise", "ball", "color", "points", PARTIAL_VIEWS]
    measured = robustness.main([*options, "--curves", *chosen])
    assert set(measured) == {"zero-shot", "fine-tuned"}
    for levels in measured.values():
        assert {one.curve for one in levels} == set(chosen)
        assert all(0 <= one.interval[0] <= one.accuracy <= one.interval[1] <= 1 and one.shapes == 4 for one in levels)
    clean = [one for one in measured["zero-shot"] if one.level == 0]
    assert len({one.accuracy for one in clean}) == 1, "the first level of these curves is the cloud as it is"
    with Image.open(tmp_path / "robustness.png") as picture:
        assert picture.width > 400 and len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20
    table = (tmp_path / "robustness.md").read_text()
    assert "| points | 10k | 4096 |" in table and "| depth views | 6 | 4 | 3 | 2 | 1 |" in table
    assert table.count("| fine-tuned |") == len(chosen)

    # a second run measures what is new and nothing else
    calls: list[str] = []
    measure = robustness.measure

    def counted(*arguments: Any, **kwargs: Any) -> Any:
        calls.append(arguments[-1])
        return measure(*arguments, **kwargs)

    monkeypatch.setattr(robustness, "measure", counted)
    again = robustness.main([*options, "--curves", *chosen, "half_space"])
    assert calls == [f"half_space {level:g}" for level in robustness.CORRUPTIONS["half_space"].levels]
    assert again["zero-shot"][: len(measured["zero-shot"])] == measured["zero-shot"]
    with pytest.raises(ValueError, match="other seed"):
        robustness.main([*options, "--seed", "1"])


def test_without_meshes_only_what_is_stored_is_measured(world: World, tmp_path: Path) -> None:
    assert levels_of("points", 4096, meshes=False) == (4096, 2048, 1024, 512, 256, 128, 64)
    assert levels_of(PARTIAL_VIEWS, 4096, meshes=False) == ()
    assert levels_of("color", 4096, meshes=True, colored=False) == ()
    measured = robustness.main(words(world, tmp_path, "--curves", "points", PARTIAL_VIEWS))
    assert [one.level for one in measured["zero-shot"]] == [NUM_POINTS]
    assert json.loads((tmp_path / "robustness.json").read_text())["stored_points"] == NUM_POINTS


def test_partial_views_lie_on_the_surface_and_show_one_side(meshes: Path) -> None:
    rows = [{"id": "made/00.obj"}]
    one, many = (PartialViews(rows, [meshes], views, seed=3)[0] for views in (1, 6))
    for row in (one, many):
        # a box of half sizes 1, 1 and 0.5: on a face, the largest of the distances beyond its sides is nought
        np.testing.assert_allclose((np.abs(row["xyz"]) - [1, 1, 0.5]).max(axis=1), 0, atol=0.01)
        assert len(row["rgb"]) == len(row["xyz"]) > 1000 and row["rgb"].dtype == np.uint8
    assert len(many["xyz"]) > 4 * len(one["xyz"])
    again = PartialViews(rows, [meshes], 1, seed=3)[0]
    assert (again["xyz"] == one["xyz"]).all()


def test_a_mesh_whose_picture_is_missing_is_measured_as_it_was_built(tmp_path: Path) -> None:
    write_box(tmp_path / "box.obj", color=(0, 1, 0))
    with open(tmp_path / "box.mtl", "a") as file:
        file.write("map_Kd K:/images/wood.jpg\n")
    rows = [{"id": "box.obj"}]
    for row in (MeshClouds(rows, [tmp_path], 50)[0], PartialViews(rows, [tmp_path], 1)[0]):
        assert (row["rgb"] == [0, 255, 0]).all()


def test_what_cannot_be_measured_is_told(world: World, classifier: Path, meshes: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown curves fog"):
        robustness.main(words(world, tmp_path, "--curves", "fog"))
    with pytest.raises(FileNotFoundError, match="no mesh chair.glb in"):
        mesh_path([meshes], "chair.glb")
    with pytest.raises(ValueError, match="leads out of"):
        mesh_path([meshes], "../chair.glb")
    other = tmp_path / "other"
    names = {0: "chair", 1: "lamp"}
    Ulip2ForPointCloudClassification.from_pretrained(world.model, id2label=names).save_pretrained(other)
    Ulip2FeatureExtractor.from_pretrained(world.model).save_pretrained(other)
    with pytest.raises(ValueError, match="does not know the classes table"):
        robustness.main(words(world, tmp_path / "out", "--classifiers", str(other)))
    Ulip2FeatureExtractor(num_points=20).save_pretrained(other)
    with pytest.raises(ValueError, match="reads its clouds otherwise"):
        robustness.main(words(world, tmp_path / "out", "--classifiers", str(other)))
