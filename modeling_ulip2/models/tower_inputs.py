"""What a frozen image-text model takes of what tokenizers and image processors make."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch

# These were trained on text padded to the full length, without a mask.
_FULL_LENGTH_MODEL_TYPES = ("siglip", "siglip2")
# Which side makes what, where it can be said without asking the model.
_TEXT_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
_IMAGE_INPUTS = ("pixel_values", "pixel_attention_mask", "spatial_shapes", "interpolate_pos_encoding")
# Made by tokenizers for models of other kinds: what has no use for them is not told.
_DISPENSABLE = ("attention_mask", "token_type_ids")


def pads_to_full_length(tokenizer: Any, image_processor: Any = None) -> bool:
    """Are texts padded to the model's length, without a mask? SigLIP was trained so, and has none."""
    no_mask = "attention_mask" not in tokenizer.model_input_names
    return no_mask or type(image_processor).__name__.lower().startswith(_FULL_LENGTH_MODEL_TYPES)


def reads_full_length(tower: Any) -> bool:
    """Was this model trained on text padded to the full length, without a mask?"""
    return tower.config.model_type in _FULL_LENGTH_MODEL_TYPES


def text_inputs(tower: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `tower.get_text_features` among those that a tokenizer made.

    Raises:
        TypeError: the model takes something of another name only.
    """
    given = {name: value for name, value in inputs.items() if value is not None}
    if reads_full_length(tower):
        given.pop("attention_mask", None)
    return _accepted(tower, "get_text_features", given)


def image_inputs(tower: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `tower.get_image_features` among those that an image processor made, pixels in its precision.

    Raises:
        TypeError: the model takes something of another name only.
    """
    given = {name: value for name, value in inputs.items() if value is not None}
    pixels, dtype = given.get("pixel_values"), getattr(tower, "dtype", None)
    if isinstance(pixels, torch.Tensor) and pixels.is_floating_point() and isinstance(dtype, torch.dtype):
        given["pixel_values"] = pixels.to(dtype)
    return _accepted(tower, "get_image_features", given)


def sort_inputs(get_tower: Any, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Further inputs as those of texts and those of images; where names do not tell, the tower is asked.

    Raises:
        TypeError: neither side takes an input of that name.
    """
    texts: dict[str, Any] = {}
    images: dict[str, Any] = {}
    for name, value in inputs.items():
        if name in _TEXT_INPUTS or (name not in _IMAGE_INPUTS and name in _named(get_tower(), "get_text_features")):
            texts[name] = value
        elif name in _IMAGE_INPUTS or name in _named(get_tower(), "get_image_features"):
            images[name] = value
        else:
            raise TypeError(
                f"{name!r} is an input neither of this model nor of its image-text tower, which is a "
                f"{type(get_tower()).__name__}."
            )
    return texts, images


def _named(tower: Any, method: str) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(getattr(tower, method)).parameters


def _accepted(tower: Any, method: str, given: dict[str, Any]) -> dict[str, Any]:
    parameters = _named(tower, method)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    accepted = {}
    for name, value in given.items():
        # **kwargs of transformers' models hold options, not inputs; these, however, are everybody's
        if name in parameters or (open_ended and name in ("input_ids", "attention_mask", "pixel_values")):
            accepted[name] = value
        elif name not in _DISPENSABLE:
            raise TypeError(f"{type(tower).__name__}.{method} takes no {name!r}; it takes {', '.join(parameters)}.")
    return accepted


__all__ = ["image_inputs", "pads_to_full_length", "reads_full_length", "sort_inputs", "text_inputs"]
