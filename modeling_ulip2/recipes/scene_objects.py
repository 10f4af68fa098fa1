"""What is computed of a scene once: its proposals, their vectors, and what the image tower sees. All of it is kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.scenes import ObjectMasks, Scene
from modeling_ulip2.scenes.evaluation import given_objects
from modeling_ulip2.scenes.naming import embed_objects, select
from modeling_ulip2.scenes.pictures import object_views
from modeling_ulip2.scenes.proposals import GeometricSegmenter
from modeling_ulip2.towers.fingerprint import weights_digest
from modeling_ulip2.utils.files import whole_file
from modeling_ulip2.utils.memory import peak_memory, reset_peak_memory

logger = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]


@dataclass
class SeenScene:
    """A scene with everything that naming its objects needs.

    Attributes:
        given, given_embeds: the M annotated objects that are measured, and their vectors (M, D).
        proposals, proposal_embeds: P proposals and theirs (P, D); none where none were asked for.
        tower_embeds: (M, D) what the image tower sees of the given objects, None without it.
        seconds: by step.
        peak_memory: bytes, of the step that took most.
    """

    given: ObjectMasks
    given_embeds: Tensor
    proposals: ObjectMasks
    proposal_embeds: Tensor
    tower_embeds: Tensor | None
    seconds: dict[str, float]
    peak_memory: int


class SceneEyes:
    """A checkpoint, its tower and a segmenter that look at scenes, each only once.

    Args:
        embedder: the checkpoint.
        segmenter: what proposes objects; None: nothing is proposed.
        tower_views: pictures of a given object that the image tower sees; 0: none.
        folder: where results are kept; they are found again by the points, the weights and the settings.
    """

    def __init__(
        self, embedder: Ulip2Embedder, segmenter: GeometricSegmenter | None, tower_views: int, folder: Path
    ) -> None:
        self.embedder, self.segmenter, self.tower_views, self.folder = embedder, segmenter, tower_views, folder
        settings = sorted(embedder.feature_extractor.to_dict().items())
        self._model = f"{weights_digest(embedder.model.state_dict())} {settings}"
        self._steps: list[Arrays] = []

    def look(self, scene: Scene, class_names: Sequence[str], min_region_size: int) -> SeenScene:
        """Sees a scene, or remembers it."""
        self._steps = []
        points = _digest(scene.xyz, scene.rgb, scene.normals, scene.instance)
        objects, _ = given_objects(scene, class_names, min_region_size)
        proposals = ObjectMasks([])
        if self.segmenter is not None:
            settings = str(sorted(asdict(self.segmenter).items()))
            proposals = _masks_of(self._step(scene, "proposals", [points, settings], lambda: self._propose(scene)))
        given, given_embeds = self._embed(scene, "given", points, objects)
        proposals, proposal_embeds = self._embed(scene, "proposed", points, proposals)
        tower = None
        if self.tower_views:
            key = [points, self.embedder.tower.fingerprint, str(self.tower_views), _digest(*given.points)]
            tower = torch.from_numpy(self._step(scene, "tower", key, lambda: self._picture(scene, given))["embeds"])
        names = ["proposing"] * (self.segmenter is not None) + ["embedding"] * 2 + ["tower"] * (tower is not None)
        seconds = dict.fromkeys(("proposing", "embedding", "tower"), 0.0)
        for name, step in zip(names, self._steps, strict=True):
            seconds[name] += float(step["seconds"])
        peak = max(int(step["peak_memory"]) for step in self._steps)
        return SeenScene(given, given_embeds, proposals, proposal_embeds, tower, seconds, peak)

    def _step(self, scene: Scene, kind: str, key: Sequence[str], compute: Callable[[], Arrays]) -> Arrays:
        """What `compute` gives, with its seconds and memory; from the folder where it was computed before."""
        name = _digest(np.frombuffer("\0".join([scene.id, kind, *key]).encode(), np.uint8))
        path = self.folder / f"{kind}-{name}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                found = dict(kept)
        else:
            reset_peak_memory()
            start = time.perf_counter()
            found = compute()
            found |= {"seconds": np.array(time.perf_counter() - start), "peak_memory": np.array(peak_memory())}
            self.folder.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                np.savez(file, **found)  # type: ignore[arg-type]
        self._steps.append(found)
        return found

    def _propose(self, scene: Scene) -> Arrays:
        assert self.segmenter is not None
        masks = self.segmenter.segment(scene)
        lengths = np.array([len(own) for own in masks.points], dtype=np.int64)
        found: Arrays = {
            "points": np.concatenate([*masks.points, np.empty(0, np.int32)]).astype(np.int32),
            "lengths": lengths,
            "scores": np.asarray(masks.scores),
            "kinds": np.array(masks.kinds or [""] * len(masks), dtype="U16"),
        }
        return found if masks.parents is None else found | {"parents": masks.parents}

    def _embed(self, scene: Scene, kind: str, points: str, masks: ObjectMasks) -> tuple[ObjectMasks, Tensor]:
        """The masks that can be embedded, and their vectors."""

        def compute() -> Arrays:
            numbered = ObjectMasks(masks.points)
            embedded = embed_objects(self.embedder, scene, numbered, progress=False)
            for failure in embedded.failures:
                logger.warning("%s", failure)
            return {"kept": np.asarray(embedded.masks.ids), "embeds": embedded.embeddings.numpy()}

        found = self._step(scene, kind, [points, self._model, _digest(*masks.points)], compute)
        return select(masks, found["kept"].tolist()), torch.from_numpy(found["embeds"])

    def _picture(self, scene: Scene, masks: ObjectMasks) -> Arrays:
        """The mean of what the image tower sees in pictures of each mask's points, (M, D)."""
        views = object_views(scene, masks, self.tower_views)
        if not views:
            return {"embeds": np.empty((0, self.embedder.dim), np.float32)}
        seen = self.embedder.embed_images([Image.fromarray(view) for own in views for view in own])
        return {"embeds": F.normalize(seen.reshape(len(views), self.tower_views, -1).mean(dim=1), dim=-1).numpy()}


def _masks_of(found: Arrays) -> ObjectMasks:
    points = np.split(found["points"], np.cumsum(found["lengths"])[:-1]) if len(found["lengths"]) else []
    return ObjectMasks(
        points, scores=found["scores"], parents=found.get("parents"), kinds=[str(kind) for kind in found["kinds"]]
    )


def _digest(*arrays: np.ndarray | None) -> str:
    digest = blake2b(digest_size=12)
    for array in arrays:
        if array is None:
            digest.update(b"none")
        else:
            digest.update(str((array.dtype, array.shape)).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
