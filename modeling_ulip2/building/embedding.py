"""Adds a tower's embeddings to triplets: the config `features`, by id, in the order of views and captions."""

from __future__ import annotations

import argparse
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tqdm import tqdm

from modeling_ulip2.building.engine_options import add_engine_arguments, check_engine_arguments, run_engine
from modeling_ulip2.building.engines.shard import EngineError, ShardPlan, ShardResult, StageFactory, explain_failure
from modeling_ulip2.building.stage_options import local_name
from modeling_ulip2.building.stages.embed import EmbedCaptions, EmbedDepths, EmbedViews
from modeling_ulip2.building.stages.stored import ReadTriplet
from modeling_ulip2.building.stages.tower import DTYPES, hub_pairs
from modeling_ulip2.data.card import add_features_to_card
from modeling_ulip2.data.records import BUILD, FEATURES, OutputError, read_manifest
from modeling_ulip2.data.schema import FEATURES_CONFIG, TRIPLETS_CONFIG, Row
from modeling_ulip2.data.shards import BuildFolder, FeaturesFolder
from modeling_ulip2.utils.command_line import HUB_OPTIONS, add_hub_arguments, script_parser
from modeling_ulip2.utils.parquet import is_parquet
from modeling_ulip2.utils.scripts import status

DESCRIPTION = """Add a tower's embeddings to a folder of triplets: the config features, by id.

Training with the same tower then never runs it. Stop it whenever you like: the same command goes on where it was.
Embeddings that the folder has of another tower stay unless --replace says otherwise.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", metavar="FOLDER", type=Path, help="triplets, as `ulip2 build` leaves them; the embeddings go there")
    add("--tower", required=True, help="dual encoder: folder or hub name")
    add("--depth", action="store_true", help="embed depth views, too")
    add("--device", help="of the tower, such as cpu or cuda [GPUs if there are any]")
    add("--dtype", choices=DTYPES, default="auto", help="auto: bfloat16 where it is native [%(default)s]")
    add("--replace", action="store_true", help="drop embeddings that are there")
    add_engine_arguments(parser)
    add_hub_arguments(parser, "tower")


def parse_arguments(arguments: list[str] | None = None, prog: str | None = None) -> argparse.Namespace:
    parser = script_parser(DESCRIPTION, add_arguments, prog)
    args = parser.parse_args(arguments)
    check_engine_arguments(parser, args)
    return args


def list_files(folder: Path) -> list[dict[str, Any]]:
    """The files of triplets, each with its number of rows and of bytes.

    Raises:
        OutputError: there are none, or some cannot be read.
    """
    paths = sorted((folder / TRIPLETS_CONFIG).glob("*.parquet"))
    if not paths:
        raise OutputError(f"{folder} holds no {TRIPLETS_CONFIG}/*.parquet: not a folder of triplets, or not built yet")
    if damaged := [path.name for path in paths if not is_parquet(path)]:
        raise OutputError(
            f"{len(damaged)} of {len(paths)} files of triplets cannot be read, e.g. {damaged[0]}. Run the command "
            "that built them again, or fetch them again; nothing was embedded."
        )
    return [
        {"file": path.name, "rows": pq.read_metadata(path).num_rows, "bytes": path.stat().st_size} for path in paths
    ]


def row_places(folder: Path, name: str) -> list[Row]:
    """The rows of a file as the stages want them: where they are, nothing of what they hold."""
    ids = pq.read_table(folder / TRIPLETS_CONFIG / name, columns=["id"])["id"].to_pylist()
    return [{"id": own, "file": name, "index": index} for index, own in enumerate(ids)]


def has_views(path: Path) -> bool:
    """Whether a shape of a file has views; each of them has an azimuth."""
    return any(len(own) for own in pq.read_table(path, columns=["azimuths"])["azimuths"].to_pylist())


def embedding_stages(args: argparse.Namespace) -> list[StageFactory]:
    hub = hub_pairs(args, *HUB_OPTIONS)
    tower = {"tower": args.tower, "device": args.device, "dtype": args.dtype, "hub": hub}
    depth = [partial(EmbedDepths, **tower)] if args.depth else []
    reader = partial(ReadTriplet, folder=str(args.folder.resolve() / TRIPLETS_CONFIG), depth=args.depth)
    return [reader, partial(EmbedViews, **tower), *depth, partial(EmbedCaptions, **tower)]


def make_room(folder: Path, settings: dict[str, Any], replace: bool) -> None:
    """Refuse to touch embeddings that another command made, or drop them; those of this command stay.

    Raises:
        OutputError: there are some, and they may not be replaced.
    """
    earlier = (folder / FEATURES.manifest).is_file()
    if earlier and read_manifest(folder, FEATURES)["settings"] == settings | {"shard_size": 1}:
        return
    if not earlier and not any((folder / FEATURES_CONFIG).glob("*.parquet")):
        return
    if not replace:
        maker = "an earlier run" if earlier else "its build" if (folder / BUILD.manifest).is_file() else "elsewhere"
        raise OutputError(f"{folder} has embeddings from {maker}; add --replace to make them anew")
    shutil.rmtree(folder / FEATURES_CONFIG, ignore_errors=True)
    for path in folder.glob("features_*"):
        path.unlink()


def embed(args: argparse.Namespace) -> BuildFolder:
    """Embed what is missing; the folder with its manifest as it stands afterwards.

    Raises:
        OutputError, EngineError: see there; shards already written are kept.
    """
    files = list_files(args.folder)
    if args.depth and "depths" not in pq.read_schema(args.folder / TRIPLETS_CONFIG / files[0]["file"]).names:
        raise OutputError(f"{args.folder} has no depth views")
    if not any(has_views(args.folder / TRIPLETS_CONFIG / file["file"]) for file in files):
        raise OutputError(f"{args.folder} holds no views, only clouds and captions: there is nothing to embed")
    settings = {"tower": local_name(args.tower), "depth": args.depth, "dtype": args.dtype}
    make_room(args.folder, settings, args.replace)
    with FeaturesFolder(args.folder, settings, files, 1, partial(update_card, args)) as folder:
        missing = folder.missing_shards()
        shards = [(shard, row_places(args.folder, files[shard]["file"])) for shard in missing]
        if not shards:
            print(f"the features of {args.folder} are complete: nothing to do.")
            return folder
        plan = ShardPlan(
            embedding_stages(args), args.folder.resolve(), folder.num_shards, 0, configs=(FEATURES_CONFIG,)
        )
        todo, count = sum(len(rows) for _, rows in shards), sum(file["rows"] for file in files)
        with tqdm(total=count, initial=count - todo, unit="object") as bar:
            for event in run_engine(args, plan, shards, folder.check_stages):
                if isinstance(event, ShardResult):
                    folder.commit(event.shard, event.record, event.errors)
                    bar.update(files[event.shard]["rows"])
    return folder


def update_card(args: argparse.Namespace, folder: BuildFolder) -> None:
    totals = folder.totals()
    add_features_to_card(
        args.folder / "README.md",
        folder.manifest["stages"]["EmbedCaptions"]["dim"],
        depth=args.depth,
        count=totals["triplets"],
        size=totals["bytes"].get(FEATURES_CONFIG, 0),
        data_size=totals["data_bytes"].get(FEATURES_CONFIG, 0),
    )


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    prog = prog or "embed_triplets"
    args = parse_arguments(arguments, prog)
    try:
        folder = embed(args)
    except OutputError as error:
        sys.exit(f"{prog}: {error}")
    except (EngineError, OSError) as error:
        sys.exit(f"{prog}: {explain_failure(error)}")
    totals = folder.totals()
    print(f"{args.folder} has features of {totals['triplets']} triplets and {totals['captions']} captions.")
    if failed := sum(totals["errors"].values()):
        print(f"{prog}: {failed} triplets could not be embedded; {folder.names.errors} says why", file=sys.stderr)
    return status(failed, failed + totals["triplets"])
