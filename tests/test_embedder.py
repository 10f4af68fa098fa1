"""`Ulip2Embedder`: shapes, texts and images to vectors, from files of all kinds, good and bad."""

from __future__ import annotations

import faulthandler
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from modeling_ulip2 import ShapeEmbeddings, Ulip2Embedder, Ulip2FeatureExtractor, Ulip2ForPointCloudClassification
from modeling_ulip2.embedding.encoding import in_batches
from modeling_ulip2.geometry import MeshError, inputs, read_mesh, sample_points
from modeling_ulip2.towers.prompts import class_embeddings, load_templates
from tests.dataset_scripts.shapes import write_bad_meshes, write_box
from tests.evaluation.world import NUM_POINTS, World, build_world

LABELS = ["chair", "lamp", "a red car"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"), shapes=3)


@pytest.fixture(scope="module")
def ulip2(world: World) -> Ulip2Embedder:
    return Ulip2Embedder.from_pretrained(world.model, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Seven boxes and a cloud."""
    folder = tmp_path_factory.mktemp("files")
    boxes = [write_box(folder / f"{i}.obj", (1, 1 + i, 0.3), (i / 7, 0.5, 0.2)) for i in range(7)]
    np.save(folder / "cloud.npy", np.random.default_rng(0).random((90, 6)))
    return [str(path) for path in [*boxes, folder / "cloud.npy"]]


def cloud(points: int, channels: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((points, channels))


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_lines_of_the_readme(ulip2: Ulip2Embedder, files: list[str]) -> None:
    shapes = ulip2.embed_shapes([files[0], files[-1], cloud(70)])
    assert shapes.shape == (3, 24) and shapes.dtype == torch.float32 and not shapes.requires_grad
    close(shapes.norm(dim=-1), torch.ones(3))
    texts = ulip2.embed_texts(["a wooden chair", "a lamp"])
    close(ulip2.similarity(shapes, texts), shapes @ texts.T)
    ranked = ulip2.classify(files[0], ["chair", "table"], templates="modelnet40_64")
    assert {entry["label"] for entry in ranked} == {"chair", "table"}
    assert ranked[0]["score"] >= ranked[1]["score"] and sum(entry["score"] for entry in ranked) == pytest.approx(1)


def test_vectors_are_those_of_the_model(ulip2: Ulip2Embedder, world: World, files: list[str]) -> None:
    model = AutoModel.from_pretrained(world.model).eval()
    xyz, rgb = sample_points(read_mesh(files[2]), NUM_POINTS, 0)
    points = ulip2.feature_extractor({"xyz": xyz, "rgb": rgb})["point_values"]
    with torch.no_grad():
        expected = model(points).point_embeds
    close(ulip2.embed_shapes(files[2]), expected)
    close(ulip2.embed_shapes({"xyz": xyz, "rgb": rgb}), expected)
    photo = Image.fromarray(np.random.default_rng(0).integers(256, size=(40, 30, 3), dtype=np.uint8))
    close(ulip2.embed_images(photo), ulip2.tower.encode_images([photo]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_are_their_members_in_any_process(ulip2: Ulip2Embedder, files: list[str], num_workers: int) -> None:
    alone = torch.cat([ulip2.embed_shapes(file) for file in files])
    state = torch.random.get_rng_state()
    close(ulip2.embed_shapes(files, batch_size=3, num_workers=num_workers, progress=False), alone)
    assert torch.equal(torch.random.get_rng_state(), state)  # nobody else's random numbers are drawn
    many = ulip2.embed_shapes(np.stack([cloud(50), cloud(50, seed=1)]))
    close(many, torch.cat([ulip2.embed_shapes(cloud(50)), ulip2.embed_shapes(cloud(50, seed=1))]))


@pytest.mark.parametrize("num_workers", [None, 1, 2])
@pytest.mark.parametrize("death", [signal.SIGSEGV, signal.SIGKILL])
def test_a_file_that_crashes_its_reader_is_a_failure_of_its_own(
    ulip2: Ulip2Embedder, files: list[str], monkeypatch: pytest.MonkeyPatch, num_workers: int | None, death: int
) -> None:
    alone = ulip2.embed_shapes([files[0], files[2]])
    read, here = inputs.read_shape, os.getpid()

    def crashing(path: str, *arguments: Any, **options: Any) -> Any:
        if path == files[1]:
            assert os.getpid() != here
            faulthandler.disable()  # pytest's report of a crash that is meant
            os.kill(os.getpid(), death)
        return read(path, *arguments, **options)

    monkeypatch.setattr(inputs, "read_shape", crashing)
    result = ulip2.embed_shapes(files[:3], on_error="skip", batch_size=2, num_workers=num_workers)
    assert result.ids == [files[0], files[2]]
    close(result.embeddings, alone)
    (failure,) = result.failures
    assert failure.id == files[1] and failure.reason == "corrupt" and "process that read it was killed" in str(failure)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_bad_shapes_are_told_apart(
    ulip2: Ulip2Embedder, files: list[str], tmp_path: Path, num_workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    reasons = write_bad_meshes(tmp_path)
    del reasons["no_faces.obj"]  # a cloud of two points
    bad = [str(tmp_path / name) for name in reasons]
    shapes = [files[0], *bad, "missing.glb", cloud(9) * np.nan, files[1]]
    result = ulip2.embed_shapes(shapes, on_error="skip", batch_size=4, num_workers=num_workers)
    assert isinstance(result, ShapeEmbeddings) and len(result) == 2
    assert result.ids == [files[0], files[1]] and result.positions == [0, len(shapes) - 1]
    close(result.embeddings, ulip2.embed_shapes(files[:2]))
    assert {failure.id: failure.reason for failure in result.failures} == {
        **{path: reasons[Path(path).name] for path in bad},
        "missing.glb": "missing",
        str(len(shapes) - 2): "unusable",
    }
    assert all(str(tmp_path) not in failure.message for failure in result.failures)
    with pytest.raises(MeshError) as caught:
        ulip2.embed_shapes(shapes, batch_size=4, num_workers=num_workers)
    assert caught.value.reason == reasons[Path(bad[0]).name] and str(caught.value.path) == bad[0]
    with pytest.raises(ValueError, match="the shape '1' cannot be prepared: .*NaN or infinite"):
        ulip2.embed_shapes([files[0], cloud(9) * np.nan])
    nothing = ulip2.embed_shapes(bad, on_error="skip")
    assert len(nothing) == 0 and nothing.embeddings.shape == (0, 24) and len(nothing.failures) == len(bad)


def test_warnings_of_a_shape_reach_the_caller(
    ulip2: Ulip2Embedder, files: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = write_box(tmp_path / "plain.obj")
    plain.with_suffix(".mtl").unlink()
    result = ulip2.embed_shapes([files[0], str(plain)], on_error="skip")
    assert set(result.warnings) == {str(plain)} and "plain.mtl" in result.warnings[str(plain)][0]
    assert not result.failures and f"{plain}: " in caplog.text
    caplog.clear()
    ulip2.embed_shapes(str(plain))
    assert "plain.mtl" in caplog.text


def test_one_refused_cloud_does_not_take_its_batch_with_it(world: World) -> None:
    """`sampling="none"` leaves a cloud of 5 points, fewer than the encoder groups."""
    ulip2 = Ulip2Embedder.from_pretrained(world.model, device="cpu")
    ulip2.feature_extractor.sampling = "none"
    shapes = [cloud(30), cloud(5), cloud(30, seed=1)]
    result = ulip2.embed_shapes(shapes, on_error="skip")
    assert result.positions == [0, 2] and "5 points" in result.failures[0].message
    close(result.embeddings, torch.cat([ulip2.embed_shapes(shapes[0]), ulip2.embed_shapes(shapes[2])]))
    ulip2.model.point_projection.weight.data[0, 0] = float("nan")
    (failure,) = ulip2.embed_shapes(shapes[0], on_error="skip").failures
    assert failure.reason == "non_finite" and "not finite" in failure.message
    ulip2.model.train()
    with pytest.raises(ValueError, match="training mode"):
        ulip2.embed_shapes(shapes, on_error="skip")


def test_a_lying_shape_is_set_up(ulip2: Ulip2Embedder, files: list[str]) -> None:
    mesh = read_mesh(files[3])
    xyz, rgb = sample_points(mesh, NUM_POINTS, 0)
    upright = ulip2.embed_shapes({"xyz": xyz, "rgb": rgb})
    lying = {"xyz": np.stack([xyz[:, 0], -xyz[:, 2], xyz[:, 1]], axis=1), "rgb": rgb}  # z up
    close(ulip2.embed_shapes(lying, up_axis="z"), upright)
    close(ulip2.embed_shapes({**lying, "up_axis": "z"}), upright)
    assert not torch.allclose(ulip2.embed_shapes(lying), upright, atol=1e-3)
    with pytest.raises(ValueError, match="up"):
        ulip2.embed_shapes(lying, up_axis="north")


def test_options_of_sampling(ulip2: Ulip2Embedder, files: list[str]) -> None:
    default = ulip2.embed_shapes(files[0])
    assert torch.equal(ulip2.embed_shapes(files[0], seed=0), default)
    assert not torch.equal(ulip2.embed_shapes(files[0], seed=1), default)
    more = ulip2.reading(num_points=200)(files[0])[0]
    assert more.shape == (200, 6) and ulip2.feature_extractor.num_points == NUM_POINTS
    with pytest.raises(ValueError, match="num_points"):
        ulip2.embed_shapes(files[0], num_points=0)


def test_labels_are_embedded_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    ulip2 = Ulip2Embedder.from_pretrained(world.model, device="cpu")
    calls: list[list[str]] = []
    encode = ulip2.tower.encode_text
    monkeypatch.setattr(ulip2.tower, "encode_text", lambda texts: calls.append(texts) or encode(texts))
    first = ulip2.embed_labels(LABELS, "one {}")
    close(first, class_embeddings(encode, LABELS, ["one {}"]))
    again = ulip2.embed_labels([LABELS[2], "sofa", LABELS[0]], ["one {}"])
    assert calls == [[f"one {label}" for label in LABELS], ["one sofa"]]
    assert torch.equal(again[[2, 0]], first[[0, 2]])
    close(ulip2.embed_labels(["chair"]), class_embeddings(encode, ["chair"], load_templates("modelnet40_64")))
    for labels, templates, words in [
        ([], None, "empty"),
        ("chair", None, "not one string"),
        (["a", "a"], None, "twice"),
        (["a"], "modelnet", "needs one {}.*modelnet40_64"),
        (["a"], [], "no template"),
    ]:
        with pytest.raises(ValueError, match=words):
            ulip2.embed_labels(labels, templates)


def test_classifying_several(ulip2: Ulip2Embedder, files: list[str]) -> None:
    several = ulip2.classify(files[:3], LABELS, templates="a {}", top_k=2)
    for file, entries in zip(files, several, strict=False):
        alone = ulip2.classify(file, LABELS, templates="a {}")
        assert [entry["label"] for entry in entries] == [entry["label"] for entry in alone[:2]]
    with pytest.raises(ValueError, match="top_k"):
        ulip2.classify(files[0], LABELS, top_k=0)


def test_similarity_refuses_what_is_no_vector(ulip2: Ulip2Embedder) -> None:
    assert ulip2.similarity(torch.eye(4)[0], np.eye(4)).tolist() == [[1, 0, 0, 0]]
    for one, other, words in [
        (torch.ones(1, 3), torch.ones(1, 4), "two spaces"),
        (torch.full((1, 3), torch.nan), torch.ones(1, 3), "NaN"),
        (torch.ones(1, 1, 3), torch.ones(1, 3), "matrix"),
    ]:
        with pytest.raises(ValueError, match=words):
            ulip2.similarity(one, other)


def test_images(ulip2: Ulip2Embedder, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    (tmp_path / "no.png").write_text("I am no picture")
    pixels = np.zeros((40, 40, 3), dtype=np.uint8) + np.uint8([255, 0, 0])
    close(ulip2.embed_images([tmp_path / "red.png", pixels])[0], ulip2.embed_images(pixels)[0])
    for name, words in [("no.png", "no image that can be read"), ("gone.png", "no such file")]:
        with pytest.raises(ValueError, match=words):
            ulip2.embed_images(tmp_path / name)


def test_models_of_other_kinds(world: World, tmp_path: Path) -> None:
    """A classifier embeds what its encoder says; an encoder alone has its own space; neither reads texts."""
    Ulip2ForPointCloudClassification.from_pretrained(world.model, num_labels=3).save_pretrained(tmp_path / "head")
    AutoModel.from_pretrained(world.model).point_model.save_pretrained(tmp_path / "encoder")
    for name in ("head", "encoder"):
        shutil.copy(world.model / "processor_config.json", tmp_path / name)
        alone = Ulip2Embedder.from_pretrained(tmp_path / name, device="cpu")
        assert alone.embed_shapes(cloud(70)).shape == (1, 48)
        assert alone.embed_shapes(cloud(70), features="tokens").shape[0] == 1
        with pytest.raises(ValueError, match="no projection"):
            alone.embed_shapes(cloud(70), features="embeds")
        with pytest.raises(ValueError, match="reads neither texts nor images"):
            alone.embed_texts("a chair")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "nowhere: no such folder, nor on the hub"),
        ("./nowhere", "./nowhere: no such folder, nor on the hub$"),
        ("a/b/c", "a/b/c: no such folder, nor on the hub$"),
        ("some/model", "some/model: no such folder, nor on the hub .*offline"),
        ("{empty}", "holds no config.json"),
        ("{file}", "is a file"),
    ],
)
def test_models_that_are_not_there(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError, match=words):
        Ulip2Embedder.from_pretrained(name.format(empty=tmp_path / "empty", file=tmp_path / "file"))


def test_a_missing_tower_is_named_with_the_option_that_mends_it(world: World) -> None:
    moved = Ulip2Embedder.from_pretrained(world.model, tower="./moved", device="cpu")
    assert moved.embed_shapes(cloud(70)).shape == (1, 24)  # needs none
    with pytest.raises(OSError, match="/moved' .*could not be loaded: there is no .*/moved on this machine.*--tower"):
        moved.embed_texts("a chair")


def test_half_precision(world: World) -> None:
    ulip2 = Ulip2Embedder.from_pretrained(world.model, device="cpu", dtype="bfloat16")
    assert ulip2.model.dtype == torch.bfloat16
    embeds = ulip2.embed_shapes(cloud(70))
    assert embeds.dtype == torch.float32
    full = Ulip2Embedder.from_pretrained(world.model, device="cpu").embed_shapes(cloud(70))
    assert float((embeds * full).sum()) > 0.99


def test_it_knows_nothing_of_evaluation_and_search() -> None:
    code = (
        "import sys, modeling_ulip2.embedder\n"
        "print([m for m in sys.modules if m.startswith(('modeling_ulip2.evaluation', 'modeling_ulip2.search'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_clouds_of_one_size_share_a_forward_pass() -> None:
    passes: list[int] = []

    def encode(values: torch.Tensor) -> torch.Tensor:
        passes.append(len(values))
        return values[:, 0]

    clouds = [torch.full((size, 6), float(place)) for place, size in enumerate((5, 7, 5, 9, 7, 5))]
    assert in_batches(clouds, "cpu", encode)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert passes == [3, 2, 1]


def test_labels_of_a_shape_that_cannot_be_used(ulip2: Ulip2Embedder, files: list[str], caplog: Any) -> None:
    ranked = ulip2.classify(["missing.glb", files[0]], LABELS, on_error="skip")
    assert ranked[0] is None and ranked[1] == ulip2.classify(files[0], LABELS)
    assert "missing.glb" in caplog.text
    assert ulip2.classify("missing.glb", LABELS, on_error="skip") is None


def test_what_is_said_of_the_model_does_not_reach_the_feature_extractor(world: World, ulip2: Ulip2Embedder) -> None:
    eager = Ulip2Embedder.from_pretrained(world.model, device="cpu", attn_implementation="eager", dtype="bfloat16")
    assert eager.model.point_model.config._attn_implementation == "eager" and eager.dtype is torch.bfloat16
    assert eager.feature_extractor.to_dict() == ulip2.feature_extractor.to_dict()
    with pytest.raises(ValueError, match="two answers"):
        Ulip2Embedder.from_pretrained(world.model, device="cpu", device_map="cpu")


def test_weights_on_the_disk(world: World, ulip2: Ulip2Embedder, files: list[str], tmp_path: Path):
    offloaded = Ulip2Embedder.from_pretrained(
        world.model, device_map={"": "disk"}, offload_folder=str(tmp_path / "offloaded")
    )
    assert offloaded.device.type == "cpu" and next(offloaded.model.parameters()).is_meta
    torch.testing.assert_close(offloaded.embed_shapes(files), ulip2.embed_shapes(files), atol=1e-5, rtol=1e-4)


def test_every_model_makes_what_it_is_for(world: World, ulip2: Ulip2Embedder) -> None:
    head = Ulip2ForPointCloudClassification.from_pretrained(world.model, num_labels=3).eval()
    logits = Ulip2Embedder(head, ulip2.feature_extractor).embed_shapes([cloud(70)], features="logits")
    values = ulip2.feature_extractor(cloud(70))["point_values"]
    with torch.no_grad():
        close(logits, head(values).logits)
    for features in ("logits", "connector"):
        with pytest.raises(ValueError, match=f"Ulip2Model makes no {features}: ask for features='embeds'"):
            ulip2.embed_shapes([cloud(70)], features=features)


def test_points_of_a_mesh_are_drawn_by_the_seed_of_the_feature_extractor(world: World, files: list[str]) -> None:
    model = AutoModel.from_pretrained(world.model).eval()
    other = Ulip2FeatureExtractor(num_points=NUM_POINTS, seed=5)
    xyz, rgb = sample_points(read_mesh(files[2]), NUM_POINTS, 5)
    expected = Ulip2Embedder(model, other).embed_shapes({"xyz": xyz, "rgb": rgb})
    close(Ulip2Embedder(model, other).embed_shapes(files[2]), expected)
    close(Ulip2Embedder.from_pretrained(world.model, device="cpu").embed_shapes(files[2], seed=5), expected)
