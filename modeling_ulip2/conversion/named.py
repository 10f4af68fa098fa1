"""Published checkpoints by name: fetched from the hub, converted, verified, kept, and published again.

convert_release("uni3d-b", "uni3d-b")     # what `ulip2 convert uni3d-b uni3d-b` does
converted_release("uni3d-b")              # what `Ulip2Embedder.from_pretrained("uni3d-b")` does on first use
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from filelock import FileLock
from huggingface_hub import HfApi, cached_assets_path, constants, hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from modeling_ulip2.utils.checksums import sha256_of
from modeling_ulip2.utils.places import PlaceError

from .assemble import Conversion
from .catalog import HubFile, NamedRelease, find_named
from .folder import convert_to_folder
from .verify import verify_folder

logger = logging.getLogger(__name__)

# Raised when a conversion writes other files than before, so that kept ones are made anew.
_FORMAT = 1
_LIBRARY, _NAMESPACE = "modeling_ulip2", "releases"


def fetch(entry: NamedRelease, **hub: Any) -> Path:
    """The published file of a checkpoint, from the hub's cache or downloaded, whole.

    Args:
        hub: `revision`, `token`, `cache_dir`, `force_download` and the like, of `hf_hub_download`.

    Raises:
        PlaceError: it lies in no repository on the hub, or the hub does not have or give it.
        ValueError: what came is not what the hub states.
    """
    file = entry.file
    if file is None:
        raise PlaceError(
            f"{entry.name} lies in no repository on the hub: {entry.note}. Download it, and convert the file."
        )
    try:
        path = Path(_download(file, file.path, hub))
    except EntryNotFoundError as error:
        if isinstance(error, FileNotFoundError):  # offline, and not in the cache
            raise PlaceError(
                f"{entry.name}: {file.path} of {file.address} is not in the cache, and {_why()}"
            ) from error
        path = Path(_download(file, _moved(entry, file, hub, error), hub))
    except GatedRepoError as error:
        raise PlaceError(f"{file.address} is gated: ask there for access, then log in (`hf auth login`).") from error
    except RepositoryNotFoundError as error:
        raise PlaceError(
            f"{entry.name}: {file.address} is not on the hub any more, or is private: log in (`hf auth login`)."
        ) from error
    except RevisionNotFoundError as error:
        raise PlaceError(f"{entry.name}: {file.address} has no revision {hub.get('revision')!r}.") from error
    except (HfHubHTTPError, OfflineModeIsEnabled) as error:
        raise PlaceError(f"{entry.name}: {file.address} could not be read: {_first_line(error)}") from error
    _check(entry, file, path)
    return path


def _download(file: HubFile, path: str, hub: dict[str, Any]) -> str:
    return hf_hub_download(file.repo_id, path, repo_type=file.repo_type, **hub)


def _moved(entry: NamedRelease, file: HubFile, hub: dict[str, Any], error: Exception) -> str:
    """Where in its repository a file is now whose folder was renamed.

    Raises:
        PlaceError: nowhere, or in several places; the message lists the checkpoints that are there.
    """
    asked = {name: hub[name] for name in ("revision", "token") if hub.get(name) is not None}
    files = HfApi().list_repo_files(file.repo_id, repo_type=file.repo_type, **asked)
    same = [path for path in files if path.rpartition("/")[2] == file.path.rpartition("/")[2]]
    if len(same) == 1:
        logger.warning("%s: %s lies at %s now", entry.name, file.path, same[0])
        return same[0]
    checkpoints = [path for path in files if path.endswith((".pt", ".pth", ".bin", ".safetensors"))]
    raise PlaceError(
        f"{entry.name}: {file.address} holds no {file.path} any more. Its checkpoints are: "
        f"{', '.join(checkpoints[:20]) or 'none'}. Download the right one, and convert the file."
    ) from error


def _check(entry: NamedRelease, file: HubFile, path: Path) -> None:
    """What was downloaded is what the hub or the catalog states.

    The name of a large file in the hub's cache is the SHA-256 that the hub states.
    """
    blob = path.resolve()
    stated = blob.name if len(blob.name) == 64 else None
    if stated is not None and (found := sha256_of(blob)) != stated:
        raise ValueError(
            f"{blob} is damaged: its SHA-256 is {found}, the hub states {stated}. Delete it, and the same command "
            "fetches it anew."
        )
    if stated is not None and file.sha256 is not None and stated != file.sha256:
        logger.warning(
            "%s: the hub has another file now than the one that is known (SHA-256 %s, known %s)",
            entry.name,
            stated,
            file.sha256,
        )


def convert_release(
    name: str,
    output_dir: str | os.PathLike[str],
    *,
    repo_id: str | None = None,
    verify: bool = True,
    clip_name_or_path: str | None = None,
    **hub: Any,
) -> tuple[Conversion, NamedRelease]:
    """Fetches a published checkpoint, converts it to a folder with its card, and verifies what was written.

    Args:
        name: of the catalog.
        output_dir: must be new or empty.
        repo_id: how the card calls the model; default: "FOLDER".
        verify: whether to run the folder's recorded numbers, see `verify_folder`.
        clip_name_or_path: the image-text tower that the model shall refer to; default: the published one.
        hub: see `fetch`.

    Raises:
        UnknownReleaseError: there is no such checkpoint.
        PlaceError: see `fetch`.
        ConversionError: the file is another than the catalog says.
        RuntimeError: the converted model does not give the recorded numbers.
    """
    entry = find_named(name)
    tower = entry.release.tower_release
    # `revision` is one of the repository of the model
    others = {option: value for option, value in hub.items() if option != "revision"}
    conversion, _ = convert_to_folder(
        fetch(entry, **hub),
        output_dir,
        clip_name_or_path=clip_name_or_path,
        release=entry.release,
        name=repo_id or "FOLDER",
        tower_file=None if tower is None else lambda: fetch(find_named(tower), **others),
    )
    if verify and entry.release.model_type is not None:
        worst = max(verify_folder(output_dir), key=lambda row: row.of_tolerance)
        if worst.of_tolerance > 1:
            raise NotAsRecordedError(
                f"{output_dir} was written, but {worst.case}: {worst.tensor} deviates by {worst.absolute:.2e} from "
                "what was recorded: `ulip2 verify` shows more."
            )
    return conversion, entry


class NotAsRecordedError(RuntimeError):
    """A converted model does not give the numbers that it should."""


def converted_release(name: str, *, cache_dir: str | os.PathLike[str] | None = None, **hub: Any) -> Path:
    """The folder of a published checkpoint, converted when it is first asked for and kept.

    It lies among the assets of the hub's cache (`HF_ASSETS_CACHE`), or below `cache_dir`. Several processes may ask at
    once: one converts, the others wait. A folder that is there is whole.

    Args:
        name: of the catalog.
        hub: see `fetch`. A `revision` is kept apart.
    """
    entry = find_named(name)
    revision = hub.get("revision")
    label = f"{entry.name}-v{_FORMAT}" + (f"-{revision.replace('/', '-')}" if revision else "")
    assets = constants.HF_ASSETS_CACHE if cache_dir is None else Path(cache_dir) / "assets"
    folder = cached_assets_path(_LIBRARY, namespace=_NAMESPACE, assets_dir=assets) / label
    if folder.is_dir() and not hub.get("force_download"):
        return folder
    with FileLock(folder.with_name(f"{label}.lock")):
        if folder.is_dir():  # by another process, meanwhile
            return folder
        logger.warning("%s is fetched and converted once, into %s", entry.name, folder)
        given = {option: value for option, value in hub.items() if value is not None}
        if cache_dir is not None:
            given["cache_dir"] = str(cache_dir)
        convert_release(entry.name, folder, **given)
    return folder


def _why() -> str:
    return "HF_HUB_OFFLINE forbids to fetch it." if constants.HF_HUB_OFFLINE else "the hub did not answer."


def _first_line(error: Exception) -> str:
    return next(line for line in str(error).splitlines() if line.strip())
