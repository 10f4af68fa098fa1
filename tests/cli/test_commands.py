"""`ulip2 embed` and `ulip2 classify`, through `main`."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from datasets import load_dataset
from transformers import AutoModel, pipeline

from modeling_ulip2 import Ulip2CaptioningConfig, Ulip2ForPointCloudClassification
from modeling_ulip2.cli import embed as module
from modeling_ulip2.cli import main
from modeling_ulip2.embedding.records import ShapeRecord
from tests.dataset_scripts.shapes import write_bad_meshes, write_box
from tests.evaluation.world import World, build_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"), shapes=3)


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of good and bad files, some in a folder inside it, beside files that are no shapes."""
    folder = tmp_path_factory.mktemp("shapes")
    write_box(folder / "a.obj")
    write_box(folder / "deep" / "b.OBJ", size=(1, 3, 0.2), color=(0, 0, 1))
    np.save(folder / "cloud.npy", np.random.default_rng(0).random((80, 6)).astype(np.float32))
    write_bad_meshes(folder / "bad")
    (folder / "bad" / "no_faces.obj").unlink()  # a cloud of two points
    (folder / "notes.md").write_text("no shape")
    return folder


def run(*arguments: str | Path) -> int:
    return main([str(argument) for argument in arguments])


def test_embed_files_and_folders(world: World, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    output = tmp_path / "new" / "out.parquet"
    single = write_box(tmp_path / "single.obj")
    given = [single, shapes, "missing.glb"]
    assert run("embed", *given, "-o", output, "--model", world.model, "--batch_size", "3", "--device", "cpu") == 3
    captured = capsys.readouterr()
    assert "4 of 9 files embedded" in captured.out
    rows = pq.read_table(output).to_pylist()
    places = [Path(row["path"]) for row in rows]
    assert places == [single, *sorted(p for p in places[1:-1]), Path("missing.glb")]
    good = {row["path"]: row["embeds"] for row in rows if row["error"] is None}
    assert {Path(path).name for path in good} == {"single.obj", "a.obj", "b.OBJ", "cloud.npy"}
    embedder = pipeline("point-cloud-feature-extraction", model=str(world.model), device="cpu")
    for path, embeds in good.items():
        assert embeds == pytest.approx(embedder(path), abs=1e-5)
    bad = {Path(row["path"]).name: row["error"] for row in rows if row["error"] is not None}
    for row in rows:
        assert row["error"] is None or f"{row['path']}: {row['error']}" in captured.err
    assert all(row["embeds"] is None for row in rows if row["error"] is not None)
    assert "no area" in bad["flat.obj"] and "no such file" in bad["missing.glb"] and len(bad) == 5
    assert [path.name for path in output.parent.iterdir()] == ["out.parquet"]
    loaded = load_dataset("parquet", data_files=str(output), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.column_names == ["path", "embeds", "error", "warnings"] and len(loaded) == 9
    metadata = pq.read_schema(output).metadata
    assert metadata[b"model"] == str(world.model).encode() and metadata[b"features"] == b"embeds"


def test_embed_with_an_encoder_alone(world: World, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    AutoModel.from_pretrained(world.model).point_model.save_pretrained(tmp_path / "encoder")
    for file in world.model.glob("*process*"):
        (tmp_path / "encoder" / file.name).write_bytes(file.read_bytes())
    arguments = ["embed", shapes / "a.obj", "-o", tmp_path / "out.parquet", "--model", tmp_path / "encoder"]
    assert run(*arguments) == 0
    assert len(pq.read_table(tmp_path / "out.parquet")["embeds"][0]) == 48
    assert run(*arguments, "--features", "embeds") == 2
    assert "no projection" in capsys.readouterr().err


def test_a_stopped_run_leaves_no_file(tmp_path: Path):
    def records():
        yield ShapeRecord(0, "a", torch.ones(1))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        module.write_embeddings(records(), tmp_path / "out.parquet", {})
    assert list(tmp_path.iterdir()) == []


def test_row_groups_keep_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_ROW_GROUP", 2)
    records = [
        ShapeRecord(i, str(i), torch.tensor([float(i)]) if i else None, ("odd",) * i, None if i else ValueError("why"))
        for i in range(5)
    ]
    assert module.write_embeddings(records, tmp_path / "out.parquet", {}) == 1
    rows = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert rows[0] == {"path": "0", "embeds": None, "error": "why", "warnings": []}
    assert rows[1:] == [
        {"path": str(i), "embeds": [float(i)], "error": None, "warnings": ["odd"] * i} for i in range(1, 5)
    ]


def test_classify(world: World, shapes: Path, capsys: pytest.CaptureFixture[str]):
    files = [shapes / "a.obj", shapes / "cloud.npy"]
    labels = ["chair", "wooden lamp"]
    options = ["--labels", *labels, "--model", world.model, "--template", "a {}", "one {}."]
    assert run("classify", files[0], *options) == 0
    lines = capsys.readouterr().out.splitlines()
    classifier = pipeline("zero-shot-point-cloud-classification", model=str(world.model), device="cpu")
    ranked = classifier(files[0], candidate_labels=labels, hypothesis_template=["a {}", "one {}."])
    assert lines == [f"{entry['score']:.3f}  {entry['label']}" for entry in ranked]
    assert run("classify", *files, *options, "--top_k", "1", "--tower", world.tower) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[2]] == [str(file) for file in files] and len(lines) == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embed", "{empty}", "-o", "out.parquet", "--model", "{model}"], "no mesh or point file"),
        (
            ["embed", "{box}", "-o", "out.parquet", "--model", "{model}", "--features", "embeds", "--root", "nowhere"],
            "--root nowhere is no folder",
        ),
        (["embed", "{box}", "-o", "out.parquet", "--model", "{empty}"], "{empty}"),
        (["classify", "missing.glb", "--labels", "chair", "--model", "{model}"], "no such file"),
        (["classify", "{box}", "--labels", "chair", "chair", "--model", "{model}"], "'chair' twice"),
        (["classify", "{box}", "--labels", "chair", "--model", "{model}", "--template", "a"], "needs one {{}}"),
        (["classify", "{box}", "--labels", "chair", "--model", "{model}", "--tower", "{empty}"], "tower"),
        (
            ["index", "{shapes}", "index", "--model", "{model}", "--labels_file", "{labels}"],
            "none of its 1 ids is in the dataset ('chair.obj' there, 'a.obj' here)",
        ),
    ],
)
def test_bad_input_is_told_in_a_sentence(
    arguments: list[str],
    words: str,
    world: World,
    shapes: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "labels.csv").write_text("path,category\nchair.obj,chair\n")
    places = {"model": world.model, "box": shapes / "a.obj", "empty": tmp_path / "empty"}
    places |= {"shapes": shapes, "labels": tmp_path / "labels.csv"}
    assert main([argument.format(**places) for argument in arguments]) == 2
    assert words.format(**places) in capsys.readouterr().err
    assert not (tmp_path / "out.parquet").exists()


def test_a_good_table_is_not_replaced_by_nothing(world: World, shapes: Path, tmp_path: Path, capsys):
    output = tmp_path / "out.parquet"
    bad = ["embed", shapes / "bad" / "flat.obj", "-o", output, "--model", world.model]
    assert run(*bad) == 2
    assert "flat.obj: " in (said := capsys.readouterr().err) and "(zero_area)" in said and "not written" in said
    assert list(tmp_path.iterdir()) == []
    assert run("embed", shapes / "a.obj", "-o", output, "--model", world.model) == 0
    before = output.read_bytes()
    assert run(*bad) == 2 and "stays as it was" in capsys.readouterr().err
    assert output.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_classify_goes_through_folders_and_past_bad_files(world: World, shapes: Path, capsys):
    options = ["--labels", "chair", "lamp", "--model", world.model, "--template", "a {}", "--top_k", "1"]
    assert run("classify", shapes, "missing.glb", *options) == 3
    said = capsys.readouterr()
    listed = [line for line in said.out.splitlines() if line.startswith(str(shapes))]
    assert [Path(line).name for line in listed] == ["a.obj", "cloud.npy", "b.OBJ"]
    assert all(name in said.err for name in ("flat.obj", "nan.obj", "photo.glb", "missing.glb"))
    assert run("classify", shapes / "bad", *options) == 2


def test_one_label_with_commas_draws_a_warning(world: World, shapes: Path, capsys):
    options = ["--model", world.model, "--template", "a {}"]
    assert run("classify", shapes / "a.obj", "--labels", "chair, table", *options) == 0
    assert "is one label" in (said := capsys.readouterr().err) and "--labels 'chair' 'table'" in said
    assert run("classify", shapes / "a.obj", "--labels", "chair, old", "table", *options) == 0
    assert "warning" not in capsys.readouterr().err


def test_axes_and_roots(world: World, tmp_path: Path, capsys):
    """A lying shape is set up, and a texture in a folder beside the mesh's is found from the folder that is named."""
    upright = write_box(tmp_path / "shapes" / "up.obj", (1, 3, 0.2))
    lying = tmp_path / "shapes" / "lying.obj"
    lines = [line.split() for line in upright.read_text().splitlines()]
    turned = [["v", x[1], str(-float(x[3])), x[2]] if x[0] == "v" else x for x in lines]
    lying.write_text("\n".join(" ".join(words) for words in turned))
    (tmp_path / "shapes" / "deep").mkdir()
    deep = tmp_path / "shapes" / "deep" / "inside.obj"
    deep.write_text(upright.read_text().replace("mtllib up.mtl", "mtllib ../up.mtl"))
    model = ["--model", world.model, "-o", tmp_path / "out.parquet"]

    def embeds(*arguments: str | Path) -> list[list[float]]:
        assert run("embed", *arguments, *model) == 0
        return pq.read_table(tmp_path / "out.parquet")["embeds"].to_pylist()

    (expected,) = embeds(upright)
    for axis in (["--up-axis", "z"], ["--up_axis=z"]):
        assert embeds(lying, *axis)[0] == pytest.approx(expected, abs=1e-4)
    assert embeds(lying, "--up-axis", "-z")[0] != pytest.approx(expected, abs=1e-3)
    capsys.readouterr()
    white = embeds(deep)[0]
    assert "inside.obj: warning: " in capsys.readouterr().err and white != pytest.approx(expected, abs=1e-3)
    assert embeds(tmp_path / "shapes" / "deep", "--root", tmp_path / "shapes")[0] == pytest.approx(expected, abs=1e-5)
    assert embeds(tmp_path / "shapes")[0] == pytest.approx(expected, abs=1e-5)
    assert "warning" not in capsys.readouterr().err


def test_models_of_another_kind_say_what_they_are(world: World, shapes: Path, tmp_path: Path, capsys):
    assert run("caption", shapes / "a.obj", "--model", world.model) == 2
    assert "holds a Ulip2Model, which writes no text" in capsys.readouterr().err
    Ulip2CaptioningConfig().save_pretrained(tmp_path / "captioner")
    assert run("classify", shapes / "a.obj", "--labels", "chair", "--model", tmp_path / "captioner") == 2
    assert "holds a captioner" in (said := capsys.readouterr().err) and "ulip2 caption" in said
    Ulip2ForPointCloudClassification.from_pretrained(world.model, num_labels=3).save_pretrained(tmp_path / "head")
    shutil.copy(world.model / "processor_config.json", tmp_path / "head")
    assert run("classify", shapes / "a.obj", "--labels", "chair", "--model", tmp_path / "head") == 2
    assert "a Ulip2Model is needed" in capsys.readouterr().err


def test_hub_names_and_folders_that_are_not_there(world: World, tmp_path: Path, capsys, monkeypatch):
    for command in ("info", "verify"):
        for name in ("./nowhere", "nowhere", "some/model"):
            assert run(command, name) == 2
            assert f"{name}: no such folder, nor on the hub" in capsys.readouterr().err
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, repo_type: str(world.model))
    assert run("info", "some/model") == 0 and "ulip2_pointbert" in capsys.readouterr().out
    assert run("verify", "some/model") == 0
