"""Makes one batch of model inputs from rows of triplets: a view per shape, its best captions, an augmented cloud."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import ProcessorMixin

from modeling_ulip2.data.augmentation import PUBLISHED, PointAugmentation, mix_clouds
from modeling_ulip2.data.images import open_depth, open_view
from modeling_ulip2.data.random_order import random_order, take_rows
from modeling_ulip2.data.schema import STORED_UP_AXIS
from modeling_ulip2.models.feature_extraction_ulip2 import append_height
from modeling_ulip2.models.loss import average_captions

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on


class CloudCollator:
    """Draws and prepares the clouds of a batch; the base of collators that add what goes with a cloud.

    What is drawn for a row depends on `seed`, the pass over the data and the row's `id` alone: not on the batch, the
    number of workers or processes, or on whether the run was resumed. `epoch` in a row overrides `set_epoch`. The one
    exception is the mixing of clouds, where a collator knows it: the partner is another row of the batch.

    Args:
        feature_extractor: a `Ulip2FeatureExtractor`.
        augmentation: changes to the cloud; None: no changes, and the same draws in every pass.
        seed: of all draws.
    """

    # What is up in the rows, which do not say it themselves; None: the feature extractor knows.
    up_axis: str | None = None
    # Can it mix what goes with the clouds, too?
    mixes_clouds = False

    def __init__(self, feature_extractor: Any, augmentation: PointAugmentation | None = PUBLISHED, seed: int = 0):
        if augmentation is not None and augmentation.mix_share and not self.mixes_clouds:
            raise ValueError(f"mix_share must be 0: {type(self).__name__} cannot mix what goes with the clouds")
        self.feature_extractor = feature_extractor
        self.augmentation = augmentation
        self.seed = seed
        self._epoch = _shared_number()

    def set_epoch(self, epoch: int) -> None:
        """Tells which pass over the data follows; workers that already run see it too."""
        self._epoch.fill_(epoch)

    def independent(self) -> Self:
        """The same with an epoch of its own, at 0: `set_epoch` of either leaves the other where it is."""
        other = copy.copy(self)
        other._epoch = _shared_number()
        return other

    def for_evaluation(self) -> Self:
        """The same without augmentation, independent: every pass draws the same."""
        other = self.independent()
        other.augmentation = None
        return other

    def _rng(self, row: Mapping[str, Any]) -> np.random.Generator:
        digest = blake2b(str(row["id"]).encode(), digest_size=8).digest()
        epoch = int(row.get("epoch", self._epoch)) if self._draws_anew() else 0
        return np.random.default_rng([self.seed, epoch, int.from_bytes(digest, "big")])

    def _draws_anew(self) -> bool:
        """Does each pass draw otherwise than the one before?"""
        return self.augmentation is not None

    def points(self, rows: Sequence[Mapping[str, Any]]) -> torch.Tensor:
        """`point_values` (B, N, C) float32 of rows as a dataset of clouds gives them, without what goes with them."""
        return self._points(rows, [self._rng(row) for row in rows])

    def _points(self, rows: Sequence[Mapping[str, Any]], rngs: list[np.random.Generator]) -> torch.Tensor:
        """`point_values` (B, N, 3 or 6) float32 of rows with `xyz` (N, 3) and perhaps `rgb` (N, 3).

        Colors are bytes, or floats in [0, 1].
        """
        return torch.from_numpy(self._augmented(self._prepared(rows, rngs), rngs))

    def _prepared(self, rows: Sequence[Mapping[str, Any]], rngs: list[np.random.Generator]) -> np.ndarray:
        """The clouds of `rows` (B, N, C) as the feature extractor makes them, of points that this pass draws."""
        clouds = []
        for row, rng in zip(rows, rngs, strict=True):
            xyz, rgb = np.asarray(row["xyz"]), row.get("rgb")
            if rgb is not None:
                rgb = np.asarray(rgb)
                rgb = rgb if rgb.dtype.kind == "f" else rgb.astype(np.uint8)  # plain rows hold Python integers
            chosen = None if self.augmentation is None else self._draw(xyz, rng)
            if chosen is not None:
                xyz, rgb = take_rows(xyz, chosen), None if rgb is None else take_rows(rgb, chosen)
            clouds.append({"xyz": xyz, "rgb": rgb, "up_axis": self.up_axis})
        return self.feature_extractor(clouds, return_tensors="np")["point_values"]

    def _augmented(self, values: np.ndarray, rngs: list[np.random.Generator]) -> np.ndarray:
        """Clouds (B, N, C) with the changes of the augmentation, in place where that can be."""
        if self.augmentation is None:
            return values
        for cloud, rng in zip(values, rngs, strict=True):
            self.augmentation(cloud, rng, out=cloud)
        # of the cloud as it stands now
        return append_height(values[..., :-1]) if self.feature_extractor.has_height else values

    def _draw(self, xyz: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """Which points of a cloud (n, 3) a pass of the training sees, in which order; None: the extractor chooses."""
        num_points = self.feature_extractor.num_points
        if self.feature_extractor.sampling != "random" or len(xyz) < num_points:
            return None
        # other points in every pass; also where all are kept, as dropout and grouping favor the first one
        return random_order(len(xyz), rng)[:num_points]


class TripletCollator(CloudCollator):
    """Turns triplet rows into inputs of `Ulip2Model`.

    A row holds `id`, `xyz` (N, 3), `rgb` (N, 3) uint8 (optional) and either the towers' embeddings (`image_embeds`
    (V, D), `text_embeds` V times (k, D), optional `depth_embeds` (V, D)) or raw data (`views` [V], k `captions`
    per view, optional `depths` [V]). Captions come best first.

    Args:
        processor: a `Ulip2Processor`. Rows with embeddings need its feature extractor only.
        top_k: captions of the view that are used (the loss averages their embeddings). ULIP-2 uses the best one.
        use_depth: draw among RGB and depth views; False: RGB only.
        augmentation: changes to the cloud; None: no changes, and the same view and points in every pass.
        seed: of all draws.
    """

    up_axis = STORED_UP_AXIS
    mixes_clouds = True

    def __init__(
        self,
        processor: ProcessorMixin,
        top_k: int = 1,
        use_depth: bool = False,
        augmentation: PointAugmentation | None = PUBLISHED,
        seed: int = 0,
    ):
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k}")
        super().__init__(processor.feature_extractor, augmentation, seed)
        self.processor = processor
        self.top_k = top_k
        self.use_depth = use_depth

    def for_evaluation(self) -> Self:
        """The same without augmentation and on RGB views alone: every pass sees the same points and views."""
        other = super().for_evaluation()
        other.use_depth = False
        return other

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """B rows -> `point_values` (B, N, 3 or 6) float32 and `return_loss`, with, for rows

        - with embeddings: `image_embeds` (B, D) and `text_embeds` (B, K, D) float32,
          and `text_mask` (B, K) bool, False where a row has fewer than K captions
        - with raw data: `pixel_values` (B, 3, H, W) and what the tokenizer makes of B lists of captions
        """
        rngs = [self._rng(row) for row in rows]
        views = [self._choose_view(row, rng) for row, rng in zip(rows, rngs, strict=True)]
        values = self._prepared(rows, rngs)  # (B, N, C)
        has_embeddings = "text_embeds" in rows[0]
        batch = self._embeddings(rows, views) if has_embeddings else self._raw(rows, views)
        if self.augmentation is not None and self.augmentation.mix_share:
            if not has_embeddings:
                raise ValueError("mix_share needs the towers' embeddings in the rows: pictures cannot be averaged")
            values, batch = self._mixed(values, batch, rngs)
        return {"point_values": torch.from_numpy(self._augmented(values, rngs))} | batch | {"return_loss": True}

    def _mixed(
        self, values: np.ndarray, batch: dict[str, torch.Tensor], rngs: list[np.random.Generator]
    ) -> tuple[np.ndarray, dict[str, torch.Tensor]]:
        """Some clouds (B, N, C) become mixtures with another of the batch; so do their images and texts, by shares."""
        assert self.augmentation is not None
        own, others, shares, clouds = [], [], [], values.copy()
        for row, rng in enumerate(rngs):
            if rng.random() >= self.augmentation.mix_share or len(rngs) < 2:
                continue
            other = (row + 1 + int(rng.random() * (len(rngs) - 1))) % len(rngs)
            clouds[row], share = mix_clouds(values[row], values[other], rng)
            own.append(row)
            others.append(other)
            shares.append(share)
        if not own:
            return values, batch
        weights = torch.tensor(shares, dtype=torch.float32)[:, None]  # (m, 1)
        texts = average_captions(batch["text_embeds"], batch["text_mask"])  # (B, D)
        images = average_captions(batch["image_embeds"])
        batch = {name: value.clone() for name, value in batch.items()}
        batch["image_embeds"][own] = weights * images[own] + (1 - weights) * images[others]
        # one caption stands for all, as the loss averages them
        batch["text_embeds"][own, 0] = weights * texts[own] + (1 - weights) * texts[others]
        batch["text_mask"][own, 1:] = False
        return clouds, batch

    def _choose_view(self, row: Mapping[str, Any], rng: np.random.Generator) -> tuple[int, bool]:
        """Index of a view that has captions, and whether its depth is meant rather than its colors."""
        names = ("text_embeds", "image_embeds") if "text_embeds" in row else ("captions", "views")
        captions, views = (row[name] for name in names)
        usable = [view for view, own in enumerate(captions) if len(own) and view < len(views)]
        if not usable:
            lacks = "caption" if len(views) else "view"
            raise ValueError(f"the triplet {row['id']!r} has no {lacks}: training needs views with captions")
        depths = row.get("depth_embeds", row.get("depths")) if self.use_depth else None
        if self.use_depth and depths is None:
            raise ValueError(f"use_depth=True, but the triplet {row['id']!r} has no depth views")
        choice = int(rng.integers(len(usable) * (1 + self.use_depth)))
        return usable[choice % len(usable)], choice >= len(usable)

    def _embeddings(self, rows: Sequence[Mapping[str, Any]], views: list[tuple[int, bool]]) -> dict[str, torch.Tensor]:
        chosen = list(zip(rows, views, strict=True))
        texts = [row["text_embeds"][view][: self.top_k] for row, (view, _) in chosen]
        images = [row["depth_embeds" if deep else "image_embeds"][view] for row, (view, deep) in chosen]
        counts = [len(own) for own in texts]
        padded = np.zeros((len(rows), max(counts), texts[0].shape[-1]), dtype=np.float32)  # (B, K, D)
        for i, own in enumerate(texts):
            padded[i, : len(own)] = own
        return {
            "image_embeds": torch.from_numpy(np.stack(images).astype(np.float32)),  # (B, D)
            "text_embeds": torch.from_numpy(padded),
            "text_mask": _mask(counts),
        }

    def _raw(self, rows: Sequence[Mapping[str, Any]], views: list[tuple[int, bool]]) -> dict[str, torch.Tensor]:
        texts = [list(row["captions"][view])[: self.top_k] for row, (view, _) in zip(rows, views, strict=True)]
        images = []
        for row, (view, deep) in zip(rows, views, strict=True):
            images.append(open_depth(row["depths"][view]) if deep else open_view(row["views"][view]))
        return dict(self.processor(text=texts, images=images, return_tensors="pt"))


def _shared_number() -> torch.Tensor:
    """A whole number, 0, in shared memory, so that workers that outlive an epoch see it change."""
    return torch.zeros((), dtype=torch.int64).share_memory_()


def _mask(counts: list[int]) -> torch.Tensor:
    """(B, K) bool: is there a k-th caption?"""
    return torch.arange(max(counts)) < torch.tensor(counts)[:, None]
