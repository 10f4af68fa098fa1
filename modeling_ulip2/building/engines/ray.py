"""The Ray engine: the same stages over the same shards on a cluster, by Ray Data.

A row of the Ray dataset is a shard. `map_batches` runs an actor per core with all stages; where the cluster has GPUs,
a pool of actors runs the stages before the first model and another one, an actor per GPU, runs the rest, while Ray
Data streams shards from one to the other. Each actor has a worker process of the local engine under it: it does the
work, and its death or an object that takes too long is dealt with there. An actor that dies, or its machine, is
replaced by Ray, which gives the shard to another one.

All machines must see this repository, the meshes and the output folder under the same paths.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from modeling_ulip2.data.schema import Row
from modeling_ulip2.utils.cpus import available_cores
from modeling_ulip2.utils.packages import install_command

from .local import LocalPool, OnReady
from .shard import EngineError, ShardPlan, ShardResult, ShardRows

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A busy machine takes longer to start than Ray expects, and leaves nothing to workers as nice as Ray's are.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "180")
os.environ.setdefault("RAY_worker_niceness", "0")
OBJECT_STORE_BYTES = 2 * 1024**3  # of a Ray that is started here; a shard takes about 50 MB on its way to a GPU
KNOCK_SECONDS = 20  # for a cluster to answer
# Shards that Ray is given at a time: each is an object in its store from the beginning. The actors of the next wave
# load their models anew, which is nothing beside the hours that a wave takes.
WAVE_SHARDS = 4096


@dataclass
class Failure:
    """Why a shard could not be made; it ends the run when it arrives."""

    message: str


def run_ray(
    plan: ShardPlan,
    shards: Sequence[tuple[int, list[Row]]],
    num_proc: int | None,
    on_ready: OnReady,
    object_timeout: float | None = None,
    num_gpus: int | None = 0,
    gpus_per_process: int = 1,
    address: str | None = None,
) -> Iterator[ShardResult]:
    """Process `shards` and yield their results as they come.

    Args:
        num_proc: actors with a core each for stages without a model; None: as many as there are cores.
        on_ready, object_timeout: as for `run_local`.
        num_gpus, gpus_per_process: GPUs to use, None for all of the cluster, and how many of them an actor sees.
        address: of a running cluster, "auto" for the one of this machine; None starts Ray here and ends it again.

    Raises:
        EngineError: there is no such cluster, or as `run_local`.
    """
    ray = _import_ray()
    with _cluster(address, num_proc, num_gpus, gpus_per_process) as (cores, num_actors):
        gpus = {"num_gpus": gpus_per_process} if num_actors else {}
        description = _outcome(ray.get(ray.remote(_describe).options(num_cpus=1, **gpus).remote(plan, os.getcwd())))
        on_ready(description)
        head, body = plan.split() if num_actors else (None, plan)
        for start in range(0, len(shards), WAVE_SHARDS):
            wave = shards[start : start + WAVE_SHARDS]
            dataset = ray.data.from_arrow([_table(shard, ShardRows(rows)) for shard, rows in wave])
            for part, size, resources in ((head, cores, {}), (body, num_actors or cores, gpus)):
                if part is not None:
                    dataset = dataset.map_batches(
                        ShardActor,
                        fn_constructor_args=(part, description, object_timeout, os.getcwd()),
                        batch_size=1,
                        batch_format="pyarrow",
                        compute=ray.data.ActorPoolStrategy(min_size=1 if address else size, max_size=size),
                        num_cpus=1,
                        **resources,
                    )
            for batch in dataset.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
                yield _outcome(pickle.loads(batch["content"][0].as_py()))


class ShardActor:
    """A part of a plan as the class that `map_batches` wants: called with one shard, it returns one shard.

    `folder` is the one from which the paths in the plan are meant.
    """

    def __init__(
        self, plan: ShardPlan, description: Mapping[str, Any], object_timeout: float | None, folder: str
    ) -> None:
        os.chdir(folder)
        self.pool = LocalPool(plan, 1, partial(_compare, description), object_timeout).__enter__()

    def __call__(self, batch: pa.Table) -> pa.Table:
        shard, content = batch["shard"][0].as_py(), pickle.loads(batch["content"][0].as_py())
        if isinstance(content, Failure):
            return batch
        try:
            (result,) = (
                event for event in self.pool.run([(shard, content)]) if isinstance(event, ShardRows | ShardResult)
            )
        except EngineError as error:
            return _table(shard, Failure(str(error)))
        return _table(shard, result)


def _table(shard: int, content: ShardRows | ShardResult | Failure) -> pa.Table:
    types = {"shard": pa.int64(), "content": pa.large_binary()}
    return pa.table({"shard": [shard], "content": [pickle.dumps(content)]}, schema=pa.schema(types))


def _outcome(result: Any) -> Any:
    if isinstance(result, Failure):
        raise EngineError(result.message)
    return result


def _describe(plan: ShardPlan, folder: str) -> dict[str, Any] | Failure:
    """What the stages say about themselves, from a worker that makes them for this purpose."""
    os.chdir(folder)
    found: dict[str, Any] = {}
    try:
        with LocalPool(plan, 1, found.update) as pool:
            pool.describe()
    except EngineError as error:
        return Failure(str(error))
    return found


def _compare(approved: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """No machine may work with another tower than the one that the caller approved."""
    for name, text in description.items():
        if json.dumps(approved.get(name)) != json.dumps(text):
            raise EngineError(f"{name} is {json.dumps(text)} on one machine and {json.dumps(approved.get(name))} here")


def _import_ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EngineError(f"the Ray engine needs Ray; {install_command('ray')}") from error
    return ray


def _knock(address: str | None) -> None:
    """Whether anything listens at HOST:PORT; Ray itself would go on trying for more than ten minutes.

    Raises:
        OSError: nothing does.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK_SECONDS).close()


@contextmanager
def _cluster(
    address: str | None, num_proc: int | None, num_gpus: int | None, gpus_per_process: int
) -> Iterator[tuple[int, int]]:
    """Connected to a cluster, or to a Ray of our own; gives the numbers of actors without and with GPUs."""
    ray = _import_ray()
    if ray.is_initialized():
        raise EngineError("this process is connected to Ray already; a build starts or joins its own")
    # Ray's worker processes import the stages from where this process has them
    options: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(sys.path)}}}
    if address is None:
        cores, gpus = num_proc or available_cores(), num_gpus or 0
        # a core for each actor, and one for Ray Data's own tasks
        options |= {"num_cpus": cores + gpus // gpus_per_process + 1, "num_gpus": gpus}
        options |= {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
    try:
        _knock(address)
        ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **options)
    except Exception as error:  # Ray raises bare ones, too
        what = f"reach the Ray cluster {address!r}" if address else "start Ray"
        raise EngineError(f"cannot {what}: {str(error).splitlines()[0]}") from error
    try:
        if address is not None:
            resources = ray.cluster_resources()
            gpus = int(resources.get("GPU", 0)) if num_gpus is None else num_gpus
            cores = num_proc or max(int(resources.get("CPU", 1)) - gpus // gpus_per_process, 1)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield cores, gpus // gpus_per_process
    finally:
        ray.shutdown()
