"""Named endpoints for programs; the rooms' own events are private.

from gradio_client import Client, handle_file

client = Client("http://localhost:7860")
client.predict("a wooden chair", None, None, "auto", 5, api_name="/search")
client.predict(handle_file("chair.glb"), "auto", "own", "chair, table", "the name alone", api_name="/classify")
client.predict("", None, handle_file("chair.glb"), "auto", api_name="/embed")
client.predict(handle_file("chair.glb"), "auto", "describe the 3d model.", api_name="/caption")
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import gradio as gr

from modeling_ulip2.models.captioning_card import PROMPT

from .caption import caption_file
from .captioner import Captioner
from .classify import classify_file
from .engine import TEMPLATES, Engine
from .search import MAX_RESULTS, MAX_WEIGHT
from .shared import (
    CAPTION_LANE,
    CLASSIFY_LANE,
    SEARCH_LANE,
    Panel,
    axis_input,
    in_words,
    in_words_streamed,
    photo_input,
    read_query,
    shape_file,
)


def build(engine: Engine, captioner: Captioner | None = None) -> None:
    """Adds the endpoints /search, /classify, /embed and, with a captioner, /caption to the Blocks around."""

    @in_words
    def search(text: str, photo: str | None, file: str | None, up: str, k: int, text_weight: float) -> dict[str, Any]:
        if not 1 <= int(k) <= MAX_RESULTS:
            raise ValueError(f"k must lie between 1 and {MAX_RESULTS}.")
        if not 0 < text_weight <= MAX_WEIGHT:
            raise ValueError(f"text_weight must lie between 0 and {MAX_WEIGHT:g}.")
        asked = read_query(engine, text, photo, file, up, text_weight)
        found = engine.find(asked.vector, int(k))
        poor = engine.fit.is_poor(asked.kind, asked.vector, found[0].score)
        return {"hits": [asdict(hit) for hit in found], "fits_well": not poor, "warnings": asked.warnings}

    @in_words
    def classify(file: str | None, up: str, labels: str, own: str, prompts: str) -> dict[str, float]:
        return classify_file(engine, file, up, labels, own, prompts)

    @in_words
    def embed(text: str, photo: str | None, file: str | None, up: str) -> dict[str, Any]:
        asked = read_query(engine, text, photo, file, up)
        vector = asked.vector.tolist()
        return {"model": engine.model_name, "dim": len(vector), "embedding": vector, "warnings": asked.warnings}

    with gr.Column(visible=False):
        text = gr.Textbox(label="text")
        photo = photo_input()
        file = shape_file(label="file")
        up = axis_input()
        panel = Panel(text, photo, file, up)
        k = gr.Number(10, precision=0, label="k")
        weight = gr.Number(1.0, label="text_weight")
        labels = gr.Textbox("own", label="labels")
        own = gr.Textbox(label="own")
        prompts = gr.Textbox(next(iter(TEMPLATES)), label="prompts")
        question = gr.Textbox(PROMPT, label="question")
        words = gr.Textbox()
        answer = gr.JSON()
        button = gr.Button()
    button.click(
        search,
        [*panel.inputs, k, weight],
        answer,
        api_name="search",
        api_description="Shapes nearest to a text, a photo, a 3D file, or what they add up to. up: auto, y, z, -z or "
        "x; text_weight: how loud the words are beside the rest.",
        **SEARCH_LANE,
    )
    button.click(
        classify,
        [file, up, labels, own, prompts],
        answer,
        api_name="classify",
        api_description="Probabilities of labels for a 3D file. labels: own (then `own` lists them, separated by "
        "commas), collection, or the name of a benchmark as in the Classify tab.",
        **CLASSIFY_LANE,
    )
    button.click(
        embed,
        panel.inputs,
        answer,
        api_name="embed",
        api_description="The normalized embedding of a text, a photo, a 3D file, or what they add up to.",
        **SEARCH_LANE,
    )
    if captioner is None:
        return

    @in_words_streamed
    def caption(file: str | None, up: str, question: str) -> Iterator[str]:
        yield from caption_file(engine, captioner, file, up, question)

    button.click(
        caption,
        [file, up, question],
        words,
        api_name="caption",
        api_description="The answer to a question about a 3D file, word by word; by default its description.",
        **CAPTION_LANE,
    )
