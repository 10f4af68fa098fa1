"""Locked encoders with a learned linear map: LiT (Zhai et al. 2022, arXiv 2111.07991) made linear.

Text is embedded by a frozen sentence encoder. Of an image, a frozen classifier gives what its last layer sees, and a
linear map, fitted by ridge regression on renderings and the sentence embeddings of their captions, takes that into
the space of the texts. The result is blended with ConSE's, which knows more of what the fit never saw. It is learned
from a few thousand objects and no substitute for a model trained on pairs of images and texts from the web.
"""

from __future__ import annotations

import os
import re
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization

from .configuration_linear_lit import IN_PACKAGES, LinearLitConfig
from .modeling_conse import ConseImageOutput, ConseModel

_LOCKED = ("text_model.", "image_classifier.")


class ImageMap(nn.Linear):
    """Features of the classifier (B, F) into the space of the texts, (B, D). A class of its own to be initialized."""


class LinearLitModel(ConseModel):
    """A `ConseModel` whose image embedding is, in part or as a whole, a linear map of the classifier's features."""

    config_class = LinearLitConfig
    base_model_prefix = "linear_lit"

    def __init__(self, config: LinearLitConfig) -> None:
        super().__init__(config)
        self.image_map = ImageMap(config.hidden_dim, config.projection_dim)
        if config.locked_weights == IN_PACKAGES:  # `from_pretrained` fills them in
            self._keys_to_ignore_on_load_missing = [rf"^{re.escape(name)}" for name in _LOCKED]
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, ImageMap):
            initialization.zeros_(module.weight)
            initialization.zeros_(module.bias)

    def embed_hidden(self, hidden: Tensor) -> ConseImageOutput:
        """Image embeddings of what the last layer sees: (B, F) -> `pooler_output` (B, D)."""
        conse: Any = super().embed_hidden(hidden)
        share = self.config.map_share
        mapped = F.normalize(self.image_map(hidden.to(self.image_map.weight.dtype)), dim=-1)  # (B, D)
        pooled: Any = conse.pooler_output
        own = F.normalize(pooled, dim=-1).to(mapped.dtype)  # (B, D)
        return ConseImageOutput(pooler_output=share * mapped + (1 - share) * own, logits=conse.logits)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; locked encoders that the checkpoint leaves out come from their packages.

        Raises:
            OSError: the packages are not installed.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.config.locked_weights == IN_PACKAGES:
            model._take_from_packages()
        return loaded

    def _take_from_packages(self) -> None:
        try:
            from modeling_ulip2.towers.conse import locked_encoders
        except ImportError as error:
            raise OSError(
                f"The locked encoders of this model come from Python packages, which do not import ({error}): "
                'pip install "modeling-ulip2[offline]"'
            ) from error
        try:
            text_model, image_classifier, _ = locked_encoders()
        except ImportError as error:
            raise OSError(f"The locked encoders of this model come from Python packages: {error}") from error
        with torch.no_grad():
            self.text_model.load_state_dict(text_model.state_dict())
            self.image_classifier.load_state_dict(image_classifier.state_dict())

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # type: ignore[override]
        """As in transformers; with `config.locked_weights="packages"` the map and the class embeddings alone, in half
        precision."""
        if self.config.locked_weights == IN_PACKAGES:
            state = kwargs.pop("state_dict", None) or self.state_dict()
            kwargs["state_dict"] = {
                name: value.half() for name, value in state.items() if not name.startswith(_LOCKED)
            }
        super().save_pretrained(save_directory, **kwargs)


__all__ = ["LinearLitModel"]
