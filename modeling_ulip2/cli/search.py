"""`ulip2 search`: the shapes of an index by text, picture or shape."""

from __future__ import annotations

import argparse
from typing import Any

from modeling_ulip2.utils.command_line import CommandParser, add_hub_arguments, hub_options, positive
from modeling_ulip2.utils.scripts import DONE

from .shared import (
    add_command,
    add_device,
    add_model,
    add_reading,
    add_tower,
    check_root,
    tell_warnings,
)


def register(commands: Any) -> str:
    return add_command(
        commands,
        "search",
        run,
        "find shapes of an index by text, picture or shape",
        _fill,
        "Find the nearest shapes. A text, a picture and a shape together are added up.",
    )


def _fill(parser: CommandParser) -> None:
    parser.group("index").add_argument("index", metavar="INDEX", help="folder or hub name of an index")
    add = parser.group("what to find").add_argument
    add("text", metavar="TEXT", nargs="?", help='what to look for, e.g. "a wooden chair"')
    add("--image", metavar="FILE", help="a picture")
    add("--shape", metavar="FILE", help="a mesh or a point cloud")
    add_reading(parser)
    add_model(parser, default="default: the one that made the index")
    add_tower(parser)
    parser.group("output").add_argument(
        "--top_k", type=positive, default=10, help="shapes to list (default: %(default)s)"
    )
    add_hub_arguments(parser, "index")
    add_device(parser)


def run(options: argparse.Namespace) -> int:
    from modeling_ulip2.search.index import ShapeIndex, combine

    if not (options.text or options.image or options.shape):
        raise ValueError("give a TEXT, --image or --shape to search for")
    check_root(options.root)
    index = ShapeIndex.open(options.index, **hub_options(options))
    fetching = {name: value for name, value in hub_options(options).items() if name != "revision"}
    embedder = index.load_embedder(options.model, tower=options.tower, device=options.device, **fetching)
    embeds = []
    if options.text:
        embeds.append(embedder.embed_texts(options.text)[0])
    if options.image:
        embeds.append(embedder.embed_images(options.image)[0])
    if options.shape:
        (record,) = embedder.iter_shapes(options.shape, root=options.root, up_axis=options.up_axis)
        tell_warnings(record.id, record.warnings)
        embeds.append(record.vector())
    for match in index.search(combine(embeds), options.top_k):
        row = index.shapes.select_columns(["id", "name"])[match.row]
        print(f"{match.score:.3f}  {row['name']}  ({row['id']})")
    return DONE
