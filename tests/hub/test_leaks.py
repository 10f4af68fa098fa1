"""Whatever is uploaded, and whichever way: no path of this machine, no token, nothing that merely lay beside it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoProcessor

from modeling_ulip2 import (
    CardFacts,
    Ulip2CaptioningProcessor,
    Ulip2FeatureExtractor,
    Ulip2ForConditionalGeneration,
    Ulip2ForPointCloudClassification,
    Ulip2Model,
    Ulip2PointModel,
    Ulip2PointModelWithProjection,
)
from modeling_ulip2.building.publishing import dataset as publishing
from modeling_ulip2.towers import load_tower
from modeling_ulip2.utils.publishing import LeakError, upload_model_folder
from tests.dataset_scripts.shapes import build_arguments, write_box
from tests.evaluation.world import World, build_world
from tests.hub.fixtures import Uploads
from tests.hub.server import TOKEN, LoopbackHub
from tests.models import captioning_world
from tests.towers.world import save_conse

NAME = "someone/shapes"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("private"))


def assert_tells_nothing(files: dict[str, bytes] | Any, *places: Path) -> None:
    secrets = [TOKEN, *(str(place) for place in (*places, Path.home(), Path.cwd()) if place != Path("/"))]
    assert files
    for name, content in files.items():
        for secret in secrets:
            assert secret.encode() not in content, (name, secret)
        if name.endswith((".json", ".md", ".jinja")) and "tokenizer.json" not in name:
            assert f"{tempfile.gettempdir()}{os.sep}".encode() not in content, name


def captioner(world: World, folder: Path) -> Any:
    captioning_world.language_model().save_pretrained(folder / "language")
    captioning_world.tokenizer().save_pretrained(folder / "language")
    return Ulip2ForConditionalGeneration.from_point_language_pretrained(
        str(world.model), str(folder / "language"), connector="mlp", compression="resample", num_query_tokens=2
    )


# What is uploaded, and whether it must be refused until it is told what to do with what it refers to.
KINDS: dict[str, tuple[Callable[[World, Path], Any], dict[str, Any] | None]] = {
    "model": (lambda world, _: Ulip2Model.from_pretrained(world.model), {"include_towers": True}),
    "model_of_this_repository": (
        lambda *_: Ulip2Model.from_pretrained(ROOT / "checkpoints" / "ulip2-small"),
        {"include_towers": True},
    ),
    "projecting_encoder": (lambda world, _: Ulip2PointModelWithProjection.from_pretrained(world.model), None),
    "encoder": (lambda world, _: Ulip2PointModel.from_pretrained(world.model), None),
    "classifier": (
        lambda world, _: Ulip2ForPointCloudClassification.from_pretrained(world.model, num_labels=3),
        None,
    ),
    "captioner": (captioner, {"include_point_model": True, "include_language_model": True}),
    "captioning_processor": (lambda *given: Ulip2CaptioningProcessor.from_model(captioner(*given)), None),
    "processor": (lambda world, _: AutoProcessor.from_pretrained(world.model), None),
    "feature_extractor": (lambda world, _: Ulip2FeatureExtractor.from_pretrained(world.model), None),
    "conse_tower": (lambda _, folder: load_tower(save_conse(folder / "conse"), device="cpu").model, None),
    "linear_lit_tower": (lambda *_: AutoModel.from_pretrained(ROOT / "checkpoints" / "linear-lit-tower"), None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_uploads_tell_nothing(kind: str, world: World, uploads: Uploads, tmp_path: Path) -> None:
    make, included = KINDS[kind]
    made = make(world, tmp_path)
    told = {**(included or {}), "token": TOKEN}
    refers = any(
        getattr(getattr(made, "config", None), name, None)
        for name in ("clip_name_or_path", "point_model_name_or_path", "language_model_name_or_path")
    )
    if refers:
        with pytest.raises(ValueError, match="a path of this machine"):
            made.push_to_hub(NAME, token=TOKEN)
        assert not uploads.files
        if included is None:  # an encoder needs no tower: the message says how to leave it out
            made.config.clip_name_or_path = None
    made.push_to_hub(NAME, **told)
    assert_tells_nothing(uploads.files, world.model.parent, tmp_path, ROOT)
    assert "README.md" in uploads.files and not [name for name in uploads.files if "training_args" in name]


def test_a_folder_of_a_training_leaves_the_rest_here(world: World, uploads: Uploads, tmp_path: Path) -> None:
    folder = shutil.copytree(world.model, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config["clip_name_or_path"] = "someone/clip"
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("optimizer.pt", "training_args.bin", "trainer_state.json", ".env", "finetune.json", "notes.txt"):
        (folder / name).write_text(f"{TOKEN} {tmp_path}")
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-3" / "model.safetensors").write_bytes(b"x")
    upload_model_folder(folder, NAME, message="a model")
    assert_tells_nothing(uploads.files, tmp_path, world.model.parent)
    assert {"config.json", "model.safetensors", "README.md"} <= uploads.files.keys()
    assert not [name for name in uploads.files if name.startswith((".env", "checkpoint", "optimizer", "notes"))]


@pytest.mark.parametrize("gone", [False, True])
@pytest.mark.parametrize("where", ["config.json", "tower/config.json", "README.md"])
def test_a_path_in_a_file_is_refused(where: str, gone: bool, world: World, uploads: Uploads, tmp_path: Path) -> None:
    folder, place = shutil.copytree(world.model, tmp_path / "model"), tmp_path / "my tower"
    if where == "README.md":
        if gone:
            pytest.skip("a card may tell of a path that is nowhere")
        place = tmp_path / "tower"
        (folder / where).write_text(f"# A model\n\nTrained with the tower in {place}.\n")
    else:
        (folder / where).parent.mkdir(exist_ok=True)
        (folder / where).write_text(json.dumps({"a": {"path": [str(place)]}}))
    if not gone:
        place.mkdir()
    with pytest.raises(LeakError, match=f"{where.rpartition('/')[2]} tells a path of this machine"):
        upload_model_folder(folder, NAME, message="a model")
    assert not uploads.files


def test_facts_that_a_person_gives_are_theirs(world: World, uploads: Uploads) -> None:
    """`/usr/bin/python` in a card, and labels that begin with a stroke, are no places of a person's."""
    model = Ulip2ForPointCloudClassification.from_pretrained(
        world.model, id2label={0: "/m/0abc", 1: "a/b"}, label2id={"/m/0abc": 0, "a/b": 1}
    )
    model.config.clip_name_or_path = None
    model.card_facts = CardFacts(training="Made with /usr/bin/python.")
    model.push_to_hub(NAME)
    assert "/usr/bin/python" in uploads.text and torch.isfinite(model.classifier[-1].weight).all()


def test_a_dataset_tells_nothing(loopback_hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Textures by absolute paths, errors of the system with their paths, and files that only lie beside it."""
    meshes, folder = tmp_path / "of ada" / "meshes", tmp_path / "boxes"
    for number in range(3):
        write_box(meshes / f"{number}.obj", (1, 1 + number, 0.5), (0.2, 0.4, 0.8))
    (meshes / "1.obj").write_text(f"mtllib {meshes}/secret.mtl\n" + (meshes / "1.obj").read_text())
    (meshes / "3.obj").write_text("v 0 0 0\n")
    (meshes / "SOURCE.md").write_text("Boxes of Ada.\n")

    import build_triplets

    from modeling_ulip2.building.stages.read import SamplePoints

    sample = SamplePoints.process

    def failing(self: Any, row: Any) -> Any:
        if row["id"] == "2.obj":
            raise OSError(2, "No such file or directory", str(meshes / "2.obj"))
        return sample(self, row)

    monkeypatch.setattr(SamplePoints, "process", failing)
    tower = save_conse(tmp_path / "tower")
    build_triplets.main(build_arguments(meshes, folder, tower))
    card = (folder / "README.md").read_text()
    (folder / "README.md").write_text(card.replace("license: unknown", "license: cc0-1.0"))
    for name in (".env", "notes.txt", "private.parquet", "mine/rows.csv", "triplets/notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{TOKEN} {tmp_path}")
    publishing.main([str(folder), "--push-to-hub", NAME])
    files = {name: own for name, own in loopback_hub[NAME].files.items() if name != ".gitattributes"}
    assert_tells_nothing(files, tmp_path)
    assert {"README.md", "samples.jpg", "manifest.json", "errors.parquet", "warnings.parquet"} <= files.keys()
    assert not [
        name for name in files if name.rpartition("/")[2] in (".env", "notes.txt", "private.parquet", "rows.csv")
    ]
    assert "2.obj" in (folder / "shards.jsonl").read_text()
