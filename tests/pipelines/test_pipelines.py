"""`transformers.pipeline` on shapes: from files, arrays and batches to embeddings and labels."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, Pipeline, pipeline
from transformers.pipelines import PIPELINE_REGISTRY

from modeling_ulip2 import (
    Ulip2FeatureExtractor,
    Ulip2ForPointCloudClassification,
    Ulip2Model,
    Ulip2PointModelWithProjection,
)
from modeling_ulip2.evaluation import class_embeddings, load_templates
from modeling_ulip2.evaluation.embeddings import embed_points, load_for_evaluation
from modeling_ulip2.geometry import MeshError, read_mesh, sample_points
from modeling_ulip2.pipelines.classification import CLASSIFICATION
from modeling_ulip2.pipelines.feature_extraction import FEATURE_EXTRACTION, PointCloudFeatureExtractionPipeline
from modeling_ulip2.pipelines.zero_shot_classification import ZERO_SHOT_CLASSIFICATION
from tests.dataset_scripts.shapes import write_box
from tests.evaluation.world import NUM_POINTS, World, build_world

LABELS = ["chair", "lamp", "table", "a red car"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"), shapes=3)


@pytest.fixture(scope="module")
def embedder(world: World) -> Pipeline:
    return pipeline(FEATURE_EXTRACTION, model=str(world.model), device="cpu")


@pytest.fixture(scope="module")
def classifier(world: World) -> Pipeline:
    return pipeline(ZERO_SHOT_CLASSIFICATION, model=str(world.model), device="cpu")


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_box(tmp_path_factory.mktemp("mesh") / "box.obj", size=(1, 2, 0.3))


def cloud(points: int, channels: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((points, channels))


def expected(world: World, shapes: list[dict[str, Any]]) -> torch.Tensor:
    model, features, _ = load_for_evaluation(world.model, device="cpu")
    return embed_points(model, features, shapes, progress=False)


def test_a_mesh_an_array_and_a_mapping_are_embedded(embedder: Pipeline, world: World, box: Path) -> None:
    xyz, rgb = sample_points(read_mesh(box), NUM_POINTS, 0)
    points = cloud(90)
    shapes = [{"xyz": xyz, "rgb": rgb}, {"xyz": points[:, :3], "rgb": points[:, 3:]}, {"xyz": points[:, :3]}]
    want = expected(world, shapes)
    given = [box, points, {"xyz": points[:, :3]}]
    for embeds, row in zip((embedder(shape, return_tensors=True) for shape in given), want, strict=True):
        torch.testing.assert_close(embeds, row, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(want[1], want[2], atol=1e-3)  # color counts
    listed = embedder(str(box))
    assert isinstance(listed, list) and listed == pytest.approx(want[0].tolist(), abs=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_batches_are_their_members(embedder: Pipeline, box: Path, batch_size: int) -> None:
    shapes = [box, cloud(40), {"xyz": cloud(64, 3)}, str(box), torch.rand(70, 6)]
    together = embedder(shapes, batch_size=batch_size, return_tensors=True)
    for shape, embeds in zip(shapes, together, strict=True):
        torch.testing.assert_close(embeds, embedder(shape, return_tensors=True), atol=1e-5, rtol=1e-4)
    assert [len(row) for row in embedder(tuple(shapes[:2]))] == [24, 24]
    assert len(list(embedder(shape for shape in shapes[:3]))) == 3
    assert len(embedder(np.stack([cloud(40), cloud(40, seed=1)]))) == 2
    assert embedder([]) == []


def test_clouds_of_unequal_size_are_never_padded(world: World) -> None:
    """transformers would fill up the smaller one with points at the origin."""
    model = Ulip2Model.from_pretrained(world.model)
    features = Ulip2FeatureExtractor(sampling="none")
    embedder = pipeline(FEATURE_EXTRACTION, model=model, feature_extractor=features, device="cpu", batch_size=2)
    shapes = [cloud(40), cloud(90, seed=1)]
    for shape, embeds in zip(shapes, embedder(shapes, return_tensors=True), strict=True):
        torch.testing.assert_close(embeds, embedder(shape, return_tensors=True), atol=1e-5, rtol=1e-4)


def test_features(embedder: Pipeline, world: World, tmp_path: Path) -> None:
    shape = cloud(80)
    assert embedder(shape, features="pooled", return_tensors=True).shape == (48,)
    assert embedder(shape, features="tokens", return_tensors=True).shape == (8, 24)
    with pytest.raises(ValueError, match="features must be one of"):
        embedder(shape, features="cls")
    projected = Ulip2PointModelWithProjection.from_pretrained(world.model)
    features = Ulip2FeatureExtractor(num_points=NUM_POINTS)
    alone = pipeline(FEATURE_EXTRACTION, model=projected.train(), feature_extractor=features, device="cpu")
    torch.testing.assert_close(alone(shape, return_tensors=True), embedder(shape, return_tensors=True))
    projected.point_model.save_pretrained(tmp_path)
    features.save_pretrained(tmp_path)
    encoder = pipeline(FEATURE_EXTRACTION, model=str(tmp_path), device="cpu")
    torch.testing.assert_close(
        encoder(shape, return_tensors=True), embedder(shape, features="pooled", return_tensors=True)
    )
    with pytest.raises(ValueError, match="no projection"):
        encoder(shape, features="embeds")


def test_scores_are_the_softmax_of_scaled_cosines(classifier: Pipeline, world: World, box: Path) -> None:
    model, _, tower = load_for_evaluation(world.model, device="cpu")
    xyz, rgb = sample_points(read_mesh(box), NUM_POINTS, 0)
    for templates in (None, "a {}", ["a {}", "some {}."]):
        prompts = load_templates("modelnet40_64") if templates is None else [templates]
        prompts = templates if isinstance(templates, list) else prompts
        classes = class_embeddings(tower.encode_text, LABELS, prompts)
        logits = model.logit_scale.exp() * expected(world, [{"xyz": xyz, "rgb": rgb}]) @ classes.T
        want = dict(zip(LABELS, logits[0].softmax(-1).tolist(), strict=True))
        kwargs = {} if templates is None else {"hypothesis_template": templates}
        ranked = classifier(box, candidate_labels=LABELS, **kwargs)
        assert {entry["label"]: entry["score"] for entry in ranked} == pytest.approx(want, abs=1e-4)
        scores = [entry["score"] for entry in ranked]
        assert scores == sorted(scores, reverse=True) and sum(scores) == pytest.approx(1)


def test_classifying_a_batch(classifier: Pipeline, box: Path) -> None:
    shapes = [box, cloud(40), cloud(90, 3)]
    ranked = classifier(shapes, candidate_labels=LABELS, batch_size=2, top_k=2)
    for shape, entries in zip(shapes, ranked, strict=True):
        alone = classifier(shape, candidate_labels=LABELS)
        assert len(entries) == 2 and [entry["label"] for entry in entries] == [e["label"] for e in alone[:2]]
        assert [entry["score"] for entry in entries] == pytest.approx([e["score"] for e in alone[:2]], abs=1e-5)


def test_prompts_are_embedded_once(classifier: Pipeline, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    encode: Any = classifier.tower.encode_text
    monkeypatch.setattr(classifier.tower, "encode_text", lambda texts: calls.append(texts) or encode(texts))
    classifier([box, box, box], candidate_labels=["cup", "bed"], hypothesis_template="one {}")
    classifier(box, candidate_labels=["cup", "bed"], hypothesis_template="one {}")
    assert calls == [["one cup", "one bed"]]
    classifier(box, candidate_labels=["bed", "sofa", "cup"], hypothesis_template="one {}")
    assert calls[1:] == [["one sofa"]]  # each label once, in whatever list it comes


def test_tokenizer_of_the_tower(world: World, box: Path, tmp_path: Path) -> None:
    """A folder without a tokenizer, as `ulip2 convert` writes it; and a tower that has none either."""
    Ulip2Model.from_pretrained(world.model).save_pretrained(tmp_path / "model")
    Ulip2FeatureExtractor(num_points=NUM_POINTS).save_pretrained(tmp_path / "model")
    assert not list((tmp_path / "model").glob("tokenizer*"))
    classify = pipeline(ZERO_SHOT_CLASSIFICATION, model=str(tmp_path / "model"), device="cpu")
    ranked = classify(box, candidate_labels=LABELS)
    shutil.copytree(world.tower, tmp_path / "tower", ignore=shutil.ignore_patterns("*token*", "*process*"))
    model = Ulip2Model.from_pretrained(world.model, clip_name_or_path=str(tmp_path / "tower"))
    features = Ulip2FeatureExtractor(num_points=NUM_POINTS)
    mute = pipeline(ZERO_SHOT_CLASSIFICATION, model=model, feature_extractor=features, device="cpu")
    with pytest.raises(OSError, match="No tokenizer of the image-text tower"):
        mute(box, candidate_labels=LABELS)
    tokenizer = AutoTokenizer.from_pretrained(world.tower)
    told = pipeline(
        ZERO_SHOT_CLASSIFICATION, model=model, feature_extractor=features, tokenizer=tokenizer, device="cpu"
    )
    assert told(box, candidate_labels=LABELS) == ranked


def test_another_space_is_refused(world: World, box: Path) -> None:
    model = Ulip2Model.from_pretrained(world.model)
    model.config.projection_dim = 20
    model.point_projection = torch.nn.Linear(48, 20, bias=False)
    features = Ulip2FeatureExtractor(num_points=NUM_POINTS)
    classify = pipeline(ZERO_SHOT_CLASSIFICATION, model=model, feature_extractor=features, device="cpu")
    with pytest.raises(ValueError, match="belongs to another tower"):
        classify(box, candidate_labels=LABELS)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "candidate_labels is empty"),
        ({"candidate_labels": []}, "candidate_labels is empty"),
        ({"candidate_labels": "chair"}, "not one string"),
        ({"candidate_labels": ["chair", " "]}, "no name"),
        ({"candidate_labels": ["chair", "lamp", "chair"]}, "'chair' twice"),
        ({"candidate_labels": ["chair"], "hypothesis_template": "a shape"}, "needs one {}"),
        ({"candidate_labels": ["chair"], "hypothesis_template": []}, "hypothesis_template is empty"),
        ({"candidate_labels": ["chair"], "top_k": 0}, "top_k must be at least 1"),
    ],
)
def test_bad_parameters_are_refused(classifier: Pipeline, box: Path, parameters: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        classifier(box, **parameters)


def test_bad_shapes_are_refused(embedder: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    for shape, words in [
        (tmp_path / "photo.png", "none of .asc"),
        ("missing.glb", "no such file"),
        (3, "got int"),
        ([None], "got NoneType"),
        ({"points": cloud(9)}, "needs 'xyz'"),
        (cloud(9, 5), r"shape \(points, 3\)"),
        (np.zeros(5), r"an array of shape \(5,\)"),
        (cloud(9) * np.nan, "NaN or infinite"),
    ]:
        with pytest.raises(ValueError, match=words):
            embedder(shape)
    with pytest.raises(MeshError) as caught:
        embedder([cloud(9), "missing.glb"])
    assert caught.value.reason == "missing"


def test_roots_axes_and_warnings(embedder: Pipeline, classifier: Pipeline, tmp_path: Path) -> None:
    box = write_box(tmp_path / "box.obj", size=(1, 3, 0.2))
    (tmp_path / "deep").mkdir()
    deep = tmp_path / "deep" / "box.obj"
    deep.write_text(box.read_text().replace("mtllib box.mtl", "mtllib ../box.mtl"))
    whole = embedder(box, return_tensors=True)
    torch.testing.assert_close(embedder(deep, root=tmp_path, return_tensors=True), whole)
    told = embedder([deep, box], return_warnings=True, batch_size=2)
    assert "box.mtl" in told[0]["warnings"][0] and told[1]["warnings"] == []
    assert told[1]["features"] == pytest.approx(whole.tolist(), abs=1e-5)
    ranked = classifier([deep, box], candidate_labels=LABELS, hypothesis_template="a {}")
    assert all("box.mtl" in entry["warnings"][0] for entry in ranked[0])
    assert all(set(entry) == {"score", "label"} for entry in ranked[1])
    points = cloud(80)
    lying = np.concatenate([points[:, [0]], -points[:, [2]], points[:, [1]], points[:, 3:]], axis=1)
    torch.testing.assert_close(
        embedder(lying, up_axis="z", return_tensors=True), embedder(points, return_tensors=True), atol=1e-5, rtol=1e-4
    )


def test_models_that_read_no_text_do_not_classify(world: World) -> None:
    model = Ulip2PointModelWithProjection.from_pretrained(world.model)
    with pytest.raises(ValueError, match="needs a Ulip2Model"):
        pipeline(ZERO_SHOT_CLASSIFICATION, model=model, feature_extractor=Ulip2FeatureExtractor(), device="cpu")
    with pytest.raises(ValueError, match="needs feature_extractor"):
        PointCloudFeatureExtractionPipeline(model=model, device="cpu")


def test_save_and_load(embedder: Pipeline, box: Path, tmp_path: Path) -> None:
    embedder.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*pipeline*.py")) and not (tmp_path / "feature_extraction.py").exists()
    again = pipeline(FEATURE_EXTRACTION, model=str(tmp_path), device="cpu")
    assert again(box) == pytest.approx(embedder(box), abs=1e-6)


def test_importing_the_package_registers_the_tasks_and_loads_nothing_heavy() -> None:
    assert {FEATURE_EXTRACTION, ZERO_SHOT_CLASSIFICATION} <= set(PIPELINE_REGISTRY.get_supported_tasks())
    code = (
        "import sys, modeling_ulip2\nfrom transformers.pipelines import PIPELINE_REGISTRY as tasks\n"
        f"assert {ZERO_SHOT_CLASSIFICATION!r} in tasks.get_supported_tasks()\n"
        "print([name for name in ('datasets', 'numba', 'pyarrow', 'matplotlib', 'faiss') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]" and "already registered" not in done.stderr


def test_classes_of_a_fine_tuned_model(world: World, box: Path, tmp_path: Path) -> None:
    names = {0: "chair", 1: "lamp", 2: "table"}
    torch.manual_seed(0)
    model = Ulip2ForPointCloudClassification.from_pretrained(world.model, id2label=names).eval()
    model.save_pretrained(tmp_path)
    features = Ulip2FeatureExtractor.from_pretrained(world.model)
    features.save_pretrained(tmp_path)
    classify = pipeline(CLASSIFICATION, model=str(tmp_path), device="cpu")
    assert type(classify.model) is Ulip2ForPointCloudClassification
    clouds = [cloud(70), cloud(90, channels=3)]
    with torch.no_grad():
        scores = model(features(clouds)["point_values"]).logits.softmax(-1)
    for own, ranked in zip(scores, classify(clouds, batch_size=2), strict=True):
        assert [entry["score"] for entry in ranked] == pytest.approx(
            own.sort(descending=True).values.tolist(), abs=1e-5
        )
        assert [entry["label"] for entry in ranked] == [
            names[label] for label in own.argsort(descending=True).tolist()
        ]
    assert len(classify(str(box), top_k=1)) == 1
    with pytest.raises(ValueError, match="needs a Ulip2ForPointCloudClassification, not a Ulip2Model"):
        pipeline(CLASSIFICATION, model=Ulip2Model.from_pretrained(world.model), feature_extractor=features)
