from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modeling_ulip2.geometry import read_mesh
from modeling_ulip2.geometry.shapes import read_shape
from modeling_ulip2.towers.prompts import class_embeddings
from tests.evaluation.world import World
from tests.geometry.builders import png_header
from tests.spaces_demo.conftest import write_index

pytest.importorskip("gradio", reason="the demo needs gradio (pip install 'modeling-ulip2[demo]')")
pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")

import app  # noqa: E402
import gradio as gr  # noqa: E402
from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402
from rooms import about  # noqa: E402
from rooms.captioner import Captioner  # noqa: E402
from rooms.classify import classify_file  # noqa: E402
from rooms.engine import Engine  # noqa: E402
from rooms.map import PCA, UMAP, Collection  # noqa: E402
from rooms.samples import write_samples  # noqa: E402
from rooms.search import MAX_RESULTS, SearchRoom  # noqa: E402
from rooms.shared import collection_file, credit, model_viewer  # noqa: E402


@pytest.fixture(scope="module")
def client(server: str) -> Client:
    return Client(server, verbose=False)


def texts_of(demo: gr.Blocks) -> list[str]:
    return [str(block.value) for block in demo.blocks.values() if isinstance(block, gr.Markdown)]


def test_search_by_text_photo_and_shape(client: Client, engine: Engine, box: Path, tmp_path: Path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photo.png")
    cases = [
        ("a red chair", None, None),
        ("", handle_file(tmp_path / "photo.png"), None),
        ("", None, handle_file(box)),
        ("but red", None, handle_file(box)),
    ]
    answers = [client.predict(*case, "auto", 4, api_name="/search")["hits"] for case in cases]
    shape = read_shape(box, engine.feature_extractor.num_points)
    queries = [
        engine.embed_query("a red chair"),
        engine.embed_query("", Image.open(tmp_path / "photo.png")),
        engine.embed_query("", None, shape),
        engine.embed_query("but red", None, shape),
    ]
    for answer, query in zip(answers, queries, strict=True):
        expected = engine.find(query, 4)
        assert [hit["id"] for hit in answer] == [hit.id for hit in expected]
        assert [hit["score"] for hit in answer] == pytest.approx([hit.score for hit in expected], abs=1e-5)


def test_louder_words(client: Client, engine: Engine, box: Path):
    found = client.predict("but red", None, handle_file(box), "y", 3, 2.5, api_name="/search")["hits"]
    shape = read_shape(box, engine.feature_extractor.num_points)
    expected = engine.find(engine.embed_query("but red", None, shape, text_weight=2.5), 3)
    assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in expected], abs=1e-5)


def test_classify_and_embed(client: Client, engine: Engine, box: Path):
    found = client.predict(handle_file(box), "auto", "own", "chair, lamp", "the name alone", api_name="/classify")
    embed = engine.embed_shape(read_shape(box, engine.feature_extractor.num_points))
    assert found == pytest.approx(engine.classify(embed, ["chair", "lamp"], ["{}"]), abs=1e-5)
    record = client.predict("", None, handle_file(box), "y", api_name="/embed")
    assert record["embedding"] == pytest.approx(embed.tolist(), abs=1e-5) and record["dim"] == 24


def test_caption(client: Client, captioner: Captioner, engine: Engine, box: Path):
    features = captioner.read(read_shape(box, engine.feature_extractor.num_points))
    *_, expected = captioner.answer(features, "what is it")
    assert client.predict(handle_file(box), "y", "what is it", api_name="/caption") == expected
    with pytest.raises(AppError, match="Ask something"):
        client.predict(handle_file(box), "y", " ", api_name="/caption")


def test_without_a_captioner_the_tab_says_how_to_get_one(engine: Engine):
    demo = app.build_demo(engine)
    (text,) = [text for text in texts_of(demo) if "No captioning model is loaded" in text]
    assert "`make caption`" in text and "--captioner" in text
    assert not any(function.api_name == "caption" for function in demo.fns.values())


def test_errors_are_told_in_words(client: Client, box: Path, tmp_path: Path):
    (tmp_path / "broken.glb").write_text("I am no shape")
    for arguments, endpoint, message in [
        (("", None, None, "auto", 4), "/search", "Write some words"),
        (("a chair", None, None, "y", MAX_RESULTS + 1), "/search", "between 1 and"),
        (("", None, handle_file(tmp_path / "broken.glb"), "auto", 4), "/search", "broken.glb cannot be used"),
        ((handle_file(box), "auto", "own", "chair", "the name alone"), "/classify", "at least two labels"),
        ((handle_file(box), "auto", "own", "chair, lamp", "no such"), "/classify", "There are no prompts"),
        ((None, "auto", "own", "chair, lamp", "the name alone"), "/classify", "Add a 3D file"),
    ]:
        with pytest.raises(AppError, match=message) as caught:
            client.predict(*arguments, api_name=endpoint)
        assert "/tmp" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_a_photo_is_opened_by_our_reader_alone(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Gradio's own way of reading would meet the bomb, and tell nothing."""
    (tmp_path / "bomb.png").write_bytes(png_header(20_000, 20_000))
    opened = []
    monkeypatch.setattr("gradio.image_utils.PIL.Image.open", lambda *given, **options: opened.append(given))
    with pytest.raises(AppError, match="too many pixels; at most 50 million"):
        client.predict("", handle_file(tmp_path / "bomb.png"), None, "auto", 4, api_name="/search")
    assert not opened


def test_a_search_does_not_wait_for_lists_of_labels(
    client: Client, engine: Engine, box: Path, monkeypatch: pytest.MonkeyPatch
):
    begun, go_on = threading.Event(), threading.Event()
    encode = engine.labels._encode_text

    def slow(texts: list[str]) -> torch.Tensor:
        begun.set()
        assert go_on.wait(60)
        return encode(texts)

    monkeypatch.setattr(engine.labels, "_encode_text", slow)
    jobs = [
        client.submit(
            handle_file(box), "auto", "own", f"slow {number}, slower", "the name alone", api_name="/classify"
        )
        for number in range(4)
    ]
    try:
        assert begun.wait(60)
        assert client.submit("a chair", None, None, "auto", 4, api_name="/search").result(timeout=60)["hits"]
        assert not any(job.done() for job in jobs)
    finally:
        go_on.set()
    assert all(len(job.result(timeout=60)) == 2 for job in jobs)


def test_progress_of_labels_is_told(engine: Engine, box: Path, monkeypatch: pytest.MonkeyPatch):
    told: list[tuple[float, str]] = []

    class Progress(gr.Progress):
        def __call__(self, share: float, desc: str) -> None:
            told.append((share, desc))

    progress = Progress()
    assert not progress  # its length is that of what it iterates over

    def get(names: list[str], templates: list[str], report: Callable[[float], None]) -> torch.Tensor:
        report(0.25)
        return class_embeddings(engine.tower.encode_text, names, templates)

    monkeypatch.setattr(engine.labels, "get", get)
    classify_file(engine, str(box), "auto", "own", "chair, lamp, table", "the name alone", progress)
    assert told == [(0.25, "Embedding 3 labels")]


@pytest.mark.parametrize("axis", ["auto", "y", "z", "-z", "x"])
def test_the_axis_that_points_up(client: Client, engine: Engine, axis: str, tmp_path: Path):
    np.save(tmp_path / "cloud.npy", np.random.default_rng(0).normal(size=(80, 3)))
    found = client.predict("", None, handle_file(tmp_path / "cloud.npy"), axis, api_name="/embed")["embedding"]
    shape = read_shape(tmp_path / "cloud.npy", engine.feature_extractor.num_points, up_axis=axis)
    assert found == pytest.approx(engine.embed_shape(shape).tolist(), abs=1e-5)


def test_warnings_of_a_file_are_told(client: Client, tmp_path: Path):
    (tmp_path / "box.obj").write_text("mtllib gone.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl red\nf 1 2 3\n")
    for answer in (
        client.predict("", None, handle_file(tmp_path / "box.obj"), "auto", 4, api_name="/search"),
        client.predict("", None, handle_file(tmp_path / "box.obj"), "auto", api_name="/embed"),
    ):
        assert any("gone.mtl" in warning for warning in answer["warnings"])
        assert str(tmp_path) not in str(answer["warnings"]) and "/tmp" not in str(answer["warnings"])


@pytest.mark.parametrize("shapes", [1, 2, 4])
def test_a_collection_of_a_few_shapes(world: World, shapes: int, tmp_path: Path):
    engine = Engine.load(world.model, write_index(world, tmp_path / "index", shapes), cache_dir=None)
    app.build_demo(engine)
    with gr.Blocks():
        room = SearchRoom(engine)
    assert len(room._search("a chair", None, None, "auto", None, 5, 1.0)[3]) == shapes
    gallery, heading, _, hits, _ = room._search("", None, None, "auto", 0, 3, 1.0)  # like the first
    assert [hit.row for hit in hits] == [hit.row for hit in engine.find(engine.index.embed(0), 4) if hit.row][:3]
    assert ("no other shape" in heading) == (shapes == 1)
    for method in (PCA, UMAP) if shapes < 4 else (PCA,):
        svg, _ = Collection(engine).draw(method)
        assert svg.count("<circle") == shapes and "nan" not in svg


def test_nothing_asked_is_a_warning_that_keeps_what_is_shown(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    told = []
    monkeypatch.setattr(gr, "Warning", lambda message, **options: told.append(message))
    with gr.Blocks():
        room = SearchRoom(engine)
    for text in ("", "  ", None):
        assert room._search(text, None, None, "auto", None, 3, 1.0) == gr.skip()
    assert told == ["Write some words, or add a photo or a 3D file."] * 3


def test_what_fits_nothing_is_said(engine: Engine, monkeypatch: pytest.MonkeyPatch):
    with gr.Blocks():
        room = SearchRoom(engine)
    monkeypatch.setattr(engine.fit, "limits", {"words": 2.0, "shape": -2.0})
    heading = room._search("a chair", None, None, "auto", None, 3, 1.0)[1]
    assert "Nothing here fits well" in heading and "names" in heading
    assert "fits well" not in room._search("", None, None, "auto", 0, 3, 1.0)[1]
    monkeypatch.setattr(engine.fit, "limits", {"words": -2.0, "shape": 2.0})
    assert "fits well" not in room._search("a chair", None, None, "auto", None, 3, 1.0)[1]
    heading = room._search(None, None, None, "auto", 0, 3, 1.0)[1]
    assert "Nothing here fits well" in heading and "shapes" in heading


def test_a_captioner_that_is_refused_is_not_shown(engine: Engine):
    demo = app.build_demo(engine, None, "The captioner x is not worth showing. It says 'a chair' of all shapes.")
    (text,) = [text for text in texts_of(demo) if "This captioning model is not shown" in text]
    assert "It says 'a chair' of all shapes." in text
    assert not any(function.api_name == "caption" for function in demo.fns.values())


@pytest.mark.slow  # imports everything once more; `test_temporary.py` is the quick one
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_server_that_is_stopped_leaves_nothing(world: World, index_folder: Path, tmp_path: Path):
    command = [sys.executable, app.__file__, "--model", str(world.model), "--index", str(index_folder)]
    environment = os.environ | {
        "GRADIO_TEMP_DIR": str(tmp_path),
        "HF_HOME": str(tmp_path / "hub"),
        "PYTHONUNBUFFERED": "1",
    }
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as server:
        address = next(line.split()[-1] for line in server.stdout if "Running on local URL" in line)
        client = Client(address, verbose=False)
        np.save(tmp_path / "private.npy", np.eye(3))
        client.predict("", None, handle_file(tmp_path / "private.npy"), "auto", 4, api_name="/search")
        assert [*tmp_path.glob("ulip2-demo-*/**/private.npy")]
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=60)
    assert not [*tmp_path.glob("ulip2-demo-*")]


def test_what_goes_wrong_inside_is_not_told(client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object) -> None:
        raise RuntimeError("/home/someone/secret")

    monkeypatch.setattr(engine, "find", fail)
    with pytest.raises(AppError, match="Something went wrong on our side") as caught:
        client.predict("a chair", None, None, "auto", 4, api_name="/search")
    assert "secret" not in str(caught.value)


def test_files_of_the_machine_are_not_read(client: Client, world: World):
    inside = {"path": str(world.labels_file.parent / "model" / "config.json"), "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(AppError):
        client.predict("", None, inside, "auto", 4, api_name="/search")


def test_parallel_clients_get_their_own_answers(client: Client, engine: Engine):
    texts = [f"a {color} {name}" for color in ("red", "blue", "old", "new") for name in "abcde"]

    def ask(text: str) -> list[str]:
        hits = client.predict(text, None, None, "y", 12, api_name="/search")["hits"]
        return [f"{hit['id']} {hit['score']:.4f}" for hit in hits]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, texts))
    for text, answer in zip(texts, answers, strict=True):
        assert answer == [f"{hit.id} {hit.score:.4f}" for hit in engine.find(engine.embed_query(text), 12)]
    assert len({str(answer) for answer in answers}) == 20


def test_no_upload_stays_behind(engine: Engine, box: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    demo = app.build_demo(engine)
    _, address, _ = demo.launch(prevent_thread_lock=True, quiet=True, **app.launch_options())
    own = {path.name for path in tmp_path.rglob("*") if path.is_file()}  # pictures and samples of the collection
    try:
        Client(address, verbose=False).predict("", None, handle_file(box), "auto", 4, api_name="/search")
        kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    finally:
        demo.close()
    assert "box.glb" in kept
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert "box.glb" not in own and left <= own


def test_only_named_endpoints_are_public(client: Client):
    endpoints = client.view_api(return_format="dict")["named_endpoints"]
    assert set(endpoints) == {"/search", "/classify", "/embed", "/caption"}
    assert all(endpoint["description"] for endpoint in endpoints.values())


def test_the_viewer_shows_the_mesh_or_the_cloud(engine: Engine):
    with gr.Blocks():
        viewer = model_viewer("view")
    hits = {hit.id: hit for hit in engine.find(engine.index.embed(0), 12)}
    present, absent = hits["made/00.obj"], hits["made/01.obj"]
    faces = {
        (name, cloud): read_mesh(collection_file(engine, hit, cloud, viewer)[0]).num_faces
        for name, hit in (("present", present), ("absent", absent))
        for cloud in (False, True)
    }
    assert faces == {
        ("present", False): 12,
        ("present", True): 64 * 20,
        ("absent", False): 64 * 20,
        ("absent", True): 64 * 20,
    }


def test_ids_cannot_leave_the_folder_of_meshes(engine: Engine, box: Path):
    from dataclasses import replace

    from rooms.shared import _collection_mesh

    (hit, *_) = engine.find(engine.index.embed(0), 1)
    assert _collection_mesh(engine, hit)[0] is not None
    outside = Path("..") / box.parent.name / box.name
    assert (engine.meshes / outside).is_file()
    mesh, (warning,) = _collection_mesh(engine, replace(hit, id=str(outside)))
    assert mesh is None and "leads out of the folder" in warning
    assert str(engine.meshes.parent) not in warning


def test_credits(engine: Engine):
    (hit, *_) = engine.find(engine.index.embed(0), 1)
    from dataclasses import replace

    line = credit(replace(hit, name="Chair", creator="Ada", license="cc-by-3.0", category="chair"))
    assert line == "**Chair** · by Ada · [CC BY 3.0](https://creativecommons.org/licenses/by/3.0/) · chair"
    table = about.attribution(engine)
    assert list(table["Shape"]) == engine.index.shapes["name"][:] and len(table) == 12
    assert set(table["Creator"]) == {"unknown"} and set(table["License"]) == {"CC0"}
    assert "tiny" not in about.card(engine) and "CLIP's" not in about.card(engine)


def test_samples_are_shapes_of_the_collection(engine: Engine):
    samples = write_samples(engine)
    assert len({sample.path for sample in samples}) == 4
    for sample in samples:
        row = int(Path(sample.path).stem.rpartition("-")[2])
        shape, cloud = read_shape(sample.path, 64), engine.index.cloud(row)
        assert np.allclose(shape.xyz, cloud["xyz"], atol=1e-6) and np.array_equal(shape.rgb, cloud["rgb"])
        assert sample.title == engine.index.shapes["name"][row]
        assert np.array_equal(np.asarray(sample.picture), np.asarray(engine.picture(row)))


def test_without_the_quickstart_a_sentence_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app, "QUICKSTART", tmp_path)
    monkeypatch.setattr(app, "CHECKPOINT", tmp_path / "no checkpoint")
    with pytest.raises(SystemExit, match="make quickstart"):
        app.main([])
    with pytest.raises(SystemExit, match="belong together"):
        app.main(["--model", "m"])
    with pytest.raises(SystemExit, match="is not a folder"):
        app.main(["--model", str(tmp_path / "none"), "--index", str(tmp_path / "none")])


def test_the_quickstart_is_indexed_once_and_again_for_another_model(world: World, tmp_path: Path):
    import torch

    from modeling_ulip2 import Ulip2Model

    (tmp_path / "dataset").symlink_to(world.dataset)
    folder = app.quickstart_index(world.model, tmp_path)
    shard = next((folder / "shapes").iterdir())
    written = shard.stat().st_mtime_ns
    app.quickstart_index(world.model, tmp_path)
    assert shard.stat().st_mtime_ns == written
    model = Ulip2Model.from_pretrained(world.model)
    torch.nn.init.normal_(model.point_projection.weight)
    (tmp_path / "model").mkdir()
    for file in world.model.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    model.save_pretrained(tmp_path / "model")
    app.quickstart_index(tmp_path / "model", tmp_path)
    assert Engine.load(tmp_path / "model", folder)


def test_the_last_quickstart_is_found(tmp_path: Path) -> None:
    """Each collection has its folder; without one the first is named."""
    assert app.last_quickstart(tmp_path) == tmp_path / "quickstart"
    for age, name in ((30, "quickstart"), (10, "quickstart-chairs"), (20, "quickstart-lamps")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.md").write_text("")
        os.utime(tmp_path / name / "report.md", (1e9 - age, 1e9 - age))
    (tmp_path / "quickstart-unfinished").mkdir()
    assert app.last_quickstart(tmp_path) == tmp_path / "quickstart-chairs"
