"""The frozen parts of a captioning model, point encoder and language model: by reference, out of checkpoints."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from .language import LORA_MARK, add_lora, load_language_model, lora_tensors
from .modeling_point_ulip2 import Ulip2PointModel, Ulip2PointModelWithProjection
from .private_apis import ties_changed
from .references import is_path, missing_reference, model_location
from .referring import ReferringModelMixin

# What of `from_pretrained`'s arguments says where an adapter's files lie.
_PLACE = ("revision", "token", "cache_dir", "force_download", "local_files_only")


class FrozenPartsMixin(ReferringModelMixin):
    """For models whose configuration is a `Ulip2CaptioningConfig`.

    `point_model` and `language_model` are ordinary submodules, so that they follow the model to a device. They never
    train, and their weights stay out of checkpoints unless asked; an adapter (LoRA) in the language model is trained
    and saved.
    """

    # a checkpoint's adapter is loaded when the language model is there to take it
    _keys_to_ignore_on_load_unexpected = [r"^point_model\.", r"^language_model\."]

    def _init_parts(self) -> None:
        """To be called in `__init__`: parts that the checkpoint embeds; the others come with their weights."""
        config = self.config
        self.point_model: Any = None
        self.language_model: Any = None
        if config.point_model_config is not None:
            self.point_model = _point_model_class(config.point_feature_type)(config.point_model_config)
        if config.text_config is not None:
            self.language_model = AutoModelForCausalLM.from_config(config.text_config)
            if config.lora_config is not None:
                add_lora(self.language_model, config.lora_config)

    def load_parts(
        self, point_model_kwargs: dict[str, Any] | None = None, language_model_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Loads the parts that are named and not there yet, on this model's device.

        `from_pretrained` does so; a model made of a configuration does so when it first needs them.

        Args:
            point_model_kwargs, language_model_kwargs: to `from_pretrained` of either, such as `dtype`,
                `quantization_config` or `device_map`.

        Raises:
            OSError: a part cannot be loaded.
            ValueError: a part has no name, or does not fit the connector.
        """
        if self.point_model is None:
            self.set_point_model(self._load_point_model(point_model_kwargs or {}))
        if self.language_model is None:
            name = self.config.language_model_name_or_path
            if name is None:
                raise ValueError(
                    "This model has no language model: set config.language_model_name_or_path or call "
                    "set_language_model."
                )
            kwargs = self._origin.options_for(name) | (language_model_kwargs or {})
            self.set_language_model(load_language_model(name, **kwargs))

    def _load_point_model(self, kwargs: dict[str, Any]) -> PreTrainedModel:
        name = self.config.point_model_name_or_path
        if name is None:
            raise ValueError(
                "This model has no point encoder: set config.point_model_name_or_path or call set_point_model."
            )
        return load_frozen_point_model(name, self.config.point_feature_type, **self._origin.options_for(name) | kwargs)

    def set_point_model(self, point_model: PreTrainedModel) -> None:
        """Uses a `Ulip2PointModel` (or, for "embeds", a `Ulip2PointModelWithProjection`); its weights are frozen."""
        expected = _point_model_class(self.config.point_feature_type)
        if not isinstance(point_model, expected):
            raise ValueError(
                f"point_feature_type={self.config.point_feature_type!r} needs a {expected.__name__}, not a "
                f"{type(point_model).__name__}."
            )
        self.point_model = point_model.requires_grad_(False).eval().to(self.device)
        self._parts_changed()

    def set_language_model(self, language_model: PreTrainedModel) -> None:
        """Uses a causal language model; its weights are frozen.

        Raises:
            ValueError: its embeddings have another width or number than those that the connector was made for.
        """
        check_language_model(language_model, self.config)
        language_model.requires_grad_(False).eval()
        if getattr(language_model, "hf_device_map", None) is None:
            language_model.to(self.device)  # type: ignore[arg-type]
        self.language_model = language_model
        if self.config.lora_config is not None:
            add_lora(language_model, self.config.lora_config)
        self._parts_changed()

    def add_lora(self, settings: dict[str, Any]) -> None:
        """Adds a LoRA adapter to the language model, which trains beside the connector (stage 2); see `add_lora`."""
        self.load_parts()
        if self.config.lora_config is not None:
            raise ValueError("The language model has an adapter already.")
        add_lora(self.language_model, settings)
        self.config.lora_config = dict(settings)
        self._parts_changed()

    def _parts_changed(self) -> None:
        self.train(self.training)  # new layers come in a mode of their own
        ties_changed(self)
        # also what Trainer expects to miss in a checkpoint that it resumes from
        self._keys_to_ignore_on_save = {name for name in self.state_dict() if self._is_frozen(name)}

    @staticmethod
    def _is_frozen(name: str) -> bool:
        return name.startswith(("point_model.", "language_model.")) and LORA_MARK not in name

    def train(self, mode: bool = True) -> FrozenPartsMixin:
        super().train(mode)
        for part in (self.point_model, self.language_model):
            if part is not None:
                part.eval()  # no dropout in what is frozen
        if mode and self.language_model is not None:
            for name, module in self.language_model.named_modules():
                if "lora_dropout" in name:
                    module.train()
                elif getattr(module, "gradient_checkpointing", False):
                    module.training = True  # the layer alone: it asks itself whether it may recompute
        return self

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: Any,
        *args: Any,
        point_model_kwargs: dict[str, Any] | None = None,
        language_model_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As in transformers; the parts that the checkpoint refers to are loaded too.

        Args:
            point_model_kwargs, language_model_kwargs: see `load_parts`. `dtype`, where it is given, holds for the
                parts too.
            kwargs: further arguments; fields of the configuration among them replace those of the checkpoint, such
                as `language_model_name_or_path` where it has moved.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        embeds_language_model = model.language_model is not None
        dtype = {} if kwargs.get("dtype") is None else {"dtype": kwargs["dtype"]}
        model.load_parts(dtype | (point_model_kwargs or {}), dtype | (language_model_kwargs or {}))
        if model.config.lora_config is not None and not embeds_language_model:
            place = {name: value for name, value in model._origin.options.items() if name in _PLACE}
            place["subfolder"] = model._origin.subfolder
            model._load_adapter(pretrained_model_name_or_path, **place)
        model._freeze()
        return loaded

    def _load_adapter(self, name: Any, **place: Any) -> None:
        tensors = lora_tensors(os.fspath(name), "language_model.", **place)
        expected = {key for key in self.language_model.state_dict() if LORA_MARK in key}
        if expected != tensors.keys():
            raise ValueError(
                f"The adapter in {name} does not fit the language model: "
                f"{len(expected - tensors.keys())} tensors are missing and {len(tensors.keys() - expected)} are left "
                f"over, among them {sorted(expected ^ tensors.keys())[0]}."
            )
        self.language_model.load_state_dict(tensors, strict=False)

    def _freeze(self) -> None:
        """Loading replaces parameters by new ones, which require gradients."""
        for name, parameter in self.named_parameters():
            if name.startswith(("point_model.", "language_model.")):
                parameter.requires_grad_(LORA_MARK in name)
        self._parts_changed()

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        *,
        include_point_model: bool | None = None,
        include_language_model: bool | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves the connector, and the adapter if there is one.

        Args:
            include_point_model, include_language_model: True embeds the weights of the part; False leaves a
                reference to its name. Default: embed it only if it would be lost, because it has no name to refer to
                or nothing is there any more.
            kwargs: as in `PreTrainedModel.save_pretrained`.
        """
        own = self._includes()
        point_model, language_model = "point_model_name_or_path", "language_model_name_or_path"
        included = {
            point_model: own[point_model] if include_point_model is None else include_point_model,
            language_model: own[language_model] if include_language_model is None else include_language_model,
        }
        with (
            self._upload(included) if kwargs.get("push_to_hub") else nullcontext(),
            self._saved_with(included[point_model], included[language_model]),
        ):
            super().save_pretrained(save_directory, **kwargs)

    def _includes(self) -> dict[str, bool]:
        parts = {"point_model_name_or_path": self.point_model, "language_model_name_or_path": self.language_model}
        included = {}
        for field, part in parts.items():
            name = getattr(self.config, field)
            lost = name is None or (is_path(name) and not os.path.exists(name))
            included[field] = self._uploading.get(field, lost and part is not None)
        return included

    def _fetch(self, name: str) -> None:
        self.load_parts()

    @contextmanager
    def _saved_with(self, point_model: bool, language_model: bool) -> Iterator[None]:
        """While it lasts, the parts asked for are in the configuration and among the weights to be saved."""
        if point_model or language_model:
            self.load_parts()
        config, kept = self.config, self._keys_to_ignore_on_save
        before = config.point_model_config, config.text_config
        left_out = tuple(
            part for part, is_in in (("point_model.", point_model), ("language_model.", language_model)) if not is_in
        )
        try:
            config.point_model_config = self.point_model.config if point_model else None
            config.text_config = self.language_model.config if language_model else None
            self._keys_to_ignore_on_save = {name for name in kept or () if name.startswith(left_out)}
            yield
        finally:
            config.point_model_config, config.text_config = before
            self._keys_to_ignore_on_save = kept


def _point_model_class(feature_type: str) -> Any:
    return Ulip2PointModelWithProjection if feature_type == "embeds" else Ulip2PointModel


def load_frozen_point_model(name: str, feature_type: str, **kwargs: Any) -> Any:
    """Loads a point encoder as `point_feature_type` needs it, with its projection or without.

    Raises:
        OSError: it cannot be loaded.
    """
    place, inside = model_location(name)
    try:
        return _point_model_class(feature_type).from_pretrained(place, **inside, **kwargs)
    except (OSError, ValueError) as error:
        remedy = " Saved with include_point_model=True, a checkpoint holds its point encoder."
        raise missing_reference(error, name, "point_model_name_or_path", "point encoder", remedy) from error


def check_language_model(language_model: Any, config: Any) -> None:
    """Raises ValueError unless the embeddings of a language model are those that a connector was made for."""
    embeddings = language_model.get_input_embeddings()
    rows, width = embeddings.weight.shape
    what = f"The language model {language_model.name_or_path or type(language_model).__name__!r}"
    if width != config.text_hidden_size:
        raise ValueError(
            f"{what} has embeddings of width {width}, but the connector makes text_hidden_size = "
            f"{config.text_hidden_size}: it was made for another language model."
        )
    if rows != config.text_vocab_size:
        raise ValueError(
            f"{what} has a vocabulary of {rows} entries, but the connector was made for one of text_vocab_size = "
            f"{config.text_vocab_size}, and the tokenizer beside it too."
        )


def feature_width(point_model: Any, feature_type: str) -> int:
    """Channels of a point encoder's features."""
    config = point_model.config
    if feature_type != "tokens":
        return config.projection_dim if feature_type == "embeds" else config.point_config.output_dim
    # no configuration tells it for every encoder, a user's own among them: ask with a cloud
    cloud = torch.rand(1, 4096, config.point_config.in_channels, generator=torch.Generator().manual_seed(0))
    was_training = point_model.training
    point_model.eval()  # or else the cloud would enter the statistics of its BatchNorms
    with torch.no_grad():
        width = point_model(cloud.to(point_model.device)).tokens.shape[-1]
    point_model.train(was_training)
    return width


__all__ = ["FrozenPartsMixin", "check_language_model", "feature_width", "load_frozen_point_model"]
