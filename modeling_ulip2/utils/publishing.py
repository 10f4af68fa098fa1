"""What goes to the hub of a model's folder: what a model is made of, and nothing of the machine or of a training."""

from __future__ import annotations

import fnmatch
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi

from .machine_paths import is_machine_path, paths_in

CARD_FILE = "README.md"
# What saving writes of models, processors, tokenizers and cards, and the figures of a training. Everything else stays:
# optimizer, scheduler and random states, `training_args.bin` (a pickle with paths of this machine), checkpoints, logs.
PUBLISHED = (
    CARD_FILE,
    "config.json",
    "generation_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "adapter_config.json",
    "preprocessor_config.json",
    "image_processor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "tokenizer*",
    "vocab.*",
    "merges.txt",
    "spiece.model",
    "*.py",
    "*_results.json",
    "captioner_report.json",
)
# Folders that saving makes beside a model, of which the same files go along.
_PARTS = ("tower", "qformer_tokenizer", "additional_chat_templates")
# Their entries are pieces of text, and a piece may look like a path.
_VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json", "special_tokens_map.json")


class LeakError(ValueError):
    """A file that would be uploaded tells a path of this machine."""


def published_files(folder: Path) -> list[str]:
    """The files of a model's folder that belong on the hub, relative to it."""
    files = [path for path in folder.iterdir() if path.is_file()]
    for part in _PARTS:
        files += [path for path in (folder / part).rglob("*") if path.is_file()]
    kept = [path for path in files if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in PUBLISHED)]
    return sorted(path.relative_to(folder).as_posix() for path in kept)


def check_paths(folder: Path, files: Iterable[str]) -> None:
    """Refuses files that tell where things lie on this machine.

    Raises:
        LeakError: the message names file, field and path.
    """
    for name in files:
        if Path(name).name == CARD_FILE:
            for path in paths_in((folder / name).read_text(encoding="utf-8")):
                if is_personal(path):
                    raise LeakError(f"{folder / name} tells a path of this machine, {path}: take it out of the card.")
        if not name.endswith(".json") or Path(name).name in _VOCABULARIES:
            continue
        try:
            content = json.loads((folder / name).read_text(encoding="utf-8"))
        except ValueError:
            continue
        for field, text in texts_of(content):
            if is_machine_path(text):
                raise LeakError(
                    f"{folder / name} tells a path of this machine: {field} is {text!r}. Nobody else could load what "
                    "it names: publish that too and put its name on the hub there, or include its weights."
                )


def is_personal(path: str) -> bool:
    """Does a path that a card tells lead to something of a person's on this machine? `/usr/bin/python` does not."""
    places = (Path.home(), Path.cwd(), Path(tempfile.gettempdir()))
    own = Path(path).expanduser()
    return os.path.exists(own) and any(own.is_relative_to(place) for place in places if place != Path(place.root))


def texts_of(value: Any, field: str = "") -> Iterator[tuple[str, str]]:
    """All texts of a JSON value, with the names of their fields."""
    if isinstance(value, str):
        yield field, value
    elif isinstance(value, dict):
        for name, own in value.items():
            yield from texts_of(own, f"{field}.{name}".lstrip("."))
    elif isinstance(value, list):
        for own in value:
            yield from texts_of(own, field)


def upload_model_folder(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    message: str,
    private: bool | None = None,
    token: str | None = None,
    **upload: Any,
) -> CommitInfo:
    """Uploads what belongs on the hub of a model's folder; the repository is made if it is new.

    Args:
        message: of the commit.
        private: of a new repository; default: as its organization has it.
        upload: further arguments of `HfApi.upload_folder`, such as `revision` and `run_as_future`.

    Raises:
        LeakError: see `check_paths`; nothing is uploaded then.
    """
    folder = Path(folder)
    files = published_files(folder)
    check_paths(folder, files)
    api = HfApi(token=token)
    api.create_repo(repo_id, private=private, exist_ok=True)
    return api.upload_folder(
        repo_id=repo_id,
        folder_path=folder,
        commit_message=message,
        allow_patterns=[glob_escaped(name) for name in files],
        **upload,
    )


def glob_escaped(name: str) -> str:
    """A name as a pattern that matches it alone."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
