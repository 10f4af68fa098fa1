"""What the commands share: options, what is told of files, exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from modeling_ulip2.utils.command_line import CommandParser, positive
from modeling_ulip2.utils.places import OWN_DEFAULT
from modeling_ulip2.utils.scripts import DONE

if TYPE_CHECKING:
    from modeling_ulip2.embedding.records import ShapeFailure
    from modeling_ulip2.geometry.folders import ShapeFile

# The up axes are those of `modeling_ulip2.models.axes`, which is not imported for `--help`.
UP_AXIS_CHOICES = ("y", "z", "-z", "x", "auto")


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    fill: Callable[[CommandParser], None],
    description: str | None = None,
) -> str:
    """A sub-command; returns its summary, for the list of commands.

    Args:
        fill: adds its options.
    """
    description = description or f"{summary[0].upper()}{summary[1:]}."
    parser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(run=run)
    parser.fill = fill
    return summary


def add_recipe(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    options: Callable[[], tuple[Sequence[Any], str]],
    trains: bool = False,
    aliases: Sequence[str] = (),
) -> str:
    """A sub-command whose options are the dataclasses of a recipe, which reads its words itself; returns its summary.

    Args:
        run: finds the words in `options.words`.
        options: gives the dataclasses and the description, imported when they are asked for.
        trains: there are the settings of a training, too, whose import takes seconds.
    """
    parser = commands.add_parser(name, help=summary, aliases=list(aliases))
    parser.set_defaults(run=run)
    parser.defers = True

    def fill(parser: CommandParser) -> None:
        from modeling_ulip2.recipes.options import HelpFormatter, options_parser

        classes, parser.description = options()
        parser.formatter_class = HelpFormatter
        own = options_parser(classes, add_help=False)
        parser.add_options_of(own)
        parser.usage = (own.usage or "").replace("%(prog)s", parser.prog)
        if trains:
            parser.group("training").add_argument(
                HELP_ALL,
                action="store_true",
                help="list the settings of the training as well, with their defaults: those of "
                f"transformers.TrainingArguments, such as {', '.join(f'--{name}' for name in TRAINING_SETTINGS)}",
            )

    parser.fill = fill
    return summary


def add_tasks(commands: Any, name: str, summary: str, tasks: Callable[[Any], None], default: str) -> str:
    """A sub-command of several tasks; returns its summary.

    Args:
        tasks: adds a parser for each task.
        default: the task where none is named.
    """
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.default_task = default
    parser.epilog = f"`ulip2 {name} TASK --help` explains a task. Without a task: {default}."
    tasks(parser.add_subparsers(required=True, metavar="TASK", title="tasks"))
    return summary


def add_script(commands: Any, name: str, module: str, summary: str) -> str:
    """A sub-command that a script of `dataset_scripts/` is, too; returns its summary.

    Args:
        module: of `modeling_ulip2.building`, with `DESCRIPTION`, `add_arguments(parser)` and `main(words, prog)`.
    """
    parser = commands.add_parser(name, help=summary)
    parser.defers = True
    place = f"modeling_ulip2.building.{module}"

    def fill(parser: CommandParser) -> None:
        script = import_module(place)
        parser.description = script.DESCRIPTION
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        script.add_arguments(parser)

    def run(options: argparse.Namespace) -> int:
        status = import_module(place).main(options.words, f"ulip2 {name}")
        return status if isinstance(status, int) else DONE

    parser.fill = fill
    parser.set_defaults(run=run)
    return summary


HELP_ALL = "--help_all"
TRAINING_SETTINGS = (
    "output_dir learning_rate num_train_epochs max_steps per_device_train_batch_size gradient_accumulation_steps bf16 "
    "eval_strategy save_strategy seed report_to push_to_hub"
).split()


def recipe_words(options: argparse.Namespace) -> list[str]:
    """The words of a recipe's own command line."""
    return ["--help" if word == HELP_ALL else word for word in options.words]


def add_files(parser: CommandParser) -> None:
    parser.group("shapes").add_argument(
        "files", metavar="FILE", nargs="+", help="meshes, point files, or folders of them"
    )
    add_reading(parser)


def add_reading(parser: CommandParser) -> None:
    """How shapes are read."""
    add = parser.group("shapes").add_argument
    add(
        "--up-axis",
        "--up_axis",
        choices=UP_AXIS_CHOICES,
        default="auto",
        help="what points up in the files (default: auto, what the format fixes, else what the model's feature "
        "extractor expects)",
    )
    add(
        "--root",
        metavar="FOLDER",
        help="folder below which meshes may name materials and textures (default: the folder that is given, or the "
        "file's own)",
    )


def add_model(parser: CommandParser, kind: str = "a Ulip2Model", default: str | None = OWN_DEFAULT) -> None:
    """`--model`. `default`: says what is taken without it; None: it must be given."""
    parser.group("model").add_argument(
        "--model",
        required=default is None,
        metavar="NAME_OR_PATH",
        help=f"folder or hub name of {kind}" + (f" ({default})" if default else ""),
    )


def add_tower(parser: CommandParser) -> None:
    parser.group("model").add_argument(
        "--tower", metavar="NAME_OR_PATH", help="image-text model, where the model's own has moved"
    )


def add_device(parser: CommandParser) -> None:
    parser.group("where it runs").add_argument("--device", help="where to compute (default: a GPU if there is one)")


def add_batch_size(parser: CommandParser) -> None:
    parser.group("where it runs").add_argument(
        "--batch_size", type=positive, default=16, help="clouds per forward pass (default: %(default)s)"
    )


def shape_files(paths: Sequence[str], root: str | None) -> list[ShapeFile]:
    """Files as they are given, and those in folders; tells of files that are skipped.

    Raises:
        ValueError: there is none.
    """
    from modeling_ulip2.geometry.folders import find_shapes
    from modeling_ulip2.geometry.shapes import SHAPE_SUFFIXES

    check_root(root)
    found = find_shapes(paths, root)
    if found.skipped:
        tell(found.summary())
    if not found.files:
        raise ValueError(f"there is no mesh or point file ({', '.join(SHAPE_SUFFIXES)}) in {', '.join(paths)}")
    return found.files


def check_root(root: str | None) -> None:
    if root is not None and not os.path.isdir(root):
        raise ValueError(f"--root {root} is no folder")


def tell(*words: str) -> None:
    """A line for the person, beside the results."""
    print("ulip2:", *words, file=sys.stderr)


def tell_warnings(name: str, warnings: Iterable[str]) -> None:
    for warning in warnings:
        tell(f"{name}: warning: {warning}")


def tell_failure(failure: ShapeFailure) -> None:
    tell(f"{failure.id}: {failure.message} ({failure.reason})")


def print_rows(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
