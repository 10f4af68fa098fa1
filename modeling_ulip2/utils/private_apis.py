"""All uses of other libraries' private interfaces, so that a new version of one of them is checked against one file.

Seen with datasets 5.2, transformers 5.23 and the argparse of Python 3.11. The files of `models/`, which stand alone,
use what transformers wants of every model, such as `_init_weights` and `_from_config`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def hub_downloads_in(cache_dir: str | None) -> Iterator[None]:
    """Keeps what `load_dataset` downloads from the hub in a folder; None: in the cache of the hub.

    Its own `cache_dir` is where the tables go that it makes of the downloads; these go where huggingface_hub says.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_CACHE
    constants.HF_HUB_CACHE = cache_dir or before
    try:
        yield
    finally:
        constants.HF_HUB_CACHE = before


def rows_fingerprint(dataset: Any) -> str:
    """The hash that identifies the rows of a `datasets.Dataset`, also after `select` and the like."""
    return dataset._fingerprint


def repository_file_or_none(name_or_path: str, file: str, **hub: Any) -> str | None:
    """Path of a file of a folder or hub repository, None if that has no such file.

    Args:
        hub: `revision`, `token` and `cache_dir` of a repository.

    Raises:
        OSError: there is no such repository, or it cannot be reached.
    """
    from transformers.utils.hub import cached_file

    return cached_file(name_or_path, file, _raise_exceptions_for_missing_entries=False, **hub)


def keep_pipeline_out_of_checkpoints(pipeline_class: Any) -> None:
    """Takes the mark from a registered pipeline by which `save_pretrained` would ship its file."""
    del pipeline_class._registered_impl


def batch_size_now(trainer: Any) -> int:
    """Rows of a batch of a `Trainer`, which `auto_find_batch_size` may have made smaller than its arguments say."""
    return trainer._train_batch_size


def tell_scheduler_created(trainer: Any) -> None:
    """Marks the learning rate's scheduler as created by the `Trainer`, as its own `create_scheduler` does."""
    trainer._created_lr_scheduler = True


def options_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """All options and arguments of a parser, in their order."""
    return parser._actions


def holds_commands(action: argparse.Action) -> bool:
    """Whether an action stands for the commands below a parser, which are its `choices`."""
    return isinstance(action, argparse._SubParsersAction)


def add_options_of(parser: argparse.ArgumentParser, other: argparse.ArgumentParser) -> None:
    """Adds the options of another parser, as argparse does with `parents` when a parser is made."""
    parser._add_container_actions(other)
