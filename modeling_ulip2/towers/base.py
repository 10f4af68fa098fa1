"""What every frozen image-text model of this package can do, whichever library runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm

if TYPE_CHECKING:  # for those who embed pictures
    from PIL import Image

ImageLike: TypeAlias = "Image.Image | np.ndarray"
# On a CPU a few images at a time stay in the cache, which matters more than a large product.
_CPU_BATCH_SIZES = {"image": 4, "text": 32}
_GPU_BATCH_SIZES = {"image": 64, "text": 256}


class Tower(ABC):
    """A frozen image-text model with its tokenizer and image processor.

    Attributes:
        name: what cards and reports call it.
        model: what runs.
        tokenizer, image_processor: transformers objects, as `Ulip2Processor` takes them.
    """

    name: str
    model: Any

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """A transformers tokenizer: its token ids are those that the model reads.

        Raises:
            ValueError: the model's own cannot be expressed as one; the message says why.
        """

    @property
    @abstractmethod
    def image_processor(self) -> Any:
        """A transformers image processor, up to rounding the model's own.

        Raises:
            ValueError: the model's own cannot be expressed as one; the message says why.
        """

    @property
    @abstractmethod
    def pretrained_model(self) -> Any:
        """The model with transformers' interface, as `Ulip2Model.set_clip_model` takes it, on the same device.

        Raises:
            ValueError: no class of transformers expresses it; the message says why.
        """

    @property
    @abstractmethod
    def model_type(self) -> str:
        """What kind of model it is, such as "clip" or "conse"."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model runs. Embeddings are always returned on the CPU."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """The dtype of the weights. Embeddings are always returned as float32."""

    @property
    @abstractmethod
    def max_length(self) -> int:
        """Tokens read of a text; the rest is cut off."""

    @cached_property
    @abstractmethod
    def fingerprint(self) -> str:
        """Names the function that the tower computes; see `modeling_ulip2.towers.fingerprint`."""

    def to_dtype(self, dtype: torch.dtype) -> None:
        """Casts the weights. The fingerprint stays that of the weights before: float16 rounds otherwise than it."""
        assert self.fingerprint
        self.model.to(dtype)

    @abstractmethod
    def _text_batch(self, texts: Sequence[str]) -> Tensor:
        """Embeddings (B, D) of a few texts, float32 on the CPU, L2-normalized."""

    @abstractmethod
    def _image_batch(self, images: Sequence[ImageLike]) -> Tensor:
        """Embeddings (B, D) of a few images, float32 on the CPU, L2-normalized."""

    @cached_property
    def dim(self) -> int:
        """Width D of the embeddings."""
        return self._text_batch(["a"]).shape[-1]

    @property
    def logit_scale(self) -> float | None:
        """The model's temperature as a factor (100 for most CLIPs), or None where it has none."""
        log_scale = getattr(self.model, "logit_scale", None)
        return None if log_scale is None else float(log_scale.detach().exp())

    def encode_text(self, texts: Sequence[str], batch_size: int | None = None, progress: bool = False) -> Tensor:
        """Embeds texts.

        Returns:
            (n, D) float32 on the CPU, L2-normalized.

        Raises:
            ValueError: a text is empty or no string; the message gives its position.
        """
        if isinstance(texts, str):
            raise ValueError("encode_text takes a list of texts, not one string")
        for index, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"text {index} of {len(texts)} is {'empty' if isinstance(text, str) else type(text)}")
        return self._encode(self._text_batch, texts, batch_size, "text", progress)

    def encode_images(
        self, images: Sequence[ImageLike], batch_size: int | None = None, progress: bool = False
    ) -> Tensor:
        """Embeds images: PIL images of any mode, or uint8 arrays (H, W, 3).

        Returns:
            (n, D) float32 on the CPU, L2-normalized.
        """
        return self._encode(self._image_batch, images, batch_size, "image", progress)

    def _encode(
        self,
        embed: Callable[[Sequence[Any]], Tensor],
        items: Sequence[Any],
        batch_size: int | None,
        kind: str,
        progress: bool,
    ) -> Tensor:
        if batch_size is None:
            batch_size = (_CPU_BATCH_SIZES if self.device.type == "cpu" else _GPU_BATCH_SIZES)[kind]
        embeds = torch.empty(len(items), self.dim)  # (n, D)
        with tqdm(total=len(items), desc=f"{self.name}: {kind}s", disable=not progress, leave=False) as bar:
            for start in range(0, len(items), batch_size):
                batch = items[start : start + batch_size]
                embeds[start : start + len(batch)] = embed(batch)
                bar.update(len(batch))
        return embeds


def normalized(features: Any) -> Tensor:
    """What `get_text_features` and its like return, as embeddings (B, D) of unit length, float32 on the CPU."""
    embeds = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(embeds.float(), dim=-1).cpu()  # (B, D)


def as_rgb(image: ImageLike) -> Image.Image:
    """An image of any mode, or a uint8 array (H, W, 3), as an RGB image."""
    from PIL import Image

    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"an image array must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
        return Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"an image must be a PIL image or a uint8 array (H, W, 3), got {image!r:.80}")
    return image.convert("RGB")
