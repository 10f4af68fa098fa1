"""`ulip2 info`: what a checkpoint is."""

from __future__ import annotations

import argparse
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser, add_hub_arguments, hub_options
from modeling_ulip2.utils.scripts import DONE

from .shared import add_command, print_rows


def register(commands: Any) -> str:
    return add_command(commands, "info", run, "print what a checkpoint is", _fill)


def _fill(parser: CommandParser) -> None:
    parser.group("model").add_argument(
        "path", metavar="NAME_OR_PATH", help="a model's folder or hub name, or a published checkpoint file"
    )
    add_hub_arguments(parser, "model")


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2.conversion.describe import describe

    print_rows(describe(options.path, **hub_options(options)))
    return DONE
