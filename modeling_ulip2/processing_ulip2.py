"""One processor for three modalities: a feature extractor for clouds, the tower's tokenizer and image processor."""

from __future__ import annotations

from typing import Any

from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin


class Ulip2Processor(ProcessorMixin):
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
        text: str | list[str] | list[list[str]] | None = None,
        images: Any = None,
        *,
        colors: Any = None,
        return_tensors: str = "pt",
        **text_kwargs: Any,
    ) -> BatchFeature:
        """Prepares any subset of the modalities.

        Args:
            point_clouds, colors: see `Ulip2FeatureExtractor.__call__`.
            text: one caption, a caption per shape, or a list of captions per shape (of any lengths). Captions longer
                than the tower reads are cut.
            images: see the image processor of the tower.
            return_tensors: "pt" or "np".
            text_kwargs: to the tokenizer; by default padding to the longest (to the tower's length where that is what
                the tower was trained with) and truncation.

        Returns:
            BatchFeature with `point_values`; `input_ids` and what else the tokenizer makes, (B, L) or, for lists of
            captions, (B, K, L) where missing captions have an attention mask of zeros; `pixel_values`.
        """
        if point_clouds is None and text is None and images is None:
            raise ValueError("Nothing to prepare: pass point_clouds, text or images.")
        features: dict[str, Any] = {}
        if point_clouds is not None:
            features |= self.feature_extractor(point_clouds, colors=colors, return_tensors=return_tensors)
        if text is not None:
            features |= self._tokenize(text, return_tensors, **text_kwargs)
        if images is not None:
            features |= self.image_processor(images, return_tensors=return_tensors)
        return BatchFeature(features)

    def _tokenize(self, text: Any, return_tensors: str, **kwargs: Any) -> dict[str, Any]:
        kwargs = {"padding": True, "truncation": True, **kwargs}
        return dict(self.tokenizer(text, return_tensors=return_tensors, **kwargs))


Ulip2Processor.register_for_auto_class()

__all__ = ["Ulip2Processor"]
