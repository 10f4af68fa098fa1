"""Figures of captions beside those of their controls: a table for people, plain values for programs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch import Tensor

from modeling_ulip2.evaluation.captions.scores import (
    POINT,
    SENTENCE,
    VIEW,
    CaptionScores,
    caption_scores,
    sentence_scores,
    shape_scores,
)
from modeling_ulip2.evaluation.captions.words import Meteor, java_is_available
from modeling_ulip2.evaluation.metrics.controls import bootstrap_interval
from modeling_ulip2.towers.prompts import EncodeText
from modeling_ulip2.utils.markdown import markdown_table

COLUMNS = {
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "bleu_4": "BLEU-4",
    "meteor": "METEOR",
    "rouge_l": "ROUGE-L",
    "cider": "CIDEr",
    SENTENCE: "sentence similarity",
    POINT: "caption to points",
    VIEW: "caption to views",
}


def score_systems(
    systems: Mapping[str, Mapping[str, str]],
    references: Mapping[str, Sequence[str]],
    encode_text: EncodeText | None = None,
    point_embeds: Mapping[str, Tensor] | None = None,
    view_embeds: Mapping[str, Tensor] | None = None,
    tokenizer: str | None = None,
) -> dict[str, CaptionScores]:
    """Every figure of every system's captions of the same shapes.

    Args:
        systems: captions by id, by name of what made them.
        references: captions by id.
        encode_text: text side of the frozen image-text model; None: words alone are counted.
        point_embeds: (D,) by id in its space.
        view_embeds: (V, D) by id in its space.
        tokenizer: see `split_captions`.
    """
    meteor = Meteor() if java_is_available() else None
    try:
        scores = {}
        for name, predictions in systems.items():
            found = caption_scores(predictions, references, tokenizer, meteor)
            if encode_text is not None:
                found = found.with_scores(SENTENCE, sentence_scores(encode_text, predictions, references))
                for figure, embeds in ((POINT, point_embeds), (VIEW, view_embeds)):
                    if embeds is not None:
                        found = found.with_scores(figure, shape_scores(encode_text, predictions, embeds))
            scores[name] = found
        return scores
    finally:
        if meteor is not None:
            meteor.close()


def cider_interval(scores: CaptionScores, seed: int = 0) -> tuple[float, float]:
    """Bootstrap interval of CIDEr over the shapes; the weights of words stay those of all shapes."""
    values = np.asarray(scores.per_caption["cider"])
    return bootstrap_interval(len(values), lambda rows: float(values[rows].mean()), seed=seed)


def caption_table(scores: Mapping[str, CaptionScores], seed: int = 0) -> list[str]:
    """A markdown table, a row for each system; figures times 100, as in papers, CIDEr with its interval."""
    shown = [name for name in COLUMNS if any(name in own.metrics for own in scores.values())]
    rows = []
    for system, own in scores.items():
        row = [system]
        for name in shown:
            cell = f"{100 * own.metrics[name]:.1f}" if name in own.metrics else ""
            if name == "cider":
                low, high = cider_interval(own, seed)
                cell += f" ({100 * low:.1f} – {100 * high:.1f})"
            row.append(cell)
        rows.append(row)
    return markdown_table(["captions", *(COLUMNS[name] for name in shown)], rows)


def group_table(
    scores: Mapping[str, CaptionScores], groups: Mapping[str, Iterable[str]], figure: str = "cider"
) -> list[str]:
    """A markdown table of one figure, times 100, a column for each group of shapes."""
    members = {group: list(ids) for group, ids in groups.items()}
    rows = [
        [system, *(f"{100 * own.subset(ids)[figure]:.1f}" for ids in members.values())]
        for system, own in scores.items()
    ]
    header = [f"{COLUMNS[figure]} of captions", *(f"{group} ({len(ids)})" for group, ids in members.items())]
    return markdown_table(header, rows)
