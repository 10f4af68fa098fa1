"""Figures that papers and repositories publish: the one place where they stand."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from modeling_ulip2.data.benchmarks import BENCHMARKS


@cache
def load_published() -> dict[str, Any]:
    """Figures in per cent: `zero_shot`, `fine_tuned` and `other`, each entry with the key of one of `sources`.

    Shared by all who ask: not to be changed.
    """
    return json.loads(files(__package__).joinpath("data", "published.json").read_text(encoding="utf-8"))


def published_accuracy(model: str, pretraining: str | None = None) -> list[tuple[str, str]]:
    """What is published of a model, as rows of task and figures.

    Args:
        model: as `published.json` calls it.
        pretraining: only zero-shot figures after this pre-training; None: all figures.

    Raises:
        KeyError: nothing is published of a model of this name.
    """
    published, rows = load_published(), list[tuple[str, str]]()
    zero_shot = _zero_shot(model, pretraining)
    for entry in zero_shot:
        where = f" (pre-trained on {entry['pretraining']})" if len(zero_shot) > 1 else ""
        for name, figures in entry["top1_top5"].items():
            rows.append((f"{BENCHMARKS[name].title}, zero-shot, top-1 / top-5{where}", _cell(figures)))
    others = [] if pretraining else [entry for entry in published["other"] if entry["model"] == model]
    for entry in published["fine_tuned"]:
        if entry["model"] == model and pretraining is None:
            task = f"{BENCHMARKS[entry['benchmark']].title} {entry['config']} after fine-tuning"
            voting = ", with voting" if entry["voting"] else ""
            if entry["class_average"] is None:
                rows.append((f"{task}, overall{voting}", _cell([entry["overall"]])))
            else:
                figures = [entry["overall"], entry["class_average"]]
                rows.append((f"{task}, overall / class-average{voting}", _cell(figures)))
    rows += [(entry["task"], _cell(entry["figures"])) for entry in others]
    if not rows:
        raise KeyError(f"nothing is published of {model!r}{f' pre-trained on {pretraining}' if pretraining else ''}")
    return rows


def published_zero_shot(model: str, pretraining: str | None = None) -> list[tuple[str, list[float], str]]:
    """Zero-shot figures of a model: benchmark, top-1 and top-5 in per cent, and the source in words."""
    sources = load_published()["sources"]
    return [
        (benchmark, figures, sources[entry["source"]])
        for entry in _zero_shot(model, pretraining)
        for benchmark, figures in entry["top1_top5"].items()
    ]


def _zero_shot(model: str, pretraining: str | None) -> list[dict[str, Any]]:
    return [
        entry
        for entry in load_published()["zero_shot"]
        if entry["model"] == model and pretraining in (None, entry["pretraining"])
    ]


def _cell(figures: list[float]) -> str:
    return " / ".join(f"{figure:.1f}" for figure in figures)
