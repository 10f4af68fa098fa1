"""Named endpoints for programs; the rooms' own events are private.

from gradio_client import Client, handle_file

client = Client("http://localhost:7860")
client.predict("a wooden chair", None, None, "y", 5, api_name="/search")
client.predict(handle_file("chair.glb"), "y", "own", "chair, table", "the name alone", api_name="/classify")
client.predict("", None, handle_file("chair.glb"), "y", api_name="/embed")
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import gradio as gr

from .classify import classify_file
from .engine import TEMPLATES, Engine
from .search import MAX_RESULTS
from .shared import MODEL_QUEUE, UP_AXES, Panel, in_words, photo_input, read_query, shape_file


def build(engine: Engine) -> None:
    """Adds the endpoints /search, /classify and /embed to the Blocks around."""

    @in_words
    def search(text: str, photo: str | None, file: str | None, up: str, k: int) -> dict[str, Any]:
        if not 1 <= int(k) <= MAX_RESULTS:
            raise ValueError(f"k must lie between 1 and {MAX_RESULTS}.")
        found = engine.find(read_query(engine, text, photo, file, up), int(k))
        return {"hits": [asdict(hit) for hit in found]}

    @in_words
    def classify(file: str | None, up: str, labels: str, own: str, prompts: str) -> dict[str, float]:
        return classify_file(engine, file, up, labels, own, prompts)[0]

    @in_words
    def embed(text: str, photo: str | None, file: str | None, up: str) -> dict[str, Any]:
        vector = read_query(engine, text, photo, file, up)
        return {"model": engine.model_name, "dim": len(vector), "embedding": vector.tolist()}

    with gr.Column(visible=False):
        text = gr.Textbox(label="text")
        photo = photo_input()
        file = shape_file(label="file")
        up = gr.Radio([axis for _, axis in UP_AXES], value="y", label="up")
        panel = Panel(text, photo, file, up)
        k = gr.Number(10, precision=0, label="k")
        labels = gr.Textbox("own", label="labels")
        own = gr.Textbox(label="own")
        prompts = gr.Textbox(next(iter(TEMPLATES)), label="prompts")
        answer = gr.JSON()
        button = gr.Button()
    options: dict[str, Any] = MODEL_QUEUE
    button.click(
        search,
        [*panel.inputs, k],
        answer,
        api_name="search",
        api_description="Shapes nearest to a text, a photo, a 3D file, or what they add up to. up: y or z.",
        **options,
    )
    button.click(
        classify,
        [file, up, labels, own, prompts],
        answer,
        api_name="classify",
        api_description="Probabilities of labels for a 3D file. labels: own (then `own` lists them, separated by "
        "commas), collection, or the name of a benchmark as in the Classify tab.",
        **options,
    )
    button.click(
        embed,
        panel.inputs,
        answer,
        api_name="embed",
        api_description="The normalised embedding of a text, a photo, a 3D file, or what they add up to.",
        **options,
    )
