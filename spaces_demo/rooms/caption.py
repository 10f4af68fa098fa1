"""Caption: a sentence about a shape, and questions about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr

from modeling_ulip2.models.captioning_card import PROMPT

from .captioner import Captioner, Turn
from .engine import MAX_TEXT, Engine
from .samples import Sample
from .shapes import ShapePanel
from .shared import CAPTION_LANE, PRIVATE, in_words_streamed, on_page, reveal, uploaded

QUESTIONS = ["What is it used for?", "What color is it?", "What is it made of?"]
CHAT_ID = "caption-chat"
ABSENT = """
### {heading}

{reason}

Captions come from a model of their own: the point encoder, a small connector, and a language model. After
`make quickstart`, `make caption` trains one of the quickstart's shapes, and the next `make demo` shows it if its
captions are better than chance. `examples/train_captioning.py` trains others:

```bash
python spaces_demo/app.py \\
    --captioner FOLDER
```

Everything else works without it.
"""


def build(engine: Engine, captioner: Captioner | None, samples: list[Sample], refused: str = "") -> None:
    """Fills the tab. `samples`: shapes to try; `refused`: why the captioner that was named is not shown."""
    if captioner is None:
        heading = "This captioning model is not shown" if refused else "No captioning model is loaded"
        gr.Markdown(ABSENT.format(heading=heading, reason=refused), elem_classes="absent")
        return
    features = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            panel = ShapePanel(engine, samples)
        with gr.Column(scale=5, min_width=320):
            go = gr.Button("Describe", variant="primary")
            chat = gr.Chatbot(
                label="About this shape",
                height=420,
                placeholder="Add a shape and press **Describe**. Then ask about it.",
                buttons=[],
                group_consecutive_messages=False,
                elem_id=CHAT_ID,
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

    @on_page
    def read(path: str | None, axis: str) -> tuple[Any, ...]:
        return captioner.read(uploaded(engine, path, axis)), []

    @in_words_streamed
    def talk(read: Any, messages: list[dict[str, Any]], asked: str) -> Iterator[Any]:
        if read is None or not asked.strip():
            what = "Press Describe first: then the model has seen the shape." if read is None else "Ask something."
            gr.Warning(what, title="Nothing to do yet")
            yield gr.skip()
            return
        history = turns(messages)
        begun = [*messages, {"role": "user", "content": asked}]
        yield begun
        for said in captioner.answer(read, asked, history):
            yield [*begun, {"role": "assistant", "content": said}]

    @in_words_streamed
    def describe(read: Any, messages: list[dict[str, Any]]) -> Iterator[Any]:
        if read is not None:  # else a warning was shown
            yield from talk(read, messages, PROMPT)
        else:
            yield gr.skip()

    @in_words_streamed
    def talk_typed(read: Any, messages: list[dict[str, Any]], asked: str) -> Iterator[Any]:
        """Empties the box when it begins, only: the next question may be typed while the answer is still written."""
        for step, shown in enumerate(talk(read, messages, asked)):
            yield shown, "" if step == 0 and isinstance(shown, list) else gr.skip()

    talking: dict[str, Any] = {"show_progress": "minimal", **PRIVATE, **CAPTION_LANE}
    go.click(**reveal(CHAT_ID))
    go.click(read, [panel.file, panel.up], [features, chat], show_progress_on=chat, **PRIVATE, **CAPTION_LANE).success(
        describe, [features, chat], chat, **talking
    )
    gr.on([ask.click, question.submit], talk_typed, [features, chat, question], [chat, question], **talking)
    for chip in chips:
        chip.click(talk, [features, chat, chip], chat, **talking)
    panel.file.change(lambda: (None, []), None, [features, chat], queue=False, **PRIVATE)


def caption_file(engine: Engine, captioner: Captioner, path: str | None, axis: str, question: str) -> Iterator[str]:
    """The answer to one question about a file, longer and longer."""
    return captioner.answer(captioner.read(uploaded(engine, path, axis)), question)


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
