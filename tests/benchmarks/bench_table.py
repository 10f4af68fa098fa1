"""One table: what this package needs on this machine, and what a straightforward version needs in the same run.

    python tests/benchmarks/bench_table.py [--rows sampling transformer …] [--output build/bench.json]
    TRITON_INTERPRET=1 python tests/benchmarks/bench_table.py --interpret

CPU rows always: the official Point-BERT on one cloud of 10,000 colored points, one thread. CUDA rows where there is a
GPU: 32 clouds in float32 and bf16, and a training step of 64. "Straightforward" is that of `bench_encoder.py`. The two
take turns, and the figures are medians. The figures are saved as JSON and compared with those saved last; ratios that
fell by more than a tenth are marked. `--interpret` runs the rows on the CPU on a tiny model, those of the point
operators in Triton's interpreter: it shows that the script works, and its times mean nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench_encoder import (
    median_ms,
    straightforward_grouping,
    straightforward_patches,
    straightforward_sampling,
    straightforward_transformer,
)

from modeling_ulip2 import PointBertConfig, PointBertModel
from modeling_ulip2.models.point_ops import farthest_point_sample, gather_points, group_points
from modeling_ulip2.utils.files import write_text

Row = dict[str, Any]
Pair = tuple[Callable[[], object], Callable[[], object]]
TINY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_groups": 16, "group_size": 8}


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def make_clouds(batch: int, points: int, device: torch.device) -> torch.Tensor:
    """Random colored clouds (B, N, 6) in the unit ball."""
    values = torch.rand(batch, points, 6)
    direction = torch.nn.functional.normalize(torch.randn(batch, points, 3), dim=-1)
    values[..., :3] = direction * torch.rand(batch, points, 1) ** 0.3
    return values.to(device)


class Bench:
    """Ours and the straightforward version of every row, on one batch."""

    def __init__(self, config: PointBertConfig, batch: int, points: int, device: torch.device, backend: str = "auto"):
        torch.manual_seed(0)
        self.model = PointBertModel(config).eval().to(device)
        self.config, self.device, self.backend = config, device, backend
        self.points = make_clouds(batch, points, device)
        self.xyz = self.points[..., :3].contiguous()
        groups, size = config.num_groups, config.group_size
        index = farthest_point_sample(self.xyz, groups, backend=backend)
        assert torch.equal(index, straightforward_sampling(self.xyz, groups)), "the two sample other points"
        self.centers = gather_points(self.xyz, index)
        self.patches, _ = group_points(self.points, self.centers, size, backend)
        with torch.no_grad():
            self.tokens = self.model.encoder(self.patches)

    def straightforward(self) -> torch.Tensor:
        centers = gather_points(self.xyz, straightforward_sampling(self.xyz, self.config.num_groups))
        patches = straightforward_grouping(self.points, centers, self.config.group_size)
        return straightforward_transformer(self.model, straightforward_patches(self.model, patches), centers)

    def training(self, ours: bool) -> Callable[[], object]:
        def step() -> None:
            self.model.train()
            pooled = self.model(self.points).pooled if ours else self.straightforward()
            pooled.square().mean().backward()
            self.model.zero_grad()
            self.model.eval()

        return step

    def rows(self) -> dict[str, Pair]:
        model, groups, size = self.model, self.config.num_groups, self.config.group_size
        return {
            "sampling": (
                lambda: farthest_point_sample(self.xyz, groups, backend=self.backend),
                lambda: straightforward_sampling(self.xyz, groups),
            ),
            "grouping": (
                lambda: group_points(self.points, self.centers, size, self.backend),
                lambda: straightforward_grouping(self.points, self.centers, size),
            ),
            "patch encoder": (
                lambda: model.encoder(self.patches),
                lambda: straightforward_patches(model, self.patches),
            ),
            "transformer": (
                lambda: model.encode_tokens(self.tokens, self.centers),
                lambda: straightforward_transformer(model, self.tokens, self.centers),
            ),
            "whole forward": (lambda: model(self.points), self.straightforward),
            "forward and backward": (self.training(True), self.training(False)),
        }


WIDTH = 36
# What takes its backend from `Bench`; the models choose theirs by the device.
TRITON_ROWS = ("sampling", "grouping")


def measure(
    bench: Bench, kind: str, wanted: list[str], repeats: int, before: dict[str, float], bf16: bool = False
) -> list[Row]:
    """Measures rows and prints each as it comes."""
    rows = []
    batch = len(bench.points)
    for name, (ours, plain) in bench.rows().items():
        if wanted and name not in wanted:
            continue
        gradient = torch.enable_grad() if "backward" in name else torch.inference_mode()
        with gradient, torch.autocast(bench.device.type, torch.bfloat16, enabled=bf16):
            times = median_ms({"ours": ours, "plain": plain}, repeats, bench.device)
        ours_ms, plain_ms = times["ours"] / batch, times["plain"] / batch
        row = {"row": f"{kind}: {name}", "ms": ours_ms, "plain_ms": plain_ms, "ratio": plain_ms / ours_ms}
        rows.append(row)
        old = before.get(row["row"])
        told = "" if old is None else f"{old:8.2f}"
        mark = "  slower than before" if old is not None and row["ratio"] < 0.9 * old else ""
        line = f"{row['row']:<{WIDTH}}{ours_ms:>10.3f}{plain_ms:>17.3f}{row['ratio']:>8.2f}{told}{mark}"
        print(line, flush=True)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=[], help="names of rows (default: all)")
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"))
    parser.add_argument(
        "--interpret", action="store_true", help="a tiny model, its point operators in Triton's interpreter"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cpu, official = torch.device("cpu"), PointBertConfig()
    header = f"{'ms per cloud':<{WIDTH}}{'ours':>10}{'straightforward':>17}{'ratio':>8}{'before':>8}"
    if options.interpret:
        print(header)
        bench = Bench(PointBertConfig(**TINY), 2, 300, cpu, "triton")
        for name in options.rows or bench.rows():
            measure(bench, "Triton, interpreted" if name in TRITON_ROWS else "CPU, tiny model", [name], 1, {})
        return
    where = f"{machine(cpu)}, {options.threads} thread(s), torch {torch.__version__}"
    cuda = torch.device("cuda")
    where += f"; {machine(cuda)}" if torch.cuda.is_available() else "; no GPU: CUDA rows are not measured here"
    saved: list[Row] = []
    if options.output.exists():
        last = json.loads(options.output.read_text())
        if (last["machine"], last["points"]) == (where, options.points):
            saved = last["rows"]
        else:
            what = f"{last['points']} points on {last['machine']}"
            print(f"the saved figures are not compared, they are of {what}")
    before = {row["row"]: row["ratio"] for row in saved}
    print(f"Point-BERT of ULIP-2, clouds of {options.points} colored points; {where}; medians\n{header}", flush=True)
    rows = measure(Bench(official, 1, options.points, cpu), "CPU", options.rows, options.repeats, before)
    if torch.cuda.is_available():
        for kind, bf16 in {"CUDA 32, float32": False, "CUDA 32, bf16": True}.items():
            rows += measure(Bench(official, 32, options.points, cuda), kind, options.rows, 20, before, bf16)
        large = Bench(official, 64, options.points, cuda)
        rows += measure(large, "CUDA 64, bf16", ["forward and backward"], 10, before, True)
        times = {row["row"]: row["ms"] for row in rows}
        whole, transformer = (times.get(f"CUDA 32, bf16: {name}") for name in ("whole forward", "transformer"))
        if whole and transformer:
            print(f"the whole forward in bf16 takes {whole / transformer:.2f} times as long as its transformer")
    measured = {row["row"] for row in rows}
    rows += [row for row in saved if row["row"] not in measured]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.output, json.dumps({"machine": where, "points": options.points, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
