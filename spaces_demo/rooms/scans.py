"""Scans of rooms that visitors look at: read, taken apart into objects once, and asked for words as often as need be.

Knows nothing about Gradio.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from torch import Tensor

from modeling_ulip2.scenes import EmbeddedScene, Scene, SceneMatches, SceneObject, SceneUnderstanding
from modeling_ulip2.scenes.dataset import SceneRows, read_scenes
from modeling_ulip2.scenes.proposals import GeometricSegmenter
from modeling_ulip2.scenes.proposals.grid import voxelize
from modeling_ulip2.scenes.results import below_ceiling, name_colors, score_colors

from .engine import Engine, NothingGivenError, checked_text
from .uploads import read_scan

# Of a page that many people look at: a bound on the memory and on the wait.
SEGMENTER = GeometricSegmenter(max_voxels=400_000, max_proposals=200)
KEPT = 8  # scans in memory; whoever comes back to an older one waits again
THRESHOLD = 0.2
SHOWN_OBJECTS = 60
# Points that a browser shows as beads.
BEADS = 24_000
BEAD_SHARE = 0.6  # of the distance between them, as the radius
SHOWROOM = "A showroom of this collection"  # as long as a phone is wide
SHOWROOM_SHAPES = 10
HOMES_CONFIG = "complete"


@dataclass
class Visit:
    """A scan that was taken apart.

    Attributes:
        key: by which the page asks for it again.
        shown: indices of the points that are shown, without ceilings.
        spacing: meters between them.
    """

    key: str
    embedded: EmbeddedScene
    shown: np.ndarray
    spacing: float
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def scene(self) -> Scene:
        return self.embedded.scene


class Scans:
    """The scans that the page knows, and what is in them. Safe to share between threads.

    Args:
        engine: with the checkpoint, and the collection of which the showroom is made.
        homes: folder of a dataset of scenes, as `dataset_scripts/sweet_home_3d_homes.py` writes it; None: none.
    """

    def __init__(self, engine: Engine, homes: Path | None = None) -> None:
        self._engine = engine
        self._understanding = SceneUnderstanding(engine.embedder, SEGMENTER)
        self._homes: SceneRows | None = None if homes is None else read_scenes(str(homes), HOMES_CONFIG)
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.Lock()
        self._work = threading.Lock()  # one scan at a time

    @property
    def choices(self) -> list[str]:
        """Scans to look at for people who have none."""
        return [SHOWROOM, *(self._homes.ids if self._homes is not None else [])]

    def visit(self, path: str | None, choice: str | None, axis: str, report: Callable[[str], None]) -> Visit:
        """A scan taken apart, a file before a choice.

        Raises:
            NothingGivenError: neither is given.
            UploadError: the file cannot be used.
            ValueError: there is nothing in it to look for objects in.
        """
        if path:
            key = f"{hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]}-{axis}"
        elif choice in self.choices:
            key = f"{choice}-{self._engine.version}"
        else:
            raise NothingGivenError("Add a scan, or choose one.")
        with self._work:  # who asks for the same one at the same time finds it done
            kept = self._kept(key)
            if kept is not None:
                return kept
            report("Reading the scan")
            scene = read_scan(path, axis) if path else self._chosen(str(choice))
            report("Looking for objects")
            masks = SEGMENTER.segment(scene)
            report(f"Embedding {len(masks)} proposals")
            visit = Visit(key, self._understanding.embed(scene, masks), *shown_points(scene))
            with self._lock:
                self._visits[key] = visit
                while len(self._visits) > KEPT:
                    self._visits.popitem(last=False)
            return visit

    def again(self, key: str | None) -> Visit:
        """A scan that was taken apart before.

        Raises:
            NothingGivenError: nobody did, or so many others were since then that it is no longer kept.
        """
        if not key:
            raise NothingGivenError("Press Find the objects first.")
        kept = self._kept(key)
        if kept is None:
            raise NothingGivenError("That scan is no longer in memory: press Find the objects again.")
        return kept

    def name(self, visit: Visit, labels: Sequence[str]) -> list[SceneObject]:
        """The objects that bear one of the labels, the surest first."""
        with visit.lock:
            return self._understanding(visit.embedded, labels, threshold=THRESHOLD)[:SHOWN_OBJECTS]

    def find(self, visit: Visit, text: str) -> SceneMatches:
        """What fits a text.

        Raises:
            NothingGivenError: there is no text.
        """
        text = checked_text(text)
        if not text:
            raise NothingGivenError("Write what to look for.")
        with visit.lock:
            return self._understanding.find(visit.embedded, text)

    def _kept(self, key: str) -> Visit | None:
        with self._lock:
            visit = self._visits.get(key)
            if visit is not None:
                self._visits.move_to_end(key)
            return visit

    def _chosen(self, choice: str) -> Scene:
        if choice == SHOWROOM or self._homes is None:
            return showroom(self._engine)
        return self._homes.named(choice)


def shown_points(scene: Scene) -> tuple[np.ndarray, float]:
    """Indices of at most `BEADS` points, spread evenly and without what hides the rooms from above, and the meters
    between them."""
    below = np.flatnonzero(below_ceiling(scene.xyz))
    voxels = voxelize(Scene("shown", scene.xyz[below]), 0.03, BEADS)
    return np.sort(below[np.unique(voxels.of_point, return_index=True)[1]]), voxels.size


def in_view(visit: Visit, rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The points that are shown, (n, 3) in the unit sphere, their colors (n, 3) uint8, and the radius of a bead."""
    xyz = visit.scene.xyz[visit.shown].astype(np.float64)
    low, high = xyz.min(axis=0), xyz.max(axis=0)
    radius = max(float(np.linalg.norm(high - low)) / 2, 1e-6)
    return (xyz - (low + high) / 2) / radius, rgb[visit.shown], BEAD_SHARE * visit.spacing / radius


def own_colors(visit: Visit) -> np.ndarray:
    """(N, 3) uint8: the scan as it is."""
    rgb = visit.scene.rgb
    return np.full((len(visit.scene.xyz), 3), 170, dtype=np.uint8) if rgb is None else rgb


def named_colors(visit: Visit, found: Sequence[SceneObject], labels: Sequence[str]) -> np.ndarray:
    """(N, 3) uint8: each point in the color of its object's name."""
    return name_colors(visit.scene, found, labels)


def lit_colors(visit: Visit, matches: SceneMatches) -> np.ndarray:
    """(N, 3) uint8: what fits the text glows."""
    return score_colors(visit.scene, matches.scores)


def vector(thing: SceneObject) -> Tensor:
    """(D,) float32, of unit length."""
    import torch

    return torch.from_numpy(np.asarray(thing.embedding, dtype=np.float32))


def showroom(engine: Engine, density: float = 1200.0) -> Scene:
    """A room of 6 by 5 meters with shapes of the collection along its walls and in its middle, each a meter long."""
    rng = np.random.default_rng(0)
    width, height, depth = 6.0, 2.5, 5.0
    xyz: list[np.ndarray] = []
    rgb: list[np.ndarray] = []

    def sheet(corner: Sequence[float], u: Sequence[float], v: Sequence[float], color: Sequence[int]) -> None:
        sides = np.array(u, dtype=float), np.array(v, dtype=float)
        count = int(np.linalg.norm(np.cross(*sides)) * density)
        xyz.append(np.array(corner) + rng.random((count, 1)) * sides[0] + rng.random((count, 1)) * sides[1])
        rgb.append(np.tile(np.array(color, dtype=np.uint8), (count, 1)))

    sheet((0, 0, 0), (width, 0, 0), (0, 0, depth), (176, 150, 120))
    for corner, along in (
        ((0, 0, 0), (width, 0, 0)),
        ((0, 0, depth), (width, 0, 0)),
        ((0, 0, 0), (0, 0, depth)),
        ((width, 0, 0), (0, 0, depth)),
    ):
        sheet(corner, along, (0, height, 0), (228, 224, 214))
    places = [(x, z) for z in (0.9, 2.5, 4.1) for x in (0.9, 2.3, 3.7, 5.1)]
    for (x, z), hit in zip(places, engine.showcase(SHOWROOM_SHAPES), strict=False):
        cloud = engine.index.cloud(hit.row)
        points = np.asarray(cloud["xyz"], dtype=np.float64)
        low, high = points.min(axis=0), points.max(axis=0)
        points = (points - (low + high) / 2) / max(float((high - low).max()), 1e-9)
        points += [x, -points[:, 1].min(), z]
        xyz.append(points)
        colors = cloud.get("rgb")
        rgb.append(np.full(points.shape, 150, np.uint8) if colors is None else np.asarray(colors, dtype=np.uint8))
    return Scene("showroom", np.concatenate(xyz).astype(np.float32), np.concatenate(rgb))
