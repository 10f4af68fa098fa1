"""Options of a recipe: dataclasses, read from a command line and a YAML file."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers.hf_argparser import HfArgumentParser

from modeling_ulip2.utils.command_line import OneLineParser
from modeling_ulip2.utils.packages import require_package
from modeling_ulip2.utils.private_apis import options_of


def options_usage(parser: argparse.ArgumentParser) -> str:
    """What must be given, and that there is more."""
    needed = [action for action in options_of(parser) if action.required]
    return " ".join(["%(prog)s", *(f"{a.option_strings[0]} {a.dest.upper()}" for a in needed), "[OPTION ...]"])


class OptionsParser(OneLineParser, HfArgumentParser):
    """`HfArgumentParser`, with a line for a mistake instead of a hundred options."""


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Descriptions as they are written, and defaults where there is one that the help does not tell already."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        told = action.default in (None, [], argparse.SUPPRESS) or "default" in (action.help or "")
        return action.help if told else super()._get_help_string(action)


def options_parser(classes: Sequence[Any], **settings: Any) -> OptionsParser:
    """A parser of `--config` and the fields of dataclasses, each in the group that its class names.

    Args:
        classes: dataclasses; `_argument_group_name` is the heading of their options.
        settings: `prog`, `description` and the like, of `argparse.ArgumentParser`.
    """
    parser = OptionsParser(tuple(classes), formatter_class=HelpFormatter, **settings)
    parser.add_argument("--config", metavar="FILE", help="YAML file of the options below")
    parser.usage = options_usage(parser)
    return parser


def parse_options(
    classes: Sequence[Any],
    argv: list[str] | None = None,
    description: str | None = None,
    prog: str | None = None,
) -> list[Any]:
    """An instance of each dataclass from the command line, with the options of `--config FILE.yaml` as defaults.

    Args:
        classes: dataclasses whose fields are the options.
        argv: words of the command line; None: those of this process.
        description: of the command, for `--help`.
        prog: name of the command; None: that of the script.

    Raises:
        ValueError: the YAML file holds something else than options of these classes.
    """
    parser = options_parser(classes, prog=prog, description=description)
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument("--config")
    config, rest = before.parse_known_args(sys.argv[1:] if argv is None else argv)
    if config.config is not None:
        rest = [*_options_of(Path(config.config), {own.name for cls in classes for own in fields(cls)}), *rest]
    parsed = parser.parse_args_into_dataclasses(rest, return_remaining_strings=True)
    if parsed[-1]:
        parser.error(f"unrecognized arguments: {' '.join(parsed[-1])}")
    return list(parsed[: len(classes)])


def _options_of(path: Path, known: set[str]) -> list[str]:
    """The entries of a YAML file as command-line options."""
    yaml = require_package("yaml", "train")
    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML file: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"{path} must map option names to values")
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(f"{path}: unknown options {', '.join(unknown)}")
    words = []
    for name, value in options.items():
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *map(str, values)] if value is not None else []
    return words


def log_to_terminal(in_full: bool) -> None:
    """Shows what the package logs: all of it, or warnings alone (in all processes but the first)."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("modeling_ulip2").setLevel(logging.INFO if in_full else logging.WARNING)
