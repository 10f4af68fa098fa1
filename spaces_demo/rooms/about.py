"""About: the model, its limits, and whom every shape is owed to."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
import pandas as pd

from .captioner import Captioner
from .engine import Engine
from .shared import LICENSES, QUIET


def build(engine: Engine, captioner: Captioner | None = None, grown: gr.State | None = None) -> None:
    """Fills the tab. `grown` changes when the collection has grown."""
    about = gr.Markdown(card(engine, captioner))
    rows, label = credits(engine)
    table = gr.Dataframe(
        rows,
        label=label,
        show_label=True,
        interactive=False,
        show_search="filter",
        max_height=420,
        column_widths=["45%", "30%", "25%"],
        wrap=True,
        buttons=[],
    )
    if grown is not None:

        def renew() -> tuple[str, gr.Dataframe]:
            rows, label = credits(engine)
            return card(engine, captioner), gr.Dataframe(rows, label=label)

        grown.change(renew, None, [about, table], **QUIET)


def credits(engine: Engine) -> tuple[pd.DataFrame, str]:
    """The table of attributions, and what it is called."""
    rows = attribution(engine)
    return rows, f"Attribution of all {len(rows):,} shapes"


def card(engine: Engine, captioner: Captioner | None = None) -> str:
    """Markdown about the model, its tower, the collection, and who writes the captions."""
    config = engine.model.config
    encoder = type(config.point_config).__name__.removesuffix("Config")
    parameters = sum(parameter.numel() for parameter in engine.model.point_model.parameters())
    points, factory = engine.feature_extractor.num_points, engine.index.info["factory"]
    captions = "" if captioner is None else f"- **Captions:** `{captioner.name}`\n"
    conse = engine.tower.model.config.model_type == "conse"
    return f"""
## What this is

[ULIP-2](https://arxiv.org/abs/2305.08275) (Xue et al., CVPR 2024) trains a point encoder into the frozen space of an
image-text model, from nothing but 3D files: it renders each shape, has the views captioned, and pulls shape, views and
captions together. So a shape can be found by words or a photo, and named with words that it was never trained on.

- **Model:** `{engine.model_name}`, a {encoder} of {parameters / 1e6:.1f} M parameters that reads {points:,} points
- **Space:** {engine.tower.model.config.model_type} model `{engine.tower.name}`, {config.projection_dim} dimensions
- **Collection:** {len(engine.index):,} shapes, each under its own license, see below; FAISS index `{factory}`
{captions}- **Code:** Apache-2.0
{CONSE if conse else ""}
### Limits

- A cosine says what is nearest, not that it is right: something always comes first, and probabilities compare only the
  labels that you gave.
- *Nothing here fits well* is said where the best match stands out from the average shape less than the best matches of
  nine in ten of this collection's own names do (for a shape: of its own shapes, each compared with the others). So it
  is said of one good question in ten, too, and not of every bad one.
- Words are read as English.
- The model knows the kinds of shapes that it was trained on, in an upright position.
- Files that you upload are read within limits and deleted within {CACHE_HOURS} hours. Nothing is sent elsewhere.
"""


CACHE_HOURS = 2
CONSE = """
**The space is not CLIP's.** It is a ConSE pair (Norouzi et al., 2013): a sentence encoder joined with an ImageNet
classifier, which needs no download. A photo is what the classifier's thousand classes say it is.
"""


def attribution(engine: Engine) -> pd.DataFrame:
    """Name, creator and license of every shape."""
    columns = ["id", "name", "creator", "license"]
    rows = engine.index.shapes.select_columns(columns)[:]
    return pd.DataFrame(
        {
            "Shape": [name or Path(id).stem for name, id in zip(rows["name"], rows["id"], strict=True)],
            "Creator": [creator or "unknown" for creator in rows["creator"]],
            "License": [LICENSES.get(name, (name, ""))[0] or "unknown" for name in rows["license"]],
        }
    )
