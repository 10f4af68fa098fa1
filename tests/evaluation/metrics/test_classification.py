from __future__ import annotations

import torch
import torch.nn.functional as F

from modeling_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.data.augmentation import PUBLISHED
from modeling_ulip2.data.labeled import ClassificationCollator
from modeling_ulip2.evaluation.metrics.classification import fit_linear_probe, predict_logits
from tests.training.test_classification import labeled, model

FEATURES = torch.randn(60, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 10, 0.1, 1, 1]) + 3
LABELS = (FEATURES[:, 0] > 3).long() + (FEATURES[:, 1] > 3).long()


def test_the_probe_is_the_optimum_of_penalized_logistic_regression():
    probe = fit_linear_probe(FEATURES, LABELS, 3, c=2.0)
    inputs = ((FEATURES - FEATURES.mean(0)) / FEATURES.std(0, correction=0)).double()
    # the layer in terms of the standardized features
    weight = (probe.weight * FEATURES.std(0, correction=0)).detach().double().requires_grad_()
    bias = (probe.bias + probe.weight @ FEATURES.mean(0)).detach().double().requires_grad_()
    loss = F.cross_entropy(inputs @ weight.T + bias, LABELS) + weight.square().sum() / (2 * 2.0 * 60)
    loss.backward()
    assert weight.grad is not None and bias.grad is not None
    assert weight.grad.abs().max() < 1e-4 and bias.grad.abs().max() < 1e-4
    assert (probe(FEATURES).argmax(-1) == LABELS).float().mean() > 0.8


def test_what_never_changes_has_no_weight():
    features = torch.cat([FEATURES, torch.full((60, 1), 7.0)], dim=1)
    probe = fit_linear_probe(features, LABELS, 3)
    assert (probe.weight[:, 5] == 0).all() and probe.weight.isfinite().all()


def test_votes_average_augmented_passes():
    clouds, own = labeled(5), model().eval()
    collator = ClassificationCollator(Ulip2FeatureExtractor(num_points=64), PUBLISHED, seed=2)
    passes = []
    for vote in range(3):
        collator.set_epoch(vote)
        with torch.no_grad():
            passes.append(own(collator([clouds[i] for i in range(5)])["point_values"]).logits)
    voted = predict_logits(own, collator, clouds, batch_size=2, votes=3)
    torch.testing.assert_close(voted, torch.stack(passes).mean(0))
    once = predict_logits(own.train(), collator, clouds, batch_size=4)
    assert own.training, "the mode is given back"
    with torch.no_grad():
        plain = own.eval()(collator.for_evaluation()([clouds[i] for i in range(5)])["point_values"]).logits
    torch.testing.assert_close(once, plain)
    assert (once - voted).abs().max() > 1e-4
