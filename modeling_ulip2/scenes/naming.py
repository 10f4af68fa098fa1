"""Objects of a scan in the space of a checkpoint, named by any words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modeling_ulip2.data.candidate_labels import check_labels
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.embedding.records import ShapeFailure
from modeling_ulip2.scenes.boxes import axis_aligned_box, oriented_box
from modeling_ulip2.scenes.schema import ObjectMasks, Scene, SceneObject
from modeling_ulip2.scenes.suppression import suppress
from modeling_ulip2.scenes.vocabulary import OTHER_WORDS, other_than

# A sentence that is looked for stands by itself.
PLAIN = ("{}",)

# Some words fit everything a little better than others do. So much of what a word has on average over the objects of
# a scan is taken away from it; less where there are few objects, which say little of words.
CENTERED, FEW = 0.5, 50

# What a captioner is here: clouds as `crop` gives them, to sentences.
Describe = Callable[[Sequence[dict[str, Any]]], list[str]]


@dataclass
class EmbeddedScene:
    """A scan with masks and their vectors: what is computed once, whatever is asked afterwards.

    Args:
        scene: the scan.
        masks: P objects that could be embedded.
        embeddings: (P, D) float32, of unit length.
        failures: masks that could not be, such as those of a single place, with their reasons.
    """

    scene: Scene
    masks: ObjectMasks
    embeddings: Tensor
    failures: list[ShapeFailure] = field(default_factory=list)


@dataclass
class SceneMatches:
    """What fits a text in a scan.

    Args:
        scores: (N,) float32, per point the best score of the objects that hold it, 0 for points of none.
        objects: best first; `label` is the text where it fits better than all other words, else None.
    """

    scores: np.ndarray
    objects: list[SceneObject]

    def named(self) -> list[SceneObject]:
        """The objects that bear the text, each by its best mask (see `suppress`); the best one if none does."""
        found = [thing for thing in self.objects if thing.label is not None]
        if not found:
            return self.objects[:1]
        masks = ObjectMasks([thing.points for thing in found])
        scores = np.array([thing.score for thing in found])
        return [found[number] for number in suppress(masks, [""] * len(found), scores)]


def crop(scene: Scene, points: np.ndarray) -> dict[str, Any]:
    """An object as `Ulip2Embedder` takes a shape: centered, in meters, y up, with its color."""
    xyz = scene.xyz[points].astype(np.float64)
    cloud: dict[str, Any] = {"xyz": xyz - (xyz.min(axis=0) + xyz.max(axis=0)) / 2, "up_axis": "y"}
    if scene.rgb is not None:
        cloud["rgb"] = scene.rgb[points]
    return cloud


class Crops(Sequence[Any]):
    """The objects of a scan, cut out when they are asked for.

    Args:
        num_points: draw so many points of each by `seed`, repeating those of a smaller one; None: all of its points.
    """

    def __init__(self, scene: Scene, masks: ObjectMasks, num_points: int | None = None, seed: int | None = 0) -> None:
        self.scene, self.masks, self.num_points, self.seed = scene, masks, num_points, seed

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, index: Any) -> Any:
        points = self.masks.points[index]
        if self.num_points is not None and len(points):
            rng = np.random.default_rng(self.seed)
            points = points[rng.choice(len(points), self.num_points, replace=len(points) < self.num_points)]
        return crop(self.scene, points)


def embed_objects(
    embedder: Ulip2Embedder, scene: Scene, masks: ObjectMasks, *, progress: bool | str | None = None
) -> EmbeddedScene:
    """Embeds the objects of a scan as shapes of their own.

    Each is prepared by the checkpoint's feature extractor, which scales it, turns its axes, repeats points where there
    are fewer than the encoder needs, and fills in the color of a scan without color.

    Args:
        progress: see `Ulip2Embedder.iter_shapes`.
    """
    extractor = embedder.feature_extractor
    # an extractor that leaves clouds as they are would hand on fewer points than the encoder has patches
    crops = Crops(scene, masks, extractor.num_points if extractor.sampling == "none" else None, extractor.seed)
    rows, kept, failures = [], [], []
    assert masks.ids is not None  # filled in by the class itself
    names = [f"{scene.id}: object {number}" for number in masks.ids]
    for record in embedder.iter_shapes(crops, ids=names, num_workers=0, progress=progress):
        if record.failure is not None:
            failures.append(record.failure)
        else:
            rows.append(record.vector())
            kept.append(record.position)
    embeddings = torch.stack(rows) if rows else torch.empty(0, embedder.dim)
    return EmbeddedScene(scene, select(masks, kept), embeddings, failures)


def select(masks: ObjectMasks, kept: Sequence[int]) -> ObjectMasks:
    """Some of the masks, in this order; parents that are left out give way to their own."""
    place = {number: position for position, number in enumerate(kept)}
    parents = masks.parents
    if parents is not None:
        found = []
        for number in kept:
            above = int(parents[number])
            while above >= 0 and above not in place:
                above = int(parents[above])
            found.append(place.get(above, -1))
        parents = np.array(found, dtype=np.int32)
    assert masks.scores is not None and masks.ids is not None  # filled in by the class itself
    return ObjectMasks(
        [masks.points[number] for number in kept],
        scores=masks.scores[list(kept)],
        parents=parents,
        ids=masks.ids[list(kept)],
        kinds=None if masks.kinds is None else [masks.kinds[number] for number in kept],
    )


def label_scores(
    embedder: Ulip2Embedder,
    embedded: EmbeddedScene,
    labels: Sequence[str],
    *,
    templates: str | Sequence[str] | None = None,
    other_words: Sequence[str] = OTHER_WORDS,
) -> tuple[Tensor, Tensor]:
    """How well labels fit the objects.

    Scores are the softmax over labels and other words of cosine times the checkpoint's logit scale, each word less a
    share of its mean over the scan (`CENTERED`). What the segmenter knows for a wall, floor or ceiling is none of the
    labels but the one of that name.

    Returns:
        (P, K) float32 scores of the labels, and (P,) float32, the best score of another word.
    """
    labels = check_labels(labels)
    others = other_than(labels, other_words)
    words = embedder.embed_labels([*labels, *others], templates)  # (K + O, D)
    logits = embedder.logits(embedded.embeddings, words)  # (P, K + O)
    scores = centered(logits).softmax(dim=-1)  # (P, K + O)
    rest = torch.cat([scores[:, len(labels) :], scores.new_zeros(len(scores), 1)], dim=1).amax(dim=1)  # (P,)
    scores = scores[:, : len(labels)].clone()
    place = {label.strip().lower(): k for k, label in enumerate(labels)}
    for number, kind in enumerate(embedded.masks.kinds or []):
        if kind:
            scores[number], rest[number] = 0.0, 1.0
            if kind in place:
                scores[number, place[kind]], rest[number] = 1.0, 0.0
    return scores, rest


def centered(logits: Tensor) -> Tensor:
    """(P, K) logits of the objects of one scan, each word less a share of its mean over them."""
    if len(logits) == 0:
        return logits
    return logits - CENTERED * len(logits) / (len(logits) + FEW) * logits.mean(dim=0, keepdim=True)


def name_objects(
    embedder: Ulip2Embedder,
    embedded: EmbeddedScene,
    labels: Sequence[str],
    *,
    templates: str | Sequence[str] | None = None,
    other_words: Sequence[str] = OTHER_WORDS,
    threshold: float = 0.0,
    unnamed: bool = False,
    suppressed: bool = True,
) -> list[SceneObject]:
    """The objects that bear one of the labels, the surest first.

    Args:
        labels: any words; "wall", "floor" and "ceiling" are known to the segmenter.
        templates: see `Ulip2Embedder.embed_labels`.
        other_words: what competes with the labels.
        threshold: least score, the probability of the label times the segmenter's score of the mask.
        unnamed: list objects that no label fits, too, with `label` None and the score of their best label.
        suppressed: leave out masks of objects that another mask shows better, see `suppress`.
    """
    scores, rest = label_scores(embedder, embedded, labels, templates=templates, other_words=other_words)
    if len(scores) == 0:
        return []
    best = scores.max(dim=1)
    names = [
        labels[k] if score >= other else None
        for k, score, other in zip(best.indices.tolist(), best.values.tolist(), rest.tolist(), strict=True)
    ]
    sure = best.values.numpy() * embedded.masks.scores
    chosen = [number for number, name in enumerate(names) if name is not None and sure[number] >= threshold]
    if suppressed and chosen:
        left = suppress(select(embedded.masks, chosen), [names[number] or "" for number in chosen], sure[chosen])
        chosen = [chosen[number] for number in left]
    if unnamed:
        chosen += [number for number, name in enumerate(names) if name is None]
    chosen.sort(key=lambda number: (names[number] is None, -sure[number]))
    return [as_object(embedded, number, names[number], float(sure[number])) for number in chosen]


def find_text(
    embedder: Ulip2Embedder, embedded: EmbeddedScene, text: str, *, other_words: Sequence[str] = OTHER_WORDS
) -> SceneMatches:
    """Points and objects of a scan, ranked by how well a text fits them.

    Scores are the softmax over the text and the other words, without templates, so that a sentence stands as it is.
    """
    scores, rest = label_scores(embedder, embedded, [text], templates=PLAIN, other_words=other_words)
    of_points = np.zeros(len(embedded.scene.xyz), dtype=np.float32)
    objects = []
    for number in torch.argsort(scores[:, 0], stable=True).tolist():  # the best last, so that they stay
        score = float(scores[number, 0])
        of_points[embedded.masks.points[number]] = score
        objects.append(as_object(embedded, number, text if score >= float(rest[number]) else None, score))
    return SceneMatches(of_points, objects[::-1])


def as_object(embedded: EmbeddedScene, number: int, label: str | None, score: float) -> SceneObject:
    """One of the objects with its boxes."""
    points = embedded.masks.points[number]
    xyz = embedded.scene.xyz[points]
    return SceneObject(
        points, label, score, axis_aligned_box(xyz), oriented_box(xyz), embedded.embeddings[number].numpy()
    )
