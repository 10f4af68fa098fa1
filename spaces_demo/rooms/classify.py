"""Classify: a mesh or a cloud against labels that the model was never trained on."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .engine import BENCHMARKS, TEMPLATES, Engine
from .samples import Sample
from .shapes import ShapePanel
from .shared import CLASSIFY_LANE, PRIVATE, QUIET, on_page, reveal, uploaded

SHOWN = 10
OWN_LABELS = ["chair", "table", "lamp", "plant", "sofa", "bed"]
RESULT_ID = "classify-result"
# Gradio gives each call a Progress of its own where it finds one as default.
PROGRESS = gr.Progress()


def label_choices(engine: Engine) -> list[tuple[str, str]]:
    """What labels there are: the text of each choice and its name, the best one to begin with first."""
    choices = [("My own labels", "own"), *((name, name) for name in BENCHMARKS)]
    if len(engine.categories) > 1:
        choices.insert(0, (f"This collection's {len(engine.categories)} categories", "collection"))
    return choices


def build(engine: Engine, samples: list[Sample], grown: gr.State | None = None) -> None:
    """Fills the tab. `samples`: shapes to try; `grown` changes when the collection has grown."""
    choices = label_choices(engine)
    chosen = choices[0][1]
    with gr.Row(equal_height=False):
        with gr.Column(scale=4, min_width=300):
            panel = ShapePanel(engine, samples)
        with gr.Column(scale=5, min_width=320):
            labels = gr.Dropdown(choices, value=chosen, label="Labels")
            own = gr.Textbox(
                ", ".join(engine.categories[: len(OWN_LABELS)] or OWN_LABELS),
                label="My own labels",
                info="English, separated by commas",
                lines=2,
                max_lines=6,
                visible=chosen == "own",
            )
            prompts = gr.Dropdown(list(TEMPLATES), value=next(iter(TEMPLATES)), label="Prompts around each label")
            go = gr.Button("Classify", variant="primary")
            bars = gr.Label(label="What it is", num_top_classes=SHOWN, elem_id=RESULT_ID)

    @on_page
    def classify(
        path: str | None, axis: str, choice: str, own_labels: str, template: str, progress: Any = PROGRESS
    ) -> dict[str, float]:
        return classify_file(engine, path, axis, choice, own_labels, template, progress)

    labels.change(lambda choice: gr.Textbox(visible=choice == "own"), labels, own, queue=False, **PRIVATE)
    if grown is not None:
        grown.change(lambda: gr.Dropdown(choices=label_choices(engine)), None, labels, **QUIET)
    inputs = [panel.file, panel.up, labels, own, prompts]
    go.click(**reveal(RESULT_ID))
    go.click(classify, inputs, bars, **PRIVATE, **CLASSIFY_LANE)


def classify_file(
    engine: Engine,
    path: str | None,
    axis: str,
    choice: str,
    own_labels: str,
    template: str,
    progress: Any = None,
) -> dict[str, float]:
    """Probabilities by label, most probable first. `progress`: a `gr.Progress`, which is false while it is empty."""
    if template not in TEMPLATES:
        raise ValueError(f"There are no prompts {template!r}; there are {', '.join(TEMPLATES)}.")
    shape = uploaded(engine, path, axis)
    names = engine.class_names(choice, own_labels)
    embed = engine.embed_shape(shape)
    report = None
    if progress is not None:
        report = lambda share: progress(share, desc=f"Embedding {len(names):,} labels")  # noqa: E731
    return engine.classify(embed, names, TEMPLATES[template], report)
