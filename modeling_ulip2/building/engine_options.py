"""The options of a build that say where its stages run; rows do not depend on them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from modeling_ulip2.data.schema import Row
from modeling_ulip2.utils.cpus import available_cores

from .engines.gpus import group_gpus, visible_gpus
from .engines.local import Event, OnReady, run_local
from .engines.shard import ShardPlan

OBJECT_TIMEOUT = 300.0


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("where it runs").add_argument
    add(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="processes of this machine, or Ray Data [%(default)s]",
    )
    add("--ray-address", help="of a running cluster, such as auto or ray://head:10001 [Ray starts here]")
    add(
        "--num-proc",
        type=int,
        help="processes, one core each, for what needs no GPU; 0: none, for debugging [as many as there are cores]",
    )
    add("--gpus", type=int, help="use the first N GPUs, each with a process for the stages with models [all]")
    add("--gpus-per-process", type=int, default=1, help="for models that one GPU cannot hold [%(default)s]")
    add(
        "--object-timeout",
        type=float,
        default=OBJECT_TIMEOUT,
        metavar="SECONDS",
        help="give an object up that one stage before the models is busy with for longer [%(default)g]",
    )


def check_engine_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program with a sentence where an option makes no sense."""
    for name, least in (("num_proc", 0), ("gpus", 0), ("gpus_per_process", 1)):
        value = getattr(args, name)
        if value is not None and value < least:
            parser.error(f"argument --{name.replace('_', '-')}: expected {least} or more, got {value}")
    if args.object_timeout <= 0:
        parser.error(f"argument --object-timeout: expected seconds, got {args.object_timeout:g}")
    if args.engine == "ray" and args.num_proc == 0:
        parser.error("argument --num-proc: 0 goes with --engine local only")
    if args.engine == "local" and args.ray_address:
        parser.error("argument --ray-address: goes with --engine ray only")
    if args.engine == "ray" and args.device is not None and args.device.startswith("cuda:"):
        parser.error("argument --device: Ray hands out the GPUs; say cuda, and how many with --gpus")


def run_engine(
    args: argparse.Namespace, plan: ShardPlan, shards: Sequence[tuple[int, list[Row]]], on_ready: OnReady
) -> Iterator[Event]:
    """Run a plan over shards by the engine that was asked for; `args.device`, of the models, decides on GPUs, too.

    Raises:
        EngineError: see there.
    """
    if args.engine == "local":
        num_proc = available_cores() if args.num_proc is None else args.num_proc
        gpus = _gpus_here(args) if plan.wants_gpu else ()
        return run_local(plan, shards, num_proc, on_ready, args.object_timeout, gpus)
    if not plan.wants_gpu:
        num_gpus = 0
    elif args.ray_address is None:
        num_gpus = len(_gpus_here(args)) * args.gpus_per_process
    else:  # a cluster's GPUs need not be on this machine
        num_gpus = args.gpus if args.device in (None, "cuda") else 0
    from .engines.ray import run_ray

    return run_ray(
        plan, shards, args.num_proc, on_ready, args.object_timeout, num_gpus, args.gpus_per_process, args.ray_address
    )


def _gpus_here(args: argparse.Namespace) -> Sequence[str | None]:
    if args.device in (None, "cuda"):
        return group_gpus(visible_gpus()[: args.gpus], args.gpus_per_process)
    return [None] if args.device.startswith("cuda:") else []  # that one, in a process that sees what this one sees
