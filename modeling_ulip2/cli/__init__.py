"""The `ulip2` command: one file for each sub-command, with `register` and `run`.

Nothing heavy is imported before a command runs, so that `ulip2 --help` and `ulip2 COMMAND --help` answer at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser
from modeling_ulip2.utils.scripts import TRACEBACK_OPTION, exit_status, traceback_is_wanted

from . import (
    build,
    caption,
    classify,
    convert,
    convert_triplets,
    describe,
    embed,
    embed_triplets,
    evaluate,
    export,
    finetune,
    index,
    info,
    inspect,
    merge,
    pretrain,
    publish,
    releases,
    scene,
    search,
    split,
    verify,
)
from .completion import PrintCompletion

COMMANDS: dict[str, tuple[ModuleType, ...]] = {
    "make triplets": (build, convert_triplets, embed_triplets, describe, inspect, split, merge, publish),
    "train and measure": (pretrain, finetune, evaluate),
    "use a model": (embed, classify, caption, scene),
    "search": (index, search),
    "checkpoints": (releases, info, convert, verify, export),
}
DESCRIPTION = "ULIP-2 on the command line: 3D shapes, pictures and texts in one space."
EPILOG = """`ulip2 COMMAND --help` explains a command. Wherever a command takes the folder of a model, a dataset or an
index, it takes the name of one on the Hugging Face Hub as well. Exit status: 0 done; 1 numbers deviate, or a captioner
is unfit; 2 bad input, or nothing could be used; 3 some things could not be used; 130 stopped."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        its exit status: 0; 1 where numbers deviate; 2 for bad input, or where no file could be used; 3 where some
        files could not be used; 130 where it was stopped.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    traceback = TRACEBACK_OPTION in words or traceback_is_wanted()
    words = _joined([word for word in words if word != TRACEBACK_OPTION])

    def run() -> Any:
        options = make_parser().parse_args(words)
        return options.run(options)

    return exit_status(run, "ulip2", traceback)


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--up-axis -z` as one word: argparse would take the value for an option."""
    joined: list[str] = []
    for argument in arguments:
        if argument == "-z" and joined and joined[-1] in ("--up-axis", "--up_axis"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def make_parser() -> CommandParser:
    parser = CommandParser(prog="ulip2", epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--version", action=_Version)
    parser.add_argument("--print-completion", action=PrintCompletion)
    parser.add_argument(
        TRACEBACK_OPTION, action="store_true", help="show where an error happened, for a report of a fault"
    )
    # listed below in groups, which argparse does not know
    commands = parser.add_subparsers(prog=parser.prog, required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.usage = "%(prog)s [-h] [--version] [--print-completion SHELL] [--traceback] COMMAND ..."
    lines = [DESCRIPTION]
    for title, modules in COMMANDS.items():
        lines += ["", f"{title}:"]
        for module in modules:
            summary = module.register(commands)
            lines.append(f"  {command_name(module):<18}{summary}")
    parser.description = "\n".join(lines)
    return parser


def command_name(module: ModuleType) -> str:
    """What the command of a module is called."""
    return module.__name__.rpartition(".")[2].replace("_", "-")


class _Version(argparse.Action):
    """Asks for the version only where it is wanted."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from modeling_ulip2 import __version__

        print(f"modeling-ulip2 {__version__}")
        parser.exit()
