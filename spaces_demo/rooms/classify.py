"""Classify: a mesh or a cloud against labels that the model was never trained on."""

from __future__ import annotations

from typing import Any

import gradio as gr

from .engine import BENCHMARKS, TEMPLATES, Engine
from .shared import MODEL_QUEUE, PRIVATE, cached_file, file_inputs, in_words, model_viewer, seen_cloud
from .uploads import read_upload

SHOWN = 10
OWN_LABELS = ["chair", "table", "lamp", "plant", "sofa", "bed"]
# Gradio gives each call a Progress of its own where it finds one as default.
PROGRESS = gr.Progress()


def build(engine: Engine, examples: list[str]) -> None:
    """Fills the tab. `examples`: paths of 3D files to click."""
    choices = [("My own labels", "own"), *((name, name) for name in BENCHMARKS)]
    if len(engine.categories) > 1:
        choices.insert(0, (f"This collection's {len(engine.categories)} categories", "collection"))
    chosen = choices[0][1]
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=300):
            file, up = file_inputs()
            labels = gr.Dropdown(choices, value=chosen, label="Labels")
            own = gr.Textbox(
                ", ".join(engine.categories[: len(OWN_LABELS)] or OWN_LABELS),
                label="My own labels",
                info="Separated by commas",
                lines=2,
                max_lines=6,
                visible=chosen == "own",
            )
            prompts = gr.Dropdown(list(TEMPLATES), value=next(iter(TEMPLATES)), label="Prompts around each label")
            go = gr.Button("Classify", variant="primary")
            gr.Examples([[path] for path in examples], [file], label="Shapes to try", api_visibility="private")
        with gr.Column(scale=3, min_width=320):
            bars = gr.Label(label="What it is", num_top_classes=SHOWN)
            viewer = model_viewer(label="The points that the model saw")

    @in_words
    def classify(
        path: str | None, axis: str, choice: str, own_labels: str, template: str, progress: Any = PROGRESS
    ) -> tuple[dict[str, float], str]:
        probabilities, shape = classify_file(engine, path, axis, choice, own_labels, template, progress)
        return probabilities, cached_file(viewer, seen_cloud(engine, shape, axis), "cloud.glb")

    labels.change(lambda choice: gr.Textbox(visible=choice == "own"), labels, own, queue=False, **PRIVATE)
    inputs = [file, up, labels, own, prompts]
    go.click(classify, inputs, [bars, viewer], show_progress_on=bars, **PRIVATE, **MODEL_QUEUE)


def classify_file(
    engine: Engine,
    path: str | None,
    axis: str,
    choice: str,
    own_labels: str,
    template: str,
    progress: Any = None,
) -> tuple[dict[str, float], Any]:
    """Probabilities by label, most probable first, and the shape that the file holds."""
    if not path:
        raise ValueError("Add a 3D file, or click an example.")
    if template not in TEMPLATES:
        raise ValueError(f"There are no prompts {template!r}; there are {', '.join(TEMPLATES)}.")
    names = engine.class_names(choice, own_labels)
    shape = read_upload(path, engine.feature_extractor.num_points)
    embed = engine.embed_shape(shape, axis)
    report = (lambda share: progress(share, desc=f"Embedding {len(names)} labels")) if progress else (lambda _: None)
    return engine.classify(embed, names, TEMPLATES[template], report), shape
