from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from datasets.arrow_writer import ArrowWriter
from PIL import Image

from tests.dataset_scripts.shapes import write_box
from tests.evaluation.world import NUM_POINTS, World, build_world

pytest.importorskip("faiss", reason="searching needs faiss-cpu")

from modeling_ulip2.cli import make_parser  # noqa: E402
from modeling_ulip2.search.index import ShapeIndex  # noqa: E402


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"), shapes=6)


def run(*arguments: str | Path) -> int:
    options = make_parser().parse_args([str(argument) for argument in arguments])
    return options.run(options)


@pytest.fixture(scope="module")
def index(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "index"
    assert run("index", world.dataset, folder, "--model", world.model, "--labels_file", world.labels_file) == 0
    return folder


def listed(capsys: pytest.CaptureFixture[str]) -> list[tuple[float, str]]:
    lines = capsys.readouterr().out.splitlines()
    return [(float(line.split()[0]), line.rpartition("(")[2].rstrip(")")) for line in lines]


def test_text_picture_and_shape(index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photo.png")
    write_box(tmp_path / "box.obj")
    answers = []
    for query in (["a chair"], ["--image", tmp_path / "photo.png"], ["--shape", tmp_path / "box.obj"]):
        assert run("search", index, *query, "--top_k", "4") == 0
        answers.append(listed(capsys))
    assert run("search", index, "a chair", "--shape", tmp_path / "box.obj", "--top_k", "4") == 0
    answers.append(listed(capsys))
    for answer in answers:
        scores = [score for score, _ in answer]
        assert len({name for _, name in answer}) == 4 and scores == sorted(scores, reverse=True)
    assert len({str(answer) for answer in answers}) == 4  # each kind of query asks something else


def test_labels_become_categories(index: Path):
    assert set(ShapeIndex.open(index).shapes["category"]) == {"chair", "lamp", "table", ""}


def test_a_folder_of_meshes_and_more_of_them(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write_box(tmp_path / "meshes" / "box.obj")
    (tmp_path / "meshes" / "broken.glb").write_text("I am no shape")
    assert run("index", tmp_path / "meshes", tmp_path / "index", "--model", world.model) == 3
    said = capsys.readouterr()
    assert "1 shapes of 24 numbers" in said.out and "1 could not be used" in said.out and "broken.glb: " in said.err
    assert run("index", world.dataset, tmp_path / "index", "--model", world.model, "--append") == 0
    assert "7 shapes of 24 numbers" in capsys.readouterr().out
    assert run("search", tmp_path / "index", "--shape", tmp_path / "meshes" / "box.obj", "--top_k", "1") == 0
    assert listed(capsys) == [(1.0, "box.obj")]


def test_nothing_to_search_for(index: Path):
    with pytest.raises(ValueError, match="TEXT, --image or --shape"):
        run("search", index)


def test_shapes_of_equal_names_from_two_folders(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Nothing is lost, nothing is there twice, whatever order folders come in and however often."""
    index, model = tmp_path / "index", ["--model", world.model]
    for number, name in enumerate(("first", "second")):
        write_box(tmp_path / name / "chair.obj", (1, 1 + number, 1))
        write_box(tmp_path / name / "deep" / "lamp.obj", (1, 1, 2 + number))
    write_box(tmp_path / "second" / "only.obj", (3, 1, 1))
    assert run("index", tmp_path / "first", index, *model) == 0
    assert "2 added" in capsys.readouterr().out
    assert run("index", tmp_path / "second", index, *model, "--append") == 0
    assert "5 shapes" in (said := capsys.readouterr().out) and "3 added" in said
    ids = ["chair.obj", "deep/lamp.obj", "second/chair.obj", "second/deep/lamp.obj", "only.obj"]
    assert ShapeIndex.open(index).shapes["id"][:] == ids
    for folder, present in (("first", 2), ("second", 3)):
        assert run("index", tmp_path / folder, index, *model, "--append") == 0
        assert f"0 added; {present} there already" in capsys.readouterr().out
    # a copy holds the same shapes, but for the one that was changed
    shutil.copytree(tmp_path / "first", tmp_path / "copy" / "first")
    write_box(tmp_path / "copy" / "first" / "chair.obj", (1, 9, 1))
    assert run("index", tmp_path / "copy" / "first", index, *model, "--append") == 0
    assert "1 added; 1 there already" in capsys.readouterr().out
    opened = ShapeIndex.open(index)
    assert opened.shapes["id"][:] == [*ids, "copy/first/chair.obj"]
    assert [entry["name"] for entry in opened.info["collections"]] == ["first", "second", "copy/first"]
    for row in range(len(opened)):
        assert opened.search(opened.embed(row), 1)[0].row == row


def test_clouds_are_indexed_and_what_is_skipped_is_named(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    meshes = tmp_path / "shapes"
    write_box(meshes / "box.obj")
    rng = np.random.default_rng(0)
    far = rng.random((300, 3)) + [4e5, 5e6, 100]  # a survey's coordinates
    np.save(meshes / "many.npy", far)
    np.savetxt(meshes / "few.xyz", np.concatenate([rng.random((20, 3)), rng.integers(256, size=(20, 3))], axis=1))
    (meshes / "LICENSE.txt").write_text("Do what you like.\n")
    (meshes / "scene.fbx").write_bytes(b"Kaydara")
    (meshes / "one.npy").write_bytes(b"")
    assert run("index", meshes, tmp_path / "index", "--model", world.model) == 3
    said = capsys.readouterr()
    assert "3 added" in said.out and "1 could not be used" in said.out and "2 skipped" in said.out
    assert "LICENSE.txt: skipped, without rows of numbers" in said.err
    assert "scene.fbx: skipped, a format that is not read" in said.err
    assert "one.npy: " in said.err and "skipped" not in next(
        line for line in said.err.splitlines() if "one.npy" in line
    )
    index = ShapeIndex.open(tmp_path / "index")
    assert index.shapes["id"][:] == ["box.obj", "few.xyz", "many.npy"]
    assert all(cloud.shape == (NUM_POINTS, 3) for cloud in (index.cloud(row)["xyz"] for row in range(3)))
    spread = index.cloud(2)["xyz"]
    assert len(np.unique(spread[:, 0])) > 50 and 0.8 < np.ptp(spread[:, 0]) <= 1
    assert (index.cloud(2)["rgb"] == 102).all() and len(np.unique(index.cloud(1)["rgb"])) > 20
    picture = np.asarray(index.shapes[1]["image"].convert("RGB")).astype(int)
    assert 20 < (picture.min(axis=-1) < 200).sum() < picture.shape[0] * picture.shape[1] / 2
    for name, row in (("few.xyz", 1), ("many.npy", 2)):
        found = run("search", tmp_path / "index", "--shape", meshes / name, "--top_k", "1")
        assert found == 0 and listed(capsys) == [(1.0, index.shapes["id"][row])]


def test_warnings_are_kept_and_told(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plain = write_box(tmp_path / "meshes" / "plain.obj")
    plain.with_suffix(".mtl").unlink()
    write_box(tmp_path / "meshes" / "red.obj")
    assert run("index", tmp_path / "meshes", tmp_path / "index", "--model", world.model) == 0
    assert "plain.obj: warning: " in (said := capsys.readouterr().err) and "plain.mtl" in said
    rows = ShapeIndex.open(tmp_path / "index").shapes
    assert ["plain.mtl" in "".join(words) for words in rows["warnings"]] == [True, False]
    assert run("search", tmp_path / "index", "--shape", plain) == 0
    assert "plain.mtl" in capsys.readouterr().err


def test_an_index_of_before_can_be_added_to(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Its rows have no warnings and no collection."""
    write_box(tmp_path / "first" / "box.obj")
    write_box(tmp_path / "second" / "box.obj", (1, 3, 1))
    index = tmp_path / "index"
    assert run("index", tmp_path / "first", index, "--model", world.model) == 0
    shard = index / "shapes" / "train-00000.arrow"
    rows = Dataset.from_file(str(shard)).remove_columns(["warnings", "collection"])
    with ArrowWriter(features=rows.features, path=str(tmp_path / "old.arrow")) as writer:
        writer.write(rows[0] | {"image": {"bytes": None, "path": None}})
        writer.finalize()
    (tmp_path / "old.arrow").replace(shard)
    info = json.loads((index / "index.json").read_text())
    del info["collections"]
    (index / "index.json").write_text(json.dumps(info))
    for folder, added in (("first", 0), ("second", 1), ("second", 0)):
        assert run("index", tmp_path / folder, index, "--model", world.model, "--append") == 0
        assert f"{added} added" in capsys.readouterr().out
    assert ShapeIndex.open(index).shapes["id"][:] == ["box.obj", "second/box.obj"]


def test_an_index_finds_its_model_wherever_both_lie(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    write_box(tmp_path / "there" / "meshes" / "box.obj")
    shutil.copytree(world.model, tmp_path / "there" / "model")
    monkeypatch.chdir(tmp_path / "there")
    assert run("index", "meshes", "index", "--model", "model") == 0
    assert json.loads(Path("index/index.json").read_text())["model"] == "../model"
    card = Path("index/README.md").read_text()
    assert "by `model`" in card and str(tmp_path) not in card
    monkeypatch.chdir(tmp_path)  # from elsewhere
    assert run("search", "there/index", "a box", "--tower", world.tower) == 0
    (tmp_path / "there").rename(tmp_path / "moved")  # both together
    assert run("search", "moved/index", "a box", "--tower", world.tower) == 0
    assert run("index", "moved/meshes", "moved/index", "--model", "moved/model", "--append") == 0
    assert "0 added; 1 there already" in capsys.readouterr().out
    (tmp_path / "moved" / "index").rename(tmp_path / "index")  # the index alone
    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/model \('../model' seen from index\).*--model"):
        run("search", "index", "a box")
    assert run("search", "index", "a box", "--model", "moved/model", "--tower", world.tower) == 0


def test_a_dataset_that_is_not_there(world: World, tmp_path: Path):
    for name in ("nowhere", "./nowhere", "a/b/c"):
        with pytest.raises(FileNotFoundError, match=f"{name}: no such folder, nor on the hub"):
            run("index", name, tmp_path / "index", "--model", world.model)
