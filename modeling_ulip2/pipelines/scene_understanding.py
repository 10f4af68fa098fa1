"""The pipeline `open-vocabulary-scene-understanding`: scans of rooms and labels of your choice in, named objects out.

from transformers import pipeline
import modeling_ulip2

understand = pipeline("open-vocabulary-scene-understanding", model="FOLDER")
understand("living_room.ply", candidate_labels=["chair", "table", "lamp"])
# [{"score": 0.93, "label": "chair", "points": array([...]), "box": [[0.1, 0.0, 1.2], [0.6, 0.9, 1.7]], ...}, ...]
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modeling_ulip2.data.candidate_labels import check_labels, check_top_k
from modeling_ulip2.pipelines.base import logger, with_warnings
from modeling_ulip2.pipelines.zero_shot_classification import ZeroShotPointCloudClassificationPipeline, parse_templates
from modeling_ulip2.scenes.naming import find_text, name_objects
from modeling_ulip2.scenes.proposals import SceneSegmenter
from modeling_ulip2.scenes.reading import AUTO_UNIT, read_scene
from modeling_ulip2.scenes.schema import ObjectMasks, Scene, SceneObject
from modeling_ulip2.scenes.understanding import SceneUnderstanding
from modeling_ulip2.scenes.vocabulary import OTHER_WORDS

SCENE_UNDERSTANDING = "open-vocabulary-scene-understanding"


class SceneUnderstandingPipeline(ZeroShotPointCloudClassificationPipeline):
    """Scans of rooms -> the objects in them, named by labels of your choice, or ranked by how well a text fits them.

    `pipeline("open-vocabulary-scene-understanding", model=FOLDER)(scans, candidate_labels=[...])` takes paths of
    scans, `Scene`s, mappings with `xyz` (N, 3) in meters, y up, and perhaps `rgb` and `normals`, or a list of these.
    It returns for each a list of objects, the surest first: `{"score", "label", "points", "box", "oriented_box",
    "embedding"}`; `points` are indices, boxes and embeddings those of `SceneObject`. A label that fits worse than
    another word ("wall", "fragment") is not given.

    Args:
        segmenter: what proposes objects; default: `GeometricSegmenter`, without training.

    Call arguments:
        candidate_labels: names of objects.
        text: what to look for instead; objects are then those that fit it, or the one that does best if none does.
        hypothesis_template: see `ZeroShotPointCloudClassificationPipeline`.
        masks: `ObjectMasks` in place of the segmenter's.
        other_words: what competes with the labels; default: `OTHER_WORDS`.
        threshold: least score, 0 to 1.
        top_k: how many objects to return; default: all.
        up_axis, unit: of files, see `read_scene`; default: "auto".
        batch_size: objects per forward pass.
    """

    def __init__(self, *args: Any, segmenter: SceneSegmenter | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.understanding = SceneUnderstanding(self.embedder, segmenter)

    def __call__(self, inputs: Any, batch_size: int | None = None, **kwargs: Any) -> Any:
        """See the class."""
        if batch_size is not None:
            self.embedder.batch_size = batch_size
        # a scan is a batch by itself, of its objects
        return super().__call__(inputs, **kwargs)

    def _sanitize_parameters(  # type: ignore[override]
        self,
        candidate_labels: Sequence[str] | None = None,
        text: str | None = None,
        hypothesis_template: str | Sequence[str] | None = None,
        masks: ObjectMasks | None = None,
        other_words: Sequence[str] | None = None,
        threshold: float | None = None,
        top_k: int | None = None,
        up_axis: str | None = None,
        unit: str | None = None,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        check_top_k(top_k)
        if candidate_labels is not None and text is not None:
            raise ValueError("give candidate_labels to name objects, or text to look for one, not both.")
        given: dict[str, Any] = {"text": text, "other_words": other_words, "threshold": threshold, "masks": masks}
        if candidate_labels is not None:
            given["candidate_labels"] = check_labels(candidate_labels, "candidate_labels")
        if hypothesis_template is not None:
            given["hypothesis_template"] = parse_templates(hypothesis_template)
        reading = {"up_axis": up_axis, "unit": unit}
        return _given(reading), _given(given), _given({"top_k": top_k})

    def preprocess(self, scan: Any, up_axis: str = "auto", unit: str = AUTO_UNIT) -> dict[str, Any]:  # type: ignore[override]
        scene = _as_scene(scan, up_axis, unit)
        for warning in scene.warnings:
            logger.warning("%s: %s", scene.id, warning)
        return {"scene": scene}

    def _forward(  # type: ignore[override]
        self,
        inputs: dict[str, Any],
        candidate_labels: tuple[str, ...] = (),
        text: str | None = None,
        hypothesis_template: tuple[str, ...] | None = None,
        masks: ObjectMasks | None = None,
        other_words: Sequence[str] = OTHER_WORDS,
        threshold: float = 0.0,
    ) -> dict[str, Any]:
        if text is None:
            self.class_embeds(candidate_labels, hypothesis_template)  # what is wrong with labels is told first
        embedded = self.understanding.embed(inputs["scene"], masks)
        for failure in embedded.failures:
            logger.warning("%s", failure)
        if text is None:
            found = name_objects(
                self.embedder,
                embedded,
                candidate_labels,
                templates=hypothesis_template,
                other_words=other_words,
                threshold=threshold,
            )
        else:
            matches = find_text(self.embedder, embedded, text, other_words=other_words)
            found = [thing for thing in matches.named() if thing.score >= threshold]
        return {"objects": found, "warnings": inputs["scene"].warnings}

    def postprocess(self, outputs: dict[str, Any], top_k: int | None = None) -> list[dict[str, Any]]:  # type: ignore[override]
        return with_warnings([_as_dict(thing) for thing in outputs["objects"][:top_k]], outputs["warnings"])


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _as_scene(scan: Any, up_axis: str, unit: str) -> Scene:
    if isinstance(scan, Scene):
        return scan
    if isinstance(scan, (str, os.PathLike)):
        return read_scene(os.fspath(scan), up_axis, unit)
    if isinstance(scan, Mapping) and "xyz" in scan:
        colors, normals = scan.get("rgb"), scan.get("normals")
        return Scene(
            str(scan.get("id", "scene")),
            np.asarray(scan["xyz"], dtype=np.float32),
            None if colors is None else np.asarray(colors),
            None if normals is None else np.asarray(normals, dtype=np.float32),
        )
    raise ValueError(f"A scan is a path, a Scene, or a mapping with 'xyz' in meters, y up, got {type(scan).__name__}.")


def _as_dict(thing: SceneObject) -> dict[str, Any]:
    return {
        "score": thing.score,
        "label": thing.label,
        "points": thing.points,
        "box": thing.box.tolist(),
        "oriented_box": thing.oriented_box.tolist(),
        "embedding": thing.embedding.tolist(),
    }
