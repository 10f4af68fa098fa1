"""Map: the whole collection on two axes."""

from __future__ import annotations

from collections import Counter
from html import escape

import gradio as gr
import numpy as np
import pandas as pd

from .engine import Engine

MAX_POINTS = 5000
# More colours than these cannot be told apart.
COLORS = ["#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#ff8ab7", "#6cc5b0", "#9c6b4e"]
OTHER, OTHER_COLOR = "other", "#9498a0"


def build(engine: Engine) -> None:
    """Fills the tab."""
    points, shares = project(engine)
    colors = {
        name: OTHER_COLOR if name == OTHER else COLORS[place]
        for place, name in enumerate(dict.fromkeys(points["group"]))
    }
    shown = f"{len(points):,} of {len(engine.index):,} shapes" if len(points) < len(engine.index) else "All shapes"
    gr.Markdown(
        f"{shown} along the two directions in which their embeddings differ most; these hold {sum(shares):.0%} of the "
        "differences, so what lies close here may still be far apart. Hover over a point to read its name.",
        elem_classes="hint",
    )
    # a legend of our own, since the plot's is cut off where it is wider than a phone
    gr.HTML(" ".join(f'<span style="color: {color}">●</span> {escape(name)}' for name, color in colors.items()))
    gr.ScatterPlot(
        points,
        x="first axis",
        y="second axis",
        color="group",
        color_map=colors,
        colors_in_legend=[],
        tooltip=["name", "kind"],
        x_axis_labels_visible=False,
        height=560,
        show_label=False,
    )


def project(engine: Engine) -> tuple[pd.DataFrame, tuple[float, float]]:
    """The first two principal components of the embeddings of at most `MAX_POINTS` shapes, and their variance shares.

    Columns: `first axis`, `second axis`, `name`, `kind` (category, or source where no shape has one) and `group`, the
    kind or `OTHER` beyond as many as there are colours; largest group first, OTHER last.
    """
    rows = np.arange(len(engine.index))
    if len(rows) > MAX_POINTS:
        rows = np.sort(np.random.default_rng(0).choice(rows, MAX_POINTS, replace=False))
    centred = engine.index.embeds[rows.tolist()]
    centred = centred - centred.mean(axis=0)  # (N, D)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(rows), 2))
    width = min(2, len(singular))
    places[:, :width] = left[:, :width] * singular[:width]
    places *= np.where(places[np.abs(places).argmax(axis=0), [0, 1]] < 0, -1, 1)  # the sign of an axis is arbitrary
    total = max(float((singular**2).sum()), 1e-12)
    shares = [float(value**2) / total for value in singular[:2]] + [0.0, 0.0]
    table = engine.index.shapes.select_columns(["id", "name", "category", "source"])[rows.tolist()]
    kinds = [kind or "unknown" for kind in table["category" if engine.categories else "source"]]
    common = [name for name, _ in Counter(kind for kind in kinds if kind != "unknown").most_common(len(COLORS))]
    frame = pd.DataFrame(
        {
            "first axis": places[:, 0],
            "second axis": places[:, 1],
            "name": [name or id for name, id in zip(table["name"], table["id"], strict=True)],
            "kind": kinds,
            "group": [kind if kind in common else OTHER for kind in kinds],
        }
    )
    order = {name: place for place, name in enumerate([*common, OTHER])}
    frame = frame.sort_values("group", key=lambda column: column.map(order), kind="stable", ignore_index=True)
    return frame, (shares[0], shares[1])
