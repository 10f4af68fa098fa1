"""How well each caption fits its view, by the tower; every caption keeps its score."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Batch, Stage, alive, by_length
from .tower import TowerStage


class RankCaptions(TowerStage):
    """Sorts `captions` [V][k] by descending `caption_scores` [V][k], the cosine of view and caption.

    A score is the dot product of the tower's L2-normalized embeddings, without its temperature: from -1 to 1, and in
    a CLIP rarely above 0.4. All captions are kept, so that top-k is a choice of the training run.

    Also gives `image_embeds` [V][D] and `text_embeds` [V][k][D] as float16, which are the `features` config. It takes
    a whole shard, in which every different caption is embedded once. An object without any caption fails: without
    words it is no triplet.

    With `sources`, `caption_sources` [V][k] say in that order which captioner said each caption; else they go.
    """

    batch_size = None

    def __init__(self, tower: str, sources: bool = False, **options: Any) -> None:
        super().__init__(tower, **options)
        self.sources = sources

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "dim": self.tower.dim}

    def __call__(self, batch: Batch) -> Batch:
        batch = without_wordless(batch)
        good = alive(batch)
        texts = sorted({text for i in good for of_view in batch["captions"][i] for text in of_view}, key=by_length)
        position = {text: at for at, text in enumerate(texts)}
        embeds = self.tower.encode_text(texts).cpu().numpy() if texts else None
        results: dict[str, list[Any]] = {
            name: [None] * len(batch["id"]) for name in ("captions", "caption_scores", "image_embeds", "text_embeds")
        }
        for i in good:
            assert embeds is not None  # a good object has a caption
            image_embeds = batch["image_embeds"][i]  # (V, D)
            ranked = [
                rank(captions, embeds[np.array([position[text] for text in captions], dtype=int)], image_embed)
                for captions, image_embed in zip(batch["captions"][i], image_embeds, strict=True)
            ]
            for name, column in zip(
                ("captions", "caption_scores", "text_embeds"), zip(*ranked, strict=True), strict=True
            ):
                results[name][i] = list(column)
            results["image_embeds"][i] = image_embeds.astype(np.float16)
            if self.sources:
                said = [
                    dict(zip(*own, strict=True))
                    for own in zip(batch["captions"][i], batch["caption_sources"][i], strict=True)
                ]
                results.setdefault("caption_sources", [None] * len(batch["id"]))[i] = [
                    [own[text] for text in texts] for own, texts in zip(said, results["captions"][i], strict=True)
                ]
        if not self.sources:
            batch.pop("caption_sources", None)
        return {**batch, **results}


class KeepCaptions(Stage):
    """Stands in for `RankCaptions` where there is no tower: `captions` [V][k] stay in the order of their captioners,
    and `caption_scores` [V][k] are None; `sources` as there.
    """

    batch_size = 64

    def __init__(self, sources: bool = False) -> None:
        self.sources = sources

    def __call__(self, batch: Batch) -> Batch:
        batch = without_wordless(batch)
        scores: list[Any] = [None] * len(batch["id"])
        for i in alive(batch):
            scores[i] = [[None] * len(of_view) for of_view in batch["captions"][i]]
        if not self.sources:
            batch.pop("caption_sources", None)
        return {**batch, "caption_scores": scores}


def without_wordless(batch: Batch) -> Batch:
    """The batch, in which objects without any caption have failed: without words they are no triplets."""
    batch = {**batch, "error": list(batch["error"]), "message": list(batch["message"])}
    for i in alive(batch):
        if not any(batch["captions"][i]):
            batch["error"][i] = "no_captions"
            batch["message"][i] = "no captioner has words for it: give it a name, or add a captioner"
    return batch


def rank(
    captions: list[str], embeds: np.ndarray, image_embed: np.ndarray
) -> tuple[list[str], list[float], np.ndarray]:
    """A view's captions, their embeddings (k, D) and its own (D,) -> captions, scores, embeddings, best first."""
    scores = embeds @ image_embed  # (k,)
    order = np.argsort(-scores, kind="stable")
    return [captions[at] for at in order], scores[order].tolist(), embeds[order].astype(np.float16)
