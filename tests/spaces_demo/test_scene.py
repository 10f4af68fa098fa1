"""The tab Scene: scans of visitors, homes and the showroom, taken apart once and asked for words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the demo needs gradio (pip install 'modeling-ulip2[demo]')")
pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")

import app  # noqa: E402
import gradio as gr  # noqa: E402
import trimesh  # noqa: E402
from rooms import scans as module  # noqa: E402
from rooms.engine import Engine, NothingGivenError  # noqa: E402
from rooms.scans import BEADS, HOMES_CONFIG, SHOWROOM, Scans, in_view, named_colors, own_colors, shown_points  # noqa: E402
from rooms.uploads import UploadError  # noqa: E402

from modeling_ulip2.scenes.dataset import write_scenes  # noqa: E402
from modeling_ulip2.scenes.results import label_colors, write_results  # noqa: E402
from tests.scenes.rooms import RoomBuilder, furnished  # noqa: E402

LABELS = ["chair", "lamp"]


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("homes")
    (folder / HOMES_CONFIG).mkdir()
    write_scenes(folder / HOMES_CONFIG / "train-00000-of-00001.parquet", [furnished(density=400).scene("cottage")])
    return folder


@pytest.fixture(scope="module")
def scans(engine: Engine, homes: Path) -> Scans:
    return Scans(engine, homes)


def visit(scans: Scans, path: Path | None = None, choice: str | None = None, axis: str = "auto") -> Any:
    steps: list[str] = []
    found = scans.visit(None if path is None else str(path), choice, axis, steps.append)
    return found, steps


def function(demo: gr.Blocks, name: str, room: str = "SceneRoom") -> Any:
    return next(
        one.fn
        for one in demo.fns.values()
        if getattr(one.fn, "__name__", "") == name and room in getattr(one.fn, "__qualname__", "")
    )


def test_a_home_is_taken_apart_once_and_asked_often(scans: Scans):
    assert scans.choices == [SHOWROOM, "cottage"]
    cottage, steps = visit(scans, choice="cottage")
    assert steps[0] == "Reading the scan" and len(cottage.embedded.masks) > 5
    again, steps = visit(scans, choice="cottage")
    assert again is cottage and not steps and scans.again(cottage.key) is cottage
    for thing in scans.name(cottage, LABELS):
        assert thing.label in LABELS and len(thing.points)
    matches = scans.find(cottage, " a red chair ")
    assert matches.scores.shape == (len(cottage.scene.xyz),) and matches.objects[0].score == matches.scores.max()
    assert 0 < matches.named()[0].score <= matches.objects[0].score  # a whole, perhaps, instead of its best part


def test_a_visitors_scan_is_read_apart_from_the_server(scans: Scans, tmp_path: Path):
    scene = furnished(density=300).scene()
    write_results(tmp_path / "mine.ply", scene, [], scene.rgb)
    mine, _ = visit(scans, tmp_path / "mine.ply", "cottage", "y")
    assert mine.scene.id == "mine" and len(mine.scene.xyz) == len(scene.xyz)
    turned, _ = visit(scans, tmp_path / "mine.ply", None, "z")
    assert turned is not mine
    (tmp_path / "bad.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 9999999999\nend_header\n")
    with pytest.raises(UploadError, match="bad.ply cannot be used"):
        visit(scans, tmp_path / "bad.ply")
    few = RoomBuilder(density=1)
    few.object("dot")
    few.rectangle((0, 0, 0), (2, 0, 0), (0, 0, 2), (9, 9, 9), (0, 1, 0))
    write_results(tmp_path / "few.ply", few.scene(), [], few.scene().rgb)
    with pytest.raises(ValueError, match="too few"):
        visit(scans, tmp_path / "few.ply")


def test_what_is_not_given_or_no_longer_kept_is_told(scans: Scans, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(NothingGivenError, match="Add a scan"):
        visit(scans, None, "nowhere")
    with pytest.raises(NothingGivenError, match="Press Find the objects first"):
        scans.again(None)
    cottage, _ = visit(scans, choice="cottage")
    with pytest.raises(NothingGivenError, match="what to look for"):
        scans.find(cottage, " ")
    monkeypatch.setattr(module, "KEPT", 1)
    visit(scans, choice=SHOWROOM)
    with pytest.raises(NothingGivenError, match="press Find the objects again"):
        scans.again(cottage.key)


def test_the_page_shows_few_points_in_the_unit_sphere(scans: Scans):
    cottage, _ = visit(scans, choice="cottage")
    xyz, rgb, radius = in_view(cottage, own_colors(cottage))
    assert 1000 < len(xyz) == len(rgb) <= BEADS and np.linalg.norm(xyz, axis=1).max() <= 1 + 1e-6
    ceiling = cottage.scene.instance[cottage.shown] == cottage.scene.categories.index("ceiling")
    assert not ceiling.any()
    dense = furnished(density=4000).scene()
    shown, spacing = shown_points(dense)
    assert len(shown) <= BEADS and 0.03 <= spacing < 0.1 and 0 < radius < 0.05


def test_a_person_opens_names_finds_and_clicks(engine: Engine, homes: Path, monkeypatch: pytest.MonkeyPatch):
    demo = app.build_demo(engine, homes=homes)
    opened, name, find, choose, alone = (
        function(demo, each) for each in ("_open", "_name", "_find", "_choose", "_show_alone")
    )
    key, picture, remarks, status, column = opened(None, "cottage", "auto")
    assert "proposals" in status and trimesh.load(picture).geometry and remarks == ""
    picture, legend, rows, status, asked, column = name(key, "chair, lamp, wall")
    assert asked == ("names", ("chair", "lamp", "wall")) and rows and column.visible is False
    assert sum(row[0] == "wall" for row in rows) == 4 and "wall 4" in legend
    assert f"rgb{label_colors(asked[1])['wall']}" in legend
    column, words, cards, row = choose(SimpleNamespace(index=[0, 1]), key, asked)
    assert column.visible is True and f"**{rows[0][0]}**" in words and row == 0 and cards.value
    assert trimesh.load(alone(key, asked, row)).geometry
    picture, legend, rows, status, asked, column = find(key, "a red <chair>")
    assert asked == ("text", "a red <chair>") and rows and "<chair>" not in status
    assert choose(SimpleNamespace(index=[0, 0]), key, asked)[3] == 0
    with pytest.raises(gr.Error, match="at least two labels"):
        name(key, "chair")
    with pytest.raises(gr.Error, match="no such object"):
        choose(SimpleNamespace(index=[999, 0]), key, asked)


def test_colors_of_names_are_those_of_the_legend(scans: Scans):
    cottage, _ = visit(scans, choice="cottage")
    found = scans.name(cottage, ["wall", "chair"])
    wall = next(thing for thing in found if thing.label == "wall")
    rgb = named_colors(cottage, found, ["wall", "chair"])
    assert (rgb[wall.points] == label_colors(["wall", "chair"])["wall"]).all(axis=1).mean() > 0.9
