"""`ulip2 convert`: a published checkpoint as a folder."""

from __future__ import annotations

import argparse
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser, config_field
from modeling_ulip2.utils.scripts import DONE

from .shared import add_command, print_rows


def register(commands: Any) -> str:
    return add_command(
        commands, "convert", run, "turn a published checkpoint into a folder for AutoModel.from_pretrained", _fill
    )


def _fill(parser: CommandParser) -> None:
    parser.group("checkpoint").add_argument(
        "file",
        metavar="FILE",
        help="checkpoint of ULIP, ULIP-2, Uni3D, OpenShape, Point-BERT or SLIP (.pt, .pth, .bin, .safetensors)",
    )
    parser.group("output").add_argument("output_dir", metavar="OUTPUT_DIR", help="a new or empty folder")
    add = parser.group("checkpoint").add_argument
    add("--tower", metavar="NAME_OR_PATH", help="image-text model to refer to (default: the published)")
    add(
        "--point_config",
        metavar="FIELD=VALUE",
        nargs="+",
        default=[],
        help="settings of the encoder that weights do not show, where they are not the published ones "
        "(num_groups=64 num_attention_heads=3)",
    )
    add("--ignore", metavar="PATTERN", help="regular expression of tensors to leave out")


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2.conversion.folder import convert_to_folder

    fields = dict(config_field(text) for text in options.point_config)
    conversion, release = convert_to_folder(
        options.file, options.output_dir, fields, clip_name_or_path=options.tower, ignore=options.ignore
    )
    rows = [
        ("recognized", release.title if release else f"{conversion.layout.name}, no published size"),
        ("model", f"{type(conversion.model).__name__}, {conversion.model.num_parameters():,} parameters"),
        ("left out", f"{len(conversion.unused)} tensors (see README.md of the folder)"),
        ("written", options.output_dir),
    ]
    if release is None and conversion.assumed:
        assumed = " ".join(f"{name}={value}" for name, value in conversion.assumed.items())
        rows.append(("ASSUMED", f"{assumed}: no weight shows them; if others were trained, pass --point_config"))
    print_rows(rows)
    return DONE
