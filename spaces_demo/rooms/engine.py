"""What the rooms compute: embeddings, neighbours, probabilities. Knows nothing about Gradio."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from modeling_ulip2.evaluation import load_class_names, load_templates
from modeling_ulip2.evaluation.embeddings import embed_points, load_for_evaluation
from modeling_ulip2.evaluation.zero_shot import class_embeddings, zero_shot_logits
from modeling_ulip2.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.geometry.shapes import Shape
from modeling_ulip2.search.index import Match, ShapeIndex, combine
from modeling_ulip2.towers import Tower

try:  # a Space on ZeroGPU lends its GPU to decorated functions
    from spaces import GPU as gpu  # noqa: N811
except ImportError:

    def gpu(function: Callable) -> Callable:
        return function


MAX_TEXT = 500
MAX_LABELS, MAX_LABEL = 200, 100
# Class lists whose embeddings are kept; the largest has 1,156 rows.
KEPT_CLASS_LISTS = 16
NAMES_PER_CALL = 16

BENCHMARKS = {
    "ModelNet40": "modelnet40",
    "ScanObjectNN (15)": "scanobjectnn",
    "ShapeNet55": "shapenet55",
    "Objaverse-LVIS (1,156)": "objaverse_lvis",
}
TEMPLATES: dict[str, list[str]] = {
    "64 prompts (ULIP-2's protocol)": load_templates("modelnet40_64"),
    "“a point cloud model of …”": ["a point cloud model of {}."],
    "“a photo of a …”": ["a photo of a {}."],
    "the name alone": ["{}"],
}


@dataclass(frozen=True)
class Hit:
    """A shape of the collection as the rooms show it; `score` is its cosine with the query."""

    row: int
    score: float
    id: str
    name: str
    category: str
    creator: str
    license: str
    source: str


class Engine:
    """A model, its tower and an index of shapes.

    Args:
        model, feature_extractor, tower: see `load_for_evaluation`.
        index: made by the same model.
        model_name: shown to people.
        meshes: folder whose files the ids of the index name; None: clouds are shown instead.

    Attributes:
        categories: of the collection, most common first.

    Raises:
        ValueError: the index was made by another model.
    """

    def __init__(
        self,
        model: Any,
        feature_extractor: Ulip2FeatureExtractor,
        tower: Tower,
        index: ShapeIndex,
        model_name: str,
        meshes: Path | None = None,
    ) -> None:
        index.require_model(model, feature_extractor)
        self.model, self.feature_extractor, self.tower, self.index = model, feature_extractor, tower, index
        self.model_name, self.meshes = model_name, meshes
        counts = Counter(name for name in index.shapes["category"] if name)
        self.categories = sorted(counts, key=lambda name: (-counts[name], name))
        self._pictures = index.shapes.select_columns(["image"])
        self._class_embeds: OrderedDict[Any, Tensor] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def load(
        cls, model: str | Path, index: str | Path, tower: str | Path | None = None, meshes: Path | None = None
    ) -> Engine:
        """Reads everything from folders or from the hub."""
        return cls(*load_for_evaluation(model, tower), ShapeIndex.open(index), Path(model).name, meshes)

    # --- queries -----------------------------------------------------------------------------------------------------

    def point_values(self, shape: Shape, up_axis: str = "y") -> np.ndarray:
        """The cloud exactly as the model reads it: (n, C) float32."""
        return self.feature_extractor([shape.cloud | {"up_axis": up_axis}], return_tensors="np")["point_values"][0]

    @gpu
    def embed_shape(self, shape: Shape, up_axis: str = "y") -> Tensor:
        """(D,) float32, L2-normalised."""
        cloud = shape.cloud | {"up_axis": up_axis}
        return embed_points(self.model, self.feature_extractor, [cloud], progress=False)[0]

    @gpu
    def embed_query(
        self,
        text: str = "",
        image: Image.Image | None = None,
        shape: Shape | None = None,
        up_axis: str = "y",
        text_weight: float = 1.0,
    ) -> Tensor:
        """The sum of what is given, words `text_weight` times as loud as the rest: (D,) float32, L2-normalised."""
        text = checked_text(text)
        embeds = []
        if text:
            embeds.append(self.tower.encode_text([text])[0])
        if image is not None:
            embeds.append(self.tower.encode_images([image])[0])
        if shape is not None:
            embeds.append(self.embed_shape(shape, up_axis))
        if not embeds:
            raise ValueError("Write some words, or add a photo or a 3D file.")
        weights = [1.0] * len(embeds)
        if text:
            weights[0] = float(text_weight)
        return combine(embeds, weights)

    # --- the collection ----------------------------------------------------------------------------------------------

    def find(self, query: Tensor, k: int) -> list[Hit]:
        """The k nearest shapes of the collection, best first."""
        return self.hits(self.index.search(query, k))

    def like(self, row: int, k: int) -> list[Hit]:
        """The k nearest shapes of a shape of the collection, itself left out."""
        found = self.index.search(self.index.embed(row), k + 1)
        return self.hits([match for match in found if match.row != row][:k])

    def hits(self, matches: Sequence[Match]) -> list[Hit]:
        columns = ["id", "name", "category", "creator", "license", "source"]
        rows = self.index.shapes.select_columns(columns)[[match.row for match in matches]]
        return [
            Hit(match.row, match.score, **{name: rows[name][place] for name in columns})
            for place, match in enumerate(matches)
        ]

    def picture(self, row: int) -> Image.Image:
        return self._pictures[row]["image"]

    def examples(self, count: int = 4) -> list[str]:
        """Things to look for: the most common categories, else names spread over the collection."""
        if self.categories:
            return [f"{'an' if name[0] in 'aeiou' else 'a'} {name}" for name in self.categories[:count]]
        names = list(dict.fromkeys(name for name in self.index.shapes["name"] if name))
        return names[:: max(1, len(names) // count)][:count]

    # --- classes -----------------------------------------------------------------------------------------------------

    def class_names(self, choice: str, own: str = "") -> list[str]:
        """The candidates: a benchmark's, the collection's, or those in `own`, separated by commas or lines."""
        if choice in BENCHMARKS:
            return [name.replace("_", " ") for name in load_class_names(BENCHMARKS[choice])]
        if choice == "collection":
            return self.categories
        names = list(dict.fromkeys(name.strip() for name in own.replace("\n", ",").split(",") if name.strip()))
        if len(names) < 2:
            raise ValueError("Write at least two labels, separated by commas.")
        if len(names) > MAX_LABELS:
            raise ValueError(f"That is {len(names)} labels; at most {MAX_LABELS} are compared at once.")
        if too_long := next((name for name in names if len(name) > MAX_LABEL), None):
            raise ValueError(f"The label “{too_long[:30]}…” is longer than {MAX_LABEL} letters.")
        return names

    @gpu
    def classify(
        self,
        embed: Tensor,
        names: Sequence[str],
        templates: Sequence[str],
        progress: Callable[[float], Any] = lambda share: None,
    ) -> dict[str, float]:
        """Softmax over the classes at the model's own temperature, most probable first; sums to 1."""
        classes = self._classes(tuple(names), tuple(templates), progress)  # (C, D)
        logits = zero_shot_logits(embed[None], classes)[0] * self.model.logit_scale.detach().float().exp().cpu()
        probabilities = logits.softmax(dim=-1)  # (C,)
        order = probabilities.argsort(descending=True).tolist()
        return {names[place]: float(probabilities[place]) for place in order}

    def _classes(self, names: tuple[str, ...], templates: tuple[str, ...], progress: Callable[[float], Any]) -> Tensor:
        key = (names, templates)
        with self._lock:
            if key in self._class_embeds:
                self._class_embeds.move_to_end(key)
                return self._class_embeds[key]
        parts = []
        for start in range(0, len(names), NAMES_PER_CALL):
            progress(start / len(names))
            parts.append(class_embeddings(self.tower.encode_text, names[start : start + NAMES_PER_CALL], templates))
        classes = torch.cat(parts)  # (C, D)
        with self._lock:
            self._class_embeds[key] = classes
            while len(self._class_embeds) > KEPT_CLASS_LISTS:
                self._class_embeds.popitem(last=False)
        return classes


def checked_text(text: str) -> str:
    """Stripped. Raises ValueError beyond `MAX_TEXT` letters."""
    text = (text or "").strip()
    if len(text) > MAX_TEXT:
        raise ValueError(f"The text has {len(text)} letters; at most {MAX_TEXT} are read.")
    return text
