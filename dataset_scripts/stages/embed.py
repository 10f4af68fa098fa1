"""The tower's embedding of every view, computed once for all stages that need it."""

from __future__ import annotations

from typing import Any

import numpy as np

from modeling_ulip2.triplets.images import open_view

from .base import Batch, Stage, alive
from .tower import describe_tower, shared_tower


class EmbedViews(Stage):
    """`views` -> `image_embeds` (V, D) float32 per object, L2-normalised: of the images as they are stored."""

    batch_size = 4
    on_gpu = True

    def __init__(self, tower: str, device: str | None = None, dtype: str = "float32") -> None:
        self.tower = shared_tower(tower, device, dtype)

    def describe(self) -> dict[str, Any]:
        return describe_tower(self.tower)

    def __call__(self, batch: Batch) -> Batch:
        good = alive(batch)
        embeds: list[np.ndarray | None] = [None] * len(batch["id"])
        images = [open_view(view) for i in good for view in batch["views"][i]]
        if images:
            flat = self.tower.encode_images(images).cpu().numpy()  # (sum of V, D)
            ends = np.cumsum([len(batch["views"][i]) for i in good])
            for i, of_object in zip(good, np.split(flat, ends[:-1]), strict=True):
                embeds[i] = of_object  # (V, D)
        return {**batch, "image_embeds": embeds}
