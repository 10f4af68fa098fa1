"""Teaches a connector the words of a language model before the language model is asked (ours).

A connector that is new speaks no language: a frozen language model reads noise, and the gradient that comes back
through all its layers is a poor teacher. Here the k-th position that a cloud takes learns to be most like the k-th
token of the answer among the language model's own input embeddings. No pass through the language model is needed, so
that this takes seconds where an epoch of the training proper takes minutes; the training proper starts from there.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from modeling_ulip2.data.captions import CaptionCollator, CaptionDataset

logger = logging.getLogger(__name__)

# Settings of ours, tried on held-out shapes. The scale is that of cosines, as a softmax wants them.
SCALE, LEARNING_RATE, WEIGHT_DECAY, BATCH_SIZE = 30.0, 1e-3, 0.05, 64


def align_with_words(
    model: Any, collator: CaptionCollator, dataset: CaptionDataset, epochs: int, seed: int = 0
) -> float:
    """Trains the connector alone for some passes; returns the share of tokens that it got right in the last one.

    Afterwards the connector's outputs have the mean and the size of the language model's word embeddings. Tokens of
    answers that the first pass did not draw are left out.

    Args:
        model: a `Ulip2ForConditionalGeneration` with a new connector.
        collator: as for the training proper.
        dataset: with features, or the encoder sees every cloud in every pass.

    Raises:
        ValueError: the loss is not finite.
    """
    loader = DataLoader(
        dataset,
        batch_size=BATCH_SIZE,
        shuffle=True,
        collate_fn=collator,
        generator=torch.Generator().manual_seed(seed),
    )
    vocabulary = torch.unique(torch.cat([batch["labels"].unique() for batch in loader]))
    vocabulary = vocabulary[vocabulary >= 0]  # (W,)
    words = model.get_input_embeddings().weight.detach()[vocabulary.to(model.device)].float()  # (W, H)
    center = words.mean(dim=0)  # (H,)
    directions = F.normalize(words - center, dim=-1)  # (W, H)
    optimizer = torch.optim.AdamW(model.connector.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    model.connector.train()
    right, size = torch.zeros(2), torch.ones(())
    for epoch in tqdm(range(epochs), desc="learning words", unit="pass"):
        collator.set_epoch(epoch)
        right, sizes = torch.zeros(2), []
        for batch in loader:
            targets = answer_tokens(batch["labels"], model.config.num_query_tokens)  # (B, Q)
            targets = positions_in(vocabulary, targets).to(model.device)
            outputs = connect(model, batch).float()  # (B, Q, H)
            scores = SCALE * F.normalize(outputs, dim=-1) @ directions.T  # (B, Q, W)
            loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten())
            if not loss.isfinite():
                raise ValueError("the connector's loss is not finite: features of the clouds are too large")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            known = targets >= 0
            right += torch.tensor([(scores.argmax(dim=-1) == targets)[known].sum(), known.sum()])
            sizes.append(outputs.detach().norm(dim=-1).mean())
        size = torch.stack(sizes).mean()
    _rescale(model.connector.language_projection, center, (words - center).norm(dim=-1).mean() / size)
    share = float(right[0] / right[1].clamp(min=1))
    logger.info(f"the connector knows {100 * share:.0f} % of the tokens of its answers, of {len(vocabulary)} words")
    return share


def steps_of_pass(texts: int) -> int:
    """Optimizer steps that `align_with_words` makes in one pass over so many texts."""
    return max(1, -(-texts // BATCH_SIZE))


def answer_tokens(labels: Tensor, count: int) -> Tensor:
    """The first `count` labeled tokens of every row of (B, L), as (B, count); a shorter answer repeats its last."""
    rows = [row[row >= 0] for row in labels]
    if not all(len(row) for row in rows):
        raise ValueError("a text has no answer to learn from")
    return torch.stack([row[torch.arange(count).clamp(max=len(row) - 1)] for row in rows])


def positions_in(vocabulary: Tensor, tokens: Tensor) -> Tensor:
    """Where in the sorted `vocabulary` (W,) tokens of any shape are; -100 for those that are not in it."""
    places = torch.searchsorted(vocabulary, tokens).clamp(max=len(vocabulary) - 1)
    return torch.where(vocabulary[places] == tokens, places, -100)


def connect(model: Any, batch: dict[str, Any]) -> Tensor:
    """The connector's outputs for a batch of one cloud per text, (B, num_query_tokens, text_hidden_size)."""
    features = batch.get("point_features")
    if features is None:
        features = model.get_point_features(batch["point_values"].to(model.device)).pooler_output
    instruction = {
        name: batch[name].to(model.device) for name in ("qformer_input_ids", "qformer_attention_mask") if name in batch
    }
    return model.connector(features.to(model.device), **instruction)


@torch.no_grad()
def _rescale(projection: torch.nn.Linear, center: Tensor, factor: Tensor) -> None:
    projection.weight *= factor
    projection.bias.mul_(factor).add_(center)
