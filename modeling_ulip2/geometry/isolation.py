"""Calls in a process of their own, with a limit of time and memory, for files that strangers send.

The readers count bytes, triangles and pixels before they take memory; this is the second wall. A process that has
imported what is needed waits and forks for every call, which takes milliseconds. The fork cannot write files, and the
system ends it when its time is over, whatever it is doing.

Where the system cannot fork (Windows), calls run in the process itself, without these limits.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# After the system should have ended a call, how long its end is waited for.
_GRACE = 5.0
# The package is entered beside its __init__, which imports torch: half a second and 60 MB instead of several and 400.
_SERVER = """
import sys, types
sys.path[:] = {path!r}
sys.modules[{package!r}] = types.ModuleType({package!r})
sys.modules[{package!r}].__path__ = [{folder!r}]
from {module} import _serve
_serve({descriptor}, {modules!r})
"""


class LimitError(RuntimeError):
    """A call that used up its time, or whose process ended without an answer; the message says which."""


class Isolation:
    """Calls functions in forks of one waiting process. Safe to share between threads.

    Args:
        modules: what the waiting process imports, so that no call has to. Of this package, what its sub-packages hold
            (`modeling_ulip2` itself is empty there).
        seconds: wall-clock time of a call.
        megabytes: memory of a call beyond what the waiting process holds (Linux).
    """

    def __init__(self, modules: Sequence[str], seconds: float, megabytes: int) -> None:
        self._modules, self.seconds, self.megabytes = tuple(modules), seconds, megabytes
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Starts the waiting process; otherwise the first call does, and takes the seconds that its imports take."""
        with self._lock:
            self._start()

    def call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """`function(*arguments, **options)`; all of these and the result are pickled.

        Raises:
            LimitError: it took too long, or its process was ended.
            Exception: what the function raises, among it MemoryError.
        """
        if not hasattr(os, "fork"):
            return function(*arguments, **options)
        ours, theirs = socket.socketpair()
        connection = Connection(ours.detach())
        try:
            with theirs:
                self._send(theirs.fileno())
            connection.send((function, arguments, options, self.seconds, self.megabytes))
            connection.recv()  # from now on the clock runs: the first call waits for the imports, too
            if not connection.poll(self.seconds + _GRACE):
                raise LimitError(f"it took longer than {self.seconds:g} seconds")
            good, result = connection.recv()
        except (EOFError, ConnectionError):
            raise LimitError(f"it took longer than {self.seconds:g} seconds, or more memory than it may") from None
        finally:
            connection.close()
        if good:
            return result
        raise result

    def close(self) -> None:
        """Ends the waiting process."""
        with self._lock:
            if self._control is not None:
                self._control.close()  # which the process takes as its end
            if self._server is not None:
                self._server.wait()
            self._control = self._server = None

    def _start(self) -> socket.socket:
        if self._control is not None and self._server is not None and self._server.poll() is None:
            return self._control
        self._control, theirs = socket.socketpair()
        with theirs:
            code = _SERVER.format(
                path=sys.path,
                package=__name__.partition(".")[0],
                folder=str(Path(__file__).parents[1]),
                module=__name__,
                descriptor=theirs.fileno(),
                modules=list(self._modules),
            )
            self._server = subprocess.Popen(
                [sys.executable, "-c", code], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        return self._control

    def _send(self, descriptor: int) -> None:
        """Gives the waiting process one end of a line, on which its fork will listen."""
        with self._lock:
            try:
                socket.send_fds(self._start(), [b"c"], [descriptor])
            except OSError:  # it was ended from outside
                self._control = None
                socket.send_fds(self._start(), [b"c"], [descriptor])


def _serve(descriptor: int, modules: Sequence[str]) -> None:
    """The waiting process, until the other end of its line is closed."""
    for module in modules:
        __import__(module)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's business
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system buries the forks
    control = socket.socket(fileno=descriptor)
    while True:
        message, descriptors, *_ = socket.recv_fds(control, 1, 1)
        if not message:
            return
        if os.fork() == 0:
            with contextlib.suppress(BaseException):
                control.close()
                _answer(Connection(descriptors[0]))
            os._exit(0)
        os.close(descriptors[0])


def _answer(connection: Connection) -> None:
    function, arguments, options, seconds, megabytes = connection.recv()
    connection.send(None)
    _limit(seconds, megabytes)
    try:
        outcome: tuple[bool, Any] = True, function(*arguments, **options)
    except Exception as error:
        outcome = False, error
    connection.send(outcome)


def _limit(seconds: float, megabytes: int) -> None:
    import resource

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # by default it ends the process
    signal.setitimer(signal.ITIMER_REAL, seconds)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    held = Path("/proc/self/statm")
    if held.is_file():
        pages = int(held.read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
