"""A function over 0, 1, 2 … in worker processes, in order; a worker that is killed takes one result with it, not all.

torch's `DataLoader` ends the whole job when a worker crashes, as decoders in C do on broken files.
"""

from __future__ import annotations

import multiprocessing
import pickle
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")

# Seconds that a process is given to end.
_GRACE = 5.0
_READY, _RESULT, _ERROR, _ENDED = range(4)


def in_workers(
    function: Callable[[int], T], count: int, num_workers: int, ahead: int, killed: Callable[[int], T]
) -> Iterator[T]:
    """`function(0)`, …, `function(count - 1)`.

    Args:
        function: picklable where processes are not forked (macOS, Windows), as are its results everywhere.
        num_workers: processes, at least 1.
        ahead: how many results are made before they are asked for.
        killed: stands in for the function where its process was killed.

    Raises:
        RuntimeError: a process cannot start.
        BaseException: what the function raises.
    """
    told: queue.SimpleQueue[tuple[_Worker, int, Any]] = queue.SimpleQueue()
    workers = [_Worker(function, told) for _ in range(min(num_workers, count))]
    results: dict[int, T] = {}
    given = 0
    try:
        for wanted in range(count):
            while given < min(count, wanted + ahead):
                min(workers, key=lambda worker: len(worker.held)).give(given)
                given += 1
            while wanted not in results:
                worker, kind, content = told.get()
                if kind == _READY:
                    worker.ready = True
                elif kind == _RESULT:
                    results[worker.held.popleft()] = content
                elif kind == _ERROR:
                    error, trace = content
                    raise error from RuntimeError(f"in a worker process:\n{trace}")
                elif not worker.ready:
                    raise RuntimeError("a worker process ended before it could begin; num_workers=0 works without any")
                else:
                    lost = worker.held.popleft() if worker.held else None
                    if lost is not None:
                        results[lost] = killed(lost)
                    workers[workers.index(worker)] = successor = _Worker(function, told)
                    for position in worker.held:
                        successor.give(position)
            yield results.pop(wanted)
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process that works on what it `held`, first come first served."""

    def __init__(self, function: Callable[[int], Any], told: queue.SimpleQueue) -> None:
        context = multiprocessing.get_context()
        self.held: deque[int] = deque()
        self.ready = False
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(function, theirs, self._line), daemon=True)
        self._process.start()
        theirs.close()  # so that the line ends when the process does
        # a thread takes what comes while the caller is busy: a pipe holds less than one cloud
        threading.Thread(target=self._listen, args=(told,), daemon=True).start()

    def give(self, position: int) -> None:
        self.held.append(position)
        try:
            self._line.send(position)
        except OSError:  # it was killed; the listener tells
            pass

    def _listen(self, told: queue.SimpleQueue) -> None:
        try:
            while True:
                told.put((self, *pickle.loads(self._line.recv_bytes())))
        except (EOFError, OSError):
            told.put((self, _ENDED, None))

    def end(self) -> None:
        self._process.terminate()
        self._process.join(_GRACE)
        if self._process.is_alive():
            self._process.kill()


def _work(function: Callable[[int], Any], line: Connection, other_end: Connection) -> None:
    """The life of a worker: it ends with the line, and so with the process that made it."""
    import torch

    other_end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that made it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whatever that one does then
    torch.set_num_threads(1)
    try:
        _tell(line, _READY, None)
        while True:
            position = line.recv()
            try:
                result = function(position)
            except BaseException as error:
                trace = traceback.format_exc()
                try:
                    pickle.loads(pickle.dumps(error))
                except Exception:  # an exception of several arguments, for one
                    error = RuntimeError(f"{type(error).__name__}: {error}")
                _tell(line, _ERROR, (error, trace))
                return
            _tell(line, _RESULT, result)
    except (EOFError, OSError):
        return


def _tell(line: Connection, kind: int, content: Any) -> None:
    line.send_bytes(pickle.dumps((kind, content), protocol=pickle.HIGHEST_PROTOCOL))
