from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from modeling_ulip2.evaluation.metrics import retrieval
from modeling_ulip2.evaluation.metrics.retrieval import retrieval_metrics, search, shared_texts


def world(queries: int = 23, gallery: int = 31, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, list[list[int]]]:
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    right = [
        sorted(rng.choice(gallery, size=rng.integers(1, min(5, gallery)), replace=False).tolist())
        for _ in range(queries)
    ]
    return torch.randn(queries, 6, generator=generator), torch.randn(gallery, 6, generator=generator), right


def ranks_by_hand(queries: torch.Tensor, gallery: torch.Tensor, right: list[list[int]]) -> list[int]:
    ranks = []
    for query, items in zip(queries.double(), right, strict=True):
        scores = [float(query @ item / query.norm() / item.norm()) for item in gallery.double()]
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        ranks.append(1 + min(place for place, item in enumerate(order) if item in items) if items else 0)
    return ranks


def test_equals_sorting_by_hand():
    queries, gallery, right = world()
    result = retrieval_metrics(queries, gallery, right)
    expected = np.array(ranks_by_hand(queries, gallery, right))
    assert result.ranks.tolist() == expected.tolist()
    assert result.metrics == pytest.approx(
        {f"recall_at_{k}": float(np.mean(expected <= k)) for k in (1, 5, 10)}
        | {"median_rank": float(np.median(expected))}
    )
    assert result.num_relevant.tolist() == [len(items) for items in right]


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch):
    queries, gallery, right = world()
    whole, found = retrieval_metrics(queries, gallery, right), search(queries, gallery, 4)
    monkeypatch.setattr(retrieval, "BLOCK", 3 * len(gallery))
    assert retrieval_metrics(queries, gallery, right).ranks.tolist() == whole.ranks.tolist()
    scores, places = search(queries, gallery, 4)
    assert torch.equal(places, found[1]) and torch.allclose(scores, found[0], atol=1e-6)


@pytest.mark.parametrize("constant", ["gallery", "queries"])
def test_a_constant_embedding_finds_nothing(constant: str):
    queries, gallery, _ = world(queries=50, gallery=50)
    if constant == "gallery":
        gallery = gallery[:1].expand(50, -1)
    else:
        queries = queries[:1].expand(50, -1)
    result = retrieval_metrics(queries, gallery, [[place] for place in range(50)])
    if constant == "gallery":
        assert result.ranks.tolist() == [50] * 50
        assert result.metrics["recall_at_10"] == 0
    else:  # every query sees the same order: the ranks are 1 to 50, as by chance
        assert sorted(result.ranks.tolist()) == list(range(1, 51))


def test_a_wrong_twin_comes_first_wherever_it_stands():
    gallery = torch.eye(4)[[0, 1, 1, 2]]
    query = torch.eye(4)[[1]]
    assert retrieval_metrics(query, gallery, [[1]]).ranks.tolist() == [2]
    assert retrieval_metrics(query, gallery, [[2]]).ranks.tolist() == [2]
    assert retrieval_metrics(query, gallery, [[1, 2]]).ranks.tolist() == [1]


def test_the_order_of_the_gallery_changes_nothing():
    queries, gallery, right = world()
    gallery[10:20] = gallery[:10]  # twins
    order = torch.randperm(len(gallery), generator=torch.Generator().manual_seed(1))
    place = order.argsort()
    moved = [[int(place[item]) for item in items] for items in right]
    assert (
        retrieval_metrics(queries, gallery[order], moved).ranks.tolist()
        == retrieval_metrics(queries, gallery, right).ranks.tolist()
    )


def test_queries_without_an_answer_do_not_count():
    queries, gallery, right = world(queries=3)
    right[1] = []
    result = retrieval_metrics(queries, gallery, right)
    assert result.queries.tolist() == [0, 2] and len(result.ranks) == 2
    assert result.to_dict()["queries"] == 2
    with pytest.raises(ValueError, match="no query has a relevant item"):
        retrieval_metrics(queries, gallery, [[], [], []])


def test_bad_input():
    queries, gallery, right = world(queries=3)
    with pytest.raises(ValueError, match="3 queries but 2 lists"):
        retrieval_metrics(queries, gallery, right[:2])
    with pytest.raises(ValueError, match=r"query 2: relevant items must lie in \[0, 31\)"):
        retrieval_metrics(queries, gallery, [[0], [1], [31]])
    gallery[4, 0] = math.inf
    with pytest.raises(ValueError, match="gallery_embeds has NaN or inf in 1 of 31 rows, first in row 4"):
        retrieval_metrics(queries, gallery, right)


def test_search_gives_the_best_first_and_no_more_than_there_are():
    queries, gallery, _ = world(queries=2, gallery=3)
    scores, places = search(queries, gallery, 5)
    assert scores.shape == places.shape == (2, 3)
    cosine = torch.nn.functional.cosine_similarity(queries[0], gallery, dim=-1)
    assert places[0].tolist() == cosine.argsort(descending=True).tolist()
    assert torch.allclose(scores[0], cosine.sort(descending=True).values, atol=1e-6)


def test_shared_texts():
    texts, shapes_of_text, texts_of_shape = shared_texts(
        [["A Chair", "seat"], [" a  chair "], ["", " "], ["seat", "Seat"]]
    )
    assert texts == ["A Chair", "seat"]
    assert shapes_of_text == [[0, 1], [0, 3]]
    assert texts_of_shape == [[0, 1], [0], [], [1]]
