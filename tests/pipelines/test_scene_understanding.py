"""The pipeline `open-vocabulary-scene-understanding`."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from transformers import pipeline

from modeling_ulip2 import Ulip2Embedder
from modeling_ulip2.scenes import SceneUnderstanding
from modeling_ulip2.scenes.proposals import GivenMasks
from modeling_ulip2.scenes.results import write_results
from tests.evaluation.world import World, build_world
from tests.scenes.rooms import furnished

TASK = "open-vocabulary-scene-understanding"
LABELS = ["chair", "lamp"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return build_world(tmp_path_factory.mktemp("world"), shapes=3)


@pytest.fixture(scope="module")
def scene():
    return furnished(density=400).scene()


@pytest.fixture(scope="module")
def understand(world: World, scene):
    return pipeline(TASK, model=str(world.model), segmenter=GivenMasks(scene.objects()), device="cpu")


def test_objects_are_those_of_the_front_door(understand, world, scene):
    found = understand(scene, candidate_labels=LABELS, hypothesis_template="a {}", other_words=())

    rooms = SceneUnderstanding(Ulip2Embedder.from_pretrained(world.model), GivenMasks(scene.objects()))
    expected = rooms(scene, LABELS, templates=["a {}"], other_words=())
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one["label"] == other.label and one["score"] == pytest.approx(other.score, abs=1e-5)
        assert np.array_equal(one["points"], other.points) and one["oriented_box"] == other.oriented_box.tolist()
        assert one["embedding"] == pytest.approx(other.embedding.tolist(), abs=1e-5)


def test_scans_of_all_kinds_in_a_list(understand, scene, tmp_path):
    write_results(tmp_path / "room.ply", scene, [], scene.rgb)
    scans = [str(tmp_path / "room.ply"), {"xyz": scene.xyz, "rgb": scene.rgb}, scene]
    results = understand(scans, candidate_labels=LABELS, other_words=[], up_axis="y", unit="m", batch_size=5, top_k=2)
    assert [len(result) for result in results] == [2, 2, 2]
    for result in results[:2]:
        assert [thing["label"] for thing in result] == [thing["label"] for thing in results[2]]
        assert np.array_equal(result[0]["points"], results[2][0]["points"])
    assert understand([], candidate_labels=LABELS) == []


def test_a_text_is_looked_for(understand, scene):
    found = understand(scene, text="a red chair", other_words=())
    assert [thing["label"] for thing in found] == ["a red chair"] * len(found) and len(found) == len(scene.objects())
    none = understand(scene, candidate_labels=LABELS, threshold=1.0)
    assert none == []


def test_bad_calls_are_refused(understand, scene):
    for options, message in (
        ({"candidate_labels": []}, "empty"),
        ({"candidate_labels": LABELS, "text": "a chair"}, "not both"),
        ({}, "empty"),
        ({"candidate_labels": LABELS, "top_k": 0}, "top_k"),
    ):
        with pytest.raises(ValueError, match=message):
            understand(scene, **options)
    with pytest.raises(ValueError, match="A scan is a path"):
        understand(3, candidate_labels=LABELS)
    with pytest.raises(ValueError, match="uint8"):
        understand({"xyz": scene.xyz, "rgb": scene.rgb / 255}, candidate_labels=LABELS)


def test_the_task_is_known_without_scipy():
    code = (
        "import sys; sys.modules['scipy'] = None\n"
        "import modeling_ulip2\nfrom transformers.pipelines import PIPELINE_REGISTRY\n"
        f"assert {TASK!r} in PIPELINE_REGISTRY.supported_tasks"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
