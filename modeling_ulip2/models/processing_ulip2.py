"""One processor for three modalities: a feature extractor for clouds, the tower's tokenizer and image processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .model_card import ProcessorCardMixin
from .tower_inputs import pads_to_full_length


class Ulip2Processor(ProcessorCardMixin, ProcessorMixin):
    """Prepares point clouds, texts and images for `Ulip2Model`.

    Args:
        feature_extractor: a `Ulip2FeatureExtractor`.
        tokenizer, image_processor: those of the image-text tower.
    """

    def __init__(self, feature_extractor: Any, tokenizer: Any, image_processor: Any):
        super().__init__(feature_extractor, tokenizer, image_processor)

    def __call__(
        self,
        point_clouds: Any = None,
        text: str | Sequence[str] | Sequence[Sequence[str]] | None = None,
        images: Any = None,
        *,
        colors: Any = None,
        return_tensors: str = "pt",
        **text_kwargs: Any,
    ) -> BatchFeature:
        """Prepares any subset of the modalities.

        Args:
            point_clouds, colors: see `Ulip2FeatureExtractor.__call__`.
            text: one caption, a caption per shape, or for each shape a list of captions, of any lengths.
            images: see the image processor of the tower.
            return_tensors: "pt" or "np".
            text_kwargs: to the tokenizer. By default captions are cut to what the tower reads, and padded to the
                longest; to the tower's length, without a mask, where it was trained so: where its tokenizer makes no
                attention mask, and for SigLIP.

        Returns:
            BatchFeature with `point_values`; `input_ids` and what else the tokenizer makes, (B, L) or, for lists of
            captions, (B, K, L) with `text_mask` (B, K), false where a shape has fewer than K captions; `pixel_values`.

        Raises:
            ValueError: nothing to prepare, an empty caption, or what the feature extractor refuses.
        """
        if point_clouds is None and text is None and images is None:
            raise ValueError("Nothing to prepare: pass point_clouds, text or images.")
        features: dict[str, Any] = {}
        if point_clouds is not None:
            features |= self.feature_extractor(point_clouds, colors=colors, return_tensors=return_tensors)
        if text is not None:
            features |= self._prepare_text(text, return_tensors, **text_kwargs)
        if images is not None:
            features |= self.image_processor(images, return_tensors=return_tensors)
        return BatchFeature(features)

    def _prepare_text(self, text: Any, return_tensors: str, **kwargs: Any) -> dict[str, Any]:
        if isinstance(text, str):
            text = [text]
        nested = not all(isinstance(captions, str) for captions in text)
        if nested and not all(isinstance(captions, (list, tuple)) for captions in text):
            raise ValueError("text must be a caption, a list of captions, or a list of lists of captions.")
        flat = [caption for captions in text for caption in captions] if nested else list(text)
        for index, caption in enumerate(flat):
            if not isinstance(caption, str) or not caption.strip():
                raise ValueError(f"Caption {index} is empty or no string: {caption!r}. Leave it out.")
        if not flat:
            raise ValueError("text holds no caption.")
        if pads_to_full_length(self.tokenizer, self.image_processor):
            kwargs = {"padding": "max_length", "return_attention_mask": False, **kwargs}
        kwargs = {"padding": True, "truncation": True, **kwargs}
        tokens = self.tokenizer(flat, return_tensors=return_tensors, **kwargs)
        if not nested:
            return dict(tokens)
        most = max(len(captions) for captions in text)
        present = np.array([[k < len(captions) for k in range(most)] for captions in text])  # (B, K)
        features = {name: _scattered(value, present) for name, value in tokens.items()}
        features["text_mask"] = torch.from_numpy(present) if return_tensors == "pt" else present
        return features


def _scattered(rows: Any, present: np.ndarray) -> Any:
    """Rows (captions, L) put where `present` (B, K) is true, zeros elsewhere: (B, K, L)."""
    if isinstance(rows, torch.Tensor):
        return torch.from_numpy(_scattered(rows.numpy(), present))
    spread = np.zeros((*present.shape, *rows.shape[1:]), dtype=rows.dtype)
    spread[present] = rows
    return spread


Ulip2Processor.register_for_auto_class()

__all__ = ["Ulip2Processor"]
