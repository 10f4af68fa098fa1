"""An open_clip model called directly, as a tower: `load_tower("open_clip:ViT-L-14/openai")`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .loading import ImageLike, Tower, as_rgb, model_digest
from .open_clip import activation_of_tag
from .packages import require_package

OPEN_CLIP_PREFIX = "open_clip:"
_SCHEMAS = ("hf-hub:", "local-dir:")


class OpenClipTower(Tower):
    """A frozen open_clip model with its tokenizer and image transform.

    Its embeddings are those of the `CLIPModel` that `clip_from_open_clip` makes of it, where one can be made.

    Args:
        model: as `open_clip.create_model` gives it.
        tokenizer: texts -> (n, L) token ids.
        transform: PIL image -> (3, H, W).
        name: what cards and reports call it.
    """

    def __init__(
        self, model: Any, tokenizer: Callable[[list[str]], Tensor], transform: Callable[[Any], Tensor], name: str
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.open_clip_tokenizer, self.transform, self.name = tokenizer, transform, name
        self.fingerprint = f"{self.model_type}-{model_digest(model, _Preprocessing(model))}"

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


class _Preprocessing:
    """What tells one image transform from another, under the names by which towers are compared."""

    def __init__(self, model: nn.Module) -> None:
        self.settings: Any = getattr(model.visual, "preprocess_cfg", {})

    def to_dict(self) -> dict[str, Any]:
        names = {"size": "size", "image_mean": "mean", "image_std": "std", "resample": "interpolation"}
        return {ours: self.settings.get(theirs) for ours, theirs in names.items()}


def load_open_clip_tower(
    name: str, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> OpenClipTower:
    """Loads `MODEL/TAG`, such as `ViT-L-14/openai`, or `hf-hub:…` or `local-dir:…`, with or without the prefix.

    The activation is the one that the tag was trained with.

    Raises:
        ValueError: no such model or tag, or no tag.
        OSError: the weights cannot be fetched.
    """
    open_clip = require_package("open_clip", extra="openclip")
    name = name.removeprefix(OPEN_CLIP_PREFIX)
    model_name, _, tag = (name, "", "") if name.startswith(_SCHEMAS) else name.partition("/")
    if not name.startswith(_SCHEMAS):
        tags = open_clip.list_pretrained_tags_by_model(model_name)
        if model_name not in open_clip.list_models():
            raise ValueError(f"open_clip has no model {model_name!r}; open_clip.list_models() names them")
        if tag not in tags and not Path(tag).is_file():
            raise ValueError(f"{model_name!r} needs a tag after '/', one of {', '.join(tags)}; got {tag!r}")
    try:
        model, _, transform = open_clip.create_model_and_transforms(
            model_name, pretrained=tag or None, **activation_of_tag(model_name, tag)
        )
    except RuntimeError as error:  # open_clip's name for a download that failed
        raise OSError(f"open_clip cannot load {name!r}: {error}") from error
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    label = name if not name.startswith("local-dir:") else Path(name.removeprefix("local-dir:")).name
    tokenizer = open_clip.get_tokenizer(model_name)
    return OpenClipTower(model.to(device, dtype or torch.float32), tokenizer, transform, OPEN_CLIP_PREFIX + label)
