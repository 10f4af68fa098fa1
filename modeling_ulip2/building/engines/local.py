"""The local engine: worker processes of this machine, each with one core and whole shards.

Without a GPU every worker runs all stages of a shard. With GPUs there are two crews: workers that see no GPU run the
stages before the first model, and one process per GPU runs the rest. Shards wait between the two, a few per GPU and
the next one already in its process, so that no GPU waits for a mesh while the workers keep up.

A worker that dies (killed for memory, or crashed by a mesh in native code) is replaced. Its shard is tried again; if
the same object is at hand when a worker dies again, that object goes to `errors.parquet` and the shard goes on without
it. So does an object that keeps a stage busy for too long. A worker that runs alone on its core computes the same bits
however many there are, so rows do not depend on their number.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeAlias

from modeling_ulip2.data.schema import Row

from .shard import (
    EngineError,
    ShardPlan,
    ShardResult,
    ShardRows,
    Skip,
    describe_stages,
    explain_failure,
    make_stages,
    process_part,
    process_shard,
    wants_gpu,
)

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")
# Workers are forked from a server that has imported what they need and done nothing else: no threads, no GL context.
# Forking the engine's own process would copy those in any state; spawning costs each worker seconds of imports.
START_METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PRELOADED = [
    __name__,
    "modeling_ulip2.building.captioners.labels",
    "modeling_ulip2.building.stages.embed",
    "modeling_ulip2.building.stages.rank",
    "modeling_ulip2.building.stages.render",
    "modeling_ulip2.geometry.raster_numba",
]
PATIENCE = 10.0  # seconds that a worker has to leave when the build is stopped
MAX_DEATHS = 2  # of workers over one object, or over one shard with no single object to blame
STAGED_PER_GPU = 2  # shards that wait for a GPU before the other workers pause; they are kept in memory
TASKS_PER_GPU = 2  # shards that a GPU's process holds: the one at work and the next

OnReady: TypeAlias = Callable[[dict[str, Any]], None]


@dataclass
class Progress:
    """What an engine tells its caller between shards: the stage at work and the ids of its objects."""

    shard: int
    stage: str
    ids: list[str]


@dataclass
class Retry:
    """A worker died: its shard begins anew."""

    shard: int
    cause: str = "A worker died"


Event: TypeAlias = "ShardResult | ShardRows | Progress | Retry"


@dataclass
class _Task:
    shard: int
    payload: bytes  # a pickled ShardRows: not unpickled between two crews


@dataclass
class _Crew:
    """Workers that do the same. `visible` is a worker's CUDA_VISIBLE_DEVICES; None leaves it as it is."""

    plan: ShardPlan
    visible: list[str | None]
    tasks_each: int = 1
    todo: deque[_Task] = field(default_factory=deque)
    description: dict[str, Any] | None = None


@dataclass
class _Worker:
    crew: _Crew
    visible: str | None
    process: BaseProcess
    connection: Connection
    ready: bool = False
    tasks: list[_Task] = field(default_factory=list)  # the first is at work
    stage: str = "start"
    ids: list[str] = field(default_factory=list)
    since: float = 0.0
    overdue: bool = False

    def at(self, stage: str, ids: list[str]) -> None:
        self.stage, self.ids, self.since = stage, ids, time.monotonic()


def run_local(
    plan: ShardPlan,
    shards: Sequence[tuple[int, list[Row]]],
    num_proc: int,
    on_ready: OnReady,
    object_timeout: float | None = None,
    gpus: Sequence[str | None] = (),
) -> Iterator[Event]:
    """Process `shards` and yield their results as they come, with `Progress` in between.

    Args:
        num_proc: worker processes; 0 runs in this one, for debugging, without time-outs.
        on_ready: given what the stages say about themselves, before any shard is written.
        object_timeout: seconds that a stage without a model may take over one object.
        gpus: a value of CUDA_VISIBLE_DEVICES for each process that runs the stages with models; None: as it is.

    Raises:
        EngineError: a stage cannot be made, a file cannot be written, or workers keep dying.
    """
    if num_proc == 0:
        yield from _run_here(plan, shards, on_ready)
        return
    with LocalPool(plan, min(num_proc, len(shards)), on_ready, object_timeout, gpus) as pool:
        yield from pool.run([(shard, ShardRows(rows)) for shard, rows in shards])


def _run_here(plan: ShardPlan, shards: Sequence[tuple[int, list[Row]]], on_ready: OnReady) -> Iterator[ShardResult]:
    with one_thread(plan):  # as in a worker: sums in another order would be other bits
        stages = make_stages(plan)
        on_ready(describe_stages(stages))
        for shard, rows in shards:
            yield process_shard(plan, stages, shard, rows, {}, lambda stage, ids: None)


@contextmanager
def one_thread(plan: ShardPlan) -> Iterator[None]:
    """Within, torch computes in one thread, where stages of the plan have models; the others do without torch."""
    if not plan.wants_gpu:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class LocalPool:
    """Workers that last from shard to shard, one run at a time. Use as a context manager; arguments as `run_local`."""

    def __init__(
        self,
        plan: ShardPlan,
        num_proc: int,
        on_ready: OnReady,
        object_timeout: float | None = None,
        gpus: Sequence[str | None] = (),
    ) -> None:
        self._on_ready, self._object_timeout = on_ready, object_timeout
        head, body = plan.split() if gpus else (None, plan)
        self._crews = [_Crew(body, list(gpus), TASKS_PER_GPU) if gpus else _Crew(plan, [None] * num_proc)]
        if head is not None:
            self._crews.insert(0, _Crew(head, [""] * num_proc))
        self._with_model = {getattr(make, "func", make).__name__ for make in plan.stages if wants_gpu(make)}
        self._deaths: Counter[str] = Counter()
        self._skip: Skip = {}
        self._workers: list[_Worker] = []
        self._fresh: Iterator[_Task] = iter(())

    def __enter__(self) -> LocalPool:
        self._workers = [self._start(crew, visible) for crew in self._crews for visible in crew.visible]
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=PATIENCE)
            worker.process.kill()
            worker.process.join()
            worker.connection.close()
        self._workers = []

    def describe(self) -> None:
        """Wait until every kind of worker has made its stages and `on_ready` was told.

        Raises:
            EngineError: a stage cannot be made.
        """
        while not self._approved:
            for _ in self._listen():
                pass

    def run(self, shards: Sequence[tuple[int, ShardRows]]) -> Iterator[Event]:
        """Process shards; yields a result for each, which is a `ShardRows` if the plan writes nothing."""
        for crew in self._crews:
            crew.todo.clear()
        # pickled when it is their turn: copies of ten million objects would fill the memory
        self._fresh = (_Task(shard, pickle.dumps(rows)) for shard, rows in shards)
        left = len(shards)
        while left:
            self._assign()
            for event in self._listen():
                left -= isinstance(event, ShardResult | ShardRows)
                yield event

    @property
    def _approved(self) -> bool:
        return all(crew.description is not None for crew in self._crews)

    def _assign(self) -> None:
        """Give out tasks; the last crew, which writes, gets none until the caller has heard of all stages."""
        last = self._crews[-1]
        for worker in self._workers:
            crew = worker.crew
            if crew is last and not self._approved:
                continue
            if crew is not last and len(last.todo) >= STAGED_PER_GPU * len(last.visible):
                continue
            while worker.ready and len(worker.tasks) < crew.tasks_each:
                task = crew.todo.popleft() if crew.todo else self._next() if crew is self._crews[0] else None
                if task is None:
                    break
                if not worker.tasks:
                    worker.at("start", [])
                worker.tasks.append(task)
                try:
                    worker.connection.send((task.shard, task.payload, self._skip))
                except OSError:
                    break  # it is dead, which `_listen` will find, too

    def _next(self) -> _Task | None:
        """A shard that no worker has had yet; None when there is none left."""
        return next(self._fresh, None)

    def _listen(self) -> Iterator[Event]:
        """What the workers have to say, once at least one of them says something or dies."""
        for connection in wait([worker.connection for worker in self._workers], self._end_overdue()):
            worker = next(worker for worker in self._workers if worker.connection is connection)
            try:
                kind, *content = worker.connection.recv()
            except (EOFError, OSError, pickle.UnpicklingError):
                yield from self._bury(worker)
                continue
            if kind == "failed":
                raise EngineError(content[0])
            if kind == "at":
                worker.at(*content)
                yield Progress(worker.tasks[0].shard, worker.stage, worker.ids)
            elif kind == "ready":
                worker.ready, worker.crew.description = True, content[0]
                if self._approved:
                    self._on_ready(
                        {name: text for crew in self._crews for name, text in (crew.description or {}).items()}
                    )
            else:
                task = worker.tasks.pop(0)
                worker.at("start", [])
                if worker.crew is self._crews[-1]:
                    yield pickle.loads(content[0])
                else:
                    self._crews[-1].todo.append(_Task(task.shard, content[0]))

    def _end_overdue(self) -> float | None:
        """Kill workers whose stage takes too long over an object; seconds until the next could be one of them."""
        if self._object_timeout is None:
            return None
        times = []
        for worker in self._workers:
            if len(worker.ids) == 1 and worker.stage not in self._with_model and not worker.overdue:
                seconds = worker.since + self._object_timeout - time.monotonic()
                if seconds <= 0 and not worker.connection.poll():
                    worker.overdue = True
                    worker.process.kill()
                else:
                    times.append(max(seconds, 0.0))
        return min(times, default=None)

    def _bury(self, worker: _Worker) -> Iterator[Retry]:
        """Replace a dead worker and put its tasks back, after noting which object or shard it died of."""
        worker.process.join()
        worker.connection.close()
        self._workers.remove(worker)
        code = worker.process.exitcode or 0
        cause = f"exit code {code}"
        if code < 0:
            cause = signal.Signals(-code).name + (", often for lack of memory" if -code == signal.SIGKILL else "")
        if not worker.ready:
            raise EngineError(f"a worker process died before its first shard ({cause})")
        if worker.overdue:
            told = f"{worker.stage} took more than {self._object_timeout:g} s over this object"
            self._skip[worker.ids[0]] = ("timed_out", told)
            yield Retry(worker.tasks[0].shard, "An object took too long")
        elif worker.tasks:
            self._blame(worker, cause)
            yield Retry(worker.tasks[0].shard)
        worker.crew.todo.extendleft(reversed(worker.tasks))
        self._workers.append(self._start(worker.crew, worker.visible))

    def _blame(self, worker: _Worker, cause: str) -> None:
        shard = worker.tasks[0].shard
        culprit = worker.ids[0] if len(worker.ids) == 1 else f"shard {shard}"
        self._deaths[culprit] += 1
        if self._deaths[culprit] < MAX_DEATHS:
            return
        if len(worker.ids) != 1:
            raise EngineError(
                f"{MAX_DEATHS} worker processes died in {worker.stage} of shard {shard} ({cause}). Try fewer "
                "processes (--num-proc) or a smaller --shard-size; run the same command again to go on."
            )
        told = f"{MAX_DEATHS} worker processes died in {worker.stage} of this object ({cause})"
        self._skip[culprit] = ("worker_died", told)

    def _start(self, crew: _Crew, visible: str | None) -> _Worker:
        context: Any = multiprocessing.get_context(START_METHOD)
        if START_METHOD == "forkserver":
            context.set_forkserver_preload(PRELOADED)
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(crew.plan, theirs, visible), daemon=True)
        with _environment():
            process.start()
        theirs.close()
        return _Worker(crew, visible, process, ours)


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


def _work(plan: ShardPlan, connection: Connection, visible: str | None) -> None:
    """A worker's life: make the stages, then process shards until it is told to stop or the engine is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the engine decides what Ctrl-C means
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with its clean-up
    if visible is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible  # nothing has asked for a GPU yet
    tasks: queue.SimpleQueue[tuple[int, bytes, Skip]] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    try:
        with one_thread(plan):
            stages = make_stages(plan)
            connection.send(("ready", describe_stages(stages)))
            while True:
                shard, payload, skip = tasks.get()
                part = pickle.loads(payload)
                result = process_part(
                    plan, stages, shard, part, skip, lambda stage, ids: connection.send(("at", stage, ids))
                )
                connection.send(("done", pickle.dumps(result)))
    except (BrokenPipeError, ConnectionResetError):
        return  # the engine is gone
    except Exception as error:
        if not isinstance(error, OSError | ValueError):  # those speak for themselves
            traceback.print_exc()
        connection.send(("failed", explain_failure(error)))


def _receive(connection: Connection, tasks: queue.SimpleQueue[tuple[int, bytes, Skip]]) -> None:
    """Take tasks in while others are at work, so that the next one is at hand and the engine need not wait."""
    try:
        while True:
            tasks.put(connection.recv())
    except (EOFError, OSError):
        os._exit(1)  # the engine is gone, and nobody wants this shard from this process any more
