"""Whether the best match is a good one: something always comes first.

Cosines of words and shapes depend on the model, so a fixed limit would say nothing. The collection itself gives the
measure: how far the best match stands above the average shape, when the question is one that the collection can
answer. For words these questions are its own names and categories; for a shape, shapes of the collection, themselves
left out. What stands out less than nine in ten of them does is said to fit nothing well.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np
from torch import Tensor

from modeling_ulip2.search.index import ShapeIndex

# Of the questions that the collection can answer, this share is taken for ones that it cannot.
FALSE_ALARMS = 0.1
# With fewer, one in ten means nothing.
MIN_QUESTIONS = 10
MAX_QUESTIONS = 200
WORDS, SHAPE = "words", "shape"


class Fit:
    """The limits of one collection, computed in the background.

    Args:
        index: the collection.
        names: what words can ask for in it.
        rows: shapes that stand for it.
        embed_names: names -> (n, D), L2-normalized.

    Attributes:
        limits: by kind of question; a kind that cannot be measured is missing.
    """

    def __init__(
        self,
        index: ShapeIndex,
        names: Sequence[str],
        rows: Sequence[int],
        embed_names: Callable[[list[str]], Tensor],
    ) -> None:
        self.limits: dict[str, float] = {}
        self._index, self._embed_names = index, embed_names
        self._names = _some(sorted({name.strip().lower() for name in names if name.strip()}))
        self._rows, self._mean = _some(rows), index.embeds[list(rows)].mean(axis=0)  # (D,)
        self._lock = threading.Lock()
        self._measured = False

    def start(self) -> None:
        """Measures in a thread of its own."""
        threading.Thread(target=self.measure, name="fit", daemon=True).start()

    def measure(self) -> dict[str, float]:
        """Measures once, and gives the limits."""
        with self._lock:
            if not self._measured:
                if len(self._rows) >= MIN_QUESTIONS:
                    self.limits[SHAPE] = self._limit(self._index.embeds[self._rows], self._rows)
                if len(self._names) >= MIN_QUESTIONS:
                    self.limits[WORDS] = self._limit(self._embed_names(self._names).numpy())
                self._measured = True
            return self.limits

    def is_poor(self, kind: str, query: Tensor, best: float) -> bool:
        """Whether a best match of cosine `best` fits the query (D,) badly; False while nothing is known."""
        return kind in self.limits and best - float(query.numpy() @ self._mean) < self.limits[kind]

    def _limit(self, queries: np.ndarray, rows: Sequence[int] | None = None) -> float:
        """The margin that `FALSE_ALARMS` of the queries (n, D) do not reach; `rows`: the shape of each, left out."""
        margins = []
        for place, query in enumerate(queries):
            found = self._index.search(query, 2)
            best = next(match for match in found if rows is None or match.row != rows[place])
            margins.append(best.score - float(query @ self._mean))
        return float(np.quantile(margins, FALSE_ALARMS))


def _some(items: Sequence) -> list:
    if len(items) <= MAX_QUESTIONS:
        return list(items)
    chosen = np.sort(np.random.default_rng(0).choice(len(items), MAX_QUESTIONS, replace=False))
    return [items[place] for place in chosen]
