"""Map: the whole collection in the plane."""

from __future__ import annotations

import base64
import importlib.util
import io
import threading
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from modeling_ulip2.search.index import Match

from .engine import Engine
from .groups import MAX_GROUPS, OTHER, clusters, folders, largest
from .search import SearchRoom
from .shared import MAP_LANE, PRIVATE, on_page, title
from .stage import Stage

PICTURE_SIDE = 128
COLORS = ["#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#ff8ab7", "#6cc5b0", "#9c6b4e"]
assert len(COLORS) == MAX_GROUPS
OTHER_COLOR = "#9498a0"
PCA, UMAP = "PCA", "UMAP"
# Ours: UMAP's own defaults, with the cosine that a search uses.
UMAP_SETTINGS: dict[str, Any] = {"n_neighbors": 15, "min_dist": 0.1, "metric": "cosine", "random_state": 0}
MAP_ID = "map"
# Percent of the width and height that stay free at each side.
MARGIN = 4
# What lies under the pointer is shown, with its picture, which is fetched then; a click chooses it.
SCRIPT = """
const tip = element.querySelector(".tip"), pictures = new Map();
let shown = null;
const hide = () => { shown = null; tip.hidden = true; };
element.addEventListener("mousemove", async (event) => {
  const dot = event.target.closest("circle");
  if (!dot) return hide();
  const box = element.getBoundingClientRect(), row = Number(dot.dataset.row);
  tip.style.left = `${Math.max(0, Math.min(event.clientX - box.left + 14, box.width - 160))}px`;
  tip.style.top = `${event.clientY - box.top + 14}px`;
  if (shown === row) return;
  shown = row;
  tip.querySelector("b").textContent = dot.dataset.title;
  tip.querySelector("span").textContent = dot.dataset.kind;
  const image = tip.querySelector("img");
  image.hidden = true;
  tip.hidden = false;
  if (!pictures.has(row)) pictures.set(row, server.picture(row));
  const picture = await pictures.get(row);
  if (shown === row && picture) { image.src = picture; image.hidden = false; }
});
element.addEventListener("mouseleave", hide);
element.addEventListener("click", (event) => {
  const dot = event.target.closest("circle");
  if (!dot) return;
  element.querySelector("circle.chosen")?.classList.remove("chosen");
  dot.classList.add("chosen");
  hide();
  trigger("select", {row: Number(dot.dataset.row)});
});
"""
PROGRESS = gr.Progress()


def methods() -> list[str]:
    """PCA, and UMAP where `umap-learn` is installed."""
    return [PCA, UMAP] if importlib.util.find_spec("umap") else [PCA]


def build(engine: Engine, tab: gr.Tab, room: SearchRoom, tabs: gr.Tabs, grown: gr.State | None = None) -> None:
    """Fills the tab, whose first visit draws the map.

    `room`: where “More like this” leads, in `tabs`; `grown` changes when the collection has grown.
    """
    collection = Collection(engine)
    choices = methods()

    def current() -> Collection:
        nonlocal collection
        if collection.version != engine.version:
            collection = Collection(engine)
        return collection

    def picture(row: int) -> str:
        return current().picture(row)

    with gr.Row(equal_height=False, elem_classes="rooms"):
        with gr.Column(scale=7, min_width=320):
            legend = gr.HTML(collection.legend())
            method = gr.Radio(choices, value=PCA, label="Axes", visible=len(choices) > 1)
            plot = gr.HTML(
                "",
                html_template='<div class="plot">${value}</div><div class="tip" hidden>'
                '<img alt="" hidden><b></b><span></span></div>',
                js_on_load=SCRIPT,
                server_functions=[picture],
                elem_id=MAP_ID,
                min_height=420,
            )
            hint = gr.Markdown("The map is being drawn …", elem_classes="hint")
        stage = Stage(engine, "map", MAP_ID)

    @on_page
    def draw(chosen: str, progress: Any = PROGRESS) -> tuple[str, str, str]:
        collection = current()
        svg, text = collection.draw(chosen if chosen in choices else PCA, progress)
        return svg, f"{collection.whole}, {text} Point at one to see it, click to turn it.", collection.legend()

    @on_page
    def choose(event: gr.EventData) -> tuple[Any, ...]:
        return stage.open(current().hit(event.row))

    drawn = [plot, hint, legend]
    gr.on([tab.select, method.change], draw, method, drawn, show_progress_on=plot, **PRIVATE, **MAP_LANE)
    if grown is not None:
        grown.change(draw, method, drawn, show_progress="hidden", **PRIVATE, **MAP_LANE)
    stage.follow(plot.select(choose, None, stage.opening, show_progress="hidden", queue=False, **PRIVATE))
    room.find_like(stage, {"fn": lambda: gr.Tabs(selected="search"), "outputs": tabs, "queue": False, **PRIVATE})


class Collection:
    """The shapes of an index, or those that stand for it; what is drawn is computed once.

    Attributes:
        by: what the colors mean.
        kinds: of each shape; "" where unknown.
        colors: by name, in the order of the legend.
        version: of the engine's collection.
        whole: how many shapes these are.
    """

    def __init__(self, engine: Engine) -> None:
        # the version first: what is read afterwards may be newer, never older
        self._engine, self.version = engine, engine.version
        shown, count = len(engine.rows), len(engine.index)
        self.whole = f"{shown:,} of {count:,} shapes" if shown < count else f"All {shown:,} shapes"
        self._hits = engine.hits([Match(row, float("nan")) for row in engine.rows])
        self._place = {hit.row: place for place, hit in enumerate(self._hits)}
        self.by, self.kinds = self._group()
        names = largest(self.kinds)
        self.colors = {name: OTHER_COLOR if name == OTHER else COLORS[place] for place, name in enumerate(names)}
        self._drawn: dict[str, tuple[str, str]] = {}
        self._lock = threading.Lock()

    def _group(self) -> tuple[str, list[str]]:
        """By category; where there are none, by folder; where these say nothing, by what lies together."""
        if self._engine.categories:
            return "category", [hit.category for hit in self._hits]
        if found := folders([hit.id for hit in self._hits]):
            return "folder", found
        embeds = self._engine.index.embeds[[hit.row for hit in self._hits]]  # (N, D)
        places, middles = clusters(embeds, MAX_GROUPS)
        names = [f"near “{title(self._hits[middle])}”" for middle in middles]
        names = [name if names.count(name) == 1 else f"{name} ({place + 1})" for place, name in enumerate(names)]
        return "cluster", [names[place] for place in places]

    def legend(self) -> str:
        """HTML of what the colors mean."""
        keys = (
            f'<span class="key"><i style="background: {color}"></i> {escape(name)}</span>'
            for name, color in self.colors.items()
        )
        return f'<p class="legend">Color: {self.by}. {" ".join(keys)}</p>'

    def hit(self, row: Any) -> Any:
        """Raises ValueError for a row that is not on the map: browsers send what they like."""
        if not isinstance(row, int) or row not in self._place:
            raise ValueError("That shape is not on the map.")
        return self._hits[self._place[row]]

    def picture(self, row: Any) -> str:
        """A shape's picture as a data URI."""
        return data_uri(self._engine.picture(self.hit(row).row))

    def draw(self, method: str, progress: Any = None) -> tuple[str, str]:
        """An SVG with a circle for each shape, the largest group below; and what near and far mean in it."""
        with self._lock:
            if method not in self._drawn:
                if progress is not None:
                    progress(0, desc=f"{method} of {len(self._hits):,} shapes")
                embeds = self._engine.index.embeds[[hit.row for hit in self._hits]]  # (N, D)
                places, text = umap_places(embeds) if method == UMAP else pca_places(embeds)
                self._drawn[method] = self._svg(places), text
            return self._drawn[method]

    def _svg(self, places: np.ndarray) -> str:
        low, extent = places.min(axis=0), np.maximum(np.ptp(places, axis=0), 1e-9)
        percent = MARGIN + (100 - 2 * MARGIN) * (places - low) / extent  # (N, 2)
        order = {name: place for place, name in enumerate(self.colors)}
        circles = []
        for place in sorted(range(len(self._hits)), key=lambda place: order.get(self.kinds[place], len(order))):
            hit, kind, (x, y) = self._hits[place], self.kinds[place], percent[place]
            color = self.colors.get(kind, OTHER_COLOR)
            circles.append(
                f'<circle cx="{x:.2f}%" cy="{100 - y:.2f}%" r="6" fill="{color}" data-row="{hit.row}" '
                f'data-title="{escape(title(hit))}" data-kind="{escape(kind or "unknown")}"/>'
            )
        return f'<svg role="img" aria-label="Map of the collection">{"".join(circles)}</svg>'


def data_uri(picture: Any) -> str:
    """A small WebP of a picture."""
    picture = picture.convert("RGB")
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=70, method=0)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def pca_places(embeds: np.ndarray) -> tuple[np.ndarray, str]:
    """The first two principal components of N embeddings (N, 2), and what that means."""
    centerd = embeds - embeds.mean(axis=0)  # (N, D)
    left, singular, _ = np.linalg.svd(centerd, full_matrices=False)
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
    if len(embeds) < 4:  # too few for a graph of neighbors
        return pca_places(embeds)
    import umap

    neighbors = max(2, min(UMAP_SETTINGS["n_neighbors"], len(embeds) - 1))
    settings = UMAP_SETTINGS | {"n_neighbors": neighbors, "init": "spectral" if len(embeds) > 10 else "random"}
    places = umap.UMAP(**settings).fit_transform(embeds)
    return np.asarray(places), "by UMAP: who is near whom is kept where it can be; distances and sizes mean little."
