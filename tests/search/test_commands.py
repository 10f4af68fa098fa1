from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.dataset_scripts.shapes import write_box
from tests.evaluation.world import World, build_world

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
    assert run("index", tmp_path / "meshes", tmp_path / "index", "--model", world.model) == 0
    said = capsys.readouterr()
    assert "1 shapes of 24 numbers" in said.out and "1 could not be used" in said.err
    assert run("index", world.dataset, tmp_path / "index", "--model", world.model, "--append") == 0
    assert "7 shapes of 24 numbers" in capsys.readouterr().out
    assert run("search", tmp_path / "index", "--shape", tmp_path / "meshes" / "box.obj", "--top_k", "1") == 0
    assert listed(capsys) == [(1.0, "box.obj")]


def test_nothing_to_search_for(index: Path):
    with pytest.raises(ValueError, match="TEXT, --image or --shape"):
        run("search", index)
