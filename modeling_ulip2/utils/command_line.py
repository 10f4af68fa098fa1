"""Parsers of command lines."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import private_apis
from .files import write_text
from .scripts import BAD_INPUT


class OneLineParser(argparse.ArgumentParser):
    """A parser that reports a mistake in one line, as scripts and commands report all errors."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_INPUT, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")


class CommandParser(OneLineParser):
    """The parser of a command that stands among many: what its options need is imported when it is asked for.

    Attributes:
        fill: adds the options, before the command is parsed or explained.
        defers: the command reads its words itself, from `words` of the namespace; the options are there to explain.
        default_task: of a command with tasks, where none is named.
    """

    fill: Callable[[CommandParser], None] | None = None
    defers = False
    default_task: str | None = None

    def complete(self) -> None:
        """Adds the options, if that was not done yet."""
        fill, self.fill = self.fill, None
        if fill is not None:
            fill(self)

    def group(self, title: str, description: str | None = None) -> Any:
        """The group of options with that title, made when it is first asked for."""
        groups: dict[str, Any] = self.__dict__.setdefault("_groups", {})
        if title not in groups:
            groups[title] = self.add_argument_group(title, description)
        return groups[title]

    def add_options_of(self, parser: argparse.ArgumentParser) -> None:
        """The options of another parser, as `parents` of `argparse.ArgumentParser` does it before there are any."""
        private_apis.add_options_of(self, parser)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        words = list(args or [])
        asks_for_help = bool({"-h", "--help"} & set(words))
        if self.default_task and (not words or words[0].startswith("-")) and not asks_for_help:
            words = [self.default_task, *words]
        if not self.defers or asks_for_help:
            self.complete()
            return super().parse_known_args(words, namespace)
        namespace = namespace or argparse.Namespace()
        namespace.run, namespace.words = self.get_default("run"), words
        return namespace, []


def config_field(text: str) -> tuple[str, Any]:
    """Splits a word FIELD=VALUE of `--point_config`; a value that is not JSON is a string.

    Raises:
        ValueError: there is no "=".
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--point_config takes FIELD=VALUE, got {text!r}.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def script_parser(
    description: str, add_arguments: Callable[[argparse.ArgumentParser], None], prog: str | None = None
) -> OneLineParser:
    """The parser of a script that is a command, too.

    Args:
        add_arguments: adds the options; the command adds the same.
        prog: name of the command; None: that of the script.
    """
    parser = OneLineParser(prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    return parser


# Options of `from_pretrained` and `load_dataset`, by the same names; `{}` is what the revision is of.
HUB_HELP = {
    "revision": "branch, tag or commit of the {} on the hub (default: main)",
    "token": "token for what is private or gated on the hub (default: that of `hf auth login`)",
    "cache_dir": "where downloads are kept (default: the cache of the hub)",
}
HUB_OPTIONS = tuple(HUB_HELP)


def add_hub_arguments(parser: argparse.ArgumentParser, what: str, and_dataset: bool = False) -> None:
    """Options of names on the hub, as `from_pretrained` has them.

    Args:
        what: `--revision` is of that.
        and_dataset: there is a dataset beside it, with `--dataset_revision`.
    """
    add = parser.add_argument_group("hub").add_argument
    add("--revision", help=HUB_HELP["revision"].format(what))
    if and_dataset:
        add("--dataset_revision", help=HUB_HELP["revision"].format("dataset"))
    add("--token", help=HUB_HELP["token"])
    add("--cache_dir", metavar="FOLDER", help=HUB_HELP["cache_dir"])


def hub_options(options: argparse.Namespace) -> dict[str, Any]:
    """What was given of the options of `add_hub_arguments`."""
    return {name: value for name in HUB_OPTIONS if (value := getattr(options, name, None)) is not None}


def dataset_hub_options(options: argparse.Namespace) -> dict[str, Any]:
    """The same for the dataset, where `add_hub_arguments` added its revision."""
    given = {name: value for name, value in hub_options(options).items() if name != "revision"}
    return given | ({"revision": options.dataset_revision} if options.dataset_revision else {})


def positive(text: str) -> int:
    """An argument that is a number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text}")
    return number


def repository(text: str) -> str:
    """An argument that names a repository of an organization or person."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(text)
    except HFValidationError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if "/" not in text:
        raise argparse.ArgumentTypeError(f"expected ORG/NAME, got {text!r}")
    return text


def save_from_packages(
    module: str, description: str, build: Callable[[], tuple[Any, Any, str, str]], arguments: Sequence[str] | None
) -> None:
    """The command `python -m MODULE FOLDER`, which makes a model of what packages hold and saves it.

    Args:
        build: gives the model, its tokenizer or processor, its card, and what they are called in the last line.
    """
    parser = OneLineParser(prog=f"python -m {module}", description=description)
    parser.add_argument("output_dir", type=Path, help="folder for the model and what belongs to it")
    output_dir = parser.parse_args(arguments).output_dir
    output_dir.mkdir(parents=True, exist_ok=True)  # fails before the work if it cannot be written
    model, companion, card, said = build()
    model.save_pretrained(output_dir)
    companion.save_pretrained(output_dir)
    write_text(output_dir / "README.md", card)
    print(f"{said} saved in {output_dir}")
