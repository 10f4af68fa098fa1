from __future__ import annotations

import json
from itertools import combinations, permutations

import numpy as np
import pytest
import torch

from modeling_ulip2.evaluation import evaluate_retrieval, evaluate_zero_shot, retrieval_metrics, zero_shot_metrics
from modeling_ulip2.evaluation.metrics.controls import (
    bootstrap_interval,
    mean_over_classes,
    retrieval_chance,
    shuffled_control,
    zero_shot_chance,
    zero_shot_constant,
)
from modeling_ulip2.evaluation.metrics.retrieval import RetrievalResult
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult


def classified(labels: list[int], logits: torch.Tensor) -> ZeroShotResult:
    return ZeroShotResult.from_logits(logits, torch.tensor(labels), topk=(1, 2))


def test_chance_is_the_mean_over_all_orders_of_the_classes():
    labels = [0, 0, 0, 1, 3]  # class 2 has no shape
    runs = [classified(labels, torch.tensor([order] * 5).float()).metrics for order in permutations(range(4))]
    chance = zero_shot_chance(classified(labels, torch.zeros(5, 4)))
    for name, value in chance.items():
        assert value == pytest.approx(np.mean([run[name] for run in runs]))
    assert chance["top1"] == 1 / 4


def test_the_constant_answer_is_the_best_of_all_constant_answers():
    labels = [0, 0, 0, 1, 3, 3]
    runs = [classified(labels, torch.tensor([order] * 6).float()).metrics for order in permutations(range(4))]
    for name, value in zero_shot_constant(classified(labels, torch.zeros(6, 4))).items():
        assert value == pytest.approx(max(run[name] for run in runs))


def test_retrieval_chance_by_counting_every_order():
    size, num_relevant = 6, [1, 2, 4]
    first = {p: [min(places) + 1 for places in combinations(range(size), p)] for p in num_relevant}
    result = RetrievalResult(torch.ones(3).long(), torch.tensor(num_relevant), size, torch.arange(3), (1, 2, 5))
    chance = retrieval_chance(result)
    for k in (1, 2, 5):
        expected = np.mean([np.mean(np.array(first[p]) <= k) for p in num_relevant])
        assert chance[f"recall_at_{k}"] == pytest.approx(expected)
    share = [np.mean([np.mean(np.array(first[p]) <= rank) for p in num_relevant]) for rank in range(1, 7)]
    assert chance["median_rank"] == next(rank for rank in range(1, 7) if share[rank - 1] >= 0.5)


def test_retrieval_chance_of_one_answer_in_a_thousand():
    result = RetrievalResult(torch.ones(9).long(), torch.ones(9).long(), 1000, torch.arange(9))
    expected = {"recall_at_1": 1e-3, "recall_at_5": 5e-3, "recall_at_10": 1e-2, "median_rank": 500}
    assert retrieval_chance(result) == pytest.approx(expected)


def imbalanced(noise: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0] * 60 + [1] * 25 + [2] * 10 + [3] * 5)
    classes = torch.eye(4, 16)
    return classes[labels] + noise * torch.randn(100, 16, generator=generator), classes, labels


def test_shuffling_has_the_expectation_that_can_be_computed():
    points, classes, labels = imbalanced(noise=0.3)
    result = zero_shot_metrics(points, classes, labels)
    predicted = result.confusion.sum(dim=0).double()
    expected = float((result.class_counts * predicted).sum()) / 100**2
    control = shuffled_control(lambda embeds: zero_shot_metrics(embeds, classes, labels).metrics, points, 200, seed=1)
    mean, std = control["top1"]
    assert abs(mean - expected) < 4 * std / 200**0.5
    assert 0 < std < 0.1
    # class imbalance lifts the control far above chance: that is what it is for
    assert mean > 0.35 > zero_shot_chance(result)["top1"]


def test_every_figure_has_its_controls():
    points, classes, labels = imbalanced(noise=0.5)
    evaluation = evaluate_zero_shot(points, classes, labels, ["a", "b", "c", "d"], seed=3)
    assert [figure.name for figure in evaluation.figures] == list(evaluation.result.metrics)
    for figure in evaluation.figures:
        assert figure.value == evaluation.result.metrics[figure.name]
        assert figure.interval[0] <= figure.value <= figure.interval[1]
        assert figure.constant is not None
    assert 1 > evaluation["top1"].value > 0.8 > evaluation["top1"].constant == 0.6
    assert evaluation["top1_class_average"].constant == 0.25
    shuffled = shuffled_control(lambda embeds: zero_shot_metrics(embeds, classes, labels).metrics, points, seed=3)
    for figure in evaluation.figures:
        assert (figure.control, figure.control_std) == pytest.approx(shuffled[figure.name])
    again = evaluate_zero_shot(points, classes, labels, ["a", "b", "c", "d"], seed=3)
    assert again.figures == evaluation.figures
    assert evaluate_zero_shot(points, classes, labels, seed=4)["top1"].control != evaluation["top1"].control
    json.dumps(evaluation.to_dict(), allow_nan=False)


@pytest.mark.parametrize("shapes", ["query", "gallery"])
def test_retrieval_with_a_perfect_embedding(shapes: str):
    points = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    evaluation = evaluate_retrieval(points, points, [[row] for row in range(40)], shapes)
    assert evaluation.result.metrics == {"recall_at_1": 1, "recall_at_5": 1, "recall_at_10": 1, "median_rank": 1}
    assert evaluation["recall_at_1"].chance == pytest.approx(1 / 40)
    assert evaluation["recall_at_1"].control < 0.1
    assert 12 < evaluation["median_rank"].control < 28
    assert evaluation["median_rank"].interval == (1, 1)
    with pytest.raises(ValueError, match='"query" or "gallery"'):
        evaluate_retrieval(points, points, [[0]] * 40, "point")


def test_the_control_of_a_retrieval_by_text_shuffles_the_shapes():
    """Shuffling shapes that are all alike changes nothing; the control must then equal the figure."""
    texts, shapes = torch.eye(3, 8), torch.ones(9, 8)
    right = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    evaluation = evaluate_retrieval(texts, shapes, right, "gallery")
    assert evaluation["median_rank"].value == evaluation["median_rank"].control == 7
    assert evaluation["median_rank"].control_std == 0
    assert retrieval_metrics(texts, shapes, right).metrics["recall_at_5"] == 0


def test_bootstrap_of_shares_is_the_binomial():
    correct = np.array([1] * 30 + [0] * 70)
    low, high = bootstrap_interval(100, lambda rows: correct[rows].mean(), num_resamples=20000)
    draws = np.random.default_rng(5).binomial(100, 0.3, size=200000) / 100
    assert low == pytest.approx(np.quantile(draws, 0.025), abs=0.011)
    assert high == pytest.approx(np.quantile(draws, 0.975), abs=0.011)
    assert bootstrap_interval(5, lambda rows: 1.0) == (1, 1)


def test_class_average_of_a_resample():
    values, labels = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0, 0, 3, 3])
    assert mean_over_classes(values, labels) == 0.5
    assert mean_over_classes(np.array([1.0, 1.0, 0.0]), np.array([0, 0, 2])) == 0.5  # class 1 does not occur


def test_the_interval_of_a_class_average_admits_how_few_shapes_a_class_has():
    """Two classes, each always right or always wrong: one shape more or less decides, and the interval must say so."""
    points, classes = torch.eye(3)[[0, 0, 0, 0, 0, 0, 2]], torch.eye(3)
    figure = evaluate_zero_shot(points, classes, [0, 0, 0, 0, 0, 0, 1])["top1_class_average"]
    assert figure.value == 0.5
    assert figure.interval == (0.5, 1)
