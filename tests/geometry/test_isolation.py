from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from modeling_ulip2.geometry import MeshError, read_mesh
from modeling_ulip2.geometry.isolation import Isolation, LimitError

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")


@pytest.fixture(scope="module")
def isolation() -> Iterator[Isolation]:
    isolation = Isolation(["tests.geometry.test_isolation"], seconds=3, megabytes=256)
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


def test_memory(isolation: Isolation):
    assert isolation.call(take, 64) == 64
    with pytest.raises(MemoryError):
        isolation.call(take, 1024)


def test_nothing_is_written(isolation: Isolation, tmp_path: Path):
    with pytest.raises(OSError, match="too large"):
        isolation.call(write, tmp_path / "file")


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
