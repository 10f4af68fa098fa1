"""What the traveling files use of transformers and accelerate beyond their public interfaces: here alone, so that new
versions are checked against one file.

Seen with transformers 5.0.0 and 5.23.0, and accelerate 1.15.0. Overriding what transformers documents for custom
models (`_init_weights`, `_no_split_modules`, `_supports_...`, `_keys_to_ignore_...`) does not count.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.utils import cached_file


class AutoModelBase(_BaseAutoModelClass):
    """Base of an Auto class of one's own; each needs an `empty_auto_mapping()` as `_model_mapping`."""


def empty_auto_mapping() -> Any:
    """Configuration classes -> model classes, for what is registered with an Auto class."""
    return _LazyAutoMapping(CONFIG_MAPPING_NAMES, OrderedDict())


def new_model(model_class: type[PreTrainedModel], config: PreTrainedConfig) -> Any:
    """A model of the class with random weights, in the dtype and with the attention of its configuration."""
    return model_class._from_config(config)


def ties_changed(model: PreTrainedModel) -> None:
    """Tells a model that a submodule came or went, so that it knows anew which weights are tied."""
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)


def attention_of(config: PreTrainedConfig) -> str:
    """Which attention a model of this configuration runs: "eager", "sdpa", ..."""
    return config._attn_implementation or "eager"


def cached_file_or_none(name: str, file: str, **kwargs: Any) -> str | None:
    """Path of a file of a folder or hub repository, None where there is none; see `transformers.utils.cached_file`."""
    quiet: dict[str, Any] = dict.fromkeys(
        ("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors"), False
    )
    return cached_file(name, file, **quiet, **kwargs)


@contextmanager
def weights_at_hand(*modules: Any) -> Iterator[None]:
    """Holds weights here that are read without a call of their module, where a `device_map` keeps them elsewhere."""
    hooks = []
    for module in modules:  # a loop: torch.compile does not follow a name that a comprehension gives
        hook = getattr(module, "_hf_hook", None)
        if hook is not None:
            hooks.append((module, hook))
    for module, hook in hooks:
        hook.pre_forward(module)
    try:
        yield
    finally:
        for module, hook in hooks:
            hook.post_forward(module, None)


def execution_device(module: Any) -> torch.device:
    """Where a module computes: where its weights are, or where a `device_map` sends them that keeps them elsewhere."""
    device = getattr(getattr(module, "_hf_hook", None), "execution_device", None)
    if device is not None:
        return torch.device(device)
    return module.device if hasattr(module, "device") else next(module.parameters()).device


class UploadMixin:
    """For what has `push_to_hub`: `prepare_upload` is called when the files lie ready."""

    def prepare_upload(self, folder: str, repo_id: str) -> None:
        raise NotImplementedError

    def _upload_modified_files(self, working_dir: Any, repo_id: str, *args: Any, **kwargs: Any) -> Any:
        self.prepare_upload(working_dir, repo_id)
        return super()._upload_modified_files(working_dir, repo_id, *args, **kwargs)  # type: ignore[misc]


class MoreArgumentsMixin:
    """For processors: `from_pretrained` gives the constructor what `more_arguments` loads, behind its own."""

    @classmethod
    def more_arguments(cls, name: Any, processor_dict: dict[str, Any], **kwargs: Any) -> list[Any]:
        raise NotImplementedError

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        arguments = super()._get_arguments_from_pretrained(  # type: ignore[misc]
            pretrained_model_name_or_path, processor_dict, **kwargs
        )
        return [*arguments, *cls.more_arguments(pretrained_model_name_or_path, processor_dict or {}, **kwargs)]


__all__ = [
    "AutoModelBase",
    "MoreArgumentsMixin",
    "UploadMixin",
    "attention_of",
    "cached_file_or_none",
    "execution_device",
    "empty_auto_mapping",
    "new_model",
    "ties_changed",
    "weights_at_hand",
]
