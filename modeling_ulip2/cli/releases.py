"""`ulip2 releases`: the published checkpoints that the package opens."""

from __future__ import annotations

import argparse
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser
from modeling_ulip2.utils.scripts import DONE

from .shared import add_command, print_rows


def register(commands: Any) -> str:
    return add_command(
        commands,
        "releases",
        run,
        "list the published checkpoints that `ulip2 convert NAME` fetches",
        _fill,
        "Lists the published checkpoints that the package opens, or all that is known of one. Their names serve "
        "`ulip2 convert`, `Ulip2Embedder.from_pretrained` and `Ulip2Model.from_release`.",
    )


def _fill(parser: CommandParser) -> None:
    add = parser.group("checkpoint").add_argument
    add("name", metavar="NAME", nargs="?", help="tell all that is known of this one")
    add("--markdown", action="store_true", help="as a table in Markdown, with figures and places")


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2.conversion.catalog import HEADER, catalog_markdown, facts, find_named, table_rows

    if options.name is not None:
        print_rows(facts(find_named(options.name)))
    elif options.markdown:
        print(catalog_markdown())
    else:
        rows = [HEADER, *table_rows()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return DONE
