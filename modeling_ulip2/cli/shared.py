"""What the commands share: options, what is told of files, exit statuses."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modeling_ulip2.embedding.records import ShapeFailure
    from modeling_ulip2.geometry.folders import ShapeFile

# The up axes are those of `modeling_ulip2.models.axes`, which is not imported for `--help`.
UP_AXES = ("y", "z", "-z", "x", "auto")


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], summary: str, description: str | None = None
) -> argparse.ArgumentParser:
    """A sub-command with its help."""
    description = description or f"{summary[0].upper()}{summary[1:]}."
    parser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(run=run)
    return parser


def add_files(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="meshes, point files, or folders of them")
    add_reading(parser)


def add_reading(parser: argparse.ArgumentParser) -> None:
    """How shapes are read."""
    parser.add_argument(
        "--up-axis",
        "--up_axis",
        choices=UP_AXES,
        default="auto",
        help="what points up in the files (default: auto, what the format fixes, else what the model's feature "
        "extractor expects)",
    )
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="folder below which meshes may name materials and textures (default: the folder that is given, or the "
        "file's own)",
    )


def add_model(parser: argparse.ArgumentParser, kind: str = "a Ulip2Model", required: bool = True) -> None:
    parser.add_argument(
        "--model",
        required=required,
        metavar="NAME_OR_PATH",
        help=f"folder or hub name of {kind}" + ("" if required else " (default: the one that made the index)"),
    )


def add_tower(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--tower", metavar="NAME_OR_PATH", help="image-text model, where the model's own has moved")


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="where to compute (default: a GPU if there is one)")


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--batch_size", type=positive, default=16, help="clouds per forward pass (default: %(default)s)"
    )


def positive(text: str) -> int:
    """A number of at least 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {number}")
    return number


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
