"""The local engine: worker processes of this machine, each with one core and whole shards.

A worker that dies (killed for memory, or crashed by a mesh in native code) is replaced. Its shard is tried again; if
the same object is at hand when a worker dies again, that object goes to `errors.parquet` and the shard goes on without
it. A worker that runs alone on its core computes the same bits however many there are, so rows do not depend on their
number.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from stages.base import Row

from .shard import ShardPlan, ShardResult, describe_stages, make_stages, process_shard

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
# Workers are forked from a server that has imported what they need and done nothing else: no threads, no GL context.
# Forking the engine's own process would copy those in any state; spawning costs each worker seconds of imports.
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
STAGES = ("embed", "labels", "rank", "render")
PRELOADED = ["engines.local", *(f"stages.{name}" for name in STAGES), "modeling_ulip2.geometry.raster_numba"]
PATIENCE = 10.0  # seconds that a worker has to leave when the build is stopped
MAX_DEATHS = 2  # of workers over one object, or over one shard with no single object to blame


class EngineError(RuntimeError):
    """The build cannot go on; the shards that are done are kept."""


@dataclass
class Progress:
    """What an engine tells its caller between shards: the stage at work and the ids of its objects."""

    shard: int
    stage: str
    ids: list[str]


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    ready: bool = False
    shard: int | None = None
    stage: str = "start"
    ids: list[str] = field(default_factory=list)


@dataclass
class Retry:
    """A worker died: its shard begins anew."""

    shard: int


def run_local(
    plan: ShardPlan,
    shards: Sequence[tuple[int, list[Row]]],
    num_proc: int,
    on_ready: Callable[[dict[str, Any]], None],
) -> Iterator[ShardResult | Progress | Retry]:
    """Process `shards` and yield their results as they come, with `Progress` in between.

    Args:
        num_proc: worker processes; 0 runs in this one, for debugging.
        on_ready: given what the stages say about themselves, before any shard is begun.

    Raises:
        EngineError: a stage cannot be made, a file cannot be written, or workers keep dying.
    """
    if num_proc == 0:
        yield from _run_here(plan, shards, on_ready)
        return
    todo = list(shards)[::-1]
    rows_of = dict(shards)
    deaths: Counter[str] = Counter()
    skip: dict[str, str] = {}
    workers = [_start(plan) for _ in range(min(num_proc, len(todo)))]
    try:
        while workers:
            for connection in wait([worker.connection for worker in workers]):
                worker = next(worker for worker in workers if worker.connection is connection)
                try:
                    kind, *content = worker.connection.recv()
                except (EOFError, OSError, pickle.UnpicklingError):
                    workers.remove(worker)
                    yield from _bury(worker, deaths, skip)
                    if worker.shard is not None:
                        todo.append((worker.shard, rows_of[worker.shard]))
                    workers.append(_start(plan))
                    continue
                if kind == "failed":
                    raise EngineError(content[0])
                if kind == "at":
                    worker.stage, worker.ids = content
                    yield Progress(worker.shard, worker.stage, worker.ids)
                    continue
                if kind == "done":
                    worker.shard = None
                    yield content[0]
                else:
                    worker.ready = True
                    on_ready(content[0])
                if todo:
                    worker.shard, rows = todo.pop()
                    worker.stage, worker.ids = "start", []
                    worker.connection.send((worker.shard, rows, skip))
                else:
                    worker.connection.send(None)
                    worker.process.join()
                    workers.remove(worker)
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(timeout=PATIENCE)
            worker.process.kill()
            worker.process.join()


def _run_here(
    plan: ShardPlan, shards: Sequence[tuple[int, list[Row]]], on_ready: Callable[[dict[str, Any]], None]
) -> Iterator[ShardResult]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker: sums in another order would be other bits
    try:
        stages = make_stages(plan)
        on_ready(describe_stages(stages))
        for shard, rows in shards:
            yield process_shard(plan, stages, shard, rows, {}, lambda stage, ids: None)
    finally:
        torch.set_num_threads(threads)


def _bury(worker: _Worker, deaths: Counter[str], skip: dict[str, str]) -> Iterator[Retry]:
    worker.process.join()
    code = worker.process.exitcode or 0
    cause = f"exit code {code}"
    if code < 0:
        cause = signal.Signals(-code).name + (", often for lack of memory" if -code == signal.SIGKILL else "")
    if not worker.ready or worker.shard is None:
        raise EngineError(f"a worker process died before its first shard ({cause})")
    culprit = worker.ids[0] if len(worker.ids) == 1 else f"shard {worker.shard}"
    deaths[culprit] += 1
    if deaths[culprit] >= MAX_DEATHS:
        if len(worker.ids) != 1:
            raise EngineError(
                f"{MAX_DEATHS} worker processes died in {worker.stage} of shard {worker.shard} ({cause}). Try fewer "
                "processes (--num-proc) or a smaller --shard-size; run the same command again to go on."
            )
        skip[culprit] = f"{MAX_DEATHS} worker processes died in {worker.stage} of this object ({cause})"
    yield Retry(worker.shard)


def _start(plan: ShardPlan) -> _Worker:
    context = multiprocessing.get_context(START_METHOD)
    if START_METHOD == "forkserver":
        context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(plan, theirs), daemon=True)
    with _environment():
        process.start()
    theirs.close()
    return _Worker(process, ours)


@contextmanager
def _environment() -> Iterator[None]:
    """Environment for processes started within: one thread for libraries that ask when they are imported."""
    new = dict.fromkeys(ONE_THREAD, "1") | {"TOKENIZERS_PARALLELISM": "false"}
    new |= {"PYTHONPATH": os.pathsep.join(sys.path)}  # the fork server does not look at sys.path before Python 3.14
    before = {name: os.environ.get(name) for name in new}
    os.environ.update(new)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _work(plan: ShardPlan, connection: Connection) -> None:
    """A worker's life: make the stages, then process shards until told None or the engine is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the engine decides what Ctrl-C means
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with its clean-up
    torch.set_num_threads(1)
    try:
        stages = make_stages(plan)
        connection.send(("ready", describe_stages(stages)))
        while (task := connection.recv()) is not None:
            shard, rows, skip = task
            result = process_shard(
                plan, stages, shard, rows, skip, lambda *progress: connection.send(("at", *progress))
            )
            connection.send(("done", result))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the engine is gone
    except Exception as error:
        if not isinstance(error, OSError | ValueError):  # those speak for themselves
            traceback.print_exc()
        connection.send(("failed", f"{type(error).__name__}: {error}"))
