"""A shape of the collection, large enough to turn: what Search and Map open when one is chosen."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .engine import Engine, Hit
from .shared import PRIVATE, SHOW_LANE, collection_file, credit, model_viewer, notes, on_page, reveal


class Stage:
    """A column that is hidden until a shape is chosen; built where it is made.

    Args:
        name: of the room, for the ids of elements.
        back: id of the element that closing leads back to.

    Attributes:
        chosen: state, the `Hit` that is shown.
        more: button that asks for shapes like it.
        opening: outputs of an event that chooses a shape and returns `open(hit)`.
    """

    def __init__(self, engine: Engine, name: str, back: str) -> None:
        self._engine, self._id = engine, f"{name}-stage"
        self.chosen = gr.State(None)
        with gr.Column(scale=4, min_width=320, visible=False, elem_id=self._id, elem_classes="stage") as self.column:
            self._about = gr.Markdown()
            self._viewer = model_viewer(label="Drag to turn", height=360)
            self._notes = gr.HTML(elem_classes="notes")
            self._as_cloud = gr.Checkbox(label="Show the points that the model saw", container=False)
            with gr.Row(elem_classes="line"):
                self.more = gr.Button("More like this", variant="secondary", size="md", min_width=120, scale=2)
                close = gr.Button("Close", variant="secondary", size="md", min_width=80)
        self.opening = [self.chosen, self.column, self._about]
        shown = [self._viewer, self._notes]
        self._load: dict[str, Any] = {
            "inputs": [self.chosen, self._as_cloud],
            "outputs": shown,
            **PRIVATE,
            **SHOW_LANE,
        }
        self._as_cloud.change(self._file, **self._load)
        close.click(lambda: gr.Column(visible=False), None, self.column, queue=False, **PRIVATE).then(**reveal(back))

    @staticmethod
    def open(hit: Hit) -> tuple[Any, ...]:
        return hit, gr.Column(visible=True), credit(hit)

    def follow(self, choice: Any) -> None:
        """After the event that chose: scrolls here and shows the shape.

        In steps, since a Model3D that appears together with its first value stays empty.
        """
        choice.then(**reveal(self._id)).then(self._file, **self._load)

    @on_page
    def _file(self, hit: Hit | None, cloud: bool) -> tuple[str | None, str]:
        if hit is None:
            return None, ""
        path, warnings = collection_file(self._engine, hit, cloud, self._viewer)
        return path, notes(warnings)
