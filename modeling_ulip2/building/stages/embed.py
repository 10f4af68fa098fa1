"""The tower's embedding of every view, computed once for all stages that need it."""

from __future__ import annotations

from typing import Any

import numpy as np

from modeling_ulip2.data.images import open_depth, open_view

from .base import Batch, alive, by_length
from .tower import TowerStage


class EmbedViews(TowerStage):
    """`views` -> `image_embeds` (V, D) float32 per object, L2-normalized: of the images as they are stored."""

    batch_size = 4
    source, result, open_image = "views", "image_embeds", staticmethod(open_view)

    def __call__(self, batch: Batch) -> Batch:
        good = alive(batch)
        embeds: list[np.ndarray | None] = [None] * len(batch["id"])
        images = [self.open_image(view) for i in good for view in batch[self.source][i]]
        if images:
            flat = self.tower.encode_images(images).cpu().numpy()  # (sum of V, D)
            ends = np.cumsum([len(batch[self.source][i]) for i in good])
            for i, of_object in zip(good, np.split(flat, ends[:-1]), strict=True):
                embeds[i] = of_object  # (V, D)
        return {**batch, self.result: embeds}


class EmbedDepths(EmbedViews):
    """`depths` -> `depth_embeds` (V, D) float32 per object: of the gray pictures that a model is shown of them."""

    source, result, open_image = "depths", "depth_embeds", staticmethod(open_depth)


class EmbedCaptions(TowerStage):
    """`captions` [V][k] -> `text_embeds` [V](k, D) float16, in their order; other embeddings to float16, too.

    Every different caption of a batch is embedded once.
    """

    batch_size = 64

    def describe(self) -> dict[str, Any]:
        return {**super().describe(), "dim": self.tower.dim}

    def __call__(self, batch: Batch) -> Batch:
        good = alive(batch)
        texts = sorted({text for i in good for of_view in batch["captions"][i] for text in of_view}, key=by_length)
        embeds = dict(zip(texts, self.tower.encode_text(texts).cpu().numpy(), strict=True)) if texts else {}
        results: dict[str, list[Any]] = {"text_embeds": [None] * len(batch["id"])}
        for i in good:
            results["text_embeds"][i] = [
                np.array([embeds[text] for text in of_view], dtype=np.float16).reshape(-1, self.tower.dim)  # (k, D)
                for of_view in batch["captions"][i]
            ]
        for name in ("image_embeds", "depth_embeds"):
            if name in batch:
                results[name] = [None if own is None else own.astype(np.float16) for own in batch[name]]
        return {**batch, **results}
