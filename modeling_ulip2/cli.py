"""The `ulip2` command.

ulip2 info FOLDER_OR_FILE          what a checkpoint is
ulip2 convert FILE OUTPUT_DIR      a published checkpoint -> a folder for AutoModel.from_pretrained
ulip2 verify FOLDER                recorded numbers against the installed code and device
ulip2 embed FILES -o OUT.parquet   meshes and point clouds -> a table of embeddings
ulip2 classify FILE --labels ...   which of your labels a shape is
ulip2 caption FILE                 what a shape is, in a sentence
ulip2 index DATASET OUT            a triplets dataset or a folder of meshes -> a folder that can be searched
ulip2 search INDEX TEXT            shapes by text, picture, shape, or what these add up to
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from .captioning.commands import add_commands as _add_captioning
from .commands import add_commands as _add_inference
from .search.commands import add_commands as _add_search

# What goes wrong with files and settings: told in a sentence, without a traceback.
_EXPECTED_ERRORS = (ValueError, OSError, ImportError)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns its exit status: 0, 1 where numbers deviate, 2 for bad input."""
    parser = argparse.ArgumentParser(prog="ulip2", description="ULIP-2 on the command line.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_info, _add_convert, _add_verify, _add_inference, _add_captioning, _add_search):
        add(commands)
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except _EXPECTED_ERRORS as error:
        print(f"ulip2: {error}", file=sys.stderr)
        return 2


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


# --- info ------------------------------------------------------------------------------------------------------------


def _add_info(commands: Any) -> None:
    parser = _command(commands, "info", _info, "print what a checkpoint is")
    parser.add_argument("path", metavar="FOLDER_OR_FILE", help="a model folder, or a published checkpoint file")


def _info(options: argparse.Namespace) -> int:
    from .conversion.describe import describe

    _print_rows(describe(options.path))
    return 0


# --- convert ---------------------------------------------------------------------------------------------------------


def _add_convert(commands: Any) -> None:
    parser = _command(
        commands, "convert", _convert, "turn a published checkpoint into a folder for AutoModel.from_pretrained"
    )
    parser.add_argument(
        "file",
        metavar="FILE",
        help="checkpoint of ULIP, ULIP-2, Uni3D, OpenShape, Point-BERT or SLIP (.pt, .pth, .bin, .safetensors)",
    )
    parser.add_argument("output_dir", metavar="OUTPUT_DIR", help="a new or empty folder")
    parser.add_argument(
        "--tower", metavar="NAME_OR_PATH", help="image-text model to refer to (default: the published)"
    )
    parser.add_argument(
        "--point_config",
        metavar="FIELD=VALUE",
        nargs="+",
        default=[],
        help="settings of the encoder that weights do not show, where they are not the published ones "
        "(num_groups=64 num_attention_heads=3)",
    )
    parser.add_argument("--ignore", metavar="PATTERN", help="regular expression of tensors to leave out")


def _convert(options: argparse.Namespace) -> int:
    from .conversion.folder import convert_to_folder

    fields = dict(_field(text) for text in options.point_config)
    conversion, release = convert_to_folder(
        options.file, options.output_dir, fields, clip_name_or_path=options.tower, ignore=options.ignore
    )
    rows = [
        ("recognised", release.title if release else f"{conversion.layout.name}, no published size"),
        ("model", f"{type(conversion.model).__name__}, {conversion.model.num_parameters():,} parameters"),
        ("left out", f"{len(conversion.unused)} tensors (see README.md of the folder)"),
        ("written", options.output_dir),
    ]
    if release is None and conversion.assumed:
        assumed = " ".join(f"{name}={value}" for name, value in conversion.assumed.items())
        rows.append(("ASSUMED", f"{assumed}: no weight shows them; if others were trained, pass --point_config"))
    _print_rows(rows)
    return 0


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--point_config takes FIELD=VALUE, got {text!r}.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


# --- verify ----------------------------------------------------------------------------------------------------------


def _add_verify(commands: Any) -> None:
    parser = _command(
        commands, "verify", _verify, "compare recorded numbers with the installed code on this machine and device"
    )
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", help="a model folder (default: all cases of the package, no folder)"
    )
    parser.add_argument("--device", default="cpu", help="where to compute (cpu, cuda, ...)")


def _verify(options: argparse.Namespace) -> int:
    from .conversion.verify import verify_built_in, verify_folder

    if options.folder is None:
        found = verify_built_in(options.device)
    else:
        found = verify_folder(options.folder, options.device)
    _print_rows(
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
    return 0 if fits else 1


def _print_rows(rows: list[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")


if __name__ == "__main__":
    sys.exit(main())
