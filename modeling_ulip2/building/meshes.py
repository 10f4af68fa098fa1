"""A folder of meshes becomes triplets: points, views and ranked captions, in parquet shards for `load_dataset`."""

from __future__ import annotations

import argparse
from pathlib import Path

from modeling_ulip2.building.captioners.recorded import tell_coverage
from modeling_ulip2.building.engine_options import add_engine_arguments, check_engine_arguments
from modeling_ulip2.building.engines.build import add_output_arguments, run_build, run_script
from modeling_ulip2.building.stage_options import (
    add_stage_arguments,
    build_settings,
    build_stages,
    parse_stage_arguments,
)
from modeling_ulip2.data.objects import SOURCE_FILE, FolderError, add_labels, list_objects
from modeling_ulip2.data.recorded_captions import RecordedCaptionsError, read_recorded_captions
from modeling_ulip2.data.shards import BuildFolder
from modeling_ulip2.utils.command_line import add_hub_arguments, hub_options, repository, script_parser
from modeling_ulip2.utils.places import PlaceError, find_folder

DESCRIPTION = """Make triplets of a folder of meshes: points, views and ranked captions, in parquet shards that
load_dataset reads.

Stop it whenever you like: the same command goes on where it was. What cannot be used is in errors.parquet. The tower
ranks every caption by its fit with the view, and its embeddings are stored as features; --no-ranking and --no-features
do without.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--meshes",
        metavar="FOLDER",
        required=True,
        help="folder of GLB, glTF, OBJ, PLY, STL or OFF files, with objects.csv or not; or the hub name of a dataset "
        "that holds them",
    )
    add("--objects", type=Path, metavar="CSV", help="table of the objects [objects.csv in the folder of meshes]")
    add("--labels", type=Path, metavar="CSV", help="table whose names, categories, creators, … go over the objects'")
    add_output_arguments(parser)
    add("--push-to-hub", type=repository, metavar="ORG/NAME", help="publish it in the end, as `ulip2 publish` does")
    add_engine_arguments(parser)
    add_stage_arguments(parser)
    add_hub_arguments(parser, "meshes")


def parse_arguments(arguments: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    parser = script_parser(DESCRIPTION, add_arguments, prog)
    args = parse_stage_arguments(parser, arguments)
    check_engine_arguments(parser, args)
    return args


def build(args: argparse.Namespace) -> BuildFolder:
    """Run the build; the folder with its manifest as it stands afterwards.

    Raises:
        FolderError, OutputError, EngineError: see there; shards already written are kept.
    """
    args.meshes = find_folder(args.meshes, "dataset", **hub_options(args))
    objects = list_objects(args.meshes, args.objects)[: args.limit]
    if args.labels:
        print(f"{args.labels} names {add_labels(objects, args.labels)} of {len(objects)} objects.")
    if args.captions is not None:
        recorded = read_recorded_captions(args.captions, args.caption_columns)
        print(tell_coverage(recorded, [row["id"] for row in objects]))
    source_file = (args.objects.parent if args.objects else args.meshes) / SOURCE_FILE
    source = source_file.read_text(encoding="utf-8") if source_file.is_file() else ""
    return run_build(args, objects, build_settings(args), build_stages(args), source)


def main(arguments: list[str] | None = None, prog: str | None = None) -> None:
    args = parse_arguments(arguments, prog)
    run_script(
        prog or "build_triplets", args.output, lambda: build(args), (FolderError, PlaceError, RecordedCaptionsError)
    )
    if args.push_to_hub:
        from modeling_ulip2.building.publishing.dataset import push

        push(args.output, args.push_to_hub)
