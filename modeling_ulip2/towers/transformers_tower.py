"""A dual encoder of transformers, or with its interface, as a tower: CLIP, SigLIP, SLIP, ConSE, …"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_eval

from modeling_ulip2.models.tower_inputs import image_inputs, reads_full_length, text_inputs

from .base import ImageLike, Tower, as_rgb, normalized
from .fingerprint import tower_fingerprint

logger = logging.getLogger(__name__)

_DEFAULT_MAX_LENGTH = 512


class TransformersTower(Tower):
    """A frozen image-text model with its tokenizer and image processor.

    Args:
        model: any transformers model with `get_text_features` and `get_image_features`; it is frozen.
        tokenizer: its tokenizer. It is told how long a text may be and, for SigLIP, that there is no mask, so that
            whoever uses it alone makes the same ids.
        image_processor: its image processor.
        name: what cards and reports call it.
    """

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any, name: str) -> None:
        for method in ("get_text_features", "get_image_features"):
            if not hasattr(model, method):
                raise TypeError(f"{name} is no image-text model: {type(model).__name__} has no {method}")
        self._tokenizer, self._image_processor, self.name = tokenizer, image_processor, name
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self._fast_model: Any = fold_batch_norms(self.model)
        self._warned = False
        if self._full_length and "attention_mask" in tokenizer.model_input_names:
            tokenizer.model_input_names = [own for own in tokenizer.model_input_names if own != "attention_mask"]
            tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # what is saved
        tokenizer.model_max_length = self.max_length

    @property
    def tokenizer(self) -> Any:
        return self._tokenizer

    @property
    def image_processor(self) -> Any:
        return self._image_processor

    @property
    def pretrained_model(self) -> Any:
        return self.model

    @property
    def model_type(self) -> str:
        return self.model.config.model_type

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def _full_length(self) -> bool:
        return reads_full_length(self.model)

    @cached_property
    def max_length(self) -> int:
        """Tokens read of a text; the rest is cut off, with one warning."""
        config = self.model.config
        text_config = getattr(config, "text_config", config)
        limits = (
            self.tokenizer.model_max_length,
            getattr(text_config, "max_position_embeddings", None),
            getattr(config, "max_length", None),
        )
        # a tokenizer without a limit says 1e30
        return int(min((limit for limit in limits if limit and limit < 1e6), default=_DEFAULT_MAX_LENGTH))

    @cached_property
    def fingerprint(self) -> str:
        return tower_fingerprint(
            self.model_type,
            self.model.state_dict(),
            self.model.config,
            self.tokenizer,
            self.image_processor,
            self._tokenize,
        )

    def to_dtype(self, dtype: torch.dtype) -> None:
        super().to_dtype(dtype)
        self._fast_model = fold_batch_norms(self.model)

    def _tokenize(self, texts: list[str]) -> Any:
        full = {"padding": "max_length", "return_attention_mask": False} if self._full_length else {"padding": True}
        return self.tokenizer(texts, truncation=True, max_length=self.max_length, return_tensors="pt", **full)

    @torch.inference_mode()
    def _text_batch(self, texts: Sequence[str]) -> Tensor:
        encoded = self._tokenize(list(texts))
        if not self._warned and encoded["input_ids"].shape[-1] == self.max_length:
            self._warn_of_truncation(texts)
        inputs = text_inputs(self.model, encoded.to(self.device))
        return normalized(self._fast_model.get_text_features(**inputs))  # (B, D)

    @torch.inference_mode()
    def _image_batch(self, images: Sequence[ImageLike]) -> Tensor:
        return normalized(self._fast_model.get_image_features(**self._image_inputs(images)))  # (B, D)

    def _image_inputs(self, images: Sequence[ImageLike]) -> dict[str, Any]:
        prepared = self.image_processor(images=[as_rgb(image) for image in images], return_tensors="pt")
        inputs = image_inputs(self.model, prepared.to(self.device))
        pixels = inputs["pixel_values"]  # (B, 3, H, W), or (B, patches, C) of SigLIP 2
        if pixels.ndim == 4:
            inputs["pixel_values"] = pixels.contiguous(memory_format=torch.channels_last)
        return inputs

    @property
    def hidden_dim(self) -> int | None:
        """Width F of what `encode_hidden` gives; None: the model's image side has no such seam."""
        return self.model.last_layer.in_features if hasattr(self.model, "get_image_hidden") else None

    @torch.inference_mode()
    def encode_hidden(self, images: Sequence[ImageLike], batch_size: int = 4) -> Tensor:
        """What the last layer of the image classifier sees, which a linear map is fitted on: (n, F) float32, CPU.

        Raises:
            TypeError: the model's image side is no classifier.
        """
        self._require_hidden()
        parts = []
        for start in range(0, len(images), batch_size):
            inputs = self._image_inputs(images[start : start + batch_size])
            parts.append(self._fast_model.get_image_hidden(**inputs).float().cpu())
        return torch.cat(parts) if parts else torch.empty(0, self.hidden_dim or 0)

    @torch.inference_mode()
    def embed_hidden(self, hidden: Tensor) -> Tensor:
        """Embeddings (n, D), as `encode_images` gives them, of what `encode_hidden` gave (n, F)."""
        self._require_hidden()
        return normalized(self._fast_model.embed_hidden(hidden.to(self.device, self.dtype)))

    def _require_hidden(self) -> None:
        if self.hidden_dim is None:
            raise TypeError(f"{self.name} is a {type(self.model).__name__}: only towers of a classifier have this")

    def _warn_of_truncation(self, texts: Sequence[str]) -> None:
        for text in texts:
            length = len(self.tokenizer(text, verbose=False)["input_ids"])
            if length > self.max_length:
                logger.warning(
                    "%s reads %d tokens; a text of %d tokens was cut off (said once): %.60s…",
                    self.name,
                    self.max_length,
                    length,
                    text,
                )
                self._warned = True
                return


def fold_batch_norms(model: nn.Module) -> nn.Module:
    """A copy of a frozen model with each BatchNorm folded into its convolution; the model itself if it has none.

    In evaluation mode outputs are the same up to rounding, and the image classifier of ConSE runs faster on a CPU.
    """
    if not any(_is_timm_batch_norm(module) for module in model.modules()):
        return model
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        children = list(parent.named_children())
        for (conv_name, conv), (norm_name, norm) in zip(children, children[1:], strict=False):
            if isinstance(conv, nn.Conv2d) and _is_timm_batch_norm(norm):
                setattr(parent, conv_name, fuse_conv_bn_eval(conv, cast(_BatchNorm, norm)))
                setattr(parent, norm_name, norm.act)
    return model


def _is_timm_batch_norm(module: nn.Module) -> bool:
    # timm's blocks name their layers in the order in which they run, which is not true of every model.
    return type(module).__name__ == "BatchNormAct2d" and type(module).__module__.startswith("timm.")
