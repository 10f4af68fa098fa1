"""Search: words, a photo, a shape, or what they add up to -> the nearest shapes of the collection."""

from __future__ import annotations

from typing import Any

import gradio as gr

from modeling_ulip2.search.index import Match

from .engine import Engine, Hit
from .shared import (
    MODEL_QUEUE,
    PRIVATE,
    Panel,
    collection_file,
    credit,
    file_inputs,
    in_words,
    model_viewer,
    photo_input,
    read_query,
    title,
)

MAX_RESULTS = 48
MAX_WEIGHT = 4.0


def build(engine: Engine) -> None:
    """Fills the tab; called inside its `gr.Tab`."""
    hits = gr.State([])
    chosen = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            panel, weight = _panel()
            count = gr.Slider(
                4, min(MAX_RESULTS, len(engine.index)), value=min(12, len(engine.index)), step=1, label="Results"
            )
            with gr.Row():
                clear = gr.Button("Clear", variant="secondary", min_width=80)
                go = gr.Button("Search", variant="primary", min_width=120, scale=2)
            gr.Markdown("Try", elem_classes="hint")
            with gr.Row(elem_classes="chips"):
                examples = [gr.Button(text, size="sm", min_width=60) for text in engine.examples()]
        with gr.Column(scale=5, min_width=320):
            status = gr.Markdown(_welcome(engine), elem_classes="hint")
            gallery = gr.Gallery(
                label="Nearest shapes",
                show_label=False,
                columns=4,
                height="auto",
                object_fit="contain",
                allow_preview=False,
                buttons=[],
                interactive=False,
                elem_classes="shapes",
            )
            with gr.Column(visible=False) as stage:
                about = gr.Markdown()
                viewer = model_viewer(label="Drag to turn")
                with gr.Row():
                    as_cloud = gr.Checkbox(label="Show the cloud that the model saw", min_width=180)
                    more = gr.Button("More like this", variant="secondary", min_width=120)

    results = [gallery, status, hits, stage]

    @in_words
    def search(text: str, photo: str | None, file: str | None, up: str, k: int, text_weight: float) -> tuple[Any, ...]:
        found = engine.find(read_query(engine, text, photo, file, up, text_weight), int(k))
        return _show(engine, found, f"Nearest to {_describe(text, photo, file)}")

    @in_words
    def like_this(row: int, k: int) -> tuple[Any, ...]:
        (hit,) = engine.hits([Match(row, 1.0)])
        return _show(engine, engine.like(row, int(k)), f"Most like “{title(hit)}”")

    @in_words
    def choose(event: gr.SelectData, found: list[Hit]) -> tuple[Any, ...]:
        hit = found[event.index]
        return hit, gr.Column(visible=True), credit(hit)

    @in_words
    def load(hit: Hit | None, cloud: bool) -> str | None:
        return None if hit is None else collection_file(engine, hit, cloud, viewer)

    inputs = [*panel.inputs, count, weight]
    options: dict[str, Any] = {**PRIVATE, **MODEL_QUEUE, "show_progress_on": gallery}
    gr.on([go.click, panel.text.submit], search, inputs, results, **options)
    for button in examples:
        button.click(
            lambda text: (text, None, None), button, [panel.text, panel.photo, panel.file], queue=False, **PRIVATE
        ).then(search, inputs, results, **options)
    # in two steps: a Model3D that appears together with its first value stays empty
    gallery.select(choose, hits, [chosen, stage, about], show_progress="hidden", **PRIVATE).then(
        load, [chosen, as_cloud], viewer, scroll_to_output=True, **PRIVATE
    )
    as_cloud.change(load, [chosen, as_cloud], viewer, **PRIVATE)
    more.click(lambda hit: hit.row, chosen, chosen_row := gr.State(None), queue=False, **PRIVATE).then(
        like_this, [chosen_row, count], results, **options
    )
    clear.click(
        lambda: ("", None, None, "y", 1.0, [], _welcome(engine), [], gr.Column(visible=False)),
        None,
        [*panel.inputs, weight, *results],
        queue=False,
        **PRIVATE,
    )


def _panel() -> tuple[Panel, gr.Slider]:
    text = gr.Textbox(label="Words", placeholder="a wooden chair", lines=1, max_lines=3, autofocus=True)
    with gr.Accordion("Add a photo or a 3D file", open=False):
        gr.Markdown("Everything that you give is added up: a chair's file and “red” find red chairs.")
        photo = photo_input()
        file, up = file_inputs()
        weight = gr.Slider(
            0.25,
            MAX_WEIGHT,
            value=1.0,
            step=0.25,
            label="How loud the words are",
            info="Beside photo and shape",
        )
    return Panel(text, photo, file, up), weight


def _welcome(engine: Engine) -> str:
    return f"Describe what you are looking for among {len(engine.index):,} shapes, or click an example."


def _describe(text: str, photo: str | None, file: str | None) -> str:
    words = f"“{text.strip()}”" if text.strip() else ""
    return " + ".join(part for part in (words, "your photo" if photo else "", "your shape" if file else "") if part)


def _show(engine: Engine, found: list[Hit], heading: str) -> tuple[Any, ...]:
    pictures = [(engine.picture(hit.row), f"{hit.score:.2f} · {title(hit)}") for hit in found]
    return pictures, f"{heading}; the number is the cosine. Click a shape to turn it.", found, gr.Column(visible=False)
