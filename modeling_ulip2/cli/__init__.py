"""The `ulip2` command: one file for each sub-command, with `register` and `run`.

Nothing heavy is imported before a command runs, so that `ulip2 --help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from modeling_ulip2.utils.scripts import BAD_INPUT, STOPPED, is_expected, one_line

from . import caption, classify, convert, embed, index, info, search, verify

COMMANDS = (info, convert, verify, embed, classify, caption, index, search)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Returns:
        its exit status: 0; 1 where numbers deviate; 2 for bad input, or where no file could be used; 3 where some
        files could not be used; 130 where it was stopped.
    """
    options = make_parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    try:
        return options.run(options)
    except Exception as error:
        if not is_expected(error):
            raise
        print(f"ulip2: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("ulip2: stopped", file=sys.stderr)
        return STOPPED


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--up-axis -z` as one word: argparse would take the value for an option."""
    joined: list[str] = []
    for argument in arguments:
        if argument == "-z" and joined and joined[-1] in ("--up-axis", "--up_axis"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ulip2", description="ULIP-2 on the command line.")
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.register(commands)
    return parser


class _Version(argparse.Action):
    """Asks for the version only where it is wanted."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from modeling_ulip2 import __version__

        print(f"modeling-ulip2 {__version__}")
        parser.exit()
