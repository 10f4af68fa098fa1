"""Names by which a checkpoint refers to other models: hub names, folders, and folders beside the checkpoint.

In a file, a folder is written relative to the checkpoint (`./tower`, `../tower`), so that both can be moved, copied
and uploaded together. In memory, where it has been loaded, it is an absolute path or `owner/repository/folder`.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

# What of `from_pretrained`'s arguments says how a checkpoint is fetched, wherever it lies ...
_FETCHING = ("token", "cache_dir", "force_download", "local_files_only", "proxies", "trust_remote_code")
# ... and which state of one repository is meant.
_STATE = ("revision", "code_revision")


def model_location(name: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` takes for a model: a folder or hub name, and `subfolder` where it lies in a repository.

    Hub names have at most two parts, so that the rest of `owner/repository/folder` is a folder.
    """
    parts = name.split("/")
    if len(parts) < 3 or os.path.isdir(name) or is_path(name):
        return name, {}
    return "/".join(parts[:2]), {"subfolder": "/".join(parts[2:])}


def is_path(name: str) -> bool:
    """Can `name` be nothing but a path of a machine, whether there is something or not?"""
    return os.path.isabs(name) or re.match(r"\.{1,2}($|[/\\])|~|[A-Za-z]:[/\\]|\\", name) is not None


def is_local(name: str) -> bool:
    """Is `name` a path, open_clip's name for one, or that of a file or folder that is there?"""
    return is_path(name) or "local-dir:" in name or os.path.exists(name)


@dataclass
class Origin:
    """Where a checkpoint was loaded from, and with which arguments of `from_pretrained`.

    name: folder or hub name. subfolder: in it. options: those that hold for what the checkpoint refers to as well.
    """

    name: str = ""
    subfolder: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: Any, kwargs: Mapping[str, Any]) -> Origin:
        """The origin that `from_pretrained(name, **kwargs)` loads from."""
        given = {option: kwargs[option] for option in (*_FETCHING, *_STATE) if kwargs.get(option) is not None}
        return cls(os.fspath(name) if name is not None else "", kwargs.get("subfolder") or "", given)

    def resolve(self, reference: str | None) -> str | None:
        """A reference of this checkpoint as a hub name, `owner/repository/folder` or an absolute path.

        A path that starts with a dot is looked for beside the checkpoint; if nothing is there, and something is in the
        working directory, a person typed it. What leads out of a repository stays as it is.
        """
        if reference is None or not is_path(reference):
            return os.path.abspath(reference) if reference and os.path.exists(reference) else reference
        reference = os.path.expanduser(reference)
        if os.path.isabs(reference):
            return reference
        base = os.path.join(self.name, self.subfolder)
        if self.name and not os.path.isdir(self.name):
            name = posixpath.normpath(f"{self.name}/{self.subfolder}/{reference}")
            if name.startswith(f"{self.name}/"):
                return name
            return os.path.abspath(reference) if os.path.exists(reference) else reference
        beside = [os.path.normpath(os.path.join(way(base), reference)) for way in (os.path.abspath, os.path.realpath)]
        return next((path for path in (*beside, os.path.abspath(reference)) if os.path.exists(path)), beside[0])

    def options_for(self, resolved: str) -> dict[str, Any]:
        """Arguments of `from_pretrained` for a resolved reference: those of this checkpoint that hold for it too."""
        same = not os.path.isdir(self.name) and model_location(resolved)[0] == self.name
        return {option: value for option, value in self.options.items() if same or option not in _STATE}


def written_reference(reference: str | None, folder: str | os.PathLike[str]) -> str | None:
    """How a checkpoint in `folder` refers to what is called `reference` in memory: relative where that can be."""
    if reference is None or (reference.startswith(".") and os.path.exists(os.path.join(folder, reference))):
        return reference
    if not os.path.exists(reference):
        return reference
    target, start = os.path.abspath(reference), os.path.abspath(folder)
    try:
        common = os.path.commonpath([target, start])
    except ValueError:  # on different drives
        return target
    if os.path.dirname(common) == common:  # they share nothing that could be moved
        return target
    relative = os.path.relpath(target, start).replace(os.sep, "/")
    return relative if relative.startswith("../") else f"./{relative}"


def missing_reference(
    error: Exception | None, reference: str, field_name: str, what: str, remedy: str = ""
) -> OSError:
    """The error for a reference that cannot be loaded: which path or name, in which field, and what mends it."""
    if is_path(reference) and not os.path.exists(reference):
        if os.path.isabs(reference):
            why = f"there is no {reference} on this machine (was it moved, or does the checkpoint come from another?)"
        else:
            why = f"{reference} leads to nothing beside the checkpoint (only what lies in its repository is found)"
    else:
        why = str(error).rstrip(".")
    return OSError(
        f"The {what} {reference!r} ({field_name} of the configuration) could not be loaded: {why}. If it lies "
        f"elsewhere, pass {field_name}=FOLDER_OR_HUB_NAME to from_pretrained.{remedy}"
    )


class PortableConfigMixin:
    """For configurations that contain others: to stand before `PreTrainedConfig` among the bases.

    transformers writes where a configuration was loaded from only inside another one, where it tells a path of the
    machine that saved it and is read by nobody. So does what an inner one refers to, such as the tower with which a
    captioner's point encoder was trained: the captioner has no need of it.
    """

    def to_diff_dict(self) -> dict[str, Any]:
        """As in transformers; what is inside tells no folder of a machine, as the whole does not."""
        settings: dict[str, Any] = super().to_diff_dict()  # type: ignore[misc]
        settings.pop("_name_or_path", None)
        for value in settings.values():
            _forget_places(value)
        return settings


def _forget_places(settings: Any) -> None:
    if not isinstance(settings, dict):
        return
    settings.pop("_name_or_path", None)
    for name, value in settings.items():
        if str(name).endswith("name_or_path") and isinstance(value, str) and is_local(value):
            settings[name] = None
        _forget_places(value)


class ReferringConfigMixin(PortableConfigMixin):
    """For configurations with references: to stand before `PreTrainedConfig` among the bases.

    references: field of a reference -> field of the configuration of the same model, where the checkpoint holds its
        weights, and the argument of `save_pretrained` and `push_to_hub` that puts them in.
    """

    references: ClassVar[dict[str, tuple[str, str]]] = {}

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> Any:
        """As in transformers; local folders are written relative to `save_directory`."""
        if push_to_hub:
            self.check_publishable()
        kept = {name: getattr(self, name) for name in self.references}
        for name in self.references:
            setattr(self, name, written_reference(kept[name], save_directory))
        try:
            return super().save_pretrained(save_directory, push_to_hub=push_to_hub, **kwargs)  # type: ignore[misc]
        finally:
            for name, reference in kept.items():
                setattr(self, name, reference)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers.

        Raises:
            ValueError: see `check_publishable`.
        """
        self.check_publishable()
        return super().push_to_hub(*args, **kwargs)  # type: ignore[misc]

    def check_publishable(self, included: Mapping[str, bool] | None = None) -> None:
        """Refuses to upload what nobody else could load.

        Args:
            included: which references' weights go into the checkpoint; default: those that it holds now.

        Raises:
            ValueError: a reference is a folder or file of this machine; the message names the remedies.
        """
        for name, (embedded, argument) in self.references.items():
            inside = getattr(self, embedded) is not None if included is None else included[name]
            reference = getattr(self, name)
            if not inside and reference is not None and is_local(reference):
                raise ValueError(
                    f"{name} is {reference!r}, a path of this machine: uploaded, it would show that path, and nobody "
                    f"else could load the model. Upload that model and set config.{name} to its name on the hub "
                    f"(owner/name; None where it is not needed), or pass {argument}=True, which puts its weights into "
                    "this checkpoint."
                )


__all__ = [
    "Origin",
    "ReferringConfigMixin",
    "is_local",
    "is_path",
    "missing_reference",
    "model_location",
    "written_reference",
]
