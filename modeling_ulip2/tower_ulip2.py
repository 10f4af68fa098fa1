"""A frozen image-text model ("tower") by reference: loaded when first needed, out of checkpoints unless asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AutoModel, PreTrainedModel


def tower_location(name: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` takes for a tower: a folder or hub name, and `subfolder` where it lies in a repository.

    Hub names have at most two parts, so that the rest of `owner/repository/folder` is a folder.
    """
    parts = name.split("/")
    if len(parts) < 3 or os.path.isdir(name) or os.path.isabs(name):
        return name, {}
    return "/".join(parts[:2]), {"subfolder": "/".join(parts[2:])}


class FrozenTowerMixin(PreTrainedModel):
    """For models whose configuration has `clip_name_or_path` and `clip_config`.

    The tower follows the model's device, never trains and is no part of `state_dict()`. Only in a model whose
    checkpoint embeds its tower (`clip_config`) is it the submodule `clip_model`.
    """

    def _init_tower(self) -> None:
        """To be called at the end of `__init__`, before `post_init`."""
        # a list hides a module from torch: this is the tower by reference
        self._referenced_tower: list[Any] = []
        if self.config.clip_config is not None:
            self.clip_model = AutoModel.from_config(self.config.clip_config)
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
        """Loads the tower named by `config.clip_name_or_path`; `kwargs` go to `AutoModel.from_pretrained`."""
        name = self.config.clip_name_or_path
        if name is None:
            raise ValueError(
                "This model has no image-text tower: set config.clip_name_or_path to the name or folder of one, call "
                "set_clip_model, or pass precomputed text_embeds and image_embeds."
            )
        try:
            name_or_path, inside = tower_location(name)
            tower = AutoModel.from_pretrained(name_or_path, **inside, **kwargs)
        except (OSError, ValueError) as error:
            raise OSError(
                f"The image-text tower {name!r} (clip_name_or_path of the configuration) could not be loaded: {error} "
                "If it lies elsewhere, pass clip_name_or_path=... to from_pretrained."
            ) from error
        self._refer_to(tower)

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
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; a tower that the checkpoint holds comes frozen."""
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        # loading replaces parameters by new ones, which require gradients
        model._freeze_tower()
        name = model.config.clip_name_or_path
        if name is not None and name.startswith("./"):  # beside this checkpoint; from elsewhere it needs its full name
            model.config.clip_name_or_path = f"{model.name_or_path}/{name[2:]}"
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
                `config.clip_name_or_path`. Default: embed it only if it has no name to refer to and would be lost.
            state_dict, kwargs: as in `PreTrainedModel.save_pretrained`.
        """
        embedded = "clip_model" in self._modules
        if include_towers is None:
            include_towers = self.config.clip_name_or_path is None and (embedded or bool(self._referenced_tower))
        if state_dict is not None:
            state_dict = {name: value for name, value in state_dict.items() if not name.startswith("clip_model.")}
            if include_towers:
                tower = self.get_clip_model().state_dict()
                state_dict |= {f"clip_model.{name}": value for name, value in tower.items()}
        with self._saved_with_tower(include_towers):
            super().save_pretrained(save_directory, state_dict=state_dict, **kwargs)

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


__all__ = ["FrozenTowerMixin", "tower_location"]
