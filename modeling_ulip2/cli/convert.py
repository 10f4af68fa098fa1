"""`ulip2 convert`: a published checkpoint, by name or file, as a folder, and on the hub if wanted."""

from __future__ import annotations

import argparse
import os
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser, config_field, repository
from modeling_ulip2.utils.scripts import DONE

from .shared import add_command, print_rows


def register(commands: Any) -> str:
    return add_command(
        commands, "convert", run, "turn a published checkpoint into a folder for AutoModel.from_pretrained", _fill
    )


def _fill(parser: CommandParser) -> None:
    parser.group("checkpoint").add_argument(
        "file",
        metavar="NAME_OR_FILE",
        help="name of a published checkpoint, which is fetched from the hub (`ulip2 releases` lists them), or a file "
        "of ULIP, ULIP-2, Uni3D, OpenShape, Point-BERT or SLIP (.pt, .pth, .bin, .safetensors)",
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
        "(num_groups=64 num_attention_heads=3); of a file only",
    )
    add("--ignore", metavar="PATTERN", help="regular expression of tensors to leave out; of a file only")
    add("--revision", help="of the repository in which the published checkpoint lies (default: main)")
    add = parser.group("output").add_argument
    add(
        "--push-to-hub",
        "--push_to_hub",
        metavar="ORG/NAME",
        type=repository,
        help="upload the folder as this model, made if it is new; log in first with `hf auth login`",
    )
    add("--private", action="store_true", help="make a new repository on the hub private")


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2.conversion.catalog import find_named, is_release
    from modeling_ulip2.conversion.describe import CHECKPOINT_SUFFIXES
    from modeling_ulip2.conversion.folder import convert_to_folder
    from modeling_ulip2.conversion.named import convert_release

    fields = dict(config_field(text) for text in options.point_config)
    if is_release(options.file):
        if fields or options.ignore:
            raise ValueError("--point_config and --ignore are for files: of a published checkpoint all is known.")
        conversion, entry = convert_release(
            options.file,
            options.output_dir,
            repo_id=options.push_to_hub,
            clip_name_or_path=options.tower,
            **({"revision": options.revision} if options.revision else {}),
        )
        title: str | None = entry.release.title
    else:
        if not os.path.exists(options.file) and not options.file.endswith(CHECKPOINT_SUFFIXES):
            find_named(options.file)  # raises, with the names that are near
        if options.revision:
            raise ValueError("--revision is of a published checkpoint that is fetched by name.")
        conversion, release = convert_to_folder(
            options.file,
            options.output_dir,
            fields,
            clip_name_or_path=options.tower,
            ignore=options.ignore,
            name=options.push_to_hub or "FOLDER",
        )
        title = release.title if release else None
    rows = [
        ("recognized", title or f"{conversion.layout.name}, no published size"),
        ("model", f"{type(conversion.model).__name__}, {conversion.model.num_parameters():,} parameters"),
        ("left out", f"{len(conversion.unused)} tensors (see README.md of the folder)"),
        ("written", options.output_dir),
    ]
    if title is None and conversion.assumed:
        assumed = " ".join(f"{name}={value}" for name, value in conversion.assumed.items())
        rows.append(("ASSUMED", f"{assumed}: no weight shows them; if others were trained, pass --point_config"))
    if options.push_to_hub:
        rows.append(("published", _publish(options, title or conversion.layout.name)))
    print_rows(rows)
    return DONE


def _publish(options: argparse.Namespace, title: str) -> str:
    """Uploads the folder; its address."""
    from huggingface_hub.errors import HfHubHTTPError

    from modeling_ulip2 import __version__
    from modeling_ulip2.utils.publishing import upload_model_folder

    try:
        commit = upload_model_folder(
            options.output_dir,
            options.push_to_hub,
            message=f"{title}, converted by modeling-ulip2 {__version__}",
            private=options.private or None,
        )
    except HfHubHTTPError as error:
        reason = next(line for line in str(error).splitlines() if line.strip())
        raise OSError(
            f"{options.output_dir} is written, but was not uploaded as {options.push_to_hub}: {reason} Upload it with "
            f"`hf upload {options.push_to_hub} {options.output_dir}`."
        ) from error
    return str(commit.repo_url)
