"""`ulip2 classify`: which of your labels a shape is."""

from __future__ import annotations

import argparse
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser, add_hub_arguments, hub_options, positive
from modeling_ulip2.utils.places import named_or_own
from modeling_ulip2.utils.scripts import status

from .shared import (
    add_batch_size,
    add_command,
    add_device,
    add_files,
    add_model,
    add_tower,
    shape_files,
    tell,
    tell_failure,
    tell_warnings,
)


def register(commands: Any) -> str:
    return add_command(
        commands,
        "classify",
        run,
        "tell which of your labels a shape is",
        _fill,
        "Rank labels by how well they fit 3D files; the scores of a file add up to 1.",
    )


def _fill(parser: CommandParser) -> None:
    add_files(parser)
    parser.group("labels").add_argument(
        "--labels", metavar="LABEL", nargs="+", required=True, help="names to choose from"
    )
    add_model(parser)
    add_tower(parser)
    parser.group("labels").add_argument(
        "--template",
        metavar="PROMPT",
        nargs="+",
        help='with {} for the label (default: ULIP-2\'s 64, "a photo of {}")',
    )
    parser.group("output").add_argument("--top_k", type=positive, help="labels to print (default: all)")
    add_hub_arguments(parser, "model")
    add_batch_size(parser)
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2 import Ulip2Embedder

    if len(options.labels) == 1 and "," in options.labels[0]:
        apart = " ".join(repr(label.strip()) for label in options.labels[0].split(",") if label.strip())
        tell(f"warning: {options.labels[0]!r} is one label; to choose among several, part them: --labels {apart}")
    model = named_or_own(options.model)
    files = shape_files(options.files, options.root)
    embedder = Ulip2Embedder.from_pretrained(
        model,
        tower=options.tower,
        device=options.device,
        batch_size=options.batch_size,
        **hub_options(options),
    )
    # what is wrong with labels or tower is told before any file is read
    embedder.embed_labels(options.labels, options.template)
    failed = 0
    for record in embedder.iter_shapes(files, root=options.root, up_axis=options.up_axis):
        tell_warnings(record.id, record.warnings)
        if record.failure is not None:
            tell_failure(record.failure)
            failed += 1
            continue
        (ranked,) = embedder.rank(record.embed, options.labels, templates=options.template, top_k=options.top_k)
        if len(files) > 1:
            print(record.id)
        for entry in ranked:
            print(f"{entry['score']:.3f}  {entry['label']}")
    return status(failed, len(files))
