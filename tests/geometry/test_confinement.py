"""The filter of system calls on both machines, by an interpreter of its own, and each wall alone on this one."""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modeling_ulip2.geometry import confinement

ALLOW, EPERM, ENOSYS = "allow", errno.EPERM, errno.ENOSYS
ME = 4711
# the same calls on both machines: x86-64, AArch64, arguments, verdict
CALLS = {
    "read": (0, 63, (), ALLOW),
    "write to what is open": (1, 64, (), ALLOW),
    "mmap": (9, 222, (), ALLOW),
    "openat for reading": (257, 56, (0, 0, os.O_RDONLY | os.O_CLOEXEC), ALLOW),
    "openat of a folder": (257, 56, (0, 0, os.O_RDONLY | os.O_DIRECTORY), ALLOW),
    "openat for writing": (257, 56, (0, 0, os.O_WRONLY), EPERM),
    "openat for both": (257, 56, (0, 0, os.O_RDWR), EPERM),
    "openat that creates": (257, 56, (0, 0, os.O_CREAT), EPERM),
    "openat that empties": (257, 56, (0, 0, os.O_TRUNC), EPERM),
    "openat2": (437, 437, (), ENOSYS),
    "socket": (41, 198, (2, 1, 0), EPERM),
    "connect": (42, 203, (), EPERM),
    "bind": (49, 200, (), EPERM),
    "sendto": (44, 206, (), EPERM),
    "unlinkat": (263, 35, (), EPERM),
    "renameat2": (316, 276, (), EPERM),
    "mkdirat": (258, 34, (), EPERM),
    "symlinkat": (266, 36, (), EPERM),
    "linkat": (265, 37, (), EPERM),
    "ftruncate": (77, 46, (), EPERM),
    "fchmodat": (268, 53, (), EPERM),
    "utimensat": (280, 88, (), EPERM),
    "execve": (59, 221, (), EPERM),
    "clone of a process": (56, 220, (17,), EPERM),
    "clone of a thread": (56, 220, (0x3D0F00,), ALLOW),
    "clone3": (435, 435, (), ENOSYS),
    "kill another": (62, 129, (1, 9), EPERM),
    "kill all": (62, 129, (2**64 - 1, 9), EPERM),
    "abort": (234, 131, (ME, ME, 6), ALLOW),
    "ptrace": (101, 117, (), EPERM),
    "process_vm_readv": (310, 270, (), EPERM),
    "getrlimit": (302, 261, (0, 1, 0, 2**40), ALLOW),
    "setrlimit": (302, 261, (0, 1, 2**40), EPERM),
    "setrlimit, low half": (302, 261, (0, 1, 4096), EPERM),
    "setitimer": (38, 103, (), EPERM),
    "io_uring_setup": (425, 425, (), EPERM),
    "bpf": (321, 280, (), EPERM),
    "mount": (165, 40, (), EPERM),
    "typing into the terminal": (16, 29, (0, 0x5412), EPERM),
    "asking the terminal": (16, 29, (0, 0x5401), ALLOW),
}


def verdict(program: list[bytes], machine: int, number: int, arguments: tuple[int, ...]) -> object:
    """Runs a filter as the kernel does."""
    data = struct.pack("<IIQ6Q", number, machine, 0, *arguments, *[0] * (6 - len(arguments)))
    accumulator, place = 0, 0
    while True:
        code, if_true, if_false, value = struct.unpack("=HBBI", program[place])
        place += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif code == 0x06:
            return ALLOW if value == 0x7FFF0000 else value - 0x00050000
        else:
            true = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            place += if_true if true else if_false


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_verdicts(machine: str, call: str):
    numbers, arguments, expected = CALLS[call][:2], *CALLS[call][2:]
    program = confinement.seccomp_program(machine, ME)
    assert len(program) < 4096  # the kernel's limit
    arch = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
    number = numbers[machine == "aarch64"]
    assert verdict(program, arch[machine], number, arguments) == expected
    assert verdict(program, 0x40000003, number, arguments) == EPERM  # calls of a 32-bit program
    if machine == "x86_64":
        assert verdict(program, arch[machine], 0x40000000 | number, arguments) == EPERM


def survives(wall: Callable[[], object], attack: Callable[[], object]) -> bool:
    """Whether an attack succeeds behind a wall, in a process of its own; skips where there is no such wall."""
    child = os.fork()
    if child == 0:
        code = 3
        try:
            if wall():
                attack()
                code = 0
            else:
                code = 4
        except OSError:
            code = 2
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 4:
        pytest.skip("this kernel has no such wall")
    assert code in (0, 2)
    return code == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="walls of Linux")
@pytest.mark.parametrize("name", ["none", "landlock", "seccomp"])
def test_each_wall_alone_keeps_files(tmp_path: Path, name: str):
    def wall() -> object:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(confinement.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        walls = {"none": lambda: True, "landlock": confinement._landlock, "seccomp": confinement._seccomp}
        return walls[name](libc) if name != "none" else True

    victim = tmp_path / "victim"
    victim.write_text("mine")
    free = name == "none"
    assert survives(wall, lambda: victim.read_text()) and survives(wall, lambda: os.listdir(tmp_path))
    assert survives(wall, lambda: (tmp_path / "new").write_text("x")) == free
    assert survives(wall, lambda: os.mkdir(tmp_path / "folder")) == free
    assert survives(wall, lambda: os.truncate(victim, 0)) == free
    assert survives(wall, lambda: os.unlink(victim)) == free
    if name != "landlock":  # which knows networks since its version 4 only
        assert survives(wall, lambda: socket.socket().close()) == free


def test_other_systems_have_no_walls(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert confinement.confine() == []
