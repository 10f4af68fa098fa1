"""Models whose configuration refers to other models: references are found where the checkpoint was loaded from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from transformers import PreTrainedModel

from .references import Origin, is_local


class ReferringModelMixin(PreTrainedModel):
    """For models whose configuration is a `ReferringConfigMixin`."""

    # Where this model was loaded from; kept out of what is saved.
    _origin: Origin = Origin()
    # Whether an upload that is going on includes each referred model, by field; {}: there is none.
    _uploading: Mapping[str, bool] = {}

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; what a checkpoint refers to by a relative path is found beside it."""
        origin = Origin.of(pretrained_model_name_or_path, kwargs)
        fields = tuple(getattr(cls.config_class, "references", {}))
        for name in fields:
            typed = kwargs.get(name)
            if typed is not None and os.path.exists(typed):  # beside whoever typed it, not beside the checkpoint
                kwargs[name] = os.path.abspath(typed)
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model._origin = origin
        for name in fields:
            setattr(model.config, name, origin.resolve(getattr(model.config, name)))
        return loaded

    def _includes(self) -> dict[str, bool]:
        """By field, whether saving puts the weights of what it refers to into the checkpoint, if nobody says."""
        return dict.fromkeys(self.config.references, False)

    def _fetch(self, name: str) -> None:
        """Loads what the field `name` refers to, if that has not been done."""

    def save_pretrained(self, save_directory: Any, *, push_to_hub: bool = False, **kwargs: Any) -> None:  # type: ignore[override]
        """As in transformers; with `push_to_hub` see there."""
        with self._upload({}) if push_to_hub else nullcontext():
            super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> Any:  # type: ignore[override]
        """As in transformers. Arguments `include_...` of `save_pretrained` are taken too.

        Raises:
            ValueError: the model refers to a folder of this machine that does not go into the checkpoint; nothing is
                uploaded then.
        """
        arguments = {name: argument for name, (_, argument) in self.config.references.items()}
        with self._upload({name: kwargs.pop(argument, None) for name, argument in arguments.items()}):
            return super().push_to_hub(repo_id, **kwargs)  # type: ignore[arg-type]

    @contextmanager
    def _upload(self, included: Mapping[str, bool | None]) -> Iterator[None]:
        """While it lasts, saving includes what it shall, and paths of this machine are not told.

        Args:
            included: by field; None: as saving does by itself.
        """
        own, kept = self._includes(), {name: getattr(self.config, name) for name in self.config.references}
        said = {name: own[name] if included.get(name) is None else bool(included[name]) for name in own}
        self.config.check_publishable(said)
        outer, self._uploading = self._uploading, said
        try:
            for name, reference in kept.items():
                if said[name] and reference is not None and is_local(reference):
                    self._fetch(name)
                    setattr(self.config, name, None)
            yield
        finally:
            self._uploading = outer
            for name, reference in kept.items():
                setattr(self.config, name, reference)


__all__ = ["ReferringModelMixin"]
