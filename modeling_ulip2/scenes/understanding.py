"""The front door to scenes: a scan goes in, objects with masks, names, boxes and sentences come out.

from modeling_ulip2.scenes import SceneUnderstanding

rooms = SceneUnderstanding.from_pretrained("ORG/ulip2-pointbert")
for thing in rooms(scene, ["chair", "table", "lamp"]):
    print(thing.label, thing.score, thing.box)
rooms.find(scene, "a red armchair").scores  # (N,), one per point
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.scenes.naming import (
    Crops,
    Describe,
    EmbeddedScene,
    SceneMatches,
    embed_objects,
    find_text,
    name_objects,
)
from modeling_ulip2.scenes.proposals import GeometricSegmenter, SceneSegmenter
from modeling_ulip2.scenes.schema import ObjectMasks, Scene, SceneObject
from modeling_ulip2.scenes.vocabulary import OTHER_WORDS


class SceneUnderstanding:
    """Finds, embeds and names the objects of scans with any ULIP-2 checkpoint.

    Args:
        embedder: the checkpoint.
        segmenter: what proposes objects; default: `GeometricSegmenter`, which needs no training.
        describe: a captioner, clouds to sentences, for `SceneObject.sentence`.
        other_words: what competes with the words that are asked for.
    """

    def __init__(
        self,
        embedder: Ulip2Embedder,
        segmenter: SceneSegmenter | None = None,
        *,
        describe: Describe | None = None,
        other_words: Sequence[str] = OTHER_WORDS,
    ) -> None:
        self.embedder, self.describe, self.other_words = embedder, describe, tuple(other_words)
        self.segmenter: SceneSegmenter = GeometricSegmenter() if segmenter is None else segmenter

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], segmenter: SceneSegmenter | None = None, **kwargs: Any
    ) -> SceneUnderstanding:
        """With a checkpoint, see `Ulip2Embedder.from_pretrained`, which takes `kwargs`."""
        return cls(Ulip2Embedder.from_pretrained(name_or_path, **kwargs), segmenter)

    def embed(
        self, scene: Scene, masks: ObjectMasks | None = None, *, progress: bool | str | None = None
    ) -> EmbeddedScene:
        """The objects of a scan and their vectors. Asking the result for words takes no time.

        Args:
            masks: objects that are known, such as `scene.objects()`; default: those of the segmenter.
        """
        masks = self.segmenter.segment(scene) if masks is None else masks
        return embed_objects(self.embedder, scene, masks, progress=progress)

    def __call__(
        self, scene: Scene | EmbeddedScene, labels: Sequence[str], *, sentences: bool | None = None, **options: Any
    ) -> list[SceneObject]:
        """The objects that bear one of the labels, the surest first.

        Args:
            scene: a scan, or what `embed` made of one.
            labels: any words.
            sentences: let the captioner describe each object; default: where there is one.
            options: see `name_objects`.
        """
        options.setdefault("other_words", self.other_words)
        embedded = self._embedded(scene)
        found = name_objects(self.embedder, embedded, labels, **options)
        if self.describe is not None if sentences is None else sentences:
            self.add_sentences(embedded.scene, found)
        return found

    def find(self, scene: Scene | EmbeddedScene, text: str, **options: Any) -> SceneMatches:
        """Points and objects, ranked by how well a text fits them; see `find_text` for `options`."""
        options.setdefault("other_words", self.other_words)
        return find_text(self.embedder, self._embedded(scene), text, **options)

    def add_sentences(self, scene: Scene, objects: Sequence[SceneObject]) -> None:
        """Lets the captioner describe objects, in their `sentence`.

        Raises:
            ValueError: there is no captioner.
        """
        if self.describe is None:
            raise ValueError("there is no captioner: pass describe=... to SceneUnderstanding")
        if objects:
            crops = Crops(scene, ObjectMasks([thing.points for thing in objects]))
            for thing, sentence in zip(objects, self.describe(crops), strict=True):
                thing.sentence = sentence

    def _embedded(self, scene: Scene | EmbeddedScene) -> EmbeddedScene:
        return scene if isinstance(scene, EmbeddedScene) else self.embed(scene)
