"""A folder of meshes becomes triplets: points, views and ranked captions, as parquet shards that `load_dataset` reads.

    python dataset_scripts/build_triplets.py --meshes data/sweet_home_3d --output data/triplets --tower towers/conse

Stop it whenever you like: the same command goes on where it was. What cannot be used is in `errors.parquet`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from engines.arguments import add_engine_arguments, check_engine_arguments, run_engine
from engines.local import Event, Progress, Retry
from engines.shard import EngineError, ShardPlan, ShardResult, explain_failure
from sources.folder import SOURCE_FILE, FolderError, add_labels, list_objects
from stages.arguments import add_stage_arguments, build_settings, build_stages, parse_stage_arguments, positive
from stages.embed import EmbedViews
from tqdm import tqdm

from modeling_ulip2.triplets.card import dataset_card
from modeling_ulip2.triplets.schema import FEATURES_CONFIG, TRIPLETS_CONFIG
from modeling_ulip2.triplets.shards import BuildFolder, OutputError, write_text


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--meshes",
        type=Path,
        required=True,
        help="folder of GLB, glTF, OBJ, PLY, STL or OFF files, with objects.csv or not",
    )
    add("--objects", type=Path, metavar="CSV", help="table of the objects [objects.csv in the folder of meshes]")
    add("--labels", type=Path, metavar="CSV", help="table whose names, categories, creators, … go over the objects'")
    add("--output", type=Path, required=True, help="dataset folder to begin or to complete")
    add("--limit", type=positive, help="only the first N objects")
    add("--shard-size", type=positive, help="objects a shard, the unit of work [1/32 of all, from 8 to 64]")
    add("--title", help="of the dataset card [name of the output folder]")
    add_engine_arguments(parser)
    add_stage_arguments(parser)
    args = parse_stage_arguments(parser, arguments)
    check_engine_arguments(parser, args)
    return args


def build(args: argparse.Namespace) -> BuildFolder:
    """Run the build; the folder with its manifest as it stands afterwards.

    Raises:
        FolderError, OutputError, EngineError: see there; shards already written are kept.
    """
    objects = list_objects(args.meshes, args.objects)[: args.limit]
    if args.labels:
        print(f"{args.labels} names {add_labels(objects, args.labels)} of {len(objects)} objects.")
    size = args.shard_size or min(max(len(objects) // 32, 8), 64)
    with BuildFolder(args.output, build_settings(args), objects, size) as folder:
        missing = folder.missing_shards()
        shards = [(shard, objects[shard * size : (shard + 1) * size]) for shard in missing]
        if not shards:
            print(f"{args.output} is complete: nothing to do.")
            return folder
        plan = ShardPlan(
            stages=build_stages(args),
            output=args.output,
            num_shards=folder.num_shards,
            num_points=args.num_points,
            configs=(TRIPLETS_CONFIG, FEATURES_CONFIG) if args.features else (TRIPLETS_CONFIG,),
            depth=args.depth,
        )
        source_file = (args.objects.parent if args.objects else args.meshes) / SOURCE_FILE
        source = source_file.read_text(encoding="utf-8") if source_file.is_file() else ""
        start = time.perf_counter()
        results = []
        with tqdm(
            total=len(objects), initial=len(objects) - sum(len(rows) for _, rows in shards), unit="object"
        ) as bar:
            for result in watch(run_engine(args, plan, shards, folder.check_stages), bar):
                folder.commit(result.shard, result.record, result.errors, result.warnings)
                card = dataset_card(args.title or args.output.resolve().name, folder.manifest, folder.totals(), source)
                write_text(args.output / "README.md", card)
                results.append(result)
                bar.set_postfix(errors=sum(folder.totals()["errors"].values()))
        print(summary(results, folder, time.perf_counter() - start))
    return folder


def watch(events: Iterable[Event], bar: tqdm) -> Iterator[ShardResult]:
    """The finished shards among an engine's events; the bar shows how many objects' views are embedded."""
    seen: Counter[int] = Counter()
    for event in events:
        if isinstance(event, Progress):
            if event.stage == EmbedViews.__name__:
                seen[event.shard] += len(event.ids)
                bar.update(len(event.ids))
        elif isinstance(event, Retry):
            bar.write(f"{event.cause}; shard {event.shard} begins anew.")
            bar.update(-seen.pop(event.shard, 0))
        elif isinstance(event, ShardResult):
            bar.update(event.record["triplets"] + sum(event.record["errors"].values()) - seen[event.shard])
            yield event


def summary(results: list[ShardResult], folder: BuildFolder, elapsed: float) -> str:
    done = sum(result.record["triplets"] + len(result.errors) for result in results)
    seconds: Counter[str] = sum((Counter(result.record["seconds"]) for result in results), Counter())
    shares = ", ".join(f"{name} {100 * value / seconds.total():.0f} %" for name, value in seconds.most_common())
    totals = folder.totals()
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(totals["errors"].items()))
    return (
        f"{done} objects in {elapsed:.1f} s, {done / elapsed:.2f} objects/s. Time in stages: {shares}.\n"
        f"{folder.path} holds {totals['triplets']} triplets and {totals['captions']} captions; "
        f"{sum(totals['errors'].values())} meshes could not be used{f' ({reasons})' if reasons else ''}, "
        f"{totals['warned']} have warnings."
    )


def main(arguments: list[str] | None = None) -> None:
    args = parse_arguments(arguments)
    try:
        folder = build(args)
    except (FolderError, OutputError) as error:
        sys.exit(f"build_triplets: {error}")
    except (EngineError, OSError) as error:
        sys.exit(f"build_triplets: {explain_failure(error)}")
    except KeyboardInterrupt:
        sys.exit(f"\nbuild_triplets: stopped; run the same command again to complete {args.output}")
    if folder.totals().get("triplets", 0) == 0:
        sys.exit(f"build_triplets: not one object became a triplet; {args.output / 'errors.parquet'} says why")


if __name__ == "__main__":
    main()
