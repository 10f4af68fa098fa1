"""Objects of a scan in the space of a checkpoint: cut out, embedded, named, suppressed and searched."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from modeling_ulip2 import Ulip2Embedder
from modeling_ulip2.scenes import EmbeddedScene, ObjectMasks, Scene, SceneUnderstanding
from modeling_ulip2.scenes.evaluation.arms import named
from modeling_ulip2.scenes.naming import (
    CENTERED,
    FEW,
    PLAIN,
    Crops,
    centered,
    embed_objects,
    label_scores,
    name_objects,
    select,
)
from modeling_ulip2.scenes.proposals import GivenMasks
from modeling_ulip2.scenes.suppression import suppress
from modeling_ulip2.scenes.vocabulary import OTHER_WORDS, other_than
from tests.evaluation.world import NUM_POINTS, build_world

from .rooms import furnished

TEMPLATES = ["a {}"]


@pytest.fixture(scope="module")
def ulip2(tmp_path_factory: pytest.TempPathFactory) -> Ulip2Embedder:
    return Ulip2Embedder.from_pretrained(build_world(tmp_path_factory.mktemp("world"), shapes=3).model, device="cpu")


@pytest.fixture(scope="module")
def scene() -> Scene:
    return furnished(density=400).scene()


def masks_of(*ranges: tuple[int, int], **fields) -> ObjectMasks:
    return ObjectMasks([np.arange(*each, dtype=np.int32) for each in ranges], **fields)


def embedded_as(ulip2: Ulip2Embedder, scene: Scene, masks: ObjectMasks, words: list[str]) -> EmbeddedScene:
    """As if each object were exactly what a word says."""
    return EmbeddedScene(scene, masks, torch.cat([ulip2.embed_labels([word], TEMPLATES) for word in words]))


def test_objects_are_embedded_as_shapes_of_their_own(ulip2, scene):
    masks = scene.objects()

    embedded = embed_objects(ulip2, scene, masks)

    assert embedded.embeddings.shape == (len(masks), ulip2.dim) and not embedded.failures
    alone = masks.points[8]
    shape = {"xyz": scene.xyz[alone] + np.float32(3), "rgb": scene.rgb[alone]}  # wherever it stands
    expected = ulip2.embed_shapes(shape)[0]
    torch.testing.assert_close(embedded.embeddings[8], expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("sampling", ["random", "fps", "none"])
def test_objects_of_fewer_points_than_the_encoder_needs_are_embedded(ulip2, scene, sampling, monkeypatch):
    monkeypatch.setattr(ulip2.feature_extractor, "sampling", sampling)
    masks = masks_of((0, 3), (10, 10 + NUM_POINTS), (50, 900))

    embedded = embed_objects(ulip2, scene, masks)

    assert len(embedded.masks) == 3 and torch.isfinite(embedded.embeddings).all()


def test_a_checkpoint_that_turns_axes_gets_objects_upright(ulip2, scene, monkeypatch):
    masks = scene.objects()
    expected = embed_objects(ulip2, scene, masks).embeddings
    monkeypatch.setattr(ulip2.feature_extractor, "up_axis", "z")  # of what does not say it

    assert torch.equal(embed_objects(ulip2, scene, masks).embeddings, expected)


def test_what_has_no_shape_is_told_and_left_out(ulip2, scene):
    place = Scene("dots", np.concatenate([scene.xyz[:100], np.ones((9, 3), np.float32)]))
    masks = masks_of((0, 100), (100, 109), parents=np.array([-1, 0], np.int32))

    embedded = embed_objects(ulip2, place, masks)

    assert len(embedded.masks) == len(embedded.embeddings) == 1
    (failure,) = embedded.failures
    assert "one place" in failure.message and failure.id == "dots: object 1"
    assert embed_objects(ulip2, place, ObjectMasks([])).embeddings.shape == (0, ulip2.dim)


def test_crops_keep_color_and_are_drawn_by_a_seed(scene):
    masks = masks_of((5, 40))
    whole, drawn, again = Crops(scene, masks)[0], Crops(scene, masks, 50)[0], Crops(scene, masks, 50)[0]
    assert (whole["rgb"] == scene.rgb[5:40]).all() and whole["up_axis"] == "y"
    assert whole["xyz"].max(axis=0) == pytest.approx(-whole["xyz"].min(axis=0))
    assert len(drawn["xyz"]) == 50 and (drawn["xyz"] == again["xyz"]).all()
    assert "rgb" not in Crops(Scene("gray", scene.xyz), masks)[0]


def test_labels_compete_with_other_words(ulip2, scene):
    embedded = embedded_as(ulip2, scene, masks_of((0, 50), (50, 90), (90, 99)), ["chair", "lamp", "floor"])

    scores, rest = label_scores(ulip2, embedded, ["chair", "lamp"], templates=TEMPLATES)

    words = ulip2.embed_labels(["chair", "lamp", *OTHER_WORDS], TEMPLATES)
    logits = ulip2.logits(embedded.embeddings, words)
    expected = (logits - CENTERED * 3 / (3 + FEW) * logits.mean(dim=0)).softmax(dim=-1)
    torch.testing.assert_close(scores, expected[:, :2])
    torch.testing.assert_close(rest, expected[:, 2:].max(dim=1).values)
    found = name_objects(ulip2, embedded, ["chair", "lamp"], templates=TEMPLATES)
    assert {thing.label for thing in found} == {"chair", "lamp"}
    everything = name_objects(ulip2, embedded, ["chair", "lamp"], templates=TEMPLATES, unnamed=True)
    assert [thing.label for thing in everything][-1] is None and len(everything) == 3
    assert name_objects(ulip2, embedded, ["chair"], templates=TEMPLATES, threshold=1.0) == []


def test_words_that_are_asked_for_are_no_other_words(ulip2, scene):
    assert "wall" not in other_than(["a lamp", "Wall"]) and len(other_than(["Wall"])) == len(OTHER_WORDS) - 1
    embedded = embedded_as(ulip2, scene, masks_of((0, 50)), ["floor"])
    (found,) = name_objects(ulip2, embedded, ["floor", "lamp"], templates=TEMPLATES)
    assert found.label == "floor"
    (only,) = name_objects(ulip2, embedded, ["lamp"], templates=TEMPLATES, other_words=())
    assert only.label == "lamp" and only.score == pytest.approx(1)


def test_parts_of_the_room_bear_their_own_names_only(ulip2, scene):
    masks = masks_of((0, 50), (50, 90), kinds=["wall", ""])
    embedded = embedded_as(ulip2, scene, masks, ["chair", "chair"])

    (chair,) = name_objects(ulip2, embedded, ["chair"], templates=TEMPLATES)
    assert chair.points[0] == 50
    named = name_objects(ulip2, embedded, ["chair", "wall"], templates=TEMPLATES)
    assert [(thing.label, int(thing.points[0])) for thing in named] == [("wall", 0), ("chair", 50)]


def test_scores_of_the_segmenter_count(ulip2, scene):
    masks = masks_of((0, 50), (50, 90), scores=np.array([0.1, 0.9], np.float32))
    found = name_objects(ulip2, embedded_as(ulip2, scene, masks, ["chair", "chair"]), ["chair"], templates=TEMPLATES)
    assert [int(thing.points[0]) for thing in found] == [50, 0]
    assert found[0].score == pytest.approx(9 * found[1].score)


def test_boxes_and_vectors_are_those_of_the_points(ulip2, scene):
    embedded = embedded_as(ulip2, scene, masks_of((0, 50)), ["chair"])
    (thing,) = name_objects(ulip2, embedded, ["chair"], templates=TEMPLATES)
    assert np.array_equal(thing.box[0], scene.xyz[:50].min(axis=0)) and thing.oriented_box.shape == (7,)
    assert np.array_equal(thing.embedding, embedded.embeddings[0].numpy())


@pytest.mark.parametrize(
    ("ranges", "labels", "scores", "kept"),
    [
        ([(0, 100), (0, 40)], ["chair", "chair"], [0.6, 0.9], [0]),  # a chair, not its seat
        ([(0, 100), (0, 50), (50, 100)], ["chair"] * 3, [0.7, 0.9, 0.9], [1, 2]),  # two chairs, not their group
        ([(0, 100), (0, 50), (50, 100)], ["chair"] * 3, [0.9, 0.6, 0.5], [0]),
        ([(0, 100), (0, 20)], ["chair", "cushion"], [0.8, 0.5], [0, 1]),  # a cushion on a chair
        ([(0, 100), (0, 20)], ["chair", "lamp"], [0.8, 0.3], [0]),
        ([(0, 100), (0, 20)], ["chair", "cushion"], [0.3, 0.8], [1, 0]),
        ([(0, 100), (5, 100)], ["chair", "sofa"], [0.5, 0.6], [1]),  # one object, two names
        ([(0, 100), (90, 200)], ["chair", "chair"], [0.5, 0.6], [1, 0]),  # neighbors
        ([], [], [], []),
    ],
)
def test_suppression_among_masks_of_the_same_points(ranges, labels, scores, kept):
    assert suppress(masks_of(*ranges), labels, np.array(scores)) == kept


def test_finding_a_text_ranks_points_and_objects(ulip2, scene):
    text = "a red lamp"
    masks = masks_of((0, 60), (10, 30), (60, 90))
    other = ulip2.embed_labels(["chair"], PLAIN)[0]
    wanted = ulip2.embed_labels([text], PLAIN)[0]
    embedded = EmbeddedScene(scene, masks, torch.stack([other, wanted, other]))

    matches = SceneUnderstanding(ulip2, GivenMasks(masks)).find(embedded, text)

    assert matches.scores.shape == (len(scene.xyz),) and matches.scores.dtype == np.float32
    assert matches.scores[10:30].min() > matches.scores[:10].max() > 0 == matches.scores[90:].max()
    assert matches.objects[0].points[0] == 10 and matches.objects[0].label == text
    assert len(matches.objects) == 3
    assert matches.objects[0].score == pytest.approx(matches.scores[15])


def test_the_front_door_with_a_captioner(ulip2, scene):
    said = []

    def describe(clouds):
        said.extend(len(cloud["xyz"]) for cloud in clouds)
        return [f"a thing of {len(cloud['xyz'])} points" for cloud in clouds]

    rooms = SceneUnderstanding(ulip2, GivenMasks(scene.objects()), describe=describe, other_words=())
    found = rooms(scene, ["chair", "lamp"])
    assert found and all(thing.sentence == f"a thing of {len(thing.points)} points" for thing in found)
    assert said == [len(thing.points) for thing in found]
    assert not any(thing.sentence for thing in rooms(scene, ["chair", "lamp"], sentences=False))
    with pytest.raises(ValueError, match="no captioner"):
        SceneUnderstanding(ulip2, GivenMasks(scene.objects()))(scene, ["chair"], sentences=True, other_words=())


def test_bad_labels_are_refused(ulip2, scene):
    embedded = embed_objects(ulip2, scene, scene.objects())
    for labels, message in (([], "empty"), (["chair", "chair"], "twice"), ("chair", "list of names")):
        with pytest.raises(ValueError, match=message):
            name_objects(ulip2, embedded, labels)


def test_selecting_masks_keeps_the_hierarchy():
    masks = masks_of((0, 9), (0, 6), (0, 3), parents=np.array([-1, 0, 1], np.int32), kinds=["", "", ""])
    left = select(masks, [0, 2])
    assert left.parents.tolist() == [-1, 0] and left.ids.tolist() == [0, 2]
    assert select(masks, [2, 1]).parents.tolist() == [1, -1]


def test_words_that_fit_everything_fit_less():
    logits = torch.tensor([[3.0, 1.0], [3.0, 2.9], [3.0, 1.0]]).repeat(100, 1)
    found = centered(logits).argmax(dim=1)
    assert found[:3].tolist() == [0, 1, 0]
    assert torch.equal(centered(logits[:0]), logits[:0])
    assert centered(logits[:1]).argmax() == 0  # a single object says nothing of words


def test_the_protocols_judge_the_names_that_a_user_gets(ulip2, scene):
    masks = scene.objects()
    scores = np.linspace(0.5, 1, len(masks)).astype(np.float32)
    masks = ObjectMasks(masks.points, scores=scores, kinds=["wall", *[""] * (len(masks) - 1)])
    embeddings = torch.nn.functional.normalize(
        torch.randn(len(masks), ulip2.dim, generator=torch.Generator().manual_seed(0)), dim=-1
    )
    words, others = ["chair", "lamp", "table"], ["sky"]
    embedded = EmbeddedScene(scene, masks, embeddings)
    expected = name_objects(ulip2, embedded, words, templates=TEMPLATES, other_words=others)
    assert {thing.label for thing in expected} <= set(words) and len(expected) > 1

    known = ulip2.embed_labels([*words, *others], TEMPLATES)
    labels, sure = named(ulip2.logits(embeddings, known), masks, words)

    place = {points.tobytes(): mask for mask, points in enumerate(masks.points)}
    found = {place[thing.points.tobytes()]: (thing.label, pytest.approx(thing.score)) for thing in expected}
    assert {mask: (words[labels[mask]], sure[mask]) for mask in np.flatnonzero(labels >= 0)} == found
