"""Every benchmark that is found, for several checkpoints, in one table with the published figures."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from modeling_ulip2.data.benchmarks import BENCHMARKS, complete_splits, find_benchmarks, read_benchmark_manifest
from modeling_ulip2.evaluation.benchmarks.leaderboard import (
    latex_leaderboard,
    markdown_leaderboard,
    measured_rows,
    published_rows,
)
from modeling_ulip2.evaluation.benchmarks.run import BenchmarkRun, distributed_state, evaluate_benchmark
from modeling_ulip2.recipes.evaluation_options import DESCRIPTIONS, LeaderboardArguments
from modeling_ulip2.recipes.hub_options import HubArguments
from modeling_ulip2.recipes.options import parse_options
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.places import find_folder, named_or_own
from modeling_ulip2.utils.scripts import status


def main(argv: list[str] | None = None, prog: str | None = None) -> list[dict[str, Any]]:
    args, hub = parse_options((LeaderboardArguments, HubArguments), argv, DESCRIPTIONS["leaderboard"], prog)
    args.models = args.models or [named_or_own(None, "--models")]
    output_dir, state = Path(args.output_dir), distributed_state()
    folders = find_benchmarks(find_folder(args.benchmarks, "dataset", **hub.of_dataset))
    if not folders:
        sys.exit("\n".join(missing_benchmarks([], args.benchmarks)))
    records, remarks, failed = [], missing_benchmarks(folders, args.benchmarks), 0
    for name, model in zip(short_names(args.models), args.models, strict=True):
        for folder in folders:
            manifest = read_benchmark_manifest(folder)
            for config, split in complete_splits(manifest):
                if split != "test":
                    continue
                what = f"{name} on {manifest['benchmark']} {config}"
                try:
                    run = BenchmarkRun.of(model, folder, config, split, args.protocol, args.tower, **hub.of_model)
                    record = evaluate_benchmark(
                        run,
                        output_dir / name / f"{manifest['benchmark']}-{config}",
                        batch_size=args.batch_size,
                        num_workers=args.num_workers,
                        cache_dir=output_dir / "classes",
                        seed=args.seed,
                    )
                except (ValueError, OSError) as error:  # the other runs need not suffer
                    failed += 1
                    remarks.append(f"{what}: failed: {error}")
                    state.print(f"{what}: failed: {error}", file=sys.stderr)
                    continue
                records.append(record)
                state.print(f"{what}: top-1 {100 * record['top1']:.1f} %, top-5 {100 * record['top5']:.1f} %")
    if state.is_main_process:
        rows = [*published_rows(), *measured_rows(records)]
        output_dir.mkdir(parents=True, exist_ok=True)
        write_text(output_dir / "leaderboard.md", markdown_leaderboard(rows, remarks))
        write_text(output_dir / "leaderboard.tex", latex_leaderboard(rows, remarks))
        print(f"{output_dir / 'leaderboard.md'}: {len(records)} measured results")
    if failed:
        sys.exit(status(failed, failed + len(records)))
    return records


def missing_benchmarks(folders: list[Path], root: str) -> list[str]:
    """A sentence for every benchmark that is not there."""
    there = {read_benchmark_manifest(folder)["benchmark"] for folder in folders}
    return [
        f"{benchmark.title} was not measured: {root} holds no folder that dataset_scripts/{name}.py wrote"
        for name, benchmark in BENCHMARKS.items()
        if name not in there
    ]


def short_names(models: list[str]) -> list[str]:
    """A folder name for each model, all different."""
    names = [re.sub(r"[^\w.-]+", "-", Path(model).name or model) for model in models]
    return [name if names.count(name) == 1 else f"{name}-{place}" for place, name in enumerate(names)]
