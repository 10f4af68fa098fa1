"""Triplets per second: the stages in processes, in one process, and written out straightforwardly, in one run.

    python tests/benchmarks/bench_triplets.py [--meshes DIR --limit 32 --tower DIR --num-proc 2]

Without --meshes it makes textured spheres of 2,000 to 30,000 triangles; without --tower it builds the ConSE pair. The
straightforward version does what a first script would: an object after the other, one view or caption to the tower at
a time, every caption as often as it occurs. Times are wall clock: run it on an idle machine.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "dataset_scripts"))

from modeling_ulip2.building.engines.local import run_local  # noqa: E402
from modeling_ulip2.building.engines.shard import ShardPlan, ShardResult, make_stages, process_shard  # noqa: E402
from modeling_ulip2.building.meshes import parse_arguments  # noqa: E402
from modeling_ulip2.building.stage_options import build_stages  # noqa: E402
from modeling_ulip2.building.stages.base import to_batch, to_rows  # noqa: E402
from modeling_ulip2.data.images import open_view  # noqa: E402
from modeling_ulip2.data.objects import list_objects  # noqa: E402
from modeling_ulip2.data.schema import triplet_features  # noqa: E402
from modeling_ulip2.towers import load_tower  # noqa: E402
from modeling_ulip2.towers.conse import build_conse  # noqa: E402
from modeling_ulip2.utils.cpus import available_cores  # noqa: E402
from modeling_ulip2.utils.parquet import write_parquet  # noqa: E402


def write_sphere(path: Path, rings: int, seed: int) -> None:
    """An OBJ sphere of 4 * rings^2 triangles with a texture."""
    rng = np.random.default_rng(seed)
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, 2 * rings + 1), indexing="ij")
    points = np.stack([np.sin(theta) * np.sin(phi), np.cos(theta), np.sin(theta) * np.cos(phi)], -1).reshape(-1, 3)
    points *= rng.uniform(0.3, 1.0, 3)
    uv = np.stack([phi / (2 * np.pi), 1 - theta / np.pi], -1).reshape(-1, 2)
    corner = (np.arange(rings)[:, None] * (2 * rings + 1) + np.arange(2 * rings)).reshape(-1) + 1
    below = corner + 2 * rings + 1
    lines = [f"mtllib {path.stem}.mtl", "usemtl paint"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in points] + [f"vt {u:.6f} {v:.6f}" for u, v in uv]
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in zip(corner, below, below + 1, strict=True)]
    lines += [f"f {a}/{a} {b}/{b} {c}/{c}" for a, b, c in zip(corner, below + 1, corner + 1, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    path.with_suffix(".mtl").write_text(f"newmtl paint\nKd 1 1 1\nmap_Kd {path.stem}.png\n")
    noise = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((512, 512)).save(path.with_suffix(".png"))


class Straightforward:
    """The same rows with a float32 tower that is asked for one thing at a time."""

    def __init__(self, stages: list[Any], tower: str) -> None:
        embed = next(i for i, stage in enumerate(stages) if type(stage).__name__ == "EmbedViews")
        self.before, self.after = stages[:embed], stages[embed + 1 :]
        self.tower = load_tower(tower, device="cpu")

    @torch.no_grad()
    def image(self, view: dict[str, Any]) -> torch.Tensor:
        pixels = self.tower.image_processor(images=open_view(view), return_tensors="pt")
        return F.normalize(self.tower.model.get_image_features(**pixels).pooler_output[0], dim=-1)

    @torch.no_grad()
    def text(self, caption: str) -> torch.Tensor:
        tokens = self.tower.tokenizer(caption, truncation=True, return_tensors="pt")
        features = self.tower.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
        return F.normalize(features.pooler_output[0], dim=-1)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        batch = to_batch([{**row, "error": None, "message": None}])
        for stage in self.before:
            batch = stage(batch)
        embeds = torch.stack([self.image(view) for view in batch["views"][0]])  # (V, D)
        batch["image_embeds"] = [embeds.numpy()]
        for stage in self.after[:-1]:
            batch = stage(batch)
        (row,) = to_rows(batch)
        for view, captions in enumerate(row["captions"]):
            scored = sorted(((float(self.text(text) @ embeds[view]), text) for text in captions), reverse=True)
            row["captions"][view] = [text for _, text in scored]
            row.setdefault("caption_scores", []).append([score for score, _ in scored])
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", type=Path)
    parser.add_argument("--tower", type=Path)
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--num-proc", type=int, default=available_cores())
    parser.add_argument("--num-points", type=int, default=10_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        tower, meshes = options.tower or Path(scratch, "conse"), options.meshes or Path(scratch, "meshes")
        if options.tower is None:
            for part in build_conse():
                part.save_pretrained(tower)
        if options.meshes is None:
            meshes.mkdir()
            for number in range(options.limit):
                write_sphere(meshes / f"sphere{'abcdefgh'[number % 8]}{number}.obj", 22 + 2 * number % 64, number)
        folders = ["--meshes", str(meshes), "--output", scratch, "--tower", str(tower)]
        args = parse_arguments([*folders, "--num-points", str(options.num_points)])
        measure(args, list_objects(meshes)[: options.limit], options.num_proc)


def measure(args: argparse.Namespace, objects: list[dict[str, str]], num_proc: int) -> None:
    size = -(-len(objects) // num_proc)
    shards = [(i, objects[i * size : (i + 1) * size]) for i in range(num_proc)]
    plan = ShardPlan(build_stages(args), args.output, len(shards), args.num_points)
    stages = make_stages(plan)
    process_shard(plan, stages, 0, objects[:1], {}, lambda *progress: None)  # machine code, caches
    rows = {}

    start = time.perf_counter()
    straightforward = Straightforward(stages, args.tower)
    plain = [straightforward(row) for row in objects]
    write_parquet(args.output / "plain.parquet", plain, triplet_features(args.num_points))
    rows["straightforward, 1 process"] = time.perf_counter() - start

    start = time.perf_counter()
    result = process_shard(plan, stages, 0, objects, {}, lambda *progress: None)
    rows["stages, 1 process"] = time.perf_counter() - start

    ready: list[float] = []
    for event in run_local(plan, shards, num_proc, on_ready=lambda stages: ready.append(time.perf_counter())):
        done = time.perf_counter() if isinstance(event, ShardResult) else 0.0
    rows[f"stages, {num_proc} processes (once ready)"] = done - min(ready)

    slowest = rows["straightforward, 1 process"]
    print(
        f"{len(objects)} objects, {args.views} views of {args.size} px, {args.num_points} points, "
        f"{os.cpu_count()} cores"
    )
    for name, seconds in rows.items():
        print(f"{name:<42} {len(objects) / seconds:6.2f} objects/s   x{slowest / seconds:.2f}")
    for name, seconds in sorted(result.record["seconds"].items(), key=lambda item: -item[1]):
        print(f"    {name:<20} {1e3 * seconds / len(objects):7.1f} ms per object")


if __name__ == "__main__":
    main()
