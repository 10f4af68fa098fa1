"""Calls in a process of their own, with a limit of time and memory, for files that strangers send.

The readers count bytes, triangles and pixels before they take memory; this is the second wall. A process that has
imported what is needed waits and forks for every call, which takes milliseconds. The fork can neither write or delete
files, nor reach the network or another process (see `confinement`), and the system ends it when its time is over,
whatever it is doing. What it answers is read as numbers and texts (see `frames`): nothing of it is executed.

Where the system cannot fork (Windows), calls run in the process itself, without these limits; where it cannot confine
the fork (others than Linux), only time, memory and the sizes of files are limited. A warning says so once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from .confinement import confine
from .errors import MeshError
from .frames import FrameError, pack, pack_error, receive, unpack_error

T = TypeVar("T")

# After the system should have ended a call, how long its end is waited for.
_GRACE = 5.0
_OPEN_FILES = 64
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


class ConfinementWarning(UserWarning):
    """The system cannot keep a reading process from the network or from writing; it is told once."""


class Isolation:
    """Calls functions in forks of one waiting process. Safe to share between threads.

    Args:
        modules: what the waiting process imports, so that no call has to. `modeling_ulip2` itself
            is empty there, its sub-packages are as they are.
        seconds: wall-clock time of a call.
        megabytes: memory of a call beyond what the waiting process holds (Linux), and size of its answer.
        kinds: dataclasses that a call may return, or parts of what it returns; see `frames.pack` for all else.
        errors: exceptions of one argument that a call may raise, besides MeshError and the usual ones of Python.
    """

    def __init__(
        self,
        modules: Sequence[str],
        seconds: float,
        megabytes: int,
        kinds: Sequence[type] = (),
        errors: Sequence[type[Exception]] = (),
    ) -> None:
        self._modules, self.seconds, self.megabytes = tuple(modules), seconds, megabytes
        self._kinds, self._errors = tuple(kinds), tuple(errors)
        self._told = False
        self._lock = threading.Lock()
        self._server: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Starts the waiting process; otherwise the first call does, and takes the seconds that its imports take."""
        with self._lock:
            self._start()

    def call(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """`function(*arguments, **options)`; these are pickled on their way to the fork, the result is not.

        Raises:
            LimitError: it took too long, or its process was ended.
            MeshError: its answer is none, as if what it read had taken it over.
            Exception: what the function raises, among it MemoryError.
        """
        if not hasattr(os, "fork"):
            self._tell("calls run in this process")
            return function(*arguments, **options)
        ours, theirs = socket.socketpair()
        process: int | None = None
        with ours:
            try:
                with theirs:
                    self._send(theirs.fileno())
                request = Connection(os.dup(ours.fileno()), readable=False)
                with contextlib.closing(request):
                    kinds = self._kinds, self._errors
                    request.send((function, arguments, options, self.seconds, self.megabytes, *kinds))
                # from the first answer on the clock runs: the first call waits for the imports, too
                begun = receive(_reader(ours, None), 0)  # said before it opened anything of a stranger's
                walls, process = begun["walls"], _hold(begun["process"])
                deadline = time.monotonic() + self.seconds + _GRACE
                result = receive(_reader(ours, deadline), self.megabytes * 2**20, self._kinds)
                failure = None
                if isinstance(result, dict) and "result" not in result:
                    failure = unpack_error(result, self._errors)
                elif not isinstance(result, dict):
                    raise FrameError("it answers neither with a result nor with an error")
            except TimeoutError:
                _end(process)  # it may have got rid of its alarm
                raise LimitError(f"it took longer than {self.seconds:g} seconds") from None
            except (EOFError, ConnectionError):
                raise LimitError(f"it took longer than {self.seconds:g} seconds, or more memory than it may") from None
            except FrameError as error:
                _end(process)
                raise MeshError("corrupt", f"the process that read it gave a damaged answer ({error})") from None
            finally:
                if process is not None:
                    os.close(process)
        if "seccomp" not in walls:
            self._tell("a process that reads a stranger's file could reach the network, and may write files")
        if failure is not None:
            raise failure
        return result["result"]

    def _tell(self, what: str) -> None:
        if not self._told:
            self._told = True
            warnings.warn(f"this system cannot confine processes: {what}", ConfinementWarning, stacklevel=3)

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


def _hold(process: int) -> int | None:
    """A descriptor that means this process even when its number is another's; None where there are none."""
    try:
        return os.pidfd_open(process)
    except (AttributeError, OSError):  # not Linux, or it ended already
        return None


def _end(process: int | None) -> None:
    if process is not None:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(process, signal.SIGKILL)


def _reader(line: socket.socket, deadline: float | None) -> Callable[[int], bytearray]:
    """Reads so many bytes of a line, up to a time of `time.monotonic`.

    Raises:
        TimeoutError: the time is over.
        EOFError: the other end is gone.
    """

    def read(size: int) -> bytearray:
        data = bytearray(size)
        view, place = memoryview(data), 0
        while place < size:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError
            line.settimeout(left)
            count = line.recv_into(view[place:])
            if count == 0:
                raise EOFError
            place += count
        return data

    return read


def _answer(request: Connection) -> None:
    """A fork's life: it takes what it is to do, gives up all else, does it and answers."""
    function, arguments, options, seconds, megabytes, kinds, errors = request.recv()
    _limit(seconds, megabytes)
    _write(request.fileno(), *pack({"walls": confine(), "process": os.getpid()}))
    try:
        answer = pack({"result": function(*arguments, **options)}, kinds)
    except Exception as error:
        answer = pack(pack_error(error, errors))
    _write(request.fileno(), *answer)


def _write(descriptor: int, head: bytes, arrays: Sequence[memoryview]) -> None:
    for part in (memoryview(head), *arrays):
        while part:
            part = part[os.write(descriptor, part) :]


def _limit(seconds: float, megabytes: int) -> None:
    import resource

    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # by default it ends the process
    signal.setitimer(signal.ITIMER_REAL, seconds)
    sys.dont_write_bytecode = True
    cpu = int(seconds) + 2  # should it get rid of the alarm
    for limit, most in (
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CPU, cpu),
    ):
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    held = Path("/proc/self/statm")
    if held.is_file():
        pages = int(held.read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + megabytes * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
