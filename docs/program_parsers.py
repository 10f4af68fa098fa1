"""The parsers of this project's programs, as they build them themselves.

A program is started with `--help` and its parser is caught as it would print, so that no list of options stands
anywhere beside the programs. The site shows what these parsers print, and the tests hold the documents against them.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from modeling_ulip2.models.configuration_ulip2 import POINT_ENCODERS

ROOT = Path(__file__).parents[1]
# Folders of scripts that people run.
SCRIPT_FOLDERS = ("dataset_scripts", "examples")


class NoParserError(ValueError):
    """A program that does not exist, or that has no `--help`."""


class _Caught(BaseException):
    def __init__(self, parser: argparse.ArgumentParser):
        self.parser = parser


@contextlib.contextmanager
def _catching(*arguments: str, folder: Path | None = None) -> Iterator[None]:
    def print_help(self: argparse.ArgumentParser, file: Any = None) -> None:
        raise _Caught(self)

    with (
        mock.patch.object(argparse.ArgumentParser, "print_help", print_help),
        mock.patch.object(sys, "argv", list(arguments)),
        mock.patch.object(sys, "path", [*([] if folder is None else [str(folder)]), str(ROOT), *sys.path]),
        mock.patch.object(sys, "excepthook", sys.excepthook),
    ):
        yield


@functools.cache
def command_parser(*command: str, whole: bool = False) -> argparse.ArgumentParser:
    """The parser of `ulip2 COMMAND` or `ulip2 COMMAND TASK`, or that of `ulip2`.

    Args:
        whole: with all options of a training, also those that `--help` leaves to `--help_all`.

    Raises:
        NoParserError: there is no such command.
    """
    from modeling_ulip2.cli import main

    words = [*command, "--help_all" if whole else "--help"]
    said = io.StringIO()
    try:
        with _catching("ulip2", *words), contextlib.redirect_stderr(said):
            main(words)
    except _Caught as caught:
        return caught.parser
    except SystemExit:
        pass
    if whole:  # a command that has nothing more to tell
        return command_parser(*command)
    raise NoParserError(f"ulip2 has no command {' '.join(command)}: {' '.join(said.getvalue().split())}")


def tasks(command: str) -> dict[str, argparse.ArgumentParser]:
    """The tasks of a command by name; none of most commands."""
    subparsers = [
        action for action in command_parser(command)._actions if isinstance(action, argparse._SubParsersAction)
    ]
    return dict(subparsers[0].choices) if subparsers else {}


def command_of(words: Sequence[str]) -> list[str]:
    """The words with which a line after `ulip2` names its command and task, where it leaves out a default task."""
    if not words or words[0].startswith("-"):
        return []
    command = [words[0]]
    if known := tasks(words[0]):
        default = getattr(command_parser(words[0]), "default_task", None)
        given = words[1] if len(words) > 1 and words[1] in known else default
        command += [given] if given else []
    return command


@contextlib.contextmanager
def _without_others_encoders() -> Iterator[None]:
    """A script that registers an encoder may have been imported under another name; it must not meet its own."""
    with mock.patch.dict(POINT_ENCODERS):
        for name, known in list(POINT_ENCODERS.items()):
            if not known.config_class.__module__.startswith("modeling_ulip2."):
                del POINT_ENCODERS[name]
        yield


@functools.cache
def program_parser(*program: str) -> argparse.ArgumentParser:
    """The parser of a script of the repository, or of a module behind `-m`.

    Raises:
        NoParserError: it prints no help.
    """
    name = " ".join(program)
    try:
        with _without_others_encoders(), _catching(program[-1], "--help", folder=(ROOT / program[0]).parent):
            if program[0] == "-m":
                runpy.run_module(program[1], run_name="__main__")
            else:
                runpy.run_path(str(ROOT / program[0]), run_name="__main__")
    except _Caught as caught:
        return caught.parser
    except SystemExit as ended:
        raise NoParserError(f"{name} --help ends with {ended.code} and prints no help") from None
    raise NoParserError(f"{name} --help prints no help")


def commands() -> list[list[str]]:
    """The commands of `ulip2` and their tasks, in its order."""
    (subparsers,) = (action for action in command_parser()._actions if isinstance(action, argparse._SubParsersAction))
    found = []
    for command in subparsers.choices:
        known = tasks(command)
        found.append([command])
        seen: set[int] = set()  # aliases are the same parser
        for task, parser in known.items():
            if id(parser) not in seen:
                found.append([command, task])
            seen.add(id(parser))
    return found


def scripts() -> list[str]:
    """The scripts that people run, as paths in the repository."""
    found = (path for folder in SCRIPT_FOLDERS for path in sorted((ROOT / folder).glob("*.py")))
    return [path.relative_to(ROOT).as_posix() for path in found if "__main__" in path.read_text(encoding="utf-8")]


def help_text(parser: argparse.ArgumentParser) -> str:
    """What `--help` prints on a terminal of 84 columns, without paths of this machine."""
    with mock.patch.dict(os.environ, {"COLUMNS": "84", "NO_COLOR": "1"}):
        text = parser.format_help()
    return text.replace(str(Path.home()), "~").replace(f"{ROOT}/", "")
