"""Every benchmark that is found, for several checkpoints, in one table with the published figures.

    python examples/evaluate_all.py --models outputs/model SFXX-converted --benchmarks data --output_dir outputs/all
    torchrun --nproc_per_node 8 examples/evaluate_all.py …

`--benchmarks` holds folders that `dataset_scripts/modelnet40.py`, `objaverse_lvis.py` or `scanobjectnn.py` wrote.
Writes `leaderboard.md` and `leaderboard.tex`, and a folder for each run. What is finished is not measured again.
"""

from __future__ import annotations

import modeling_ulip2.utils.script_imports  # noqa: F401  (first: it tells which extra a missing package is of)

# isort: split
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser

from modeling_ulip2.data.benchmarks import BENCHMARKS, complete_splits, find_benchmarks, read_manifest
from modeling_ulip2.evaluation.benchmarks.leaderboard import (
    latex_leaderboard,
    markdown_leaderboard,
    measured_rows,
    published_rows,
)
from modeling_ulip2.evaluation.benchmarks.run import BenchmarkRun, distributed_state, evaluate_benchmark
from modeling_ulip2.utils.files import write_text
from modeling_ulip2.utils.scripts import run_main, status


@dataclass
class Arguments:
    models: list[str] = field(metadata={"help": "Folders or hub names of Ulip2Models."})
    benchmarks: str = field(metadata={"help": "Folder of converted benchmarks."})
    output_dir: str = field(metadata={"help": "Where the tables and the runs' folders go."})
    protocol: str | None = field(
        default=None, metadata={"help": "ulip2, openshape or uni3d; default: of each model's own project."}
    )
    tower: str | None = field(default=None, metadata={"help": "Image-text model, where the models' own has moved."})
    batch_size: int = field(default=16, metadata={"help": "Clouds a forward pass."})
    num_workers: int | None = field(
        default=None, metadata={"help": "Processes that prepare clouds; default: the cores to spare."}
    )
    seed: int = field(default=0, metadata={"help": "Of the shuffled control and the bootstrap."})


def main(argv: list[str] | None = None) -> list[dict[str, Any]]:
    (args,) = HfArgumentParser(Arguments, description=__doc__).parse_args_into_dataclasses(argv)
    output_dir, state = Path(args.output_dir), distributed_state()
    folders = find_benchmarks(args.benchmarks)
    if not folders:
        sys.exit("\n".join(missing_benchmarks([], args.benchmarks)))
    records, remarks, failed = [], missing_benchmarks(folders, args.benchmarks), 0
    for name, model in zip(short_names(args.models), args.models, strict=True):
        for folder in folders:
            manifest = read_manifest(folder)
            for config, split in complete_splits(manifest):
                if split != "test":
                    continue
                what = f"{name} on {manifest['benchmark']} {config}"
                try:
                    run = BenchmarkRun.of(model, folder, config, split, args.protocol, args.tower)
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
    there = {read_manifest(folder)["benchmark"] for folder in folders}
    return [
        f"{benchmark.title} was not measured: {root} holds no folder that dataset_scripts/{name}.py wrote"
        for name, benchmark in BENCHMARKS.items()
        if name not in there
    ]


def short_names(models: list[str]) -> list[str]:
    """A folder name for each model, all different."""
    names = [re.sub(r"[^\w.-]+", "-", Path(model).name or model) for model in models]
    return [name if names.count(name) == 1 else f"{name}-{place}" for place, name in enumerate(names)]


if __name__ == "__main__":
    run_main(main)
