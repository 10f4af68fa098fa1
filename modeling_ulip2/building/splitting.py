"""Divides a triplets dataset into shapes to train on and shapes to test on, near copies always on the same side."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from modeling_ulip2.data.splits import split_families
from modeling_ulip2.utils.command_line import add_hub_arguments, hub_options, script_parser
from modeling_ulip2.utils.files import write_text

DESCRIPTION = """Divide triplets into shapes to train on and shapes to test on, near copies always on the same side.

Files of one folder whose names differ in numbers alone (tree_1.glb, tree_2.glb) count as copies of one shape. The file
holds {"train": [ids], "test": [ids]}, as --split_file of `ulip2 pretrain`, `finetune` and `evaluate` reads it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("dataset", metavar="DATASET", help="triplets: a folder or a hub name")
    add("output", metavar="OUT", type=Path, help="JSON file to write")
    add("--share", type=float, default=0.2, help="of the shapes that are tested [%(default)s]")
    add("--seed", type=int, default=0, help="of the draw [%(default)s]")
    add_hub_arguments(parser, "dataset")


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    """Raises ValueError or OSError where the dataset cannot be read or divided."""
    args = script_parser(DESCRIPTION, add_arguments, prog).parse_args(arguments)
    from modeling_ulip2.data.reading import read_triplets  # takes seconds

    split = split_families(read_triplets(args.dataset, **hub_options(args))["id"], args.share, args.seed)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(args.output, json.dumps(split, indent=1) + "\n")
    print(f"{args.output}: {len(split['train'])} shapes to train on, {len(split['test'])} to test on")
