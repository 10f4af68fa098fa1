"""Look triplets over: counts, captions, scores, defects of views and clouds, objects that look the same."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from tqdm import tqdm

from modeling_ulip2.building.inspection.caption_statistics import CaptionStatistics
from modeling_ulip2.building.inspection.findings import findings_markdown
from modeling_ulip2.data.schema import FEATURES_CONFIG, TRIPLETS_CONFIG
from modeling_ulip2.data.shards import ERRORS, MANIFEST, WARNINGS
from modeling_ulip2.utils.command_line import add_hub_arguments, hub_options, script_parser
from modeling_ulip2.utils.cpus import available_cores
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.parquet import is_parquet
from modeling_ulip2.utils.places import find_folder
from modeling_ulip2.utils.scripts import status

DESCRIPTION = """Look triplets over: counts, captions, scores, defects of views and clouds, objects that look the same.

Prints the report and writes it, with a contact sheet, into FOLDER_inspection. Nothing in the folder is changed. The
exit status is 0 unless something cannot be read.
"""
SHEET = "samples.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", metavar="DATASET", help="triplets: a folder, as `ulip2 build` leaves them, or a name on the hub")
    add(
        "--output",
        metavar="OUT",
        type=Path,
        help="for report.md, report.json and the contact sheet [FOLDER_inspection]",
    )
    add("--sample", type=int, help="look at this many objects, spread evenly; counts are of all [all]")
    add("--samples-on-sheet", type=int, default=48, help="objects on the contact sheet [%(default)s]")
    add("--num-proc", type=int, default=available_cores(), help="processes; 0: none [%(default)s]")
    add_hub_arguments(parser, "dataset")


def inspect(args: argparse.Namespace) -> dict[str, Any]:
    """The report as JSON values.

    Raises:
        FileNotFoundError: there are no triplets.
    """
    from modeling_ulip2.building.inspection.likeness import near_duplicates

    files = sorted((args.folder / TRIPLETS_CONFIG).glob("*.parquet"))
    if not files:
        raise FileNotFoundError(f"{args.folder} holds no {TRIPLETS_CONFIG}/*.parquet: not a folder of triplets")
    whole = [path for path in files if is_parquet(path)]
    unreadable = {path.name: "it was cut off, or is no parquet file" for path in files if path not in whole}
    captions, problems, views = CaptionStatistics(), {}, 0
    ids: list[str] = []
    thumbnails: list[np.ndarray] = []
    for path, found in look_at(whole, args, background_of(args.folder)):
        if isinstance(found, str):
            unreadable[path.name] = found
            continue
        for facts in found:
            captions.add(facts.captions, facts.scores)
            views += facts.views
            if facts.problems:
                problems[facts.id] = facts.problems
            if facts.thumbnails is not None:
                ids.append(facts.id)
                thumbnails.append(facts.thumbnails)
    readable = [path for path in whole if path.name not in unreadable]
    return {
        "dataset": args.folder.resolve().name,
        "counts": {"objects": sum(pq.read_metadata(path).num_rows for path in whole)}
        | {"inspected": captions.objects, "with_problems": len(problems), "views": views}
        | count_files(args.folder, files),
        "problems": problems,
        "near_duplicates": near_duplicates(ids, thumbnails),
        "repeated_ids": repeated_ids(readable),
        "unreadable_files": unreadable,
        "captions": captions.summary(),
    }


def look_at(files: list[Path], args: argparse.Namespace, background: list[int] | None) -> Any:
    """(file, its facts or what is wrong with it) for each file with an object to look at, in their order."""
    sizes = [pq.read_metadata(path).num_rows for path in files]
    total = sum(sizes)
    count = total if args.sample is None else min(args.sample, total)
    chosen = np.unique(np.linspace(0, total - 1, count).round().astype(int)) if total else np.array([], int)
    starts = np.cumsum([0, *sizes])
    tasks = []
    for path, start, end in zip(files, starts, starts[1:], strict=False):
        own = chosen[(chosen >= start) & (chosen < end)] - start
        if len(own):
            tasks.append((path, None if len(own) == end - start else own.tolist()))
    from modeling_ulip2.building.inspection.objects import inspect_file

    look = partial(inspect_file, background=background)
    with tqdm(total=len(tasks), unit="file") as bar:
        if args.num_proc == 0:
            for path, own in tasks:
                yield path, look(path, own)
                bar.update()
            return
        with ProcessPoolExecutor(args.num_proc, multiprocessing.get_context("spawn")) as pool:
            found = pool.map(look, *zip(*tasks, strict=True)) if tasks else iter(())
            for (path, _), facts in zip(tasks, found, strict=True):
                yield path, facts
                bar.update()


def background_of(folder: Path) -> list[int] | None:
    """The color behind the objects, if the build's manifest tells."""
    path = folder / MANIFEST
    return json.loads(path.read_text(encoding="utf-8"))["settings"].get("background") if path.is_file() else None


def count_files(folder: Path, files: list[Path]) -> dict[str, Any]:
    """What the small tables and the sizes of files tell."""
    sizes = {path: path.stat().st_size for path in [*files, *(folder / FEATURES_CONFIG).glob("*.parquet")]}
    counts: dict[str, Any] = {
        "files": len(files),
        "bytes": sum(sizes.values()),
        "bytes_of_features": sum(size for path, size in sizes.items() if path.parent.name == FEATURES_CONFIG),
    }
    for name, table in (("errors", folder / ERRORS), ("warnings", folder / WARNINGS)):
        if table.is_file():
            column = "reason" if name == "errors" else "id"
            values = pq.read_table(table, columns=[column])[column].to_pylist()
            counts[name] = dict(Counter(values)) if name == "errors" else len(set(values))
    for column, name in (("license", "licenses"), ("source", "sources")):
        tables = [pq.read_table(path, columns=[column])[column].to_pylist() for path in files if is_parquet(path)]
        counts[name] = dict(Counter(value for values in tables for value in values))
    return counts


def repeated_ids(files: list[Path]) -> list[str]:
    ids = Counter(name for path in files for name in pq.read_table(path, columns=["id"])["id"].to_pylist())
    return sorted(name for name, count in ids.items() if count > 1)


def main(arguments: list[str] | None = None, prog: str | None = None) -> int:
    args = script_parser(DESCRIPTION, add_arguments, prog).parse_args(arguments)
    output, local = args.output, Path(args.folder).expanduser().resolve()
    if output is None:  # not in the cache of the hub
        name = f"{local.name}_inspection"
        output = local.with_name(name) if local.is_dir() else Path(name)
    args.folder = find_folder(args.folder, "dataset", **hub_options(args))
    report = inspect(args)
    output.mkdir(parents=True, exist_ok=True)
    good = [
        path
        for path in sorted((args.folder / TRIPLETS_CONFIG).glob("*.parquet"))
        if path.name not in report["unreadable_files"]
    ]
    if good:
        from modeling_ulip2.building.inspection.sheet import draw_sheet, read_samples  # takes seconds

        draw_sheet(read_samples(good, args.samples_on_sheet)).save(output / SHEET)
    write_text(output / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    text = findings_markdown(report, SHEET)
    write_text(output / "report.md", text)
    print(text)
    if unread := len(report["unreadable_files"]):
        print(f"{unread} files cannot be read", file=sys.stderr)
    return status(unread, unread + len(good))
