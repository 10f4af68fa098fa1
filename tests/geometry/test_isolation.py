from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import stat
import struct
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import trimesh

from modeling_ulip2.geometry import Material, Mesh, MeshError, read_mesh
from modeling_ulip2.geometry import isolation as isolation_module
from modeling_ulip2.geometry.isolation import ConfinementWarning, Isolation, LimitError
from modeling_ulip2.geometry.shapes import Shape, read_shape

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")


@pytest.fixture(scope="module")
def isolation() -> Iterator[Isolation]:
    isolation = Isolation(["tests.geometry.test_isolation"], seconds=3, megabytes=256, kinds=[Shape, Mesh, Material])
    yield isolation
    isolation.close()


def double(array: np.ndarray, plus: int = 0) -> np.ndarray:
    return 2 * array + plus


def take(megabytes: int) -> int:
    return len(np.ones(megabytes * 2**17)) // 2**17


def write(path: Path) -> None:
    path.write_text("mine")


def stop(number: int) -> None:
    os.kill(os.getpid(), number)


def test_results_and_errors_come_back(isolation: Isolation, tmp_path: Path):
    assert isolation.call(double, np.arange(5), plus=1).tolist() == [1, 3, 5, 7, 9]
    large = np.zeros(3 * 2**20)
    assert len(isolation.call(double, large)) == len(large)
    with pytest.raises(MeshError) as caught:
        isolation.call(read_mesh, tmp_path / "none.obj")
    assert caught.value.reason == "missing" and caught.value.path == tmp_path / "none.obj"


def test_each_call_is_a_process(isolation: Isolation):
    assert len({os.getpid(), isolation.call(os.getpid), isolation.call(os.getpid)}) == 3
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: isolation.call(double, np.int64(number)), range(24)))
    assert answers == [2 * number for number in range(24)]


def test_time(isolation: Isolation):
    with pytest.raises(LimitError, match="longer than 3 seconds"):
        isolation.call(time.sleep, 3600)
    assert isolation.call(double, np.int64(4)) == 8


def ignore_the_alarm() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(3600)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the process")
def test_a_process_that_ignores_its_alarm_is_ended(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(isolation_module, "_GRACE", 0.0)
    isolation = Isolation(["tests.geometry.test_isolation"], seconds=1, megabytes=256)
    try:
        with pytest.raises(LimitError, match="longer than 1 seconds"):
            isolation.call(ignore_the_alarm)
        server = isolation._server.pid
        children = Path(f"/proc/{server}/task/{server}/children")
        deadline = time.monotonic() + 60
        while children.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert children.read_text() == ""
    finally:
        isolation.close()


def test_memory(isolation: Isolation):
    assert isolation.call(take, 64) == 64
    with pytest.raises(MemoryError):
        isolation.call(take, 1024)


def attack(isolation: Isolation, function: Callable, *arguments: object) -> None:
    """Calls what must fail; what it leaves behind is looked at by the test."""
    with pytest.raises(OSError, match="not permitted|Permission denied|too large|File exists"):
        isolation.call(function, *arguments)


def test_nothing_is_written_moved_or_deleted(isolation: Isolation, tmp_path: Path):
    victim, folder = tmp_path / "victim", tmp_path / "folder"
    victim.write_text("mine")
    folder.mkdir()
    before = victim.stat()
    for function, arguments in [
        (write, (tmp_path / "file",)),
        (write, (victim,)),
        (open, (victim, "ab")),
        (open, (victim, "r+b")),
        (os.open, (victim, os.O_RDONLY | os.O_TRUNC)),
        (os.open, (tmp_path, os.O_TMPFILE | os.O_RDWR)) if hasattr(os, "O_TMPFILE") else (write, (victim,)),
        (os.unlink, (victim,)),
        (os.rename, (victim, tmp_path / "moved")),
        (os.truncate, (victim, 0)),
        (os.chmod, (victim, 0)),
        (os.utime, (victim, (0, 0))),
        (os.link, (victim, tmp_path / "second")),
        (os.symlink, (victim, tmp_path / "second")),
        (os.mkdir, (tmp_path / "new",)),
        (os.rmdir, (folder,)),
        (os.mkfifo, (tmp_path / "pipe",)),
    ]:
        attack(isolation, function, *arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "victim"]
    after = victim.stat()
    assert victim.read_text() == "mine" and (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert isolation.call(Path.read_text, victim) == "mine"  # reading is what it is for


def connect(family: int, kind: int, address: object) -> None:
    with socket.socket(family, kind) as line:
        line.connect(address)
        line.send(b"out")


def test_the_network_is_out_of_reach(isolation: Isolation, tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(tmp_path / "line"))
        local.listen()
        connect(socket.AF_INET, socket.SOCK_STREAM, listener.getsockname())  # it listens
        listener.accept()[0].close()
        for family, kind, address in [
            (socket.AF_INET, socket.SOCK_STREAM, listener.getsockname()),
            (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 9)),
            (socket.AF_UNIX, socket.SOCK_STREAM, str(tmp_path / "line")),
        ]:
            attack(isolation, connect, family, kind, address)
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


def run_program() -> None:
    os.execv("/bin/true", ["true"])


def lift(limit: int) -> None:
    import resource

    resource.setrlimit(limit, (2**20, 2**20))


def test_other_processes_and_limits_are_out_of_reach(isolation: Isolation):
    import resource

    attack(isolation, os.fork)
    attack(isolation, run_program)
    attack(isolation, os.kill, os.getpid(), 0)
    with pytest.raises((OSError, ValueError)):
        isolation.call(lift, resource.RLIMIT_FSIZE)
    assert isolation.call(in_a_thread) == "done"  # which libraries need


def in_a_thread() -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(str, "done").result()


def say(data: bytes) -> None:
    """Answers with bytes of its own, as a process would that a file has taken over."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                while data:
                    data = data[os.write(int(name), data) :]
    os._exit(0)


class Evil:
    def __reduce__(self):
        return Path.write_text, (MARK, "executed")


MARK = Path(tempfile.gettempdir()) / f"executed-by-{os.getpid()}"


def frame(header: object, arrays: bytes = b"", announced: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<4sIQ", b"ULF1", len(text), len(arrays) if announced is None else announced) + text + arrays


LIES = {
    "a pickle": pickle.dumps((True, Evil())),
    "a pickle as multiprocessing sends it": struct.pack("!i", 100) + pickle.dumps((True, Evil())),
    "a pickle in a frame": frame({"dict": {"result": {"bytes": {"array": ["|u1", [9]]}}}}, b"x" * 8),
    "arrays larger than it may send": frame({"dict": {"result": 1}}, announced=2**40),
    "a header larger than it may send": struct.pack("<4sIQ", b"ULF1", 2**31, 0),
    "an array larger than announced": frame({"dict": {"result": {"array": ["<f8", [2**40, 2**40]]}}}, b"x" * 8),
    "objects": frame({"dict": {"result": {"array": ["|O", [1]]}}}, b"x" * 8),
    "negative sizes": frame({"dict": {"result": {"array": ["<f8", [-1]]}}}),
    "no JSON": frame(b"\xff\xfe"),
    "nested without end": frame(b"[" * 100_000),
    "another class": frame({"dict": {"result": {"data": ["Evil", {"dict": {}}]}}}),
    "a shape of another kind": frame({"dict": {"result": {"data": ["Shape", {"xyz": "text"}]}}}),
    "no result": frame(5),
    "an unknown error": frame({"dict": {"error": "SystemExit", "message": "bye"}}),
    "a private method": frame({"dict": {"result": {"__init__": []}}}),
}


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the lie needs to find its line")
@pytest.mark.parametrize("lie", LIES)
def test_nothing_that_it_answers_is_executed(isolation: Isolation, lie: str):
    with pytest.raises(MeshError, match="gave a damaged answer") as caught:
        isolation.call(say, LIES[lie])
    assert caught.value.reason == "corrupt" and not MARK.exists()
    with pytest.raises(LimitError):
        isolation.call(say, frame({"dict": {"result": 1}})[:-1])  # cut off


def test_shapes_come_back_as_they_are(isolation: Isolation, tmp_path: Path):
    path = tmp_path / "box.ply"
    trimesh.creation.box().export(path)
    here, there = read_shape(path, 64), isolation.call(read_shape, path, 64)
    for name in ("xyz", "rgb"):
        np.testing.assert_array_equal(getattr(there, name), getattr(here, name))
        assert getattr(there, name).dtype == getattr(here, name).dtype
    assert (there.warnings, there.up_axis) == (here.warnings, here.up_axis)
    assert there.mesh is not None and here.mesh is not None
    np.testing.assert_array_equal(there.mesh.vertices, here.mesh.vertices)
    there.xyz[0] = 0  # it may be changed, as any other


def test_a_system_without_walls_is_told_once(monkeypatch: pytest.MonkeyPatch):
    open_air = Isolation(["tests.geometry.test_isolation"], seconds=3, megabytes=256)
    begun = {"walls": [], "process": os.getpid()}
    monkeypatch.setattr(isolation_module, "receive", lambda read, size, kinds=(): {"result": 1} if size else begun)
    try:
        with pytest.warns(ConfinementWarning, match="cannot confine"):
            open_air.call(os.getpid)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            open_air.call(os.getpid)
    finally:
        open_air.close()


def test_a_mesh_far_away_comes_back_with_all_its_digits(isolation: Isolation, tmp_path: Path):
    path = tmp_path / "far.obj"
    corners = np.array([[0, 0, 0], [0.01, 0, 0], [0.01, 0.01, 0], [0, 0.01, 0.003]]) + [500_000.123, 5_000_000.456, 9]
    path.write_text("".join(f"v {x!r} {y!r} {z!r}\n" for x, y, z in corners.tolist()) + "f 1 2 3 4\n")
    here, apart = read_shape(path, 100), isolation.call(read_shape, path, 100)
    assert apart.xyz.dtype == np.float64 and np.array_equal(apart.xyz, here.xyz)
    assert here.mesh is not None and apart.mesh is not None
    assert apart.mesh.vertices.dtype == np.float64 and np.array_equal(apart.mesh.vertices, here.mesh.vertices)
    assert np.array_equal(apart.mesh.vertices, corners)


def test_a_crash_is_an_error(isolation: Isolation):
    with pytest.raises(LimitError):
        isolation.call(stop, signal.SIGSEGV)
    assert isolation.call(double, np.int64(4)) == 8


def test_the_waiting_process_is_started_again(isolation: Isolation):
    parent = isolation.call(os.getppid)
    os.kill(parent, signal.SIGKILL)
    isolation._server.wait()
    assert isolation.call(double, np.int64(4)) == 8
    assert isolation.call(os.getppid) != parent
