"""One object that asks any frozen dual encoder: `load_tower("…").encode_text(["a chair"])`."""

import copy
import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_eval
from tqdm.auto import tqdm
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)

from ..tower_ulip2 import tower_location

logger = logging.getLogger(__name__)

ImageLike: TypeAlias = Image.Image | np.ndarray
# These were trained on text padded to the full length, without a mask.
_FULL_LENGTH_MODEL_TYPES = ("siglip", "siglip2")
_DEFAULT_MAX_LENGTH = 512
# On a CPU a few images at a time stay in the cache, which matters more than a large product.
_CPU_BATCH_SIZES = {"image": 4, "text": 32}
_GPU_BATCH_SIZES = {"image": 64, "text": 256}
# the settings of an image processor that tell two preprocessings apart
_PREPROCESSING = ("do_resize", "size", "resample", "do_center_crop", "crop_size", "image_mean", "image_std")


class Tower:
    """A frozen image-text model with its tokenizer and image processor.

    Args:
        model: any transformers model with `get_text_features` and `get_image_features`; it is frozen.
        tokenizer: its tokenizer.
        image_processor: its image processor.
        name: what cards and reports call it.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        image_processor: Callable[..., Any],
        name: str,
    ) -> None:
        for method in ("get_text_features", "get_image_features"):
            if not hasattr(model, method):
                raise TypeError(f"{name} is no image-text model: {type(model).__name__} has no {method}")
        self.tokenizer = tokenizer
        self.image_processor = image_processor
        self.name = name
        self.fingerprint = f"{model.config.model_type}-{model_digest(model, image_processor)}"
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self._fast_model: Any = fold_batch_norms(self.model)
        self._warned = False

    @property
    def device(self) -> torch.device:
        """Where the model runs. Embeddings are always returned on the CPU."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights. Embeddings are always returned as float32."""
        return self.model.dtype

    @property
    def model_type(self) -> str:
        """What kind of model it is, such as "clip" or "conse"."""
        return self.model.config.model_type

    @cached_property
    def dim(self) -> int:
        """Width D of the embeddings."""
        return self._text_batch(["a"]).shape[-1]

    @property
    def logit_scale(self) -> float | None:
        """The model's temperature as a factor (100 for most CLIPs), or None where it has none."""
        log_scale = getattr(self.model, "logit_scale", None)
        return None if log_scale is None else float(log_scale.detach().exp())

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

    def encode_text(self, texts: Sequence[str], batch_size: int | None = None, progress: bool = False) -> Tensor:
        """Embeds texts.

        Returns:
            (n, D) float32 on the CPU, L2-normalised.

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
            (n, D) float32 on the CPU, L2-normalised.
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

    @torch.inference_mode()
    def _text_batch(self, texts: Sequence[str]) -> Tensor:
        whole = self.model.config.model_type in _FULL_LENGTH_MODEL_TYPES
        encoded = self.tokenizer(
            list(texts),
            padding="max_length" if whole else True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        if not self._warned and encoded["input_ids"].shape[-1] == self.max_length:
            self._warn_of_truncation(texts)
        if whole:
            encoded.pop("attention_mask", None)
        return _normalized(self._fast_model.get_text_features(**encoded.to(self.device)))

    @torch.inference_mode()
    def _image_batch(self, images: Sequence[ImageLike]) -> Tensor:
        rgb = [as_rgb(image) for image in images]
        pixel_values = self.image_processor(images=rgb, return_tensors="pt")["pixel_values"]
        pixel_values = pixel_values.to(
            self.device, self.model.dtype, memory_format=torch.channels_last
        )  # (B, 3, H, W)
        return _normalized(self._fast_model.get_image_features(pixel_values=pixel_values))

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


def load_tower(
    name_or_path: str | Path,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Tower:
    """Loads a dual encoder (CLIP, SigLIP, ConSE, …) with its tokenizer and image processor.

    Args:
        name_or_path: a folder, a name on the Hub, a folder inside a repository there (`owner/repository/folder`), or
            `open_clip:MODEL/TAG`, which calls open_clip directly.
        device: default: a GPU if there is one.
        dtype: of the weights, default float32; embeddings are float32 in any case.
    """
    name = str(name_or_path)
    if name.startswith("open_clip:"):
        from .open_clip_tower import load_open_clip_tower

        return load_open_clip_tower(name, device, dtype)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    place, inside = tower_location(name)
    model = AutoModel.from_pretrained(place, dtype=dtype or torch.float32, **inside)
    processor = AutoProcessor.from_pretrained(place, **inside)
    tokenizer = getattr(processor, "tokenizer", None) or AutoTokenizer.from_pretrained(place, **inside)
    image_processor = getattr(processor, "image_processor", None) or AutoImageProcessor.from_pretrained(
        place, **inside
    )
    local = Path(name)
    return Tower(model.to(device), tokenizer, image_processor, local.resolve().name if local.is_dir() else name)


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


def _normalized(features: Any) -> Tensor:
    embeds = features if isinstance(features, Tensor) else features.pooler_output
    return F.normalize(embeds.float(), dim=-1).cpu()  # (B, D)


def as_rgb(image: ImageLike) -> Image.Image:
    """An image of any mode, or a uint8 array (H, W, 3), as an RGB image."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
            raise ValueError(f"an image array must be uint8 (H, W, 3), got {image.dtype} {image.shape}")
        return Image.fromarray(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"an image must be a PIL image or a uint8 array (H, W, 3), got {image!r:.80}")
    return image.convert("RGB")


def model_digest(model: nn.Module, image_processor: Any) -> str:
    """Sixteen hex digits that change when the weights or the preprocessing do, and not with dtype or location."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, len(flat) // 64)][:64].to("cpu", torch.bfloat16).float()
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + sample.numpy().tobytes())
    settings: dict[str, Any] = getattr(image_processor, "to_dict", dict)()
    kept = {
        key: settings.get(key)
        for key in ("size", "crop_size", "do_center_crop", "image_mean", "image_std", "resample")
    }
    digest.update(json.dumps(kept, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]
