"""The tower's embedding of every view, computed once for all stages that need it."""

from __future__ import annotations

from typing import Any

import numpy as np

from modeling_ulip2.data.images import open_depth, open_view

from .base import Batch, alive, by_length
from .tower import TowerStage


class EmbedViews(TowerStage):
    """`views` -> `image_embeds` (V, D) float32 per object, L2-normalized: of the images as they are stored.

    With `hidden` also `image_hidden` (V, F) float16: what the last layer of the tower's image classifier sees of them.
    """

    batch_size = 4
    source, result, open_image = "views", "image_embeds", staticmethod(open_view)

    def __init__(self, tower: str, hidden: bool = False, **options: Any) -> None:
        super().__init__(tower, **options)
        self.hidden = hidden
        if hidden and getattr(self.tower, "hidden_dim", None) is None:
            raise ValueError(f"{self.tower.name} has no image classifier whose features could be kept (--hidden)")

    def describe(self) -> dict[str, Any]:
        return super().describe() | ({"hidden": getattr(self.tower, "hidden_dim", None)} if self.hidden else {})

    def __call__(self, batch: Batch) -> Batch:
        good = alive(batch)
        columns = [self.result, *(["image_hidden"] if self.hidden else [])]
        results: dict[str, list[Any]] = {name: [None] * len(batch["id"]) for name in columns}
        images = [self.open_image(view) for i in good for view in batch[self.source][i]]
        if images:
            ends = np.cumsum([len(batch[self.source][i]) for i in good])
            for name, flat in zip(columns, self._embed(images), strict=True):
                for i, of_object in zip(good, np.split(flat, ends[:-1]), strict=True):
                    results[name][i] = of_object  # (V, D) or (V, F)
        return {**batch, **results}

    def _embed(self, images: list[Any]) -> list[np.ndarray]:
        if not self.hidden:
            return [self.tower.encode_images(images).cpu().numpy()]  # (sum of V, D)
        tower: Any = self.tower
        hidden = tower.encode_hidden(images)  # (sum of V, F)
        return [tower.embed_hidden(hidden).numpy(), hidden.numpy().astype(np.float16)]


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
