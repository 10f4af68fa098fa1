"""Most memory that the official Point-BERT takes beside its weights, in evaluation and in training.

    python tests/benchmarks/bench_memory.py [--batch 64 --points 10000 --rows evaluation …]

Each row runs once, in a process of its own. "All at once" is what the patch encoder took before it worked in parts.
In training every row holds the activations for the backward pass; "patches again" computes those of the patch encoder
again in it, "all again" (`gradient_checkpointing_enable`) also those of the transformer's blocks.
"""

from __future__ import annotations

import argparse
import multiprocessing
from typing import Any

import torch
from bench_table import machine, make_clouds

from modeling_ulip2 import PointBertConfig, PointBertModel
from modeling_ulip2.models import modeling_pointbert
from modeling_ulip2.utils.memory import peak_memory, reset_peak_memory

ROWS = {
    "evaluation, all at once": {"at_once": 1 << 30},
    "evaluation, in parts": {},
    "training": {"train": True},
    "training, patches again": {"train": True, "again": "patches"},
    "training, all again": {"train": True, "again": "all"},
}


def measure(
    answers: Any,
    device: str,
    batch: int,
    points: int,
    at_once: int | None = None,
    train: bool = False,
    again: str = "",
    sizes: dict[str, int] | None = None,
) -> None:
    """Puts the bytes that one pass took beside the weights and the clouds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if at_once:
        modeling_pointbert._PATCHES_IN_CACHE = modeling_pointbert._PATCHES_IN_MEMORY = at_once
    modeling_pointbert._LARGEST_SHARE = float("inf")  # the rows say what is computed again
    model: Any = PointBertModel(PointBertConfig(**(sizes or {}))).train(train).to(device)
    if again == "all":
        model.gradient_checkpointing_enable()
    model.encoder.gradient_checkpointing = bool(again)
    clouds = make_clouds(batch, points, torch.device(device))
    small = make_clouds(2, 1000, torch.device(device))

    def step(values: torch.Tensor) -> None:
        with torch.set_grad_enabled(train), torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            pooled = model(values).pooled
        if train:
            pooled.square().mean().backward()

    step(small)  # libraries are loaded, and gradients there
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step(clouds)
        answers.put(torch.cuda.max_memory_allocated() - before)
    else:
        reset_peak_memory()
        before = peak_memory()
        step(clouds)
        answers.put(peak_memory() - before)


def main(arguments: list[str] | None = None) -> dict[str, int]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help="names, or what they begin with")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    for name in ("hidden_size", "num_hidden_layers", "num_groups", "group_size"):
        parser.add_argument(f"--{name}", type=int, help="default: the released encoder's")
    options = parser.parse_args(arguments)
    sizes = {
        name: value
        for name in ("hidden_size", "num_hidden_layers", "num_groups", "group_size")
        if (value := getattr(options, name)) is not None
    }
    kind = "bf16" if options.device == "cuda" else "float32"
    print(
        f"Point-BERT of ULIP-2, {options.batch} x {options.points} colored points, {kind}; "
        f"{machine(torch.device(options.device))}, torch {torch.__version__}"
    )
    context, found = multiprocessing.get_context("spawn"), {}
    for name, row in ROWS.items():
        if not name.startswith(tuple(options.rows)):
            continue
        answers = context.SimpleQueue()
        process = context.Process(
            target=measure,
            args=(answers, options.device, options.batch, options.points),
            kwargs=row | {"sizes": sizes},
        )
        process.start()
        process.join()
        if process.exitcode:
            print(f"{name:<26}   did not end (status {process.exitcode}): less memory is free", flush=True)
            continue
        found[name] = answers.get()
        print(f"{name:<26}{found[name] / 2**30:>8.2f} GiB", flush=True)
    return found


if __name__ == "__main__":
    main()
