"""Embed: the vector of a shape, a text or a photo, to take home."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from .engine import Engine
from .gradio_internals import cached_file
from .samples import Sample
from .shapes import ShapePanel
from .shared import PRIVATE, SEARCH_LANE, on_page, photo_input, read_query, reveal

RESULT_ID = "embed-result"


def build(engine: Engine, samples: list[Sample]) -> None:
    """Fills the tab. `samples`: shapes to try."""
    dim = engine.index.info["dim"]
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            panel = ShapePanel(engine, samples)
        with gr.Column(scale=5, min_width=320):
            with gr.Accordion("Or words, or a photo", open=False):
                text = gr.Textbox(label="Words", info="Read as English", lines=1, max_lines=3)
                photo = photo_input()
            go = gr.Button("Embed", variant="primary")
            summary = gr.Markdown(
                f"One vector of {dim} numbers and length 1: cosines between shapes, photos and words are its inner "
                "products. Several inputs are added up.",
                elem_classes="hint",
                elem_id=RESULT_ID,
            )
            with gr.Row(visible=False, elem_classes="line") as files:
                as_npy = gr.DownloadButton("Download .npy", size="md", min_width=120)
                as_json = gr.DownloadButton("Download .json", size="md", min_width=120)
            curve = gr.LinePlot(
                x="dimension", y="value", label="The numbers", height=260, visible=False, tooltip="axis"
            )

    @on_page
    def embed(path: str | None, axis: str, words: str, picture: str | None) -> tuple[Any, ...]:
        vector = np.asarray(read_query(engine, words, picture, path, axis).vector, dtype=np.float32)  # (D,)
        stem = Path(path).stem if path else "embedding"
        record = {"model": engine.model_name, "dim": dim, "normalized": True, "embedding": vector.tolist()}
        npy = io.BytesIO()
        np.save(npy, vector)
        return (
            f"**{dim} numbers** by `{engine.model_name}`, float32, length 1. First: "
            + ", ".join(f"{value:.4f}" for value in vector[:6])
            + ", …",
            gr.Row(visible=True),
            cached_file(as_npy, npy.getvalue(), f"{stem}.npy"),
            cached_file(as_json, json.dumps(record).encode(), f"{stem}.json"),
            gr.LinePlot(_frame(vector), visible=True),
        )

    outputs = [summary, files, as_npy, as_json, curve]
    inputs = [panel.file, panel.up, text, photo]
    go.click(embed, inputs, outputs, show_progress_on=summary, **PRIVATE, **SEARCH_LANE).then(**reveal(RESULT_ID))


def _frame(vector: np.ndarray) -> Any:
    import pandas as pd

    return pd.DataFrame({"dimension": np.arange(len(vector)), "value": vector})
