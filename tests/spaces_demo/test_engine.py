from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from modeling_ulip2 import Ulip2Embedder
from modeling_ulip2.geometry.axes import UP_AXES, rotation_to_y_up
from modeling_ulip2.geometry.shapes import read_shape
from modeling_ulip2.towers.prompts import class_embeddings
from tests.evaluation.world import World

pytest.importorskip("gradio", reason="the demo needs gradio (pip install 'modeling-ulip2[demo]')")
pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")

from rooms.engine import BENCHMARKS, TEMPLATES, Engine  # noqa: E402
from rooms.shared import seen_cloud  # noqa: E402
from rooms.uploads import read_upload  # noqa: E402


def test_queries_add_up(engine: Engine, box: Path):
    shape = read_shape(box, engine.feature_extractor.num_points)
    text, cloud = engine.tower.encode_text(["but red"])[0], engine.embed_shape(shape)
    together = engine.embed_query("but red", None, shape)
    assert torch.allclose(together, torch.nn.functional.normalize(text + cloud, dim=0), atol=1e-6)
    louder = engine.embed_query("but red", None, shape, text_weight=3)
    assert torch.allclose(louder, torch.nn.functional.normalize(3 * text + cloud, dim=0), atol=1e-6)
    assert torch.allclose(engine.embed_query(" but red "), text, atol=1e-6)


def test_nothing_asked_and_too_much(engine: Engine):
    with pytest.raises(ValueError, match="Write some words"):
        engine.embed_query("  ")
    with pytest.raises(ValueError, match="501 letters; at most 500"):
        engine.embed_query("a" * 501)


def test_hits_carry_their_rows(engine: Engine):
    hits = engine.find(engine.index.embed(4), 4)
    assert hits[0].row == 4 and hits[0].score == pytest.approx(1, abs=1e-5)
    row = engine.index.shapes[4]
    assert (hits[0].id, hits[0].name, hits[0].license) == (row["id"], row["name"], row["license"])
    assert [hit.row for hit in engine.find(engine.index.embed(4), 3, without=4)] == [hit.row for hit in hits][1:]


def test_a_shape_of_the_collection_adds_up_with_words(engine: Engine):
    text = engine.tower.encode_text(["but red"])[0]
    expected = torch.nn.functional.normalize(text + engine.index.embed(4), dim=0)
    assert torch.allclose(engine.embed_query("but red", row=4), expected, atol=1e-6)


def test_the_showcase_is_of_different_shapes(engine: Engine):
    shown = engine.showcase(5)
    assert len({hit.row for hit in shown}) == 5 and [hit.row for hit in shown] == [
        hit.row for hit in engine.showcase(5)
    ]
    assert len(engine.showcase(50)) == len(engine.index)


@pytest.mark.parametrize("axis", UP_AXES)
def test_the_upright_axis(engine: Engine, axis: str, tmp_path: Path):
    xyz = np.random.default_rng(0).normal(size=(64, 3))
    standing, lying = tmp_path / "standing.npy", tmp_path / "lying.npy"
    np.save(standing, xyz)
    np.save(lying, xyz @ rotation_to_y_up(axis))  # turned y up, it is `xyz` again
    as_y = engine.point_values(read_upload(standing, 64))
    assert np.allclose(engine.point_values(read_upload(lying, 64, axis)), as_y, atol=1e-5)
    assert np.allclose(engine.point_values(read_upload(lying, 64)), as_y, atol=0.1) == (axis == "y")


def test_probabilities(engine: Engine, box: Path):
    embed = engine.embed_shape(read_shape(box, 64))
    names, templates = ["chair", "lamp", "table"], ["{}", "a photo of a {}."]
    found = engine.classify(embed, names, templates)
    classes = class_embeddings(engine.tower.encode_text, names, templates)
    expected = (embed @ classes.T * engine.model.logit_scale.detach().exp()).softmax(-1)
    assert found == pytest.approx({name: float(expected[place]) for place, name in enumerate(names)}, abs=1e-5)
    assert list(found.values()) == sorted(found.values(), reverse=True)


def test_templates_matter_and_are_kept_apart(engine: Engine, box: Path):
    embed = engine.embed_shape(read_shape(box, 64))
    answers = [engine.classify(embed, ["chair", "lamp"], templates) for templates in TEMPLATES.values()]
    assert len({round(answer["chair"], 6) for answer in answers}) == len(TEMPLATES)
    assert engine.classify(embed, ["chair", "lamp"], next(iter(TEMPLATES.values()))) == answers[0]


def test_class_names(engine: Engine):
    assert engine.class_names("own", "chair, lamp\ntable,,chair ") == ["chair", "lamp", "table"]
    assert engine.class_names("collection") == ["chair", "lamp", "table"]
    assert {name: len(engine.class_names(name)) for name in BENCHMARKS} == {
        "ModelNet40": 40,
        "ScanObjectNN (15)": 15,
        "ShapeNet55": 55,
        "Objaverse-LVIS (1,156)": 1156,
    }
    assert "alarm clock" in engine.class_names("Objaverse-LVIS (1,156)")
    for own, message in [
        ("chair", "at least two"),
        (",".join(map(str, range(201))), "201 labels; at most 200"),
        ("chair, " + "x" * 101, "longer than 100"),
    ]:
        with pytest.raises(ValueError, match=message):
            engine.class_names("own", own)


def test_an_index_of_another_model_is_refused(world: World, index_folder: Path, engine: Engine):
    embedder = Ulip2Embedder.from_pretrained(world.model)
    torch.nn.init.normal_(embedder.model.point_projection.weight)
    with pytest.raises(ValueError, match="made by another model"):
        Engine(embedder, engine.index)


def test_the_cloud_that_is_shown_is_what_the_model_reads(engine: Engine, box: Path):
    import io

    import trimesh

    shape = read_shape(box, 64)
    scene = trimesh.load(io.BytesIO(seen_cloud(engine, shape)), file_type="glb")
    (beads,) = scene.geometry.values()
    values = engine.point_values(shape)
    middles = beads.vertices.reshape(64, -1, 3).mean(axis=1)
    assert np.allclose(middles, values[:, :3], atol=1e-5)
    image = np.asarray(beads.visual.material.baseColorTexture.convert("RGB"))
    uv = beads.visual.uv.reshape(64, -1, 2)[:, 0]
    height, width = image.shape[:2]
    texels = image[((1 - uv[:, 1]) * height).astype(int), (uv[:, 0] * width).astype(int)]
    assert np.array_equal(texels, np.rint(values[:, 3:6] * 255).astype(np.uint8))
