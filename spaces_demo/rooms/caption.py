"""Caption: a sentence about a shape, and questions about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from modeling_ulip2.captioning_card_ulip2 import PROMPT
from modeling_ulip2.geometry.shapes import Shape

from .captioner import Captioner, Turn
from .engine import MAX_TEXT, Engine
from .shared import PRIVATE, cached_file, file_inputs, in_words, in_words_streamed, model_viewer, seen_cloud
from .uploads import read_upload

QUESTIONS = ["What is it used for?", "What colour is it?", "What is it made of?"]
# The language model takes a processor for itself.
CAPTION_QUEUE: dict[str, Any] = {"concurrency_id": "caption", "concurrency_limit": 1}
ABSENT = """
### No captioning model is loaded

Captions come from a model of their own: the point encoder, a small connector, and a language model.
`examples/train_captioning.py` trains one; then start the demo with it:

```bash
python spaces_demo/app.py --captioner FOLDER
```

Everything else works without it.
"""


def build(engine: Engine, captioner: Captioner | None, examples: list[str]) -> None:
    """Fills the tab. `examples`: paths of 3D files to click."""
    if captioner is None:
        gr.Markdown(ABSENT, elem_classes="absent")
        return
    features = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            file, up = file_inputs()
            go = gr.Button("Describe", variant="primary")
            gr.Examples([[path] for path in examples], [file], label="Shapes to try", api_visibility="private")
            viewer = model_viewer(label="The points that the model saw", height=260)
        with gr.Column(scale=3, min_width=320):
            chat = gr.Chatbot(
                label="About this shape",
                height=460,
                placeholder="Add a shape and press **Describe**. Then ask about it.",
                buttons=[],
                group_consecutive_messages=False,
            )
            with gr.Row(elem_classes="ask"):
                question = gr.Textbox(
                    show_label=False,
                    label="Question",
                    placeholder="What is it used for?",
                    max_length=MAX_TEXT,
                    scale=5,
                    min_width=160,
                )
                ask = gr.Button("Ask", min_width=80, scale=1)
            with gr.Row(elem_classes="chips"):
                chips = [gr.Button(text, size="sm", min_width=60) for text in QUESTIONS]
            gr.Markdown(
                "The model writes what is likely, which need not be true. It remembers the last questions.",
                elem_classes="hint small",
            )

    @in_words
    def show(path: str | None, axis: str) -> tuple[Any, ...]:
        shape = _uploaded(engine, path)
        return captioner.read(shape, axis), [], cached_file(viewer, seen_cloud(engine, shape, axis), "cloud.glb")

    @in_words_streamed
    def talk(read: Any, messages: list[dict[str, Any]], asked: str) -> Iterator[tuple[list[dict[str, Any]], str]]:
        if read is None:
            raise ValueError("Press Describe first: then the model has seen the shape.")
        history = turns(messages)
        begun = [*messages, {"role": "user", "content": asked}]
        yield begun, ""
        for said in captioner.answer(read, asked, history):
            yield [*begun, {"role": "assistant", "content": said}], ""

    def describe(read: Any, messages: list[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], str]]:
        yield from talk(read, messages, PROMPT)

    talking: dict[str, Any] = {"show_progress": "minimal", **PRIVATE, **CAPTION_QUEUE}
    go.click(show, [file, up], [features, chat, viewer], show_progress_on=chat, **PRIVATE, **CAPTION_QUEUE).success(
        describe, [features, chat], [chat, question], **talking
    )
    gr.on([ask.click, question.submit], talk, [features, chat, question], [chat, question], **talking)
    for chip in chips:
        chip.click(talk, [features, chat, chip], [chat, question], **talking)
    file.change(lambda: (None, []), None, [features, chat], queue=False, **PRIVATE)


def caption_file(engine: Engine, captioner: Captioner, path: str | None, axis: str, question: str) -> Iterator[str]:
    """The answer to one question about a file, longer and longer."""
    return captioner.answer(captioner.read(_uploaded(engine, path), axis), question)


def _uploaded(engine: Engine, path: str | None) -> Shape:
    if not path:
        raise ValueError("Add a 3D file, or click an example.")
    return read_upload(path, engine.feature_extractor.num_points)


def turns(messages: list[dict[str, Any]]) -> list[Turn]:
    """The questions and answers of a chat; a question without an answer is left out."""
    found, question = [], None
    for message in messages:
        if message["role"] == "user":
            question = _text(message["content"])
        elif question is not None:
            found.append(Turn(question, _text(message["content"])))
            question = None
    return found


def _text(content: Any) -> str:
    """The words of a message; the browser sends them back as a list of parts."""
    if isinstance(content, str):
        return content
    return " ".join(part["text"] for part in content if isinstance(part, dict) and part.get("text"))
