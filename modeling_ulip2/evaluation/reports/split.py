"""Everything that is measured on one split of a triplets dataset: zero-shot, three retrievals, and their pictures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor

from modeling_ulip2.data.images import portrait
from modeling_ulip2.data.labels import class_names_of
from modeling_ulip2.evaluation.metrics.controls import Evaluation, evaluate_retrieval, evaluate_zero_shot
from modeling_ulip2.evaluation.metrics.retrieval import RetrievalResult, search, shared_texts
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult
from modeling_ulip2.evaluation.reports.figures import confusion_matrix
from modeling_ulip2.evaluation.reports.report import ReportPicture, Section
from modeling_ulip2.evaluation.reports.sheets import Hit, retrieval_sheet
from modeling_ulip2.towers.prompts import EncodeText, class_embeddings

SHEET_ROWS, SHEET_COLUMNS = 8, 5


def evaluate_split(
    triplets: Dataset,
    point_embeds: Tensor,
    encode_text: EncodeText,
    output_dir: str | Path,
    title: str,
    *,
    templates: Sequence[str],
    labels: Mapping[str, str] | None = None,
    class_names: Sequence[str] | None = None,
    view_embeds: Sequence[Tensor] | None = None,
    queries: Mapping[str, str | None] | None = None,
    text: str = "",
    counts: Mapping[str, int | str] | None = None,
    seed: int = 0,
) -> Section:
    """Measures N test shapes and writes the pictures.

    Args:
        triplets: N rows with `id`, `name`, `views`, `azimuths`.
        point_embeds: (N, D) in the order of the rows.
        encode_text: texts to (n, D), e.g. `Tower.encode_text`.
        output_dir: pictures go there.
        title, text, counts: of the `Section`.
        templates: prompts of the class embeddings.
        labels: category by id; shapes without one count in retrieval only. None: no classification.
        class_names: the candidate classes; default: the categories of the test shapes.
        view_embeds: N tensors (V, D) of the frozen image tower, for image -> shape and to classify by the tower.
        queries: texts of the retrieval sheet and the category that answers each (None: unknown); default: see
            `default_queries`.
        seed: of the controls and of the view that asks for its shape.
    """
    output_dir, ids = Path(output_dir), list(triplets["id"])
    if len(ids) != len(point_embeds):
        raise ValueError(f"{len(ids)} shapes but {len(point_embeds)} point embeddings")
    labels = labels or {}
    slug = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")
    zero_shot: dict[str, Evaluation[ZeroShotResult]] = {}
    pictures = []
    names = list(class_names) if class_names is not None else class_names_of(labels, ids)
    place = {name: label for label, name in enumerate(names)}
    labeled = [row for row, name in enumerate(ids) if labels.get(name) in place]
    if labeled:
        targets = torch.tensor([place[labels[ids[row]]] for row in labeled])
        class_embeds = class_embeddings(encode_text, names, templates)  # (C, D)
        zero_shot["point encoder"] = evaluate_zero_shot(point_embeds[labeled], class_embeds, targets, names, seed=seed)
        if view_embeds is not None:
            means = torch.stack([view_embeds[row].mean(dim=0) for row in labeled])  # (n, D)
            views = f"image tower, mean of {len(view_embeds[labeled[0]])} views"
            zero_shot[views] = evaluate_zero_shot(means, class_embeds, targets, names, seed=seed)
        path = confusion_matrix(
            output_dir / f"confusion_{slug}.png",
            zero_shot["point encoder"].result,
            class_embeds,
            f"{title}: confusion",
        )
        pictures.append(
            ReportPicture(path, "What the point encoder takes for what; similar classes stand side by side.")
        )
    retrieval = retrieve(triplets, point_embeds, encode_text, view_embeds, seed)
    path = output_dir / f"retrieval_{slug}.png"
    queries = default_queries(triplets, labels) if queries is None else queries
    found = search_shapes(triplets, point_embeds, encode_text, queries, templates, labels)
    write_sheet(path, triplets, found, f"{title}: text to shape")
    pictures.append(ReportPicture(path, f"Text queries and their {SHEET_COLUMNS} nearest test shapes, with cosines."))
    return Section(title, text, counts or {}, zero_shot, retrieval, pictures)


def retrieve(
    triplets: Dataset,
    point_embeds: Tensor,
    encode_text: EncodeText,
    view_embeds: Sequence[Tensor] | None = None,
    seed: int = 0,
) -> dict[str, Evaluation[RetrievalResult]]:
    """Retrieval among N test shapes in up to three directions.

    Text is the shape's own name; shapes of the same name answer for each other. Where no shape has a name, only images
    ask. An image asks for the one shape that it shows; one view per shape is drawn by `seed`.
    """
    texts, shapes_of_text, texts_of_shape = shared_texts([[name or ""] for name in triplets["name"]])
    directions = {}
    if texts:
        text_embeds = encode_text(texts)  # (T, D)
        directions["text to shape"] = evaluate_retrieval(
            text_embeds, point_embeds, shapes_of_text, "gallery", seed=seed
        )
    if view_embeds is not None:
        rng = np.random.default_rng(seed)
        drawn = torch.stack([own[int(rng.integers(len(own)))] for own in view_embeds])  # (N, D)
        own = [[row] for row in range(len(drawn))]
        directions["image to shape"] = evaluate_retrieval(drawn, point_embeds, own, "gallery", seed=seed)
    if texts:
        directions["shape to text"] = evaluate_retrieval(point_embeds, text_embeds, texts_of_shape, "query", seed=seed)
    return directions


@dataclass(frozen=True)
class Found:
    """A shape that a query found: its row in the dataset, its cosine, whether it is right (None: unknown)."""

    row: int
    id: str
    name: str
    score: float
    correct: bool | None = None


def search_shapes(
    triplets: Dataset,
    point_embeds: Tensor,
    encode_text: EncodeText,
    queries: Mapping[str, str | None],
    templates: Sequence[str],
    labels: Mapping[str, str] | None = None,
    k: int = SHEET_COLUMNS,
) -> dict[str, list[Found]]:
    """The k nearest shapes of each text.

    Args:
        triplets: N rows with `id` and `name`.
        point_embeds: (N, D).
        queries: text -> the category that answers it, None where unknown. A text that is itself the category is
            embedded like a class, through all `templates`; any other text as it stands.
        labels: category by id.
    """
    ids, names, labels = list(triplets["id"]), list(triplets["name"]), labels or {}
    embeds = [
        class_embeddings(encode_text, [query], templates) if query == category else encode_text([query])
        for query, category in queries.items()
    ]
    scores, rows = search(torch.cat(embeds), point_embeds, k)  # (Q, k)
    found = {}
    for (query, category), own_scores, own_rows in zip(queries.items(), scores.tolist(), rows.tolist(), strict=True):
        found[query] = [
            Found(row, ids[row], names[row] or Path(ids[row]).stem, score, _answers(labels.get(ids[row]), category))
            for score, row in zip(own_scores, own_rows, strict=True)
        ]
    return found


def write_sheet(path: str | Path, triplets: Dataset, found: Mapping[str, Sequence[Found]], title: str = "") -> Path:
    """Draws what `search_shapes` found, a row for each query."""
    rows = {
        query: [Hit(portrait(triplets[hit.row]), hit.name, hit.score, hit.correct) for hit in hits]
        for query, hits in found.items()
    }
    return retrieval_sheet(path, rows, title)


def default_queries(triplets: Dataset, labels: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """The categories with most test shapes; without labels, names of shapes spread over the dataset."""
    counts = Counter(labels[name] for name in triplets["id"] if name in labels) if labels else Counter()
    if counts:
        largest = sorted(counts, key=lambda category: (-counts[category], category))[:SHEET_ROWS]
        return {category: category for category in largest}
    names = list(dict.fromkeys(name for name in triplets["name"] if name)) or ["an object"]
    step = max(1, len(names) // SHEET_ROWS)
    return dict.fromkeys(names[::step][:SHEET_ROWS])


def _answers(label: str | None, category: str | None) -> bool | None:
    return None if label is None or category is None else label == category
