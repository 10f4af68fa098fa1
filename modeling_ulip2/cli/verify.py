"""`ulip2 verify`: recorded numbers against the installed code."""

from __future__ import annotations

import argparse
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser, add_hub_arguments, hub_options
from modeling_ulip2.utils.scripts import DONE

from .shared import add_command, print_rows

DEVIATES = 1  # exit status, beside those of utils/scripts.py


def register(commands: Any) -> str:
    return add_command(
        commands, "verify", run, "compare recorded numbers with the installed code on this machine and device", _fill
    )


def _fill(parser: CommandParser) -> None:
    parser.group("model").add_argument(
        "folder",
        metavar="NAME_OR_PATH",
        nargs="?",
        help="a model's folder or hub name (default: all cases of the package, no model)",
    )
    add_hub_arguments(parser, "model")
    parser.group("where it runs").add_argument("--device", default="cpu", help="where to compute (cpu, cuda, ...)")


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2.conversion.verify import verify_built_in, verify_folder

    if options.folder is None:
        found = verify_built_in(options.device)
    else:
        found = verify_folder(options.folder, options.device, **hub_options(options))
    print_rows(
        [
            (f"{row.case}: {row.tensor}", f"{row.absolute:.2e} = {row.of_tolerance:.3f} of the tolerance")
            for row in found
        ]
    )
    worst = max(found, key=lambda row: row.of_tolerance)
    fits = worst.of_tolerance <= 1
    print(
        f"largest deviation {worst.absolute:.2e} ({worst.case}: {worst.tensor}) on {options.device}: "
        + ("as recorded" if fits else "NOT as recorded")
    )
    return DONE if fits else DEVIATES
