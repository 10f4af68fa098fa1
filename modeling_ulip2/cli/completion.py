"""`ulip2 --print-completion`: what a shell needs to complete commands, options and files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser
from modeling_ulip2.utils.packages import require_package
from modeling_ulip2.utils.private_apis import holds_commands, options_of

SHELLS = ("bash", "zsh", "tcsh")
# What an option is called that takes a path.
_PATHS = {"FILE", "FOLDER", "CSV", "PATH", "OUT", "INDEX", "DIR", "DATASET", "MODEL", "MODELS", "TOWER", "MESHES"}


class PrintCompletion(argparse.Action):
    """Prints the completion of all commands for one shell, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(
            option_strings,
            argparse.SUPPRESS,
            choices=SHELLS,
            metavar="SHELL",
            help=f"print the completion script of a shell ({', '.join(SHELLS)}) and exit: "
            'eval "$(ulip2 --print-completion bash)"',
        )

    def __call__(self, parser: argparse.ArgumentParser, namespace: Any, shell: Any, *_: object) -> None:
        shtab = require_package("shtab", "completion")
        for action in _actions(parser):
            if holds_commands(action) and action.help == argparse.SUPPRESS:
                action.help = None  # shtab leaves out what help leaves out
            name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
            if not action.choices and _PATHS & set(name.split("_")):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        print(shtab.complete(parser, shell))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All options of a parser and of the commands within it."""
    if isinstance(parser, CommandParser):
        parser.complete()
    for action in options_of(parser):
        yield action
        if holds_commands(action):
            commands: Any = action.choices  # parsers by name
            for own in dict.fromkeys(commands.values()):
                yield from _actions(own)
