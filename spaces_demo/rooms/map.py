"""Map: the whole collection on two axes."""

from __future__ import annotations

import base64
import importlib.util
import io
import threading
from collections import Counter
from html import escape
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from .engine import Engine
from .shared import PRIVATE, in_words

# Each point carries its picture, about two kilobytes.
MAX_POINTS = 2000
PICTURE_SIDE = 96
# More colours than these cannot be told apart.
COLORS = ["#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#ff8ab7", "#6cc5b0", "#9c6b4e"]
OTHER, OTHER_COLOR = "other", "#9498a0"
PCA, UMAP = "PCA", "UMAP"
# Ours: UMAP's own defaults, with the cosine that a search uses.
UMAP_SETTINGS: dict[str, Any] = {"n_neighbors": 15, "min_dist": 0.1, "metric": "cosine", "random_state": 0}
PROGRESS = gr.Progress()


def methods() -> list[str]:
    """PCA, and UMAP where `umap-learn` is installed."""
    return [PCA, UMAP] if importlib.util.find_spec("umap") else [PCA]


def build(engine: Engine, tab: gr.Tab) -> None:
    """Fills the tab, whose first visit draws the map."""
    collection = Collection(engine)
    colors = {
        name: OTHER_COLOR if name == OTHER else COLORS[place] for place, name in enumerate(collection.group_names)
    }
    choices = methods()
    shown = len(collection.rows)
    whole = f"{shown:,} of {len(engine.index):,} shapes" if shown < len(engine.index) else f"All {shown:,} shapes"
    # a legend of our own, since the plot's is cut off where it is wider than a phone
    gr.HTML(
        " ".join(
            f'<span class="key"><span style="color: {color}">●</span> {escape(name)}</span>'
            for name, color in colors.items()
        ),
        elem_classes="legend",
    )
    method = gr.Radio(choices, value=PCA, label="Axes", visible=len(choices) > 1)
    plot = gr.ScatterPlot(
        x="first axis",
        y="second axis",
        color="group",
        color_map=colors,
        colors_in_legend=[],
        tooltip=["title", "kind", "image"],
        x_axis_labels_visible=False,
        height=560,
        show_label=False,
        elem_id="map",
    )
    hint = gr.Markdown("The map is being drawn …", elem_classes="hint")

    @in_words
    def draw(chosen: str, progress: Any = PROGRESS) -> tuple[pd.DataFrame, str]:
        points, text = collection.project(chosen if chosen in choices else PCA, progress)
        return points, f"{whole} {text} Hover over a point to see it."

    drawing: dict[str, Any] = {"show_progress_on": plot, "concurrency_id": "map", "concurrency_limit": 1, **PRIVATE}
    gr.on([tab.select, method.change], draw, method, [plot, hint], **drawing)


class Collection:
    """Up to `MAX_POINTS` shapes of an index, drawn by one seed; their pictures and places are computed once.

    Attributes:
        group_names: the most common kinds and, if there are more, `OTHER`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        rows = np.arange(len(engine.index))
        if len(rows) > MAX_POINTS:
            rows = np.sort(np.random.default_rng(0).choice(rows, MAX_POINTS, replace=False))
        self.rows = rows.tolist()
        table = engine.index.shapes.select_columns(["id", "name", "category", "source"])[self.rows]
        kinds = [kind or "unknown" for kind in table["category" if engine.categories else "source"]]
        common = [name for name, _ in Counter(kind for kind in kinds if kind != "unknown").most_common(len(COLORS))]
        groups = [kind if kind in common else OTHER for kind in kinds]
        self.group_names = [*common, *([OTHER] if OTHER in groups else [])]
        titles = [name or id for name, id in zip(table["name"], table["id"], strict=True)]
        self._facts = pd.DataFrame({"title": titles, "kind": kinds, "group": groups})
        self._pictures: list[str] = []
        self._drawn: dict[str, tuple[pd.DataFrame, str]] = {}
        self._lock = threading.Lock()

    def project(self, method: str, progress: Any = None) -> tuple[pd.DataFrame, str]:
        """Columns `first axis`, `second axis`, `title`, `kind` (category, or source where no shape has one), `image`
        (a data URI) and `group`, largest group first, OTHER last; and what the axes mean."""
        with self._lock:
            if method not in self._drawn:
                self._read_pictures(progress)
                embeds = self._engine.index.embeds[self.rows]  # (N, D)
                places, text = umap_places(embeds) if method == UMAP else pca_places(embeds)
                frame = self._facts.assign(image=self._pictures)
                frame["first axis"], frame["second axis"] = places[:, 0], places[:, 1]
                order = {name: place for place, name in enumerate(self.group_names)}
                frame = frame.sort_values(
                    "group", key=lambda column: column.map(order), kind="stable", ignore_index=True
                )
                self._drawn[method] = frame, text
            return self._drawn[method]

    def _read_pictures(self, progress: Any) -> None:
        for done, row in enumerate(self.rows[len(self._pictures) :], start=len(self._pictures)):
            if progress is not None and done % 20 == 0:
                progress(done / len(self.rows), desc="Drawing the map")
            self._pictures.append(data_uri(self._engine.picture(row)))


def data_uri(picture: Any) -> str:
    """A small WebP of a picture; "" where there is none."""
    if picture is None:
        return ""
    picture = picture.convert("RGB")
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=60, method=0)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def pca_places(embeds: np.ndarray) -> tuple[np.ndarray, str]:
    """The first two principal components of N embeddings (N, 2), and what that means."""
    centred = embeds - embeds.mean(axis=0)  # (N, D)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(embeds), 2))
    width = min(2, len(singular))
    places[:, :width] = left[:, :width] * singular[:width]
    places *= np.where(places[np.abs(places).argmax(axis=0), [0, 1]] < 0, -1, 1)  # the sign of an axis is arbitrary
    share = float((singular[:2] ** 2).sum()) / max(float((singular**2).sum()), 1e-12)
    return places, (
        f"along the two directions in which their embeddings differ most. These hold {share:.0%} of the differences, "
        "so what lies close here may still be far apart."
    )


def umap_places(embeds: np.ndarray) -> tuple[np.ndarray, str]:
    """Two dimensions by UMAP (McInnes et al., 2018) (N, 2), and what that means."""
    import umap

    neighbours = max(2, min(UMAP_SETTINGS["n_neighbors"], len(embeds) - 1))
    places = umap.UMAP(**UMAP_SETTINGS | {"n_neighbors": neighbours}).fit_transform(embeds)
    return np.asarray(places), "by UMAP: who is near whom is kept where it can be; distances and sizes mean little."
