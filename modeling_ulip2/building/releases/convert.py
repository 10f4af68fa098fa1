"""Published triplets in the layout of their release become a dataset that `load_dataset` reads."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from modeling_ulip2.building.engine_options import add_engine_arguments, check_engine_arguments
from modeling_ulip2.building.engines.build import add_output_arguments, run_build, run_script
from modeling_ulip2.building.engines.shard import StageFactory
from modeling_ulip2.building.releases.caption_index import index_captions
from modeling_ulip2.building.releases.layouts import LAYOUTS, ReadRelease, UlipObjaverse
from modeling_ulip2.building.sources.table import CollectionError
from modeling_ulip2.building.stage_options import ANYWHERE
from modeling_ulip2.building.stages.base import local_name
from modeling_ulip2.building.stages.embed import EmbedViews
from modeling_ulip2.building.stages.rank import RankCaptions
from modeling_ulip2.building.stages.tower import DTYPES, hub_pairs
from modeling_ulip2.data.objects import OBJECT_COLUMNS
from modeling_ulip2.data.shards import BuildFolder
from modeling_ulip2.utils.command_line import add_hub_arguments, hub_options, positive, script_parser
from modeling_ulip2.utils.places import PlaceError, find_folder

INDEX = ".captions.sqlite"


DESCRIPTION = """Make a dataset that load_dataset reads of published triplets in the layout of their release.

Pictures are stored as they are. With --tower, captions are ranked anew, and its embeddings are stored as well. The
command resumes where it was stopped; shapes that cannot be used are in errors.parquet.

  ulip2 convert-triplets ulip-objaverse --release ULIP-Objaverse_triplets --output DIR
  ulip2 convert-triplets ulip-shapenet --release shapenet-55 --depth --output DIR
  ulip2 convert-triplets openshape-lvis --release objaverse-lvis --num-points 10000 --output DIR
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("layout", metavar="LAYOUT", choices=list(LAYOUTS), help=f"of the release: {', '.join(LAYOUTS)}")
    add("--release", metavar="FOLDER", required=True, help="folder of the release, or hub name of a dataset like it")
    add("--num-points", type=positive, default=8192, help="of the release's clouds [%(default)s]")
    add("--depth", action="store_true", help="also convert depth pictures, where the release has them")
    add("--captions", type=Path, help=f"of ulip-objaverse: file of captions [{UlipObjaverse.caption_file}]")
    add("--tower", help="rank captions anew by open_clip:MODEL/TAG, or a folder or hub name [keep their order]")
    add("--device", help="of the tower [a GPU if there is one]")
    add("--dtype", choices=DTYPES, default="auto", help="of the tower [%(default)s]")
    add_output_arguments(parser)
    add_engine_arguments(parser)
    add_hub_arguments(parser, "release")


def parse_arguments(arguments: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    parser = script_parser(DESCRIPTION, add_arguments, prog)
    args = parser.parse_args(arguments)
    check_engine_arguments(parser, args)
    if args.depth and args.layout != "ulip-shapenet":
        parser.error("argument --depth: only ulip-shapenet has depth pictures")
    if args.tower and args.layout == "openshape-lvis":
        parser.error("argument --tower: openshape-lvis has no pictures to rank captions by")
    return args


def convert_triplets(args: argparse.Namespace) -> BuildFolder:
    """Run the conversion; the folder with its manifest as it stands afterwards.

    Raises:
        CollectionError, OutputError, EngineError: see there; shards already written are kept.
    """
    layout = LAYOUTS[args.layout]
    args.release = find_folder(args.release, "dataset", **hub_options(args))
    blank = dict.fromkeys(OBJECT_COLUMNS, "") | {"license": layout.license, "source": layout.source}
    objects = [blank | row for row in layout.list_objects(args.release, args.num_points)][: args.limit]
    if not objects:
        raise CollectionError(f"{args.release} holds not one shape")
    index = None
    if layout is UlipObjaverse:
        args.output.mkdir(parents=True, exist_ok=True)
        index = args.output / INDEX
        index_captions(args.captions or args.release / layout.caption_file, index)
    read = partial(
        layout,
        root=str(args.release),
        num_points=args.num_points,
        depth=args.depth,
        captions=index and str(index),
    )
    stages: list[StageFactory] = [read]
    if args.tower:
        hub = hub_pairs(args, *ANYWHERE)
        tower = {"tower": args.tower, "device": args.device, "dtype": args.dtype, "hub": hub}
        stages += [partial(EmbedViews, **tower), partial(RankCaptions, **tower)]
    settings = {
        "release": args.layout,
        "num_points": args.num_points,
        "depth": args.depth,
        "features": bool(args.tower),
        "tower": args.tower and local_name(args.tower),
    }
    folder = run_build(args, objects, settings, stages, release_note(layout))
    if index and not folder.missing_shards():
        index.unlink(missing_ok=True)
    return folder


def release_note(layout: type[ReadRelease]) -> str:
    points = "\n".join(f"- {assumption}" for assumption in layout.assumptions)
    return (
        f"Converted from the published {layout.title} ([ULIP-2](https://arxiv.org/abs/2305.08275), dataset repository "
        f"`SFXX/ulip`), as they are. Where the release documents nothing, this was assumed:\n\n{points}"
    )


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    args = parse_arguments(arguments, prog)
    run_script(prog or "convert_release", args.output, lambda: convert_triplets(args), (CollectionError, PlaceError))
