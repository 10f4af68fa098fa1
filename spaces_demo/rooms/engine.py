"""What the rooms compute: embeddings, neighbors, probabilities. Knows nothing about Gradio."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.evaluation import load_class_names, load_templates
from modeling_ulip2.geometry.shapes import Shape
from modeling_ulip2.search.index import Match, ShapeIndex, combine

from . import fit, groups, labels

try:  # a Space on ZeroGPU lends its GPU to decorated functions
    from spaces import GPU as gpu  # noqa: N811
except ImportError:

    def gpu(function: Callable) -> Callable:
        return function


MAX_TEXT = 500
MAX_LABELS, MAX_LABEL = 200, 100
# Forward passes at once: more would only take turns on the same processors.
MAX_PASSES = 2

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


class NothingGivenError(ValueError):
    """There is nothing to work on yet; the message says what to add."""


@dataclass(frozen=True)
class Hit:
    """A shape of the collection as the rooms show it; `score` is its cosine with the query (NaN: none was asked)."""

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
        embedder: of shapes, texts and images.
        index: made by the same model.
        meshes: folder whose files the ids of the index name; None: clouds are shown instead.
        cache_dir: where the embeddings of the benchmarks' labels are kept; None: only in memory.

    Attributes:
        categories: of the collection, most common first.
        rows: those that stand for the collection, where all would be too many.
        labels: embeddings of labels.
        fit: tells a good best match from a poor one; measured once `fit.start()` was called.
        version: grows when the collection does.

    Raises:
        ValueError: the index was made by another model.
    """

    def __init__(
        self,
        embedder: Ulip2Embedder,
        index: ShapeIndex,
        meshes: Path | None = None,
        cache_dir: Path | None = labels.CACHE_DIR,
    ) -> None:
        self.model, self.feature_extractor, self.tower = embedder.model, embedder.feature_extractor, embedder.tower
        self.embedder, self.meshes = embedder, meshes
        self.model_name = Path(embedder.name).name
        self._passes = threading.BoundedSemaphore(MAX_PASSES)
        benchmarks = {name for choice in BENCHMARKS for name in self.class_names(choice)}
        self.labels = labels.LabelEmbeddings(self._encode_labels, self.tower.fingerprint, benchmarks, cache_dir)
        self.index: ShapeIndex
        self.categories: list[str]
        self.rows: list[int]
        self.fit: fit.Fit
        self._pictures: Any
        self.version = -1
        self._take(index)

    def _take(self, index: ShapeIndex) -> None:
        index.require_model(self.model, self.feature_extractor)
        counts = Counter(name for name in index.shapes["category"] if name)
        categories = sorted(counts, key=lambda name: (-counts[name], name))
        rows = groups.sample_rows(len(index))
        names = [*index.shapes["name"], *categories]
        measure = fit.Fit(index, names, rows, lambda names: self.labels.get(names, ["{}"]))
        # in one step, for other threads
        self.__dict__.update(
            index=index,
            categories=categories,
            rows=rows,
            fit=measure,
            version=self.version + 1,
            _pictures=index.shapes.select_columns(["image"]),
        )

    def renew(self, index: ShapeIndex) -> None:
        """Takes the index after it has grown: each row that it had is the same shape as before.

        Raises:
            ValueError: it was made by another model.
        """
        self._take(index)
        self.fit.start()

    @classmethod
    def load(
        cls,
        model: str | Path,
        index: str | Path,
        tower: str | Path | None = None,
        meshes: Path | None = None,
        cache_dir: Path | None = labels.CACHE_DIR,
    ) -> Engine:
        """Reads everything from folders or from the hub."""
        return cls(Ulip2Embedder.from_pretrained(model, tower=tower), ShapeIndex.open(index), meshes, cache_dir)

    # --- queries -----------------------------------------------------------------------------------------------------

    def point_values(self, shape: Shape) -> np.ndarray:
        """The cloud exactly as the model reads it: (n, C) float32."""
        return self.embedder.reading()(shape.cloud)[0]

    @gpu
    def embed_shape(self, shape: Shape) -> Tensor:
        """(D,) float32, L2-normalized."""
        with self._passes:
            return self.embedder.embed_shapes([shape.cloud])[0]

    @gpu
    def embed_query(
        self,
        text: str = "",
        image: Image.Image | None = None,
        shape: Shape | None = None,
        row: int | None = None,
        text_weight: float = 1.0,
    ) -> Tensor:
        """The sum of what is given, words `text_weight` times as loud as the rest: (D,) float32, L2-normalized.

        `row` is a shape of the collection.
        """
        text = checked_text(text)
        embeds = []
        if text:
            with self._passes:
                embeds.append(self.embedder.embed_texts(text)[0])
        if image is not None:
            with self._passes:
                embeds.append(self.embedder.embed_images(image)[0])
        if shape is not None:
            embeds.append(self.embed_shape(shape))
        if row is not None:
            embeds.append(self.index.embed(row))
        if not embeds:
            raise NothingGivenError("Write some words, or add a photo or a 3D file.")
        weights = [1.0] * len(embeds)
        if text:
            weights[0] = float(text_weight)
        return combine(embeds, weights)

    # --- the collection ----------------------------------------------------------------------------------------------

    def find(self, query: Tensor, k: int, without: int | None = None) -> list[Hit]:
        """The k nearest shapes of the collection, best first; `without`: the row that was asked about."""
        found = self.index.search(query, k if without is None else k + 1)
        return self.hits([match for match in found if match.row != without][:k])

    def showcase(self, count: int) -> list[Hit]:
        """Shapes as different as the collection has them: the middles of so many clusters, largest first."""
        _, middles = groups.clusters(self.index.embeds[self.rows], count)
        return self.hits([Match(self.rows[place], float("nan")) for place in middles])

    def hits(self, matches: Sequence[Match]) -> list[Hit]:
        columns = ["id", "name", "category", "creator", "license", "source"]
        rows = self.index.shapes.select_columns(columns)[[match.row for match in matches]]
        return [
            Hit(match.row, match.score, **{name: rows[name][place] for name in columns})
            for place, match in enumerate(matches)
        ]

    def picture(self, row: int) -> Image.Image:
        """The picture of one shape; a plain one where the collection has none."""
        return self._pictures[row]["image"] or Image.new("RGB", (96, 96), "#e2e8f0")

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

    def classify(
        self,
        embed: Tensor,
        names: Sequence[str],
        templates: Sequence[str],
        progress: Callable[[float], Any] | None = None,
    ) -> dict[str, float]:
        """Softmax over the classes at the model's own temperature, most probable first; sums to 1."""
        classes = self.labels.get(names, templates, progress)  # (C, D)
        probabilities = self.embedder.logits(embed, classes)[0].softmax(dim=-1)  # (C,)
        order = probabilities.argsort(descending=True).tolist()
        return {names[place]: float(probabilities[place]) for place in order}

    @gpu
    def _encode_labels(self, texts: list[str]) -> Tensor:
        return self.embedder.embed_texts(texts)


def checked_text(text: str) -> str:
    """Stripped. Raises ValueError beyond `MAX_TEXT` letters."""
    text = (text or "").strip()
    if len(text) > MAX_TEXT:
        raise ValueError(f"The text has {len(text)} letters; at most {MAX_TEXT} are read.")
    return text
