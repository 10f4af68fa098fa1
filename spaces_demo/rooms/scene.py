"""Scene: a scan of rooms -> its objects, colored by the names that a visitor writes, or lit up by what fits a text."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from modeling_ulip2.geometry.shapes import Shape
from modeling_ulip2.scenes import SceneObject
from modeling_ulip2.scenes.naming import crop
from modeling_ulip2.scenes.results import label_colors

from .engine import Engine
from .gradio_internals import cached_file
from .scans import SHOWROOM, Scans, Visit, in_view, lit_colors, named_colors, own_colors, vector
from .shared import (
    PRIVATE,
    axis_input,
    lane,
    model_viewer,
    notes,
    on_page,
    reveal,
    seen_cloud,
    shape_file,
    thumbnails,
    title,
)
from .uploads import SCAN_LIMITS
from .viewer import cloud_glb

OWN_LABELS = "chair, armchair, table, sofa, bed, lamp, cabinet, bookcase, plant, door, window"
NEIGHBORS = 6
RESULT_ID, ALONE_ID = "scene-result", "scene-alone"
# A scan takes a processor for a while; questions about it do not wait for other people's scans.
OPEN_LANE, ASK_LANE = lane("scene", 2), lane("scene-ask", 8)
PROGRESS = gr.Progress()
# Where the scan is seen from, in degrees and radii: from above, so that one looks into the rooms, and
# from so far that they fit a phone.
FROM_ABOVE = (60, 40, 3.2)
NAMES, TEXT = "names", "text"


class SceneRoom:
    """Fills the tab."""

    def __init__(self, engine: Engine, scans: Scans) -> None:
        self._engine, self._scans = engine, scans
        # of the scan; (NAMES, labels) or (TEXT, text); of the table
        key, asked, row = gr.State(None), gr.State(None), gr.State(None)
        with gr.Row(equal_height=False):
            with gr.Column(scale=3, min_width=290):
                file = shape_file(label="Scan", height=120)
                gr.Markdown(SCAN_LIMITS, elem_classes="hint small")
                choice = gr.Dropdown(scans.choices, value=SHOWROOM, label="Or one of these", filterable=False)
                up = axis_input(otherwise="a guess, which is told")
                go = gr.Button("Find the objects", variant="primary")
                labels = gr.Textbox(
                    OWN_LABELS, label="Names", info="English, separated by commas", lines=2, max_lines=6
                )
                name = gr.Button("Color by these names", variant="secondary")
                text = gr.Textbox(
                    label="Or light up what fits", info="Press Enter", placeholder="a red armchair", max_lines=2
                )
            with gr.Column(scale=6, min_width=340, elem_id=RESULT_ID):
                status = gr.Markdown(
                    "Add a scan or choose one: its objects are found by shape and color, and named by words of yours.",
                    elem_classes="hint",
                )
                self._viewer = gr.Model3D(
                    label="Drag to turn", interactive=False, camera_position=FROM_ABOVE, height=460
                )
                legend = gr.HTML(elem_classes="legend")
                remarks = gr.HTML(elem_classes="notes")
                table = gr.Dataframe(
                    headers=["name", "score", "size in m"],
                    datatype=["str", "number", "str"],
                    label="Objects; click one to see it alone",
                    interactive=False,
                    max_height=320,
                    wrap=True,
                )
                with gr.Column(visible=False, elem_id=ALONE_ID) as alone:
                    about = gr.Markdown()
                    self._object = model_viewer(label="The object alone", height=280)
                    gr.Markdown("Nearest in the collection:", elem_classes="hint small")
                    near = thumbnails(label="Nearest in the collection", columns=NEIGHBORS)
        shown = [self._viewer, legend, table, status, asked, alone]
        opening = {**PRIVATE, **OPEN_LANE, "show_progress_on": self._viewer}
        asking = {**PRIVATE, **ASK_LANE, "show_progress_on": self._viewer}
        opened = go.click(self._open, [file, choice, up], [key, self._viewer, remarks, status, alone], **opening)
        opened.success(self._name, [key, labels], shown, **asking).then(**reveal(RESULT_ID))
        name.click(self._name, [key, labels], shown, **asking).then(**reveal(RESULT_ID))
        text.submit(self._find, [key, text], shown, **asking).then(**reveal(RESULT_ID))
        # in steps, since a Model3D that appears together with its first value stays empty
        chosen = table.select(
            self._choose, [key, asked], [alone, about, near, row], show_progress="hidden", **PRIVATE, **ASK_LANE
        )
        chosen.success(**reveal(ALONE_ID)).then(
            self._show_alone, [key, asked, row], self._object, **PRIVATE, **ASK_LANE
        )

    @on_page
    def _open(self, path: str | None, choice: str | None, axis: str, progress: Any = PROGRESS) -> tuple[Any, ...]:
        visit = self._scans.visit(path, choice, axis, lambda words: progress(None, desc=words))
        count = len(visit.embedded.masks)
        words = f"**{len(visit.scene.xyz):,} points, {count} proposals** of objects, walls, floors and ceilings."
        warnings = [*visit.scene.warnings, *(failure.message for failure in visit.embedded.failures[:3])]
        return visit.key, self._picture(visit, own_colors(visit)), notes(warnings), words, gr.Column(visible=False)

    @on_page
    def _name(self, key: str | None, own_labels: str) -> tuple[Any, ...]:
        visit = self._scans.again(key)
        labels = self._engine.class_names("own", own_labels)
        found = self._scans.name(visit, labels)
        words = f"**{_count(found)}** with one of these names; all else fits other words better."
        if not found:
            words = "**No object has one of these names**: all fit other words better. Try other names."
        return (
            self._picture(visit, named_colors(visit, found, labels)),
            _legend(labels, found),
            _rows(found),
            words,
            (NAMES, tuple(labels)),
            gr.Column(visible=False),
        )

    @on_page
    def _find(self, key: str | None, text: str) -> tuple[Any, ...]:
        visit = self._scans.again(key)
        matches = self._scans.find(visit, text)
        found = matches.named()
        fits = found and found[0].label is not None
        words = f"**{_count(found)}** found for “{escape(text.strip())}”; the best one glows the most."
        if not fits:
            words = f"**Nothing here fits “{escape(text.strip())}”** better than other words; the nearest is shown."
        return (
            self._picture(visit, lit_colors(visit, matches)),
            "",
            _rows(found),
            words,
            (TEXT, text),
            gr.Column(visible=False),
        )

    @on_page
    def _choose(self, event: gr.SelectData, key: str | None, asked: tuple[str, Any] | None) -> tuple[Any, ...]:
        row = int(event.index[0])
        visit, thing = self._thing(key, asked, row)
        low, high = thing.box
        place = " x ".join(f"{value:.2f}" for value in high - low)
        words = f"**{escape(thing.label or 'nearest')}** · score {thing.score:.2f} · {place} m"
        cards = [
            (self._engine.picture(hit.row), f"{hit.score:.2f} · {title(hit)}")
            for hit in self._engine.find(vector(thing), NEIGHBORS)
        ]
        return gr.Column(visible=True), words, gr.Gallery(cards, selected_index=None), row

    @on_page
    def _show_alone(self, key: str | None, asked: tuple[str, Any] | None, row: int) -> str:
        visit, thing = self._thing(key, asked, row)
        cloud = crop(visit.scene, thing.points)
        shape = Shape(cloud["xyz"], cloud.get("rgb"), up_axis="y")
        return cached_file(self._object, seen_cloud(self._engine, shape), "object.glb")

    def _thing(self, key: str | None, asked: tuple[str, Any] | None, row: int) -> tuple[Visit, SceneObject]:
        visit = self._scans.again(key)
        kind, words = asked or (NAMES, ())
        found = self._scans.find(visit, words).named() if kind == TEXT else self._scans.name(visit, list(words))
        if not 0 <= row < len(found):
            raise ValueError("There is no such object any more: ask again.")
        return visit, found[row]

    def _picture(self, visit: Visit, rgb: np.ndarray) -> str:
        return cached_file(self._viewer, cloud_glb(*in_view(visit, rgb)), "scene.glb")


def _rows(found: Sequence[SceneObject]) -> list[list[Any]]:
    return [[thing.label or "(nearest)", round(float(thing.score), 2), _size(thing)] for thing in found]


def _count(found: Sequence[SceneObject]) -> str:
    return "1 object" if len(found) == 1 else f"{len(found)} objects"


def _size(thing: SceneObject) -> str:
    return " x ".join(f"{value:.2f}" for value in thing.oriented_box[3:6])


def _legend(labels: Sequence[str], found: Sequence[SceneObject]) -> str:
    """HTML: the color of each name that is there, and how often."""
    counts = {label: sum(thing.label == label for thing in found) for label in labels}
    colors = label_colors(labels)
    return " ".join(
        f'<span class="key"><i style="background: rgb{colors[label]}"></i>{escape(label)} {count}</span>'
        for label, count in counts.items()
        if count
    )
