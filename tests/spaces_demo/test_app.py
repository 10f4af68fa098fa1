from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modeling_ulip2.geometry import read_mesh
from modeling_ulip2.geometry.shapes import read_shape
from tests.evaluation.world import World

pytest.importorskip("gradio", reason="the demo needs gradio (pip install 'modeling-ulip2[demo]')")
pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")

import app  # noqa: E402
import gradio as gr  # noqa: E402
from gradio_client import Client, handle_file  # noqa: E402
from gradio_client.exceptions import AppError  # noqa: E402
from rooms import about  # noqa: E402
from rooms.captioner import Captioner  # noqa: E402
from rooms.engine import Engine  # noqa: E402
from rooms.samples import write_samples  # noqa: E402
from rooms.search import MAX_RESULTS  # noqa: E402
from rooms.shared import collection_file, credit, model_viewer  # noqa: E402


@pytest.fixture(scope="module")
def client(server: str) -> Client:
    return Client(server, verbose=False)


def test_search_by_text_photo_and_shape(client: Client, engine: Engine, box: Path, tmp_path: Path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "photo.png")
    cases = [
        ("a red chair", None, None),
        ("", handle_file(tmp_path / "photo.png"), None),
        ("", None, handle_file(box)),
        ("but red", None, handle_file(box)),
    ]
    answers = [client.predict(*case, "y", 4, api_name="/search")["hits"] for case in cases]
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
    found = client.predict(handle_file(box), "y", "own", "chair, lamp", "the name alone", api_name="/classify")
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
    texts = [str(block.value) for block in demo.blocks.values() if isinstance(block, gr.Markdown)]
    assert any("No captioning model is loaded" in text and "--captioner" in text for text in texts)
    assert not any(function.api_name == "caption" for function in demo.fns.values())


def test_errors_are_told_in_words(client: Client, box: Path, tmp_path: Path):
    (tmp_path / "broken.glb").write_text("I am no shape")
    for arguments, endpoint, message in [
        (("", None, None, "y", 4), "/search", "Write some words"),
        (("a chair", None, None, "y", MAX_RESULTS + 1), "/search", "between 1 and"),
        (("", None, handle_file(tmp_path / "broken.glb"), "y", 4), "/search", "broken.glb cannot be used"),
        ((handle_file(box), "y", "own", "chair", "the name alone"), "/classify", "at least two labels"),
        ((handle_file(box), "y", "own", "chair, lamp", "no such"), "/classify", "There are no prompts"),
        ((None, "y", "own", "chair, lamp", "the name alone"), "/classify", "Add a 3D file"),
    ]:
        with pytest.raises(AppError, match=message) as caught:
            client.predict(*arguments, api_name=endpoint)
        assert "/tmp" not in str(caught.value) and str(tmp_path) not in str(caught.value)


def test_what_goes_wrong_inside_is_not_told(client: Client, engine: Engine, monkeypatch: pytest.MonkeyPatch):
    def fail(*arguments: object) -> None:
        raise RuntimeError("/home/someone/secret")

    monkeypatch.setattr(engine, "find", fail)
    with pytest.raises(AppError, match="Something went wrong on our side") as caught:
        client.predict("a chair", None, None, "y", 4, api_name="/search")
    assert "secret" not in str(caught.value)


def test_files_of_the_machine_are_not_read(client: Client, world: World):
    inside = {"path": str(world.labels_file.parent / "model" / "config.json"), "meta": {"_type": "gradio.FileData"}}
    with pytest.raises(AppError):
        client.predict("", None, inside, "y", 4, api_name="/search")


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
    try:
        Client(address, verbose=False).predict("", None, handle_file(box), "y", 4, api_name="/search")
        kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    finally:
        demo.close()
    assert "box.glb" in kept
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert not [name for name in left if not name.endswith(".ply")], left  # the samples are the collection's own


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
        (name, cloud): read_mesh(collection_file(engine, hit, cloud, viewer)).num_faces
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
    assert _collection_mesh(engine, hit) is not None
    outside = Path("..") / box.parent.name / box.name
    assert (engine.meshes / outside).is_file()
    assert _collection_mesh(engine, replace(hit, id=str(outside))) is None


def test_credits(engine: Engine):
    (hit, *_) = engine.find(engine.index.embed(0), 1)
    from dataclasses import replace

    line = credit(replace(hit, name="Chair", creator="Ada", license="cc-by-3.0", category="chair"))
    assert line == "**Chair** · by Ada · [CC BY 3.0](https://creativecommons.org/licenses/by/3.0/) · chair"
    table = about.attribution(engine)
    assert list(table["Shape"]) == engine.index.shapes["name"][:] and len(table) == 12
    assert set(table["Creator"]) == {"unknown"} and set(table["Licence"]) == {"CC0"}
    assert "tiny" not in about.card(engine) and "CLIP's" not in about.card(engine)


def test_samples_are_shapes_of_the_collection(engine: Engine):
    paths = write_samples(engine)
    assert len(paths) == 4
    shape = read_shape(paths[0], 64)
    cloud = engine.index.cloud(0)
    assert np.allclose(shape.xyz, cloud["xyz"], atol=1e-6) and np.array_equal(shape.rgb, cloud["rgb"])


def test_without_the_quickstart_a_sentence_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(app, "QUICKSTART", tmp_path)
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
