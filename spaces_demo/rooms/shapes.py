"""A visitor's own shape, or one to try: the left side of the rooms that work on one file."""

from __future__ import annotations

import gradio as gr

from .engine import Engine
from .gradio_internals import cached_file
from .samples import Sample
from .shared import (
    PRIVATE,
    SHOW_LANE,
    axis_input,
    model_viewer,
    notes,
    on_page,
    seen_cloud,
    shape_file,
    thumbnails,
    uploaded,
)
from .uploads import LIMITS, UploadError


class ShapePanel:
    """A file, thumbnails of shapes to try, the axis that points up, and below them what the model sees of it.

    Attributes:
        file, up: the inputs.
    """

    def __init__(self, engine: Engine, samples: list[Sample]) -> None:
        self._engine = engine
        self.file = shape_file(label="3D file", height=120)
        gr.Markdown("Or try one of these:", elem_classes="hint small")
        pictures = thumbnails(
            [(sample.picture, sample.title) for sample in samples],
            label="Shapes to try",
            columns=max(1, len(samples)),
            elem_classes="shapes samples",
        )
        self.up = axis_input()
        with gr.Column(visible=False) as seen:
            self._viewer = model_viewer(label="What the model sees", height=280)
        self._notes = gr.HTML(elem_classes="notes")
        gr.Markdown(LIMITS, elem_classes="hint small")

        def take(event: gr.SelectData) -> str:
            return samples[event.index].path

        pictures.select(take, None, self.file, queue=False, show_progress="hidden", **PRIVATE)
        # in steps, since a Model3D that appears together with its first value stays empty
        gr.on(
            [self.file.change, self.up.change],
            lambda path: (gr.Column(visible=path is not None), ""),
            self.file,
            [seen, self._notes],
            queue=False,
            show_progress="hidden",
            **PRIVATE,
        ).then(self._show, [self.file, self.up], [self._viewer, self._notes], **PRIVATE, **SHOW_LANE)

    @on_page
    def _show(self, path: str | None, axis: str) -> tuple[str | None, str]:
        if path is None:
            return None, ""
        try:
            shape = uploaded(self._engine, path, axis)
        except UploadError as error:
            return None, notes([str(error)], failed=True)
        return cached_file(self._viewer, seen_cloud(self._engine, shape), "cloud.glb"), notes(shape.warnings)
