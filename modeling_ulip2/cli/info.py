"""`ulip2 info`: what a checkpoint is."""

from __future__ import annotations

import argparse
from typing import Any

from modeling_ulip2.utils.scripts import DONE

from .shared import add_command, print_rows


def register(commands: Any) -> None:
    parser = add_command(commands, "info", run, "print what a checkpoint is")
    parser.add_argument(
        "path", metavar="NAME_OR_PATH", help="a model's folder or hub name, or a published checkpoint file"
    )


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2.conversion.describe import describe

    print_rows(describe(options.path))
    return DONE
