"""A frozen image-text model ("tower") by reference: loaded when first needed, out of checkpoints unless asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel

from .modeling_conse import ConseModel
from .modeling_linear_lit import LinearLitModel
from .modeling_slip import SlipModel
from .private_apis import new_model
from .references import is_path, missing_reference, model_location
from .referring import ReferringModelMixin

# What calls open_clip, in names of towers.
OPEN_CLIP_PREFIX = "open_clip:"

# The towers of the package: their files travel with every checkpoint, and whoever trusts those trusts these.
_OWN_TOWERS: dict[str, Any] = {
    model.config_class.model_type: model for model in (ConseModel, LinearLitModel, SlipModel)
}
for _model_class in _OWN_TOWERS.values():
    AutoConfig.register(_model_class.config_class.model_type, _model_class.config_class, exist_ok=True)
    AutoModel.register(_model_class.config_class, _model_class, exist_ok=True)
    _model_class.config_class.register_for_auto_class()
    _model_class.register_for_auto_class("AutoModel")


def load_tower_model(name: str, **kwargs: Any) -> Any:
    """The image-text model called `name`: a hub name, a folder, `owner/repository/folder`, or `open_clip:MODEL/TAG`.

    Args:
        kwargs: to `AutoModel.from_pretrained`; of an open_clip model `dtype` alone has a meaning.

    Raises:
        OSError, ValueError: it cannot be loaded. Nothing is asked of the person at the terminal.
    """
    if name.startswith(OPEN_CLIP_PREFIX):
        try:
            from modeling_ulip2.towers.open_clip import clip_from_open_clip_name
        except ImportError as error:
            raise OSError(
                f'open_clip\'s models need more than the checkpoint ({error}): pip install "modeling-ulip2[openclip]"'
            ) from error
        return clip_from_open_clip_name(name.removeprefix(OPEN_CLIP_PREFIX), kwargs.get("dtype"))
    place, inside = model_location(name)
    kwargs["trust_remote_code"] = bool(kwargs.get("trust_remote_code"))  # None would ask, in the middle of a forward
    return AutoModel.from_pretrained(place, **inside, **kwargs)


def make_tower_model(config: Any) -> Any:
    """The image-text model of a configuration, with random weights."""
    own = _OWN_TOWERS.get(config.model_type)
    if own is None:
        return AutoModel.from_config(config)
    # remote code may be there in several copies, and the configuration comes from another than this
    known = config if isinstance(config, own.config_class) else own.config_class.from_dict(config.to_dict())
    return new_model(own, known)


class FrozenTowerMixin(ReferringModelMixin):
    """For models whose configuration has `clip_name_or_path` and `clip_config`.

    The tower follows the model's device, never trains and is no part of `state_dict()`. Only in a model whose
    checkpoint embeds its tower (`clip_config`) is it the submodule `clip_model`.
    """

    def _init_tower(self) -> None:
        """To be called at the end of `__init__`, before `post_init`."""
        # a list hides a module from torch: this is the tower by reference
        self._referenced_tower: list[Any] = []
        self._tower_dtype: Any = None
        if self.config.clip_config is not None:
            self.clip_model = make_tower_model(self.config.clip_config)
            self._freeze_tower()

    def get_clip_model(self) -> Any:
        """The frozen image-text model, loaded now if it has not been, on this model's device."""
        embedded = self._modules.get("clip_model")
        if embedded is not None:
            return embedded
        if not self._referenced_tower:
            self.load_clip_model()
        tower = self._referenced_tower[0]
        if tower.device != self.device:
            tower.to(self.device)
        return tower

    def load_clip_model(self, **kwargs: Any) -> None:
        """Loads the tower named by `config.clip_name_or_path`.

        Args:
            kwargs: to `AutoModel.from_pretrained`. Default: what this model was loaded with, as far as it holds for
                the tower: `token`, `cache_dir`, `local_files_only`, `trust_remote_code`, `dtype`; and `revision` if
                the tower lies in the same repository.
        """
        name = self.config.clip_name_or_path
        if name is None:
            raise ValueError(
                "This model has no image-text tower: set config.clip_name_or_path to the name or folder of one, call "
                "set_clip_model, or pass precomputed text_embeds and image_embeds."
            )
        try:
            tower = load_tower_model(name, **self.tower_options() | kwargs)
        except (OSError, ValueError, ImportError) as error:
            remedy = " Saved with include_towers=True, a checkpoint holds its tower."
            raise missing_reference(error, name, "clip_name_or_path", "image-text tower", remedy) from error
        self._refer_to(tower)

    def tower_options(self) -> dict[str, Any]:
        """Arguments with which the tower, its tokenizer and its image processor are loaded; see `load_clip_model`."""
        name = self.config.clip_name_or_path
        options = self._origin.options_for(name) if name else {}
        return options if self._tower_dtype is None else options | {"dtype": self._tower_dtype}

    def set_clip_model(self, tower: PreTrainedModel) -> None:
        """Uses an image-text model that is already in memory; checkpoints refer to it by its `name_or_path`."""
        self._refer_to(tower)
        self.config.clip_name_or_path = tower.name_or_path or None

    def _refer_to(self, tower: PreTrainedModel) -> None:
        for method in ("get_text_features", "get_image_features"):
            if not hasattr(tower, method):
                raise ValueError(f"{type(tower).__name__} is no image-text tower: it has no {method}.")
        self._modules.pop("clip_model", None)
        self.config.clip_config = None
        self._referenced_tower = [tower]
        self._freeze_tower()

    def _freeze_tower(self) -> None:
        for tower in (self._modules.get("clip_model"), *self._referenced_tower):
            if tower is not None:
                tower.requires_grad_(False).eval()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; a tower that the checkpoint holds comes frozen, one beside it is found there."""
        dtype = kwargs.get("dtype")
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # loading replaces parameters by new ones, which require gradients
        model._freeze_tower()
        model._tower_dtype = dtype
        return loaded

    def train(self, mode: bool = True) -> FrozenTowerMixin:
        super().train(mode)
        self._freeze_tower()  # no dropout in it
        return self

    def save_pretrained(  # type: ignore[override]
        self,
        save_directory: str | os.PathLike[str],
        *,
        include_towers: bool | None = None,
        state_dict: dict[str, torch.Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        """Saves the model as transformers does, by default without the weights of its image-text tower.

        Args:
            include_towers: True embeds the tower (loading it if need be); False leaves a reference to
                `config.clip_name_or_path`. Default: embed it only if it would be lost, because it has no name to refer
                to or nothing is there any more.
            state_dict, kwargs: as in `PreTrainedModel.save_pretrained`.
        """
        if include_towers is None:
            include_towers = self._includes()["clip_name_or_path"]
        if state_dict is not None:
            state_dict = {name: value for name, value in state_dict.items() if not name.startswith("clip_model.")}
            if include_towers:
                tower = self.get_clip_model().state_dict()
                state_dict |= {f"clip_model.{name}": value for name, value in tower.items()}
        uploads = kwargs.get("push_to_hub")
        with (
            self._upload({"clip_name_or_path": include_towers}) if uploads else nullcontext(),
            self._saved_with_tower(include_towers),
        ):
            super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)

    def _includes(self) -> dict[str, bool]:
        said = self._uploading.get("clip_name_or_path")
        if said is None:
            name = self.config.clip_name_or_path
            lost = name is None or (is_path(name) and not os.path.exists(name))
            said = lost and ("clip_model" in self._modules or bool(self._referenced_tower))
        return {"clip_name_or_path": said}

    def _fetch(self, name: str) -> None:
        self.get_clip_model()

    @contextmanager
    def _saved_with_tower(self, included: bool) -> Iterator[None]:
        """While it lasts, the tower is a submodule and part of the configuration, or neither."""
        module, config = self._modules.pop("clip_model", None), self.config.clip_config
        try:
            self.config.clip_config = None
            if included:
                tower = module or self.get_clip_model()
                self._modules["clip_model"], self.config.clip_config = tower, tower.config
            yield
        finally:
            self._modules.pop("clip_model", None)
            if module is not None:
                self._modules["clip_model"] = module
            self.config.clip_config = config


__all__ = ["OPEN_CLIP_PREFIX", "FrozenTowerMixin", "load_tower_model"]
