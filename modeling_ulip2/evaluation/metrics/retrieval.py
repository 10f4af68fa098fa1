"""Cross-modal retrieval: R@k and median rank, with any number of right answers to a query.

Ties are pessimistic: a wrong item that scores as high as the best right one comes before it. A constant embedding thus
ranks every right item last, and no figure depends on the order of the gallery.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modeling_ulip2.utils.tensors import finite

RECALL_AT = (1, 5, 10)
# Cosines closer than this are equal: two vectors give slightly different sums at different places of a matrix.
TIE = 1e-6
# Cells of one block of scores: 64 MiB of float32.
BLOCK = 2**24


def shared_texts(texts_of_shapes: Sequence[Iterable[str]]) -> tuple[list[str], list[list[int]], list[list[int]]]:
    """Distinct texts and who has them: several shapes may share a text, and a shape may have several.

    Args:
        texts_of_shapes: the texts of each of N shapes; case and extra blanks do not count, nor do empty texts.

    Returns:
        T distinct texts in order of appearance; for each text its shapes; for each shape its texts.
    """
    texts: dict[str, int] = {}
    spelling: list[str] = []
    shapes_of_text: list[list[int]] = []
    texts_of_shape: list[list[int]] = []
    for shape, own in enumerate(texts_of_shapes):
        places = set()
        for text in own:
            key = " ".join(text.split()).casefold()
            if not key:
                continue
            if key not in texts:
                texts[key] = len(texts)
                spelling.append(" ".join(text.split()))
                shapes_of_text.append([])
            places.add(texts[key])
        texts_of_shape.append(sorted(places))
        for place in texts_of_shape[-1]:
            shapes_of_text[place].append(shape)
    return spelling, shapes_of_text, texts_of_shape


@dataclass(frozen=True)
class RetrievalResult:
    """Rank of the best right answer of Q queries in a gallery of G.

    Attributes:
        ranks: (Q,) int64, 1 is first.
        num_relevant: (Q,) int64, right answers of each query.
        gallery_size: G.
        queries: places of these Q queries in the list that was given (a query without a right answer is left out).
        recall_at: the k of R@k.
    """

    ranks: Tensor
    num_relevant: Tensor
    gallery_size: int
    queries: Tensor
    recall_at: tuple[int, ...] = RECALL_AT

    @property
    def metrics(self) -> dict[str, float]:
        """{"recall_at_1": share of queries with a right answer first, ..., "median_rank": ...}."""
        recall = {f"recall_at_{k}": (self.ranks <= k).double().mean().item() for k in self.recall_at}
        return recall | {"median_rank": float(np.median(self.ranks))}

    def to_dict(self) -> dict[str, Any]:
        return {
            "queries": len(self.ranks),
            "gallery": self.gallery_size,
            "mean_relevant": self.num_relevant.double().mean().item(),
            **self.metrics,
        }


@torch.no_grad()
def retrieval_metrics(
    query_embeds: Tensor,
    gallery_embeds: Tensor,
    relevant: Sequence[Sequence[int]],
    recall_at: Sequence[int] = RECALL_AT,
) -> RetrievalResult:
    """Ranks the gallery for each query by cosine and finds the best right answer.

    Args:
        query_embeds: (Q, D), normalized or not.
        gallery_embeds: (G, D).
        relevant: Q lists of gallery places. A query whose list is empty cannot be answered and does not count.
        recall_at: the k of R@k.

    Raises:
        ValueError: NaN, lengths that do not fit, places outside the gallery, or no query with a right answer.
    """
    queries = F.normalize(finite(query_embeds, "query_embeds"), dim=-1)  # (Q, D)
    gallery = F.normalize(finite(gallery_embeds, "gallery_embeds"), dim=-1)  # (G, D)
    if len(relevant) != len(queries):
        raise ValueError(f"{len(queries)} queries but {len(relevant)} lists of relevant items")
    answered = [query for query, items in enumerate(relevant) if len(items)]
    if not answered:
        raise ValueError("no query has a relevant item in the gallery")
    rows_per_block = max(1, BLOCK // len(gallery))
    ranks, counts = [], []
    for start in range(0, len(answered), rows_per_block):
        block = answered[start : start + rows_per_block]
        scores = queries[block] @ gallery.T  # (q, G)
        right = torch.zeros_like(scores, dtype=torch.bool)  # (q, G)
        for row, query in enumerate(block):
            items = torch.as_tensor(list(relevant[query]))
            if items.min() < 0 or items.max() >= len(gallery):
                raise ValueError(
                    f"query {query}: relevant items must lie in [0, {len(gallery)}), got {items.tolist()}"
                )
            right[row, items] = True
        best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)  # (q, 1)
        ranks.append(1 + ((scores >= best - TIE) & ~right).sum(dim=1))  # (q,)
        counts.append(right.sum(dim=1))  # (q,)
    return RetrievalResult(
        torch.cat(ranks).cpu(), torch.cat(counts).cpu(), len(gallery), torch.as_tensor(answered), tuple(recall_at)
    )


@torch.no_grad()
def search(query_embeds: Tensor, gallery_embeds: Tensor, k: int = 5) -> tuple[Tensor, Tensor]:
    """The k nearest gallery items of each query: cosines (Q, k) float32 and places (Q, k) int64, best first.

    Equal cosines come in gallery order. k is cut to the size of the gallery.
    """
    queries = F.normalize(finite(query_embeds, "query_embeds"), dim=-1)  # (Q, D)
    gallery = F.normalize(finite(gallery_embeds, "gallery_embeds"), dim=-1)  # (G, D)
    rows_per_block = max(1, BLOCK // len(gallery))
    scores, places = [], []
    for block in queries.split(rows_per_block):
        order = (block @ gallery.T).sort(dim=1, descending=True, stable=True)  # (q, G)
        scores.append(order.values[:, :k])
        places.append(order.indices[:, :k])
    return torch.cat(scores).cpu(), torch.cat(places).cpu()
