"""Fine-tuned classifiers on test clouds, with votes, and linear probes of frozen encoders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import EvalPrediction

from modeling_ulip2.data.collator import CloudCollator
from modeling_ulip2.data.labeled import LabeledClouds
from modeling_ulip2.embedder import Ulip2Embedder
from modeling_ulip2.embedding.loop import embed_each
from modeling_ulip2.embedding.reading import Selected
from modeling_ulip2.evaluation.metrics.zero_shot import ZeroShotResult
from modeling_ulip2.utils.packages import require_package

# Strength of a probe's regularization, as scikit-learn's LogisticRegression has it by default. Ours: no published
# linear probe of these encoders says its own.
PROBE_C = 1.0


@torch.no_grad()
def encode_clouds(
    model: Any,
    features: str,
    collator: CloudCollator,
    clouds: LabeledClouds,
    batch_size: int = 32,
    progress: str | None = None,
) -> Tensor:
    """Runs a model on labeled clouds, as a collator prepares them.

    Args:
        model: in evaluation mode.
        features: see `embedding.encoding.FEATURE_KINDS`, such as "pooled" or "logits".
        progress: what the bar says; None: no bar.

    Returns:
        (len(clouds), D) float32 on the CPU.

    Raises:
        ValueError: a cloud cannot be used, or what becomes of it is not finite; the message names it.
    """
    embedder = Ulip2Embedder(model, collator.feature_extractor)
    records = embed_each(
        Selected(clouds, range(len(clouds))),
        lambda row: (collator.points([row])[0].numpy(), []),
        lambda values: embedder.encode(values, features),
        ids=clouds.ids,
        batch_size=batch_size,
        num_workers=0,
        progress=progress or False,
    )
    return torch.stack([record.vector() for record in records])  # (N, D)


def predict_logits(
    model: Any,
    collator: CloudCollator,
    clouds: LabeledClouds,
    batch_size: int = 32,
    votes: int = 1,
    progress: str | None = None,
) -> Tensor:
    """Logits (N, num_labels) of a `Ulip2ForPointCloudClassification`.

    With `votes` > 1, the mean over so many passes, each with points and augmentation drawn as in training. That is how
    Point-BERT's code votes. It then reports the best of many repetitions on the test set; this is one, by the
    collator's seed.

    Args:
        collator: a `ClassificationCollator` with the augmentation of the training.
    """
    was_training = model.training
    model.eval()
    # never the caller's own: a training may go on with it, in its own epoch
    collator = collator.independent() if votes > 1 else collator.for_evaluation()
    total: Tensor | float = 0.0
    for vote in range(votes):
        collator.set_epoch(vote)
        total = total + encode_clouds(model, "logits", collator, clouds, batch_size, progress)
    model.train(was_training)
    return torch.as_tensor(total) / votes


def fit_linear_probe(
    features: Tensor, labels: Tensor, num_classes: int, c: float = PROBE_C, max_iter: int = 500
) -> nn.Linear:
    """Multinomial logistic regression on frozen features by scikit-learn, to convergence (L-BFGS); needs no seed.

    Features are standardized first, and the layer that is returned has that folded in. It never answers with a class
    that has no cloud among the features.

    Args:
        features: (N, D).
        labels: (N,) in [0, num_classes), of two classes at least.
        c: inverse strength of the L2 penalty on the weights, as in scikit-learn.

    Returns:
        A layer D -> num_classes.
    """
    scaler = require_package("sklearn.preprocessing").StandardScaler()
    inputs = scaler.fit_transform(features.double().numpy())  # (N, D)
    # of two classes scikit-learn has one vector of weights, the difference of the two here, whose penalty is twice
    strength = 2 * c if len(labels.unique()) == 2 else c
    model = (
        require_package("sklearn.linear_model")
        .LogisticRegression(C=strength, tol=1e-7, max_iter=max_iter)
        .fit(inputs, labels.numpy())
    )
    weight, bias = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)  # (C, D), (C,)
    if len(bias) == 1:
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    folded = weight / torch.from_numpy(scaler.scale_)
    known = torch.from_numpy(model.classes_)
    probe = nn.Linear(features.shape[1], num_classes)
    with torch.no_grad():
        probe.weight.zero_()
        probe.bias.fill_(torch.finfo(probe.bias.dtype).min)
        probe.weight[known] = folded.float()
        probe.bias[known] = (bias - folded @ torch.from_numpy(scaler.mean_)).float()
    return probe


def classification_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Overall and class-average accuracy of logits (N, C) and labels (N,)."""
    logits, labels = torch.as_tensor(prediction.predictions), torch.as_tensor(prediction.label_ids)
    return accuracies(ZeroShotResult.from_logits(logits, labels, topk=(1,)))


def accuracies(result: ZeroShotResult) -> dict[str, float]:
    """The two figures of the papers by their names there."""
    return {
        "accuracy": result.metrics["top1"],
        "class_average_accuracy": result.metrics["top1_class_average"],
    }
