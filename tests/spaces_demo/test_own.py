"""The collection that a fresh clone builds for itself, fetched by a script of the test's own: there is no network."""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.dataset_scripts.shapes import write_box
from tests.evaluation.world import World

pytest.importorskip("gradio", reason="the demo needs gradio (pip install 'modeling-ulip2[demo]')")
pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")

import app  # noqa: E402
import collect  # noqa: E402
import gradio as gr  # noqa: E402
from rooms import own  # noqa: E402
from rooms.map import PCA, Collection  # noqa: E402

from modeling_ulip2.search.index import ShapeIndex  # noqa: E402
from modeling_ulip2.utils.scripts import STOPPED  # noqa: E402

COUNT = 7
FETCH = """
import shutil, sys
from dataclasses import dataclass  # needs its module in sys.modules
from pathlib import Path

@dataclass
class Place:
    folder: Path

def main(arguments):
    print("not a line of progress")
    output = Place(Path(arguments[arguments.index("--output") + 1])).folder
    shutil.copytree({source!r}, output, dirs_exist_ok=True)
"""


@pytest.fixture
def clone(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository without outputs: a checkpoint, two shapes, and a script that fetches more and one of them again."""
    first, more = tmp_path / "first", tmp_path / "more"
    rows = ["path,name,creator,category"]
    for number in range(COUNT):
        write_box(more / "made" / f"{number}.obj", (1, 1 + number / 4, 0.5), (number / COUNT, 0.2, 0.8))
        rows.append(f"made/{number}.obj,Box {number},Ada,{'box' if number % 2 else 'crate'}")
    (more / "objects.csv").write_text("\n".join(rows) + "\n")
    write_box(first / "cube.obj", (1, 1, 0.5), (0, 0.2, 0.8))
    write_box(first / "plank.obj", (1, 0.1, 0.4))
    (first / "objects.csv").write_text("path,name,creator\ncube.obj,Box 0,Ada\nplank.obj,Plank,Bo\n")
    script = tmp_path / "fetch_boxes.py"
    script.write_text(FETCH.format(source=str(more)))
    monkeypatch.setattr(app, "CHECKPOINT", world.model)
    monkeypatch.setattr(app, "FIRST_SHAPES", first)
    monkeypatch.setattr(app, "FETCH", script)
    monkeypatch.setattr(app, "LABELS", tmp_path / "none.csv")
    monkeypatch.setattr(app, "OWN", tmp_path / "outputs" / "demo")
    monkeypatch.setattr(own, "SHARD_SIZE", 2)
    return tmp_path


def function(demo: gr.Blocks, name: str) -> Any:
    (found,) = {id(one.fn): one.fn for one in demo.fns.values() if getattr(one.fn, "__name__", "") == name}.values()
    return found


def test_the_page_fills_without_a_restart(clone: Path, world: World):
    engine, growth = app.load_own()
    assert growth is not None
    assert engine.index.shapes["name"][:] == ["Box 0", "Plank"] and (engine.meshes / "plank.obj").is_file()
    demo = app.build_demo(engine, growth=growth)
    look, grow = function(demo, "look"), function(demo, "_grow")
    html, timer, version = look()
    assert "2 shapes" in html and "<progress" in html and version == 0
    collection, home = Collection(engine), engine.showcase(12)
    growth.start()
    growth.join(300)
    assert growth.state == "ready", growth.text
    # one of the two was fetched again in another format
    assert engine.index.shapes["name"][:] == ["Box 0", "Plank", *(f"Box {number}" for number in range(1, COUNT))]
    html, timer, version = look()
    assert html == "" and version == 1 and timer.active is False
    gallery, welcome, hits, slider, *chips = grow(home, 2)
    assert f"{COUNT + 1} shapes" in welcome and len(hits) == COUNT + 1 == len(gallery.value) == slider.maximum
    assert [chip.value for chip in chips if chip.visible] == ["a box", "a crate"]
    found = engine.find(engine.embed_query("a box"), 2)
    assert grow(found, 2)[:3] == (gr.skip(),) * 3  # an answer stays on the page
    assert engine.class_names("collection") == ["box", "crate"] and engine.fit.measure() is not None
    assert collection.draw(PCA)[0].count("<circle") == 2 and Collection(engine).draw(PCA)[0].count("<circle") == 8
    # the second start has everything
    again, nothing = app.load_own()
    assert (
        nothing is None
        and len(again.index) == COUNT + 1
        and not math.isnan(again.find(again.index.embed(3), 1)[0].score)
    )


def test_what_was_stopped_goes_on(clone: Path, world: World, monkeypatch: pytest.MonkeyPatch):
    app.load_own()
    read = collect.Chosen.__getitem__

    def stop(self: collect.Chosen, position: int) -> Any:
        if position == 4:
            raise KeyboardInterrupt
        return read(self, position)

    monkeypatch.setattr(collect.Chosen, "__getitem__", stop)
    with pytest.raises(KeyboardInterrupt):
        collect.collect(world.model, app.OWN, app.FETCH)
    engine, growth = app.load_own()
    assert growth is not None and len(engine.index) == 2
    monkeypatch.setattr(collect.Chosen, "__getitem__", read)
    report = collect.collect(world.model, app.OWN, app.FETCH)
    assert (report.present, len(report.added)) == (4, COUNT - 1 - 4)
    (app.OWN / collect.COMPLETE).unlink()  # whoever deletes it loses nothing
    report = collect.collect(world.model, app.OWN, app.FETCH)
    assert (report.present, report.added) == (COUNT - 1, [])
    assert app.load_own()[1] is None


def test_a_failure_is_told_and_the_first_shapes_stay(clone: Path, capfd: pytest.CaptureFixture[str]):
    app.FETCH.write_text("import sys\ndef main(arguments):\n    sys.exit('the <archive> cannot be reached')\n")
    with pytest.raises(SystemExit, match="cannot be reached"):
        collect.collect(app.CHECKPOINT, app.OWN, app.FETCH)
    app.FETCH.unlink()
    with pytest.raises(FileNotFoundError, match="no fetch_boxes.py here"):
        collect.collect(app.CHECKPOINT, app.OWN, app.FETCH)
    engine, _ = app.load_own()
    sentence = f"the <archive> is not in {app.OWN.resolve().parent.parent}/cache"
    for words, told in (
        (
            f"print('noise'); print({json.dumps(json.dumps({'failed': sentence}))}); exit(2)",
            "&lt;archive&gt; is not in cache",
        ),
        ("import os; os._exit(7)", "ended with status 7"),
    ):
        growth = own.Growth(engine, app.OWN, [sys.executable, "-c", words])
        growth.start()
        growth.join(60)
        html = growth.html()
        assert growth.state == "failed" and told in html and "2 shapes" in html and str(clone) not in html
        assert "was not built" in capfd.readouterr().err
    assert len(engine.index) == 2 and engine.version == 0
    assert growth.text.startswith("the process") and engine.find(engine.embed_query("a plank"), 2)


def test_another_model_begins_anew(clone: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    from modeling_ulip2 import Ulip2Model

    app.load_own()
    collect.collect(world.model, app.OWN, app.FETCH)
    shutil.copytree(world.model, tmp_path / "model")
    model = Ulip2Model.from_pretrained(world.model)
    torch.nn.init.normal_(model.point_projection.weight)
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(app, "CHECKPOINT", tmp_path / "model")
    engine, growth = app.load_own()
    assert growth is not None and len(engine.index) == 2
    assert len(ShapeIndex.open(app.OWN / collect.INDEX)) == 2


SLOW_FETCH = """
import subprocess, sys, tempfile

def main(arguments):
    with tempfile.TemporaryDirectory(dir={folder!r}) as folder:
        words = "import time; open({folder!r} + '/child', 'w').close(); time.sleep(600)"
        subprocess.run([sys.executable, "-c", words])
"""


def test_when_the_demo_stops_so_does_what_it_began(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(own, "STOP", 120)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    app.FETCH.write_text(SLOW_FETCH.format(folder=str(scratch)))
    engine, growth = app.load_own()
    assert growth is not None
    growth.start()
    for _ in range(1200):
        if (scratch / "child").is_file():
            break
        time.sleep(0.1)
    growth.stop()
    growth.join(60)
    assert growth._process is not None and growth._process.returncode == STOPPED
    assert [path.name for path in scratch.iterdir()] == ["child"]  # its own folder is gone
    assert len(engine.index) == 2
