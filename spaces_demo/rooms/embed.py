"""Embed: the vector of a shape, a text or a photo, to take home."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from .engine import Engine
from .shared import MODEL_QUEUE, PRIVATE, cached_file, file_inputs, in_words, photo_input, read_query


def build(engine: Engine, examples: list[str]) -> None:
    """Fills the tab. `examples`: paths of 3D files to click."""
    dim = engine.index.info["dim"]
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            file, up = file_inputs()
            with gr.Accordion("Or words, or a photo", open=False):
                text = gr.Textbox(label="Words", lines=1, max_lines=3)
                photo = photo_input()
            go = gr.Button("Embed", variant="primary")
            gr.Examples([[path] for path in examples], [file], label="Shapes to try", api_visibility="private")
        with gr.Column(scale=3, min_width=320):
            summary = gr.Markdown(
                f"One vector of {dim} numbers and length 1: cosines between shapes, photos and words are its inner "
                "products. Several inputs are added up.",
                elem_classes="hint",
            )
            with gr.Row(visible=False) as files:
                as_npy = gr.DownloadButton("Download .npy", min_width=120)
                as_json = gr.DownloadButton("Download .json", min_width=120)
            curve = gr.LinePlot(
                x="dimension", y="value", label="The numbers", height=260, visible=False, tooltip="axis"
            )

    @in_words
    def embed(path: str | None, axis: str, words: str, picture: str | None) -> tuple[Any, ...]:
        vector = np.asarray(read_query(engine, words, picture, path, axis), dtype=np.float32)  # (D,)
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
    go.click(embed, [file, up, text, photo], outputs, show_progress_on=summary, **PRIVATE, **MODEL_QUEUE)


def _frame(vector: np.ndarray) -> Any:
    import pandas as pd

    return pd.DataFrame({"dimension": np.arange(len(vector)), "value": vector})
