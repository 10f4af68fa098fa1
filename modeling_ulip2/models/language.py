"""Causal language models by reference: where they lie, how they are loaded, and LoRA adapters for them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.modeling_utils import load_state_dict
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from .private_apis import cached_file_or_none
from .references import missing_reference, model_location

# What marks the parameters of an adapter in peft's names.
LORA_MARK = ".lora_"
# The special token that stands for a cloud in a text.
POINT_TOKEN = "<point_cloud>"


def language_location(name: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` takes for a language model or its tokenizer.

    Args:
        name: folder or hub name, `owner/repository/folder`, or either with the name of a GGUF file behind it.

    Returns:
        The folder or hub name, and `gguf_file` or `subfolder`.
    """
    if name.lower().endswith(".gguf"):
        place, file = os.path.split(name)
        return place or ".", {"gguf_file": file}
    return model_location(name)


def load_language_model(name: str, **kwargs: Any) -> Any:
    """Loads the causal language model called `name`; see `language_location`.

    Raises:
        OSError: it cannot be loaded.
    """
    place, inside = language_location(name)
    kwargs["trust_remote_code"] = bool(kwargs.get("trust_remote_code"))  # None would ask at the terminal
    try:
        return AutoModelForCausalLM.from_pretrained(place, **inside, **kwargs)
    except (OSError, ValueError, ImportError) as error:
        hint = ' GGUF files need: pip install "modeling-ulip2[caption]".' if "gguf_file" in inside else ""
        raise missing_reference(error, name, "language_model_name_or_path", "language model", hint) from error


def load_language_tokenizer(name: str, **kwargs: Any) -> Any:
    """The tokenizer of the language model called `name`; `kwargs` go to `AutoTokenizer.from_pretrained`.

    Raises:
        OSError: there is none.
    """
    place, inside = language_location(name)
    try:
        return AutoTokenizer.from_pretrained(place, **inside, **kwargs)
    except (OSError, ValueError, ImportError) as error:
        raise OSError(f"The tokenizer of the language model {name!r} could not be loaded: {error}") from error


def add_point_token(tokenizer: Any, token: str = POINT_TOKEN) -> int:
    """Makes `token` a special token, unless it is one; returns its id.

    The language model needs no embedding for it: what stands at its positions comes from the connector. The id is
    therefore free to lie beyond the model's vocabulary, and frozen embeddings are not resized.
    """
    if token not in tokenizer.get_vocab():
        tokenizer.add_tokens([token], special_tokens=True)
    return int(tokenizer.convert_tokens_to_ids(token))


def add_lora(language_model: PreTrainedModel, settings: dict[str, Any]) -> None:
    """Adds a LoRA adapter (Hu et al. 2021) to a language model: its low-rank weights train, in float32, alone.

    Args:
        settings: arguments of peft's `LoraConfig`, such as `r`, `lora_alpha`, `lora_dropout` and `target_modules`.

    Raises:
        ImportError: peft is not installed.
        ValueError: the settings are no LoRA, or fit no layer of the model.
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError('LoRA needs peft; install it with: pip install "modeling-ulip2[caption]"') from error
    if settings.get("modules_to_save") or settings.get("bias", "none") != "none":
        raise ValueError("lora_config: modules_to_save and bias would train weights of the language model itself.")
    try:
        config = LoraConfig(task_type="CAUSAL_LM", **{k: v for k, v in settings.items() if k != "task_type"})
    except TypeError as error:
        raise ValueError(f"lora_config: {error}") from error
    language_model.add_adapter(config)
    for name, parameter in language_model.named_parameters():
        parameter.requires_grad_(LORA_MARK in name)
        if LORA_MARK in name and parameter.dtype in (torch.float16, torch.bfloat16):
            parameter.data = parameter.data.float()


def checkpoint_files(name: str, wanted: Callable[[str], bool], **kwargs: Any) -> list[str]:
    """Paths of the safetensors files, one or several, in which a checkpoint has tensors of wanted names.

    Args:
        name: folder or hub name of the checkpoint.
        kwargs: as `from_pretrained` takes them: `subfolder`, `revision`, `token`, `cache_dir`, ...

    Raises:
        OSError: there is none.
        ValueError: the index names a file elsewhere.
    """
    whole = cached_file_or_none(name, SAFE_WEIGHTS_NAME, **kwargs)
    if whole is not None:
        return [whole]
    index: Any = cached_file(name, SAFE_WEIGHTS_INDEX_NAME, **kwargs)
    with open(index, encoding="utf-8") as text:
        places: dict[str, str] = json.load(text)["weight_map"]
    files = sorted({file for tensor, file in places.items() if wanted(tensor)})
    for file in files:
        if os.path.basename(file) != file:
            raise ValueError(f"{index} names a file outside of its folder: {file!r}.")
    return [str(cached_file(name, file, **kwargs)) for file in files]


def lora_tensors(name: str, prefix: str, **kwargs: Any) -> dict[str, torch.Tensor]:
    """Tensors of an adapter in the weights of a checkpoint, by names without `prefix`; see `checkpoint_files`."""

    def wanted(tensor: str) -> bool:
        return tensor.startswith(prefix) and LORA_MARK in tensor

    tensors: dict[str, torch.Tensor] = {}
    for file in checkpoint_files(name, wanted, **kwargs):
        found = load_state_dict(file)
        tensors |= {key.removeprefix(prefix): value for key, value in found.items() if wanted(key)}
    return tensors


__all__ = [
    "LORA_MARK",
    "POINT_TOKEN",
    "add_lora",
    "add_point_token",
    "checkpoint_files",
    "language_location",
    "load_language_model",
    "load_language_tokenizer",
    "lora_tensors",
]
