"""An open_clip model called directly, as a tower: `load_tower("open_clip:ViT-L-14/openai")`."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modeling_ulip2.models.tower import OPEN_CLIP_PREFIX

from .base import ImageLike, Tower, as_rgb
from .fingerprint import tower_fingerprint
from .open_clip import (
    clip_config_from_open_clip_model,
    clip_from_open_clip_model,
    create_open_clip,
    open_clip_state_dict_to_clip,
)
from .open_clip_processing import image_processor_from_open_clip, tokenizer_from_open_clip


class OpenClipTower(Tower):
    """A frozen open_clip model with its tokenizer and image transform.

    Its embeddings and its fingerprint are those of the `CLIPModel` that `clip_from_open_clip` makes of it, where one
    can be made; only such a model can be trained against without stored features.

    Args:
        model: as `open_clip.create_model` gives it.
        tokenizer: texts -> (n, L) token ids.
        transform: PIL image -> (3, H, W).
        name: what cards and reports call it.
        reference: the name by which it is loaded again.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Callable[[list[str]], Tensor],
        transform: Callable[[Any], Tensor],
        name: str,
        reference: str | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.open_clip_tokenizer, self.transform, self.name = tokenizer, transform, name
        self._reference = name if reference is None else reference

    @cached_property
    def tokenizer(self) -> Any:
        return tokenizer_from_open_clip(self.open_clip_tokenizer)

    @cached_property
    def image_processor(self) -> Any:
        return image_processor_from_open_clip(self._preprocessing)

    @property
    def _preprocessing(self) -> Any:
        return getattr(self.model.visual, "preprocess_cfg", {})

    @cached_property
    def pretrained_model(self) -> Any:
        clip = clip_from_open_clip_model(self.model).requires_grad_(False)
        clip.config.name_or_path = self._reference
        clip.name_or_path = self._reference
        return clip

    @cached_property
    def fingerprint(self) -> str:
        config: Any
        try:
            kind, config = "clip", clip_config_from_open_clip_model(self.model)
            weights = open_clip_state_dict_to_clip(self.model.state_dict())
        except ValueError:  # no CLIPModel: a function that open_clip alone computes
            kind, weights = self.model_type, self.model.state_dict()
            config = {"modules": [type(module).__name__ for module in self.model.modules()]}
        tokenizer = self._or_none("tokenizer") or self.open_clip_tokenizer
        pixels = self._or_none("image_processor") or _Settings(self._preprocessing)
        return tower_fingerprint(kind, weights, config, tokenizer, pixels, self._tokenize)

    def _or_none(self, part: str) -> Any:
        try:
            return getattr(self, part)
        except (ValueError, KeyError):
            return None

    def _tokenize(self, texts: list[str]) -> dict[str, Tensor]:
        tokenizer = self._or_none("tokenizer")
        if tokenizer is None:
            return {"input_ids": self.open_clip_tokenizer(texts)}  # (n, L)
        return tokenizer(texts, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt")

    @property
    def model_type(self) -> str:
        return "open_clip"

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def max_length(self) -> int:
        return self.model.context_length

    @torch.inference_mode()
    def _text_batch(self, texts: Sequence[str]) -> Tensor:
        tokens = self.open_clip_tokenizer(list(texts)).to(self.device)  # (n, L), what is too long cut off
        return F.normalize(self.model.encode_text(tokens).float(), dim=-1).cpu()  # (n, D)

    @torch.inference_mode()
    def _image_batch(self, images: Sequence[ImageLike]) -> Tensor:
        pixels = torch.stack([self.transform(as_rgb(image)) for image in images])  # (B, 3, H, W)
        return F.normalize(self.model.encode_image(pixels.to(self.device, self.dtype)).float(), dim=-1).cpu()  # (B, D)


class _Settings:
    """An image transform that transformers cannot express, by what it says of itself."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    def to_dict(self) -> dict[str, Any]:
        return dict(self.settings)


def load_open_clip_tower(
    name: str, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> OpenClipTower:
    """Loads `MODEL/TAG`, such as `ViT-L-14/openai`, or `hf-hub:…` or `local-dir:…`, with or without the prefix.

    The activation is the one that the tag was trained with.

    Raises:
        ValueError: no such model or tag, or no tag.
        OSError: the weights cannot be fetched.
    """
    name = name.removeprefix(OPEN_CLIP_PREFIX)
    model, transform, tokenizer = create_open_clip(name)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    label = name if not name.startswith("local-dir:") else Path(name.removeprefix("local-dir:")).name
    tower = OpenClipTower(
        model.to(device, dtype if dtype is torch.bfloat16 else torch.float32),
        tokenizer,
        transform,
        OPEN_CLIP_PREFIX + label,
        OPEN_CLIP_PREFIX + name,
    )
    if dtype not in (None, torch.float32, torch.bfloat16):
        tower.to_dtype(dtype)
    return tower
