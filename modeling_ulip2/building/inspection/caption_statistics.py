"""How long, how varied and how well ranked the captions are."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np

BINS = np.linspace(-1, 1, 41)  # of the histogram of scores, cosines


class CaptionStatistics:
    """Gathers captions object by object; `summary` describes all of them."""

    def __init__(self) -> None:
        self.objects = self.views = self.empty_views = self.repeated = self.without_scores = 0
        self.texts: Counter[str] = Counter()  # in how many objects each occurs
        self.best: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self.ngrams: dict[int, Counter[tuple[str, ...]]] = {1: Counter(), 2: Counter()}
        self.scores, self.best_scores = np.zeros(len(BINS) - 1, int), np.zeros(len(BINS) - 1, int)

    def add(self, captions: list[list[str]], scores: list[list[float]]) -> None:
        """Captions [V][k] of an object, best first, with their scores, NaN where they were never told.

        A shape without views has one list of captions.
        """
        self.objects += 1
        self.views += len(captions)
        self.empty_views += sum(not own for own in captions)
        self.repeated += sum(len(own) - len(set(own)) for own in captions)
        self.texts.update({text for own in captions for text in own})
        self.best.update(own[0] for own in captions if own)
        for text in (text for own in captions for text in own):
            words = re.findall(r"\w+", text.lower())
            self.lengths[len(words)] += 1
            for n, counts in self.ngrams.items():
                counts.update(zip(*(words[i:] for i in range(n)), strict=False))
        told = [score for own in scores for score in own if not np.isnan(score)]
        self.without_scores += sum(map(len, scores)) - len(told)
        self.scores += np.histogram(told, BINS)[0]
        self.best_scores += np.histogram([own[0] for own in scores if own and not np.isnan(own[0])], BINS)[0]

    def summary(self) -> dict[str, Any]:
        """Figures by name; `distinct_n` is the number of different n-grams over that of all n-grams."""
        count = self.lengths.total()
        lengths = sorted(self.lengths.elements())
        return {
            "captions": count,
            "captions_per_view": count / max(self.views, 1),
            "views_without_captions": self.empty_views,
            "repeated_within_a_view": self.repeated,
            "without_scores": self.without_scores,
            "words": {"mean": sum(lengths) / max(count, 1), "min": lengths[0] if lengths else 0}
            | {"median": lengths[count // 2] if lengths else 0, "max": lengths[-1] if lengths else 0},
            "different_captions": len(self.texts),
            # of pairs of object and caption: how many belong to a caption that other objects have, too
            "shared_between_objects": sum(own for own in self.texts.values() if own > 1) / max(self.texts.total(), 1),
            "distinct_1": len(self.ngrams[1]) / max(self.ngrams[1].total(), 1),
            "distinct_2": len(self.ngrams[2]) / max(self.ngrams[2].total(), 1),
            "most_frequent_best": self.best.most_common(10),
            "scores": _histogram(self.scores),
            "best_scores": _histogram(self.best_scores),
        }


def _histogram(counts: np.ndarray) -> list[tuple[float, float, int]]:
    """(from, to, how many) without the empty ends."""
    filled = np.flatnonzero(counts)
    if not len(filled):
        return []
    return [
        (round(float(BINS[i]), 3), round(float(BINS[i + 1]), 3), int(counts[i]))
        for i in range(filled[0], filled[-1] + 1)
    ]
