"""Zero-shot classification and retrieval on held-out triplets, while training goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

if TYPE_CHECKING:
    from modeling_ulip2.evaluation.reports.sheets import Hit

from modeling_ulip2.data.images import portrait
from modeling_ulip2.data.labels import class_names_of
from modeling_ulip2.evaluation import class_embeddings, retrieval_metrics, zero_shot_metrics
from modeling_ulip2.evaluation.class_cache import cached_class_embeddings
from modeling_ulip2.evaluation.embeddings import embed_points, embed_views
from modeling_ulip2.evaluation.metrics.retrieval import shared_texts
from modeling_ulip2.evaluation.tracker_pictures import log_picture
from modeling_ulip2.models.feature_extraction_ulip2 import Ulip2FeatureExtractor
from modeling_ulip2.models.modeling_ulip2 import Ulip2Model
from modeling_ulip2.towers import Tower

# Where pictures of a training go in its output folder, and what they show.
PICTURES, EXAMPLE_QUERIES, EXAMPLE_HITS = "retrievals", 6, 5


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
        cache_dir: where class embeddings are kept for the next training with that tower; None: nowhere.
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
        cache_dir: Path | None = None,
    ):
        self.triplets, self.feature_extractor, self.batch_size = triplets, feature_extractor, batch_size
        ids = list(triplets["id"])
        self.class_names = class_names_of(labels or {}, ids)
        place = {name: label for label, name in enumerate(self.class_names)}
        self.labeled = [row for row, name in enumerate(ids) if name in (labels or {})]
        self.targets = torch.tensor([place[(labels or {})[ids[row]]] for row in self.labeled])  # (n,)
        # one class is no classification
        if len(self.class_names) > 1:
            self.class_embeds = self._class_embeddings(tower, templates, cache_dir)  # (C, D)
        texts, self.shapes_of_text, self.texts_of_shape = shared_texts([[name or ""] for name in triplets["name"]])
        self.text_embeds = tower.encode_text(texts) if texts else None  # (T, D)
        self.texts = texts
        self.points: Tensor | None = None  # of the last evaluation
        views = embed_views(tower, triplets, features, draw=seed, progress=False)
        self.view_embeds = torch.cat(views)  # (N, D): one view per shape

    def _class_embeddings(self, tower: Tower, templates: Sequence[str], cache_dir: Path | None) -> Tensor:
        if cache_dir is None:
            return class_embeddings(tower.encode_text, self.class_names, templates)
        name = f"{tower.fingerprint} {tower.dtype}"
        return cached_class_embeddings(name, self.class_names, templates, cache_dir, lambda: tower)[0]

    def __call__(self, model: Ulip2Model) -> dict[str, float]:
        """Metrics of `model` by name, e.g. `zero_shot_top1`, `text_to_shape_recall_at_5`."""
        points = self.points = self._embed(model)  # (N, D)
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

    def example_retrievals(self, queries: int = EXAMPLE_QUERIES, hits: int = EXAMPLE_HITS) -> dict[str, list[Hit]]:
        """The best shapes for some names, as the last evaluation embedded them; {} where no shape has a name.

        The names are spread over all, the same ones in every evaluation.
        """
        if self.text_embeds is None or self.points is None:
            return {}
        from modeling_ulip2.evaluation.reports.sheets import Hit

        chosen = np.unique(np.linspace(0, len(self.texts) - 1, min(queries, len(self.texts))).astype(int))
        found = {}
        for text in chosen.tolist():
            scores = self.points @ self.text_embeds[text].to(self.points)  # (N,)
            best = scores.topk(min(hits, len(scores))).indices.tolist()
            right = set(self.shapes_of_text[text])
            rows = [self.triplets[row] for row in best]
            found[self.texts[text]] = [
                Hit(portrait(own), own["name"] or own["id"], float(scores[row]), row in right)
                for row, own in zip(best, rows, strict=True)
            ]
        return found

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

    Args:
        trainer: logs them.
        evaluation: makes them.
        pictures: draw the best shapes for some names, into `retrievals/` of the output folder and for whatever tracker
            the trainer reports to. Needs matplotlib (extra `eval`).
    """

    def __init__(self, trainer: Trainer, evaluation: HeldOutEvaluation, pictures: bool = False):
        self.trainer = trainer
        self.evaluation = evaluation
        self.pictures = pictures

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
        if self.pictures and args.should_save:
            self._show_retrievals(Path(str(args.output_dir)), state.global_step)

    def _show_retrievals(self, output_dir: Path, step: int) -> None:
        from modeling_ulip2.evaluation.reports.sheets import retrieval_sheet

        rows = self.evaluation.example_retrievals()
        if not rows:
            return
        path = output_dir / PICTURES / f"step-{step:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        retrieval_sheet(path, rows, f"Held-out shapes for their names, after {step:,} steps")
        log_picture(self.trainer, "eval/retrievals", path, step)
