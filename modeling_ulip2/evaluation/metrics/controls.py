"""What a figure is worth: chance, the best constant answer, shuffled embeddings and an interval beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from math import lgamma
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from modeling_ulip2.evaluation.metrics.retrieval import RECALL_AT, RetrievalResult, retrieval_metrics
from modeling_ulip2.evaluation.metrics.zero_shot import TOPK, ZeroShotResult, zero_shot_metrics

NUM_PERMUTATIONS = 20
NUM_RESAMPLES = 2000
CONFIDENCE = 0.95

Result = TypeVar("Result", ZeroShotResult, RetrievalResult)


@dataclass(frozen=True)
class Figure:
    """One figure and what it must beat.

    Attributes:
        name: key of the figure in `metrics`, e.g. "top1".
        value: what was measured; a fraction, or a rank for "median_rank".
        chance: its expected value when classes or items are ranked at random (exact).
        constant: its value for the best answer that ignores the input (largest classes first); None for retrieval.
        control, control_std: mean and standard deviation over permutations of the shapes' embeddings.
        interval: bootstrap confidence interval over shapes (queries), lower and upper end.
    """

    name: str
    value: float
    chance: float
    control: float
    control_std: float
    interval: tuple[float, float]
    constant: float | None = None


@dataclass(frozen=True)
class Evaluation(Generic[Result]):
    """A result and its figures with their controls."""

    result: Result
    figures: list[Figure]
    settings: dict[str, Any]

    def __getitem__(self, name: str) -> Figure:
        return {figure.name: figure for figure in self.figures}[name]

    def to_dict(self) -> dict[str, Any]:
        return self.result.to_dict() | {
            "figures": {figure.name: asdict(figure) for figure in self.figures},
            "controls": self.settings,
        }


def zero_shot_chance(result: ZeroShotResult) -> dict[str, float]:
    """Expected accuracies of a random order of the C classes: k / C, for micro and class average alike."""
    num_classes = len(result.class_names)
    chance = {f"top{k}": min(k, num_classes) / num_classes for k in result.topk}
    return chance | {f"{name}_class_average": value for name, value in chance.items()}


def zero_shot_constant(result: ZeroShotResult) -> dict[str, float]:
    """Accuracies of naming the k largest test classes for every shape: what class imbalance alone can give."""
    counts = result.class_counts.sort(descending=True).values
    present = int((counts > 0).sum())
    micro = {f"top{k}": int(counts[:k].sum()) / int(counts.sum()) for k in result.topk}
    return micro | {f"top{k}_class_average": min(k, present) / present for k in result.topk}


def retrieval_chance(result: RetrievalResult) -> dict[str, float]:
    """Expected figures of a random order of the gallery.

    With p right answers among G, P(rank <= k) = 1 - C(G - p, k) / C(G, k); R@k is its mean over queries, and the
    median rank is where the mean of these distributions passes one half.
    """
    size, relevant = result.gallery_size, result.num_relevant.numpy()

    def expected(k: int) -> float:
        values, counts = np.unique(relevant, return_counts=True)
        return float(np.average([_hit_probability(size, int(p), k) for p in values], weights=counts))

    chance = {f"recall_at_{k}": expected(min(k, size)) for k in result.recall_at}
    low, high = 1, size
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if expected(middle) >= 0.5 else (middle + 1, high)
    return chance | {"median_rank": float(low)}


def _hit_probability(size: int, relevant: int, k: int) -> float:
    """Probability that k of `size` items, drawn without replacement, hold one of the `relevant` ones."""
    if k > size - relevant:
        return 1.0
    # log of C(size - relevant, k) / C(size, k)
    miss = lgamma(size - relevant + 1) - lgamma(size - relevant - k + 1) - lgamma(size + 1) + lgamma(size - k + 1)
    return -float(np.expm1(miss))


def shuffled_control(
    metrics: Callable[[Tensor], dict[str, float]],
    rows: Tensor,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each metric when the `rows` of N shapes (embeddings, rankings) are permuted.

    The rows keep their distribution and lose only their shape, so a figure that survives is an artifact.
    """
    generator = torch.Generator().manual_seed(seed)
    runs = [metrics(rows[torch.randperm(len(rows), generator=generator)]) for _ in range(num_permutations)]
    return {
        name: (float(np.mean(values)), float(np.std(values)))
        for name in runs[0]
        if (values := [run[name] for run in runs])
    }


def bootstrap_interval(
    size: int,
    statistic: Callable[[np.ndarray], float],
    num_resamples: int = NUM_RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap: `statistic` of `num_resamples` draws of `size` rows (an index array) with repetition."""
    rng = np.random.default_rng(seed)
    estimates = [statistic(rng.integers(size, size=size)) for _ in range(num_resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(estimates, [tail, 1 - tail])
    return float(low), float(high)


def mean_over_classes(values: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that occur in `labels` (n,) of the mean of `values` (n,) in each."""
    counts = np.bincount(labels)
    sums = np.bincount(labels, weights=values)
    return float((sums[counts > 0] / counts[counts > 0]).mean())


def evaluate_zero_shot(
    point_embeds: Tensor,
    class_embeds: Tensor,
    labels: Tensor | Sequence[int],
    class_names: Sequence[str] | None = None,
    topk: Sequence[int] = TOPK,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> Evaluation[ZeroShotResult]:
    """`zero_shot_metrics` with chance, constant answer, shuffled control and interval beside every figure."""
    result = zero_shot_metrics(point_embeds, class_embeds, labels, class_names, topk)
    chance, constant = zero_shot_chance(result), zero_shot_constant(result)
    # permuting the shapes' embeddings permutes their rankings, which need not be computed again
    control = shuffled_control(
        lambda ranked: replace(result, ranked=ranked).metrics, result.ranked, num_permutations, seed
    )
    classes, figures = result.labels.numpy(), []
    for name, value in result.metrics.items():
        k = int(name.removesuffix("_class_average").removeprefix("top"))
        correct = result.correct(k).numpy().astype(float)  # (N,)

        def accuracy(rows: np.ndarray, correct: np.ndarray = correct, by_class: bool = "class" in name) -> float:
            return mean_over_classes(correct[rows], classes[rows]) if by_class else float(correct[rows].mean())

        interval = bootstrap_interval(len(correct), accuracy, seed=seed)
        figures.append(Figure(name, value, chance[name], *control[name], interval, constant[name]))
    return Evaluation(result, figures, _settings(num_permutations, seed))


def evaluate_retrieval(
    query_embeds: Tensor,
    gallery_embeds: Tensor,
    relevant: Sequence[Sequence[int]],
    shapes: str,
    recall_at: Sequence[int] = RECALL_AT,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
) -> Evaluation[RetrievalResult]:
    """`retrieval_metrics` with chance, shuffled control and interval beside every figure.

    Args:
        shapes: "query" or "gallery": the side whose embeddings come from points and are shuffled in the control.
    """
    if shapes not in ("query", "gallery"):
        raise ValueError(f'shapes must be "query" or "gallery", got {shapes!r}')
    query_embeds, gallery_embeds = torch.as_tensor(query_embeds), torch.as_tensor(gallery_embeds)
    result = retrieval_metrics(query_embeds, gallery_embeds, relevant, recall_at)
    chance = retrieval_chance(result)

    def shuffled(embeds: Tensor) -> dict[str, float]:
        sides = (embeds, gallery_embeds) if shapes == "query" else (query_embeds, embeds)
        return retrieval_metrics(*sides, relevant, recall_at).metrics

    control = shuffled_control(shuffled, query_embeds if shapes == "query" else gallery_embeds, num_permutations, seed)
    ranks, figures = result.ranks.numpy(), []
    for name, value in result.metrics.items():
        at_most = None if name == "median_rank" else int(name.removeprefix("recall_at_"))

        def measure(rows: np.ndarray, k: int | None = at_most) -> float:
            return float(np.median(ranks[rows])) if k is None else float((ranks[rows] <= k).mean())

        interval = bootstrap_interval(len(ranks), measure, seed=seed)
        figures.append(Figure(name, value, chance[name], *control[name], interval))
    return Evaluation(result, figures, _settings(num_permutations, seed))


def _settings(num_permutations: int, seed: int) -> dict[str, Any]:
    return {
        "permutations": num_permutations,
        "bootstrap_resamples": NUM_RESAMPLES,
        "confidence": CONFIDENCE,
        "seed": seed,
    }
