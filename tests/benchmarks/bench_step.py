"""Samples per second and peak memory of the training step of ULIP-2's Point-BERT, split into its parts.

Sizes are the released encoder's (18 blocks, 512 patches of 32 points, 10,000 colored points). On a GPU the batch is
the published 64 in bfloat16, on a CPU a smaller one. `torchrun --nproc_per_node N` measures the gathering of
embeddings, too.
"""

from __future__ import annotations

import argparse
import os
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from modeling_ulip2.recipes.step_cost import StepCost, configured_model, measure_step

SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "num_groups", "group_size", "encoder_dims")


def main(arguments: list[str] | None = None) -> StepCost:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="default: 64 on a GPU, 4 on a CPU")
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=1280)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of a CPU")
    for name in SIZES:
        parser.add_argument(f"--{name}", type=int, help="default: the released encoder's")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    if "RANK" in os.environ and not dist.is_initialized():
        dist.init_process_group("gloo" if device.type == "cpu" else "nccl", timeout=timedelta(minutes=5))
        if device.type == "cuda":
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.manual_seed(0)
    sizes = {name: getattr(options, name) for name in SIZES if getattr(options, name) is not None}
    model, _ = configured_model(sizes, options.dim)
    batch = options.batch or (64 if device.type == "cuda" else 4)
    cost = measure_step(model, options.points, batch, device, device.type == "cuda", options.repeats)
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(
            f"{Path(__file__).stem}: {model.num_parameters():,} parameters, {batch} x {options.points:,} points, "
            f"{cost.device}, torch {torch.__version__}; median of {options.repeats}"
        )
        for name, seconds in cost.parts.items():
            print(f"  {name:<10}{1e3 * seconds:>10.1f} ms{100 * seconds / cost.seconds:>7.1f} % of the step")
        print(f"  the step  {1e3 * cost.seconds:>10.1f} ms, {cost.samples_per_second:.2f} samples per second")
        print(f"  most memory in use: {cost.memory / 2**30:.2f} GiB")
    if dist.is_initialized():
        dist.destroy_process_group()
    return cost


if __name__ == "__main__":
    main()
