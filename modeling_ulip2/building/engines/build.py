"""A build from its list of objects to a finished folder: what is missing is made by an engine, shard after shard."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from modeling_ulip2.building.engine_options import run_engine
from modeling_ulip2.building.stages.embed import EmbedViews
from modeling_ulip2.data.card import dataset_card
from modeling_ulip2.data.schema import FEATURES_CONFIG, TRIPLETS_CONFIG, Row
from modeling_ulip2.data.shards import BuildFolder, OutputError
from modeling_ulip2.utils.command_line import positive
from modeling_ulip2.utils.files import write_text

from .local import Event, Progress, Retry
from .shard import EngineError, ShardPlan, ShardResult, StageFactory, explain_failure


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """What `run_build` reads of a command line, besides the options of the engine."""
    add = parser.add_argument
    add("--output", type=Path, required=True, help="dataset folder to begin or to complete")
    add("--limit", type=positive, help="only the first N objects")
    add("--shard-size", type=positive, help="objects per shard, the unit of work [1/32 of all, from 8 to 64]")
    add("--title", help="of the dataset card [name of the output folder]")


def run_build(
    args: argparse.Namespace,
    objects: Sequence[Row],
    settings: Mapping[str, Any],
    stages: Sequence[StageFactory],
    source: str,
) -> BuildFolder:
    """Complete the folder `args.output`; it with its manifest as it stands afterwards.

    Args:
        settings: what the rows depend on; with `num_points`, `features` and `depth`, which say what is written.
        source: Markdown about where the objects come from, for the dataset card.

    Raises:
        OutputError, EngineError: see there; shards already written are kept.
    """
    size = args.shard_size or min(max(len(objects) // 32, 8), 64)

    def tell(folder: BuildFolder) -> None:
        card = dataset_card(args.title or args.output.resolve().name, folder.manifest, folder.totals(), source)
        write_text(args.output / "README.md", card)

    with BuildFolder(args.output, settings, objects, size, tell) as folder:
        missing = folder.missing_shards()
        shards = [(shard, list(objects[shard * size : (shard + 1) * size])) for shard in missing]
        if not shards:
            print(f"{args.output} is complete: nothing to do.")
            return folder
        plan = ShardPlan(
            stages=stages,
            output=args.output,
            num_shards=folder.num_shards,
            num_points=settings["num_points"],
            configs=(TRIPLETS_CONFIG, FEATURES_CONFIG) if settings["features"] else (TRIPLETS_CONFIG,),
            depth=settings["depth"],
        )
        start = time.perf_counter()
        work = Work()
        with tqdm(
            total=len(objects), initial=len(objects) - sum(len(rows) for _, rows in shards), unit="object"
        ) as bar:
            for result in watch(run_engine(args, plan, shards, folder.check_stages), bar):
                folder.commit(result.shard, result.record, result.errors, result.warnings)
                work.add(result)
                bar.set_postfix(errors=sum(folder.totals()["errors"].values()))
        print(summary(work, folder, time.perf_counter() - start))
    return folder


def run_script(
    program: str, output: Path, build: Callable[[], BuildFolder], refusals: tuple[type[Exception], ...]
) -> None:
    """Call a build; end the program with a sentence where it is refused, fails or makes nothing.

    Where it is stopped, `run_main` tells that the same command goes on.

    Args:
        build: what calls `run_build`.
        refusals: errors that speak for themselves.
    """
    clear: tuple[type[Exception], ...] = (OutputError, *refusals)
    try:
        folder = build()
    except clear as error:
        sys.exit(f"{program}: {error}")
    except (EngineError, OSError) as error:
        sys.exit(f"{program}: {explain_failure(error)}")
    if folder.totals().get("triplets", 0) == 0:
        sys.exit(f"{program}: not one object became a triplet; {output / 'errors.parquet'} says why")


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


@dataclass
class Work:
    """What this run has done so far."""

    objects: int = 0
    cpu_seconds: float = 0.0
    memory: int = 0  # the most that a process held, in bytes
    seconds: Counter[str] = field(default_factory=Counter)

    def add(self, result: ShardResult) -> None:
        self.objects += result.record["triplets"] + len(result.errors)
        self.cpu_seconds += result.cpu_seconds
        self.memory = max(self.memory, result.memory)
        self.seconds.update(result.record["seconds"])


def summary(work: Work, folder: BuildFolder, elapsed: float) -> str:
    shares = ", ".join(
        f"{name} {100 * value / work.seconds.total():.0f} %" for name, value in work.seconds.most_common()
    )
    totals = folder.totals()
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(totals["errors"].items()))
    return (
        f"{work.objects} objects in {elapsed:.1f} s, {work.objects / elapsed:.2f} objects/s. "
        f"Time in stages: {shares}.\n"
        f"{work.cpu_seconds / work.objects:.2f} s of processor time per object; at most "
        f"{work.memory / 2**20:.0f} MiB in a process.\n"
        f"{folder.path} holds {totals['triplets']} triplets and {totals['captions']} captions; "
        f"{sum(totals['errors'].values())} meshes could not be used{f' ({reasons})' if reasons else ''}, "
        f"{totals['warned']} have warnings."
    )
