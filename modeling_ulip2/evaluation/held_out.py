"""Zero-shot classification and retrieval on held-out triplets, while training goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from modeling_ulip2.data.labels import class_names_of
from modeling_ulip2.evaluation import class_embeddings, retrieval_metrics, zero_shot_metrics
from modeling_ulip2.evaluation.embeddings import embed_points, embed_views
from modeling_ulip2.evaluation.metrics.retrieval import shared_texts
from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.models.modeling_ulip2 import Ulip2Model
from modeling_ulip2.towers import Tower


class HeldOutEvaluation:
    """Measures a model on triplets that it was not trained on; texts and images are embedded once, here.

    Args:
        triplets: rows with `id`, `name`, `xyz`, `rgb`, `views`.
        tower: the frozen image-text model.
        feature_extractor: prepares the clouds.
        labels: category by id, for zero-shot classification; None: retrieval only.
        templates: prompts of the class embeddings.
        features: the tower's embeddings of the rows, if there are any.
        batch_size: clouds per forward pass.
        seed: of the view of each shape that asks for it.
    """

    def __init__(
        self,
        triplets: Dataset,
        tower: Tower,
        feature_extractor: Ulip2FeatureExtractor,
        labels: Mapping[str, str] | None = None,
        templates: Sequence[str] = ("{}",),
        features: Dataset | None = None,
        batch_size: int = 64,
        seed: int = 0,
    ):
        self.triplets, self.feature_extractor, self.batch_size = triplets, feature_extractor, batch_size
        ids = list(triplets["id"])
        self.class_names = class_names_of(labels or {}, ids)
        place = {name: label for label, name in enumerate(self.class_names)}
        self.labeled = [row for row, name in enumerate(ids) if name in (labels or {})]
        self.targets = torch.tensor([place[(labels or {})[ids[row]]] for row in self.labeled])  # (n,)
        # one class is no classification
        if len(self.class_names) > 1:
            self.class_embeds = class_embeddings(tower.encode_text, self.class_names, templates)  # (C, D)
        texts, self.shapes_of_text, self.texts_of_shape = shared_texts([[name or ""] for name in triplets["name"]])
        self.text_embeds = tower.encode_text(texts) if texts else None  # (T, D)
        views = embed_views(tower, triplets, features, draw=seed, progress=False)
        self.view_embeds = torch.cat(views)  # (N, D): one view per shape

    def __call__(self, model: Ulip2Model) -> dict[str, float]:
        """Metrics of `model` by name, e.g. `zero_shot_top1`, `text_to_shape_recall_at_5`."""
        points = self._embed(model)  # (N, D)
        metrics: dict[str, float] = {}

        def add(prefix: str, own: Mapping[str, float]) -> None:
            metrics.update({f"{prefix}_{name}": value for name, value in own.items()})

        if len(self.class_names) > 1:
            result = zero_shot_metrics(points[self.labeled], self.class_embeds, self.targets, self.class_names)
            add("zero_shot", result.metrics)
        if self.text_embeds is not None:
            add("text_to_shape", retrieval_metrics(self.text_embeds, points, self.shapes_of_text).metrics)
            add("shape_to_text", retrieval_metrics(points, self.text_embeds, self.texts_of_shape).metrics)
        own = [[row] for row in range(len(points))]
        add("image_to_shape", retrieval_metrics(self.view_embeds, points, own).metrics)
        return metrics

    def _embed(self, model: Ulip2Model) -> Tensor:
        """(N, D) point embeddings; each process computes a part and all have them all.

        Every process makes equally many forward passes over equally many clouds: where parameters are sharded (FSDP),
        a pass needs all processes. The first shapes fill up the parts of the last ones, and count once.
        """
        state, count = PartialState(), len(self.triplets)
        shares = -(-count // state.num_processes)
        mine = [(state.process_index + turn * state.num_processes) % count for turn in range(shares)]
        was_training = model.training
        model.eval()
        rows = self.triplets.select(mine)
        embeds = embed_points(model, self.feature_extractor, rows, self.batch_size, progress=False, num_workers=0)
        model.train(was_training)
        if state.num_processes == 1:
            return embeds
        # shape i was the turn i // P of process i % P
        parts = torch.stack(gather_object([embeds]), dim=1)  # (shares, P, D)
        return parts.flatten(0, 1)[:count]  # (N, D)


class HeldOutCallback(TrainerCallback):
    """Adds the metrics of a `HeldOutEvaluation` to every evaluation of the trainer, and logs them.

    They carry the prefix `eval_`, so that `metric_for_best_model="zero_shot_top1"` works.
    """

    def __init__(self, trainer: Trainer, evaluation: HeldOutEvaluation):
        self.trainer = trainer
        self.evaluation = evaluation

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        metrics: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        found = {f"eval_{name}": value for name, value in self.evaluation(model).items()}
        if metrics is not None:
            metrics.update(found)
        self.trainer.log(found)
