"""Finds models and datasets: in a folder here or in a repository of the hub; one sentence says if there is neither."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

CONFIG_FILE = "config.json"
NOWHERE = "no such folder, nor on the hub"
# Models of the repository, beside the package in a clone and on a Space; an installed package has none of them.
OWN_MODEL, OWN_TOWER = "checkpoints/ulip2-small", "checkpoints/linear-lit-tower"
# How the help of an option says that `named_or_own` reads it.
OWN_DEFAULT = f"default: {OWN_MODEL}, in a clone of the repository"
_BESIDE_PACKAGE = Path(__file__).resolve().parents[2]
# As the hub allows them: a name, or an owner and a name.
_HUB_NAME = re.compile(r"(?!.*(\.\.|--))[\w.-]{1,96}(/[\w.-]{1,96})?")


def default_feature_cache() -> str:
    """The folder of embeddings that were computed before, beside the cache of the hub."""
    from huggingface_hub.constants import HF_HOME

    return str(Path(HF_HOME) / "ulip2" / "features")


class PlaceError(FileNotFoundError):
    """Nothing of that name, neither a folder nor on the hub."""


def is_hub_name(name: str) -> bool:
    """Whether the hub may know it: at most an owner and a name, and nothing that only paths have."""
    looks_local = name.startswith((".", "/", "~", "\\")) or Path(name).is_absolute()
    return not looks_local and _HUB_NAME.fullmatch(name) is not None


def named_or_own(name: str | None, option: str = "--model", own: str = OWN_MODEL) -> str:
    """What an option names or, where it names nothing, the repository's own model; standard error tells of that.

    Args:
        name: of the model, None where the option was not given.
        option: as it is written on the command line.
        own: the model to take: `OWN_MODEL` or `OWN_TOWER`.

    Returns:
        `name`, or the own model's folder: a relative path within the working directory, else an absolute one.

    Raises:
        PlaceError: nothing is named, and the repository's models are not here.
    """
    if name is not None:
        return name
    folder = _BESIDE_PACKAGE / own
    if not (folder / CONFIG_FILE).is_file():
        raise PlaceError(
            f"{option} is missing: name a folder, a model on the hub, or one of `ulip2 releases`. Only a clone of the "
            f"repository has one to take by default, {own}"
        )
    here = Path.cwd()
    place = os.path.relpath(folder, here) if folder.is_relative_to(here) else str(folder)
    if os.environ.get("RANK", "0") == "0":  # once, of many processes
        print(f"No {option} is given: taking {place}, the repository's own.", file=sys.stderr)
    return place


def find_model(name_or_path: str | Path, **hub: Any) -> str:
    """What `from_pretrained` takes for a model that is there: the path of its folder, or its name on the hub.

    Args:
        name_or_path: a folder with a `config.json`, or a name on the hub.
        hub: `revision`, `token`, `cache_dir` and the like, of `hf_hub_download`.

    Raises:
        PlaceError: there is no such folder, nor such a model on the hub.
    """
    name = str(name_or_path)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / CONFIG_FILE).is_file():
            raise PlaceError(f"{name} holds no {CONFIG_FILE}: it is no model folder")
        return str(folder)
    if folder.is_file():
        raise PlaceError(
            f"{name} is a file; a model is a folder (`ulip2 convert` makes one of a published checkpoint)"
        )
    _from_hub(name, "model", CONFIG_FILE, hub)
    return name


def find_folder(name_or_path: str | Path, repo_type: str = "model", **hub: Any) -> Path:
    """The folder of that name, or the local copy of the hub's repository of that name, downloaded if need be.

    Raises:
        PlaceError: there is no such folder, nor such a repository on the hub.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise PlaceError(f"{name_or_path} is a file, not a folder")
    return Path(_from_hub(str(name_or_path), repo_type, None, hub))


def _from_hub(name: str, repo_type: str, file: str | None, options: dict[str, Any]) -> str:
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    nowhere = f"{name}: {NOWHERE}"
    if not is_hub_name(name):
        raise PlaceError(nowhere)
    try:
        if file is None:
            return snapshot_download(name, repo_type=repo_type, **options)
        return hf_hub_download(name, file, repo_type=repo_type, **options)
    except GatedRepoError as error:
        raise PlaceError(
            f"{name}: no such folder; on the hub it is gated: ask there for access, then log in"
        ) from error
    except RepositoryNotFoundError as error:
        raise PlaceError(f"{nowhere} (a private one needs a login)") from error
    except RevisionNotFoundError as error:
        raise PlaceError(f"{name} is on the hub, but has no revision {options.get('revision')!r}") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        why = "asked for by HF_HUB_OFFLINE, so that only its cache was searched" if _offline() else "it did not answer"
        raise PlaceError(f"{nowhere} ({'offline, ' if _offline() else ''}{why})") from error
    except EntryNotFoundError as error:
        raise PlaceError(f"{name} is on the hub, but holds no {file}: it is no model") from error
    except OSError as error:
        raise PlaceError(f"{name}: no such folder, and the hub could not be asked ({error})") from error


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
