"""The image-text model into whose space a model embeds points."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from transformers import AutoProcessor

from modeling_ulip2.models.configuration_ulip2 import Ulip2Config
from modeling_ulip2.models.references import missing_reference
from modeling_ulip2.utils.places import PlaceError

from .base import Tower
from .loading import load_tower
from .transformers_tower import TransformersTower


def load_tower_of(model: Any, name: str | Path, tower: str | Path | None = None) -> Tower:
    """The tower of a `Ulip2Model`, on its device.

    Args:
        name: folder or hub name of the model, whose processor serves a tower that the checkpoint embeds.
        tower: one to use instead.

    Raises:
        ValueError: the model reads neither texts nor images.
    """
    if not (isinstance(getattr(model, "config", None), Ulip2Config) and hasattr(model, "get_clip_model")):
        raise ValueError(
            f"a {type(model).__name__} reads neither texts nor images, and so has nothing to compare shapes with: "
            "a Ulip2Model is needed."
        )
    options: dict[str, Any] = {}
    if tower is not None:  # its token and cache are those of the model
        options = {name: own for name, own in model._origin.options.items() if name in ("token", "cache_dir")}
    reference = tower
    if reference is None and model.config.clip_config is None:
        reference, options = model.config.clip_name_or_path, model.tower_options()
    if reference is not None:
        try:
            if os.path.isabs(reference) and not os.path.isdir(reference):
                raise PlaceError("there is no such folder.")
            return load_tower(reference, model.device, **options)
        except (OSError, ValueError) as error:
            what = f"image-text tower of {name}:"
            remedy = " Or name it to this command or function: --tower, tower=...."
            raise missing_reference(error, str(reference), "clip_name_or_path", what, remedy) from error
    processor = AutoProcessor.from_pretrained(str(name), **model._origin.options)
    return TransformersTower(model.get_clip_model(), processor.tokenizer, processor.image_processor, str(name))
