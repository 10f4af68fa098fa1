"""What is said to fit nothing: the worst tenth of the questions that a collection can answer, and what is below."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("faiss", reason="the demo needs faiss-cpu (pip install 'modeling-ulip2[demo]')")

from rooms.fit import SHAPE, WORDS, Fit  # noqa: E402

from modeling_ulip2.search.index import Match  # noqa: E402


class Index:
    """An exact index over rows (N, D)."""

    def __init__(self, embeds: np.ndarray) -> None:
        self.embeds = embeds

    def search(self, query: np.ndarray, k: int) -> list[Match]:
        scores = self.embeds @ query
        return [Match(int(row), float(scores[row])) for row in np.argsort(-scores)[:k]]


@pytest.fixture(scope="module")
def collection() -> tuple[Index, dict[str, np.ndarray]]:
    """Forty shapes in pairs of two near copies, and names that lie beside them, each at another distance."""
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(20, 32)), 2, axis=0) + 0.3 * rng.normal(size=(40, 32))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = {f"name {row}": rows[row] + 0.1 * (1 + row / 40) * rng.normal(size=32) for row in range(40)}
    return Index(rows.astype(np.float32)), {name: (row / np.linalg.norm(row)) for name, row in names.items()}


def margin(index: Index, query: np.ndarray, row: int | None = None) -> float:
    scores = index.embeds @ query
    if row is not None:
        scores = np.delete(scores, row)
    return float(scores.max() - index.embeds.mean(axis=0) @ query)


def fit(index: Index, names: dict[str, np.ndarray]) -> Fit:
    def embed(asked: list[str]) -> torch.Tensor:
        return torch.from_numpy(np.stack([names[name] for name in asked])).float()

    return Fit(index, [name.upper() for name in names], range(40), embed)


def test_limits_are_the_lowest_tenth_of_what_the_collection_can_answer(collection):
    index, names = collection
    measured = fit(index, names)
    limits = measured.measure()
    assert limits[WORDS] == pytest.approx(np.quantile([margin(index, row) for row in names.values()], 0.1), abs=1e-5)
    shapes = [margin(index, row, place) for place, row in enumerate(index.embeds)]
    assert limits[SHAPE] == pytest.approx(np.quantile(shapes, 0.1), abs=1e-5)
    poor = [
        measured.is_poor(WORDS, torch.from_numpy(row).float(), (index.embeds @ row).max()) for row in names.values()
    ]
    assert sum(poor) == 4


def test_what_the_collection_does_not_have_is_told(collection):
    index, names = collection
    measured = fit(index, names)
    rng = np.random.default_rng(1)
    foreign = rng.normal(size=(30, 32))
    foreign /= np.linalg.norm(foreign, axis=1, keepdims=True)
    asked = [torch.from_numpy(row).float() for row in foreign]
    best = [float((index.embeds @ row).max()) for row in foreign]
    assert not any(
        measured.is_poor(WORDS, row, score) for row, score in zip(asked, best, strict=True)
    )  # not yet known
    measured.measure()
    poor = [measured.is_poor(WORDS, row, score) for row, score in zip(asked, best, strict=True)]
    assert np.mean(poor) > 0.9
    assert not any(measured.is_poor("", row, score) for row, score in zip(asked, best, strict=True))


def test_a_few_shapes_or_names_measure_nothing(collection):
    index, names = collection
    few = Fit(Index(index.embeds[:9]), [*names][:9], range(9), lambda asked: torch.zeros(0))
    assert few.measure() == {} and not few.is_poor(WORDS, torch.ones(32), -1.0)
