"""Worker processes: results in order, errors as they are, and one result lost where a process is killed."""

import faulthandler
import os
import signal
import time

import pytest

from modeling_ulip2.utils.workers import in_workers


class TwoFacedError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def work(position):
    if position % 7 == 3:
        faulthandler.disable()  # pytest's report of a crash that is meant
        os.kill(os.getpid(), signal.SIGSEGV if position % 2 else signal.SIGKILL)
    time.sleep(0.002 * (position % 3))
    return position, os.getpid(), bytes(300_000)  # more than a pipe holds


@pytest.mark.parametrize(("num_workers", "ahead"), [(1, 1), (1, 5), (2, 8), (3, 100)])
def test_whoever_is_killed_takes_one_result_along(num_workers, ahead):
    found = list(in_workers(work, 30, num_workers, ahead, lambda position: (position, None, b"")))
    assert [position for position, *_ in found] == list(range(30))
    assert [position for position, process, _ in found if process is None] == [3, 10, 17, 24]
    assert os.getpid() not in {process for _, process, _ in found}


def test_what_was_made_before_a_death_is_not_lost():
    results = in_workers(work, 4, 1, 4, lambda position: (position, None, b""))
    first = next(results)
    time.sleep(0.5)  # the process dies meanwhile
    assert [first[0], *(position for position, *_ in results)] == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [KeyError("x"), TwoFacedError("this", "that")])
def test_errors_come_back_with_their_trace(error):
    def fail(position):
        raise error

    expected = RuntimeError if isinstance(error, TwoFacedError) else KeyError
    with pytest.raises(expected, match="this and that" if expected is RuntimeError else "x") as caught:
        list(in_workers(fail, 3, 2, 4, lambda position: None))
    assert "in fail" in str(caught.value.__cause__)


def test_processes_end_with_who_asks():
    results = in_workers(lambda position: os.getpid(), 100, 2, 10, lambda position: None)
    processes = {next(results) for _ in range(6)}
    results.close()
    for process in processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_nothing_to_do_starts_nothing():
    assert list(in_workers(work, 0, 2, 4, lambda position: None)) == []
