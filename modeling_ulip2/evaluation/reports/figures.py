"""Plots of an evaluation, as PNG: confusion matrix, loss curves, accuracy of corrupted clouds."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator
from scipy.cluster.hierarchy import leaves_list, linkage
from torch import Tensor

from modeling_ulip2.data.contact_sheet import INK, MUTED
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult
from modeling_ulip2.evaluation.reports.report import readable
from modeling_ulip2.utils.files import whole_path

HAIRLINE = "#d8dee4"
LINES = ("#2b5f8a", "#c7772e", "#4a8f6d", "#8a4f7d", "#6b7785")
SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#cfe0ee", "#6d9fc7", "#1d4e79"])
# A font that matplotlib brings along, so that a picture looks the same everywhere.
FONT = "DejaVu Sans"
DPI = 110

Curves = dict[str, list[tuple[float, float]]]


def confusion_matrix(
    path: str | Path,
    result: ZeroShotResult,
    class_embeds: Tensor | None = None,
    title: str = "",
    max_classes: int = 60,
) -> Path:
    """True classes down, predicted classes across, shaded by the share of the row, with counts in the cells.

    Args:
        class_embeds: (C, D); with them similar classes stand side by side, so that near misses lie near the diagonal.
            Without them classes come in the order of their test shapes.
        max_classes: the classes with most shapes (and most predictions) are shown, the rest left out and counted.
    """
    confusion = result.confusion  # (C, C)
    counts = result.class_counts  # (C,)
    weight = counts * len(result.labels) + confusion.sum(dim=0)  # shapes first, then predictions
    shown = weight.sort(descending=True, stable=True).indices[: min(max_classes, int((weight > 0).sum()))]
    if class_embeds is not None and len(shown) > 2:
        shown = shown[_order_by_similarity(torch.as_tensor(class_embeds)[shown])]
    true = [int(label) for label in shown if counts[label] > 0]
    # classes that are only predicted come last, so that the diagonal stays straight
    predicted = true + [int(label) for label in shown if counts[label] == 0]
    cells = confusion[true][:, predicted].numpy()  # (rows, columns)
    share = cells / counts[true].numpy()[:, None]

    names = [result.class_names[label] for label in predicted]
    rows = [f"{result.class_names[label]} ({int(counts[label])})" for label in true]
    cell, letter = 0.2, 0.066  # inches
    margin_left, margin_top = (0.2 + letter * max(map(len, side)) for side in (rows, names))
    head, foot = 0.5 if title else 0.1, 0.55
    width = max(margin_left + cell * len(predicted) + 0.3, 5.5)
    height = head + margin_top + cell * len(true) + foot
    canvas = _canvas(width, height)
    if title:
        _text(canvas, 0.12 / width, 1 - 0.28 / height, title, size=12, weight="bold", va="center")
    axes = canvas.add_axes(
        (margin_left / width, foot / height, cell * len(predicted) / width, cell * len(true) / height)
    )
    axes.imshow(share, cmap=SHADES, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for row, column in zip(*cells.nonzero(), strict=True):
        color = "white" if share[row, column] > 0.55 else INK
        _text(axes, column, row, str(cells[row, column]), size=6.5, ha="center", va="center_baseline", color=color)
    axes.set_xticks(range(len(predicted)), names, rotation=90, fontsize=7.5)
    axes.set_yticks(range(len(true)), rows, fontsize=7.5)
    for name, label in zip(axes.get_xticklabels(), predicted, strict=True):
        name.set_color(INK if counts[label] else MUTED)
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=3)
    axes.set_xticks(np.arange(len(predicted) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(true) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=HAIRLINE, linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for side in axes.spines.values():
        side.set_color(HAIRLINE)
    hidden = int((counts > 0).sum()) - len(true)
    note = "rows: true class (test shapes), shaded by the share of the row; columns: predicted class"
    note += f"; {hidden} classes with fewer shapes not shown" if hidden else ""
    _text(canvas, 0.12 / width, 0.22 / height, note, size=7.5, va="center", color=MUTED)
    return _save(canvas, path)


def loss_curves(path: str | Path, log_history: Sequence[Mapping[str, Any]], title: str = "") -> Path:
    """Losses over steps, and beside them the held-out accuracies that were logged on the way.

    Args:
        log_history: `trainer.state.log_history`, dicts with "step". The picture shows `loss`, `loss_*` and
            `eval_loss*`, and beside them `eval_*top1` and `eval_*top5`, or else `eval_*recall_at_5`.
    """
    losses, scores = _series(log_history)
    if not losses:
        raise ValueError("the log history holds no loss")
    panels = 2 if scores else 1
    width, height = 4.6 * panels + 0.3, 3.5
    canvas = _canvas(width, height)
    bottom, top = 0.15, 0.80 if title else 0.88
    if title:
        _text(canvas, 0.12 / width, 1 - 0.24 / height, title, size=12, weight="bold", va="center")
    for panel, (series, name) in enumerate([(losses, "loss"), (scores, "held-out shapes")][:panels]):
        axes = canvas.add_axes((0.65 / width + panel * 4.6 / width, bottom, 3.75 / width, top - bottom))
        axes.set_title(name, fontsize=9.5, loc="left", color=INK, fontfamily=FONT)
        for color, (label, points) in zip(LINES * len(series), series.items(), strict=False):
            steps, values = zip(*points, strict=True)
            evaluated = label.startswith("eval")
            style: dict[str, Any] = {"marker": "o", "markersize": 3.2} if evaluated or len(steps) < 3 else {}
            axes.plot(steps, values, color=color, linewidth=1.6, label=_curve_name(label), **style)
        axes.set_xlabel("step", fontsize=8.5, color=MUTED)
        axes.set_ylim(bottom=0)
        if panel:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.tick_params(labelsize=8)
        _bare(axes)
        axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="best")
    return _save(canvas, path)


@dataclass(frozen=True)
class CurvePanel:
    """One plot of `robustness_curves`: at each tick every line has (accuracy, lower end, upper end), fractions."""

    title: str
    axis: str
    ticks: Sequence[str]
    lines: Mapping[str, Sequence[tuple[float, float, float]]]


def robustness_curves(
    path: str | Path, panels: Sequence[CurvePanel], chance: float, title: str = "", columns: int = 4
) -> Path:
    """Accuracy against how bad clouds are: a plot for each corruption, its levels evenly apart, with intervals."""
    if not panels:
        raise ValueError("robustness curves need at least one corruption that was measured")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width, height, head, foot = 2.75 * columns + 0.45, 2.45 * rows + 0.75, 0.45 if title else 0.1, 0.42
    canvas = _canvas(width, height)
    if title:
        _text(canvas, 0.12 / width, 1 - 0.24 / height, title, size=12, weight="bold", va="center")
    top = max(high for panel in panels for line in panel.lines.values() for _, _, high in line)
    step = (height - head - foot) / rows
    for number, panel in enumerate(panels):
        row, column = divmod(number, columns)
        left, bottom = 0.62 + 2.75 * column, height - head - step * (row + 1) + 0.62
        axes = canvas.add_axes((left / width, bottom / height, 2.25 / width, (step - 0.98) / height))
        axes.set_title(panel.title, fontsize=9.5, loc="left", color=INK, fontfamily=FONT)
        places = range(len(panel.ticks))
        axes.axhline(chance, color=MUTED, linewidth=0.9, linestyle=(0, (2, 2)), label="chance")
        for color, (label, line) in zip(LINES * len(panel.lines), panel.lines.items(), strict=False):
            values, low, high = np.array(line).T  # (levels,) each
            axes.fill_between(places, low, high, color=color, alpha=0.13, linewidth=0)
            axes.plot(places, values, color=color, linewidth=1.6, marker="o", markersize=3.2, label=label)
        axes.set_xticks(places, panel.ticks, fontsize=7)
        axes.set_xlabel(panel.axis, fontsize=8, color=MUTED)
        axes.tick_params(axis="y", labelsize=8)
        axes.set_ylim(0, min(1.0, 1.08 * top))
        axes.yaxis.set_major_formatter("" if column else lambda value, _: f"{100 * value:.0f} %")
        axes.yaxis.set_major_locator(MaxNLocator(5))
        _bare(axes)
        if number == 0:
            handles, labels = axes.get_legend_handles_labels()
    order = [*range(1, len(labels)), 0]
    canvas.legend(
        [handles[i] for i in order], [labels[i] for i in order], loc="lower left", ncols=len(labels), frameon=False,
        fontsize=8.5, labelcolor=INK, bbox_to_anchor=(0.4 / width, 0.0),
    )  # fmt: skip
    return _save(canvas, path)


def _series(log_history: Sequence[Mapping[str, Any]]) -> tuple[Curves, Curves]:
    """Losses and accuracies of a log: name -> [(step, value), ...]."""
    curves: Curves = {}
    for entry in log_history:
        for key, value in entry.items():
            if "step" in entry and isinstance(value, (int, float)) and np.isfinite(value):
                curves.setdefault(key, []).append((entry["step"], value))
    losses = {key: points for key, points in curves.items() if re.fullmatch(r"(eval_)?loss(_.*)?", key)}
    for score in (r"eval_(.*_)?top[15]", r"eval_.*_recall_at_5"):
        scores = {key: points for key, points in curves.items() if re.fullmatch(score, key)}
        if scores:
            break
    return losses, scores


def _curve_name(key: str) -> str:
    """`eval_zero_shot_top1` -> "zero-shot top-1", `loss_point_text` -> "training loss, point text"."""
    held_out, bare = key.startswith("eval_"), key.removeprefix("eval_")
    if bare == "loss" or bare.startswith("loss_"):
        pair = bare.removeprefix("loss").replace("_", " ").strip()
        return ("held-out loss" if held_out else "training loss") + (f", {pair}" if pair else "")
    what, score = re.fullmatch(r"(.*?)_?(top\d+|recall_at_\d+)", bare).groups()  # type: ignore[union-attr]
    return f"{what.replace('zero_shot', 'zero-shot').replace('_', ' ')} {readable(score)}".strip()


def _order_by_similarity(class_embeds: Tensor) -> list[int]:
    """Leaf order of an average-linkage tree over cosines, which puts similar classes side by side."""
    embeds = torch.nn.functional.normalize(class_embeds.double(), dim=-1).cpu().numpy()  # (C, D)
    return leaves_list(linkage(embeds, method="average", metric="cosine", optimal_ordering=True)).tolist()


def _canvas(width: float, height: float) -> Canvas:
    """A white page in inches, drawn by Agg without touching the caller's pyplot state."""
    canvas = Canvas(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(canvas)
    return canvas


def _text(where: Canvas | Axes, x: float, y: float, words: str, size: float, color: str = INK, **style: Any) -> None:
    """Writes in our font; in fractions of the page, or in the data coordinates of axes."""
    where.text(x, y, words, fontsize=size, color=color, fontfamily=FONT, **style)


def _bare(axes: Axes) -> None:
    """A plot of little ink: a fine grid and no frame."""
    axes.tick_params(colors=MUTED, length=0)
    axes.grid(color=HAIRLINE, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(HAIRLINE)


def _save(canvas: Canvas, path: str | Path) -> Path:
    path = Path(path)
    with whole_path(path) as partial:
        canvas.savefig(partial, format="png")
    return path
