"""A folder of meshes becomes triplets: points, views and ranked captions, as parquet shards that `load_dataset` reads.

    python dataset_scripts/build_triplets.py --meshes data/sweet_home_3d --output data/triplets --tower towers/conse

Stop it whenever you like: the same command goes on where it was. What cannot be used is in `errors.parquet`.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from engines.local import EngineError, Progress, Retry, run_local
from engines.shard import ShardPlan, ShardResult, StageFactory
from sources.folder import SOURCE_FILE, FolderError, list_objects
from stages.captions import MetadataCaptioner
from stages.embed import EmbedViews
from stages.labels import LabelsCaptioner
from stages.rank import RankCaptions
from stages.read import ReadMesh, SamplePoints
from stages.render import IMAGE_FORMATS, RenderViews
from stages.tower import DTYPES
from tqdm import tqdm

from modeling_ulip2.geometry.cameras import ELEVATION, FILL, FOV
from modeling_ulip2.geometry.reading import MAX_BYTES, MAX_FACES
from modeling_ulip2.triplets.card import dataset_card
from modeling_ulip2.triplets.shards import BuildFolder, OutputError, write_text

CAPTIONERS: dict[str, Callable[[argparse.Namespace], StageFactory]] = {
    "metadata": lambda args: partial(MetadataCaptioner, num_captions=args.metadata_captions, seed=args.seed),
    "labels": lambda args: partial(
        LabelsCaptioner, vocabulary=args.vocabulary, num_names=args.label_captions, **tower(args)
    ),
}


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--meshes",
        type=Path,
        required=True,
        help="folder of GLB, glTF, OBJ, PLY, STL or OFF files, with objects.csv or not",
    )
    add("--output", type=Path, required=True, help="dataset folder to begin or to complete")
    add(
        "--tower",
        default="openai/clip-vit-large-patch14",
        help="dual encoder that ranks: folder or hub name [%(default)s]",
    )
    add("--captioner", nargs="+", choices=sorted(CAPTIONERS), default=["metadata", "labels"], help="[metadata labels]")
    add(
        "--vocabulary",
        default="objaverse_lvis",
        help="names for 'labels': list of the package or text file [%(default)s]",
    )
    add("--label-captions", type=positive, default=2, help="names a view, for 'labels' [%(default)s]")
    add("--metadata-captions", type=positive, default=6, help="captions an object, for 'metadata' [%(default)s]")
    add("--num-points", type=positive, default=10_000, help="points a shape [%(default)s]")
    add("--views", type=positive, default=12, help="views a shape [%(default)s]")
    add("--size", type=positive, default=224, help="pixels a side of a view [%(default)s]")
    add("--elevation", type=float, default=ELEVATION, help="of the cameras, degrees [%(default)s]")
    add("--fov", type=float, default=FOV, help="angle of view, degrees [%(default)s]")
    add("--fill", type=float, default=FILL, help="share of the frame that the object takes [%(default)s]")
    add("--background", type=byte, nargs=3, default=[0, 0, 0], metavar=("R", "G", "B"), help="[0 0 0]")
    add("--image-format", choices=sorted(IMAGE_FORMATS), default="webp", help="of the stored views [%(default)s]")
    add("--quality", type=positive, default=90, help="of webp and jpeg, 1 to 100 [%(default)s]")
    add("--depth", action="store_true", help="also store depth images")
    add("--no-features", dest="features", action="store_false", help="do not store the tower's embeddings")
    add("--renderer", choices=["auto", "numba", "egl"], default="auto", help="[%(default)s]")
    add("--device", help="of the tower, such as cpu or cuda [a GPU if there is one]")
    add(
        "--dtype", choices=DTYPES, default="auto", help="of the tower; auto: bfloat16 where it is native [%(default)s]"
    )
    add("--max-faces", type=positive, default=MAX_FACES, help="refuse larger meshes [%(default)s]")
    add("--max-bytes", type=positive, default=MAX_BYTES, help="refuse larger files [%(default)s]")
    add("--strict", action="store_true", help="refuse meshes that lack a texture or material file")
    add("--seed", type=int, default=0, help="of points and templates [%(default)s]")
    add("--limit", type=positive, help="only the first N objects")
    add("--shard-size", type=positive, help="objects a shard, the unit of work [1/32 of all, from 8 to 64]")
    add(
        "--num-proc",
        type=int,
        default=available_cores(),
        help="worker processes, one core each; 0: none [%(default)s]",
    )
    add("--title", help="of the dataset card [name of the output folder]")
    args = parser.parse_args(arguments)
    if args.num_proc < 0:
        parser.error(f"argument --num-proc: expected 0 or more, got {args.num_proc}")
    return args


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def positive(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1, got {text}")
    return number


def byte(text: str) -> int:
    if not 0 <= (number := int(text)) <= 255:
        raise argparse.ArgumentTypeError(f"expected a number from 0 to 255, got {text}")
    return number


def local_name(name_or_path: str) -> str:
    """What a published manifest may call a local file or folder: its last part, not where this machine has it."""
    path = Path(name_or_path)
    return path.resolve().name if path.exists() else name_or_path


def build_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the rows depend on, as the manifest keeps it."""
    copied = "num_points views size elevation fov fill background image_format quality depth features renderer dtype"
    settings = {name: getattr(args, name) for name in copied.split()}
    settings |= {"captioners": args.captioner, "tower": local_name(args.tower)}
    if "labels" in args.captioner:
        settings |= {"vocabulary": local_name(args.vocabulary), "label_captions": args.label_captions}
    if "metadata" in args.captioner:
        settings |= {"metadata_captions": args.metadata_captions}
    return settings | limits(args) | {"seed": args.seed}


def limits(args: argparse.Namespace) -> dict[str, Any]:
    """What `ReadMesh` accepts."""
    return {"max_faces": args.max_faces, "max_bytes": args.max_bytes, "strict": args.strict}


def tower(args: argparse.Namespace) -> dict[str, Any]:
    """What every stage with a tower is made with: they share one."""
    return {"tower": args.tower, "device": args.device, "dtype": args.dtype}


def build_stages(args: argparse.Namespace) -> list[StageFactory]:
    """The stages in their order, to be made by each worker."""
    camera = {"elevation": args.elevation, "fov": args.fov, "fill": args.fill}
    return [
        partial(ReadMesh, folder=str(args.meshes), **limits(args)),
        partial(SamplePoints, num_points=args.num_points, seed=args.seed),
        partial(
            RenderViews,
            num_views=args.views,
            size=args.size,
            camera=camera,
            image_format=args.image_format,
            quality=args.quality,
            background=tuple(args.background),
            renderer=args.renderer,
            depth=args.depth,
        ),
        partial(EmbedViews, **tower(args)),
        *(CAPTIONERS[name](args) for name in args.captioner),
        partial(RankCaptions, **tower(args)),
    ]


def build(args: argparse.Namespace) -> BuildFolder:
    """Run the build; the folder with its manifest as it stands afterwards.

    Raises:
        FolderError, OutputError, EngineError: see there; shards already written are kept.
    """
    objects = list_objects(args.meshes)[: args.limit]
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
            write_features=args.features,
            depth=args.depth,
        )
        source_file = args.meshes / SOURCE_FILE
        source = source_file.read_text(encoding="utf-8") if source_file.is_file() else ""
        start = time.perf_counter()
        results = []
        with tqdm(
            total=len(objects), initial=len(objects) - sum(len(rows) for _, rows in shards), unit="object"
        ) as bar:
            for result in watch(run_local(plan, shards, args.num_proc, folder.check_stages), bar):
                folder.commit(result.shard, result.record, result.errors, result.warnings)
                card = dataset_card(args.title or args.output.resolve().name, folder.manifest, folder.totals(), source)
                write_text(args.output / "README.md", card)
                results.append(result)
                bar.set_postfix(errors=sum(folder.totals()["errors"].values()))
        print(summary(results, folder, time.perf_counter() - start))
    return folder


def watch(events: Iterable[ShardResult | Progress | Retry], bar: tqdm) -> Iterator[ShardResult]:
    """The finished shards among an engine's events; the bar shows how many objects' views are embedded."""
    seen: Counter[int] = Counter()
    for event in events:
        if isinstance(event, Progress):
            if event.stage == EmbedViews.__name__:
                seen[event.shard] += len(event.ids)
                bar.update(len(event.ids))
        elif isinstance(event, Retry):
            bar.write(f"A worker died; shard {event.shard} begins anew.")
            bar.update(-seen.pop(event.shard, 0))
        else:
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
    except (FolderError, OutputError, EngineError, OSError) as error:
        sys.exit(f"build_triplets: {error}")
    except KeyboardInterrupt:
        sys.exit(f"\nbuild_triplets: stopped; run the same command again to complete {args.output}")
    if folder.totals().get("triplets", 0) == 0:
        sys.exit(f"build_triplets: not one object became a triplet; {args.output / 'errors.parquet'} says why")


if __name__ == "__main__":
    main()
