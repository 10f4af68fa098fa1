"""What a process gives up before it opens a stranger's file: network, writing, other processes (Linux).

Two walls of the kernel, neither of which needs root, and neither of which can be taken down again:

- seccomp refuses system calls: all that would reach the network, change a file, start a program or a process, signal
  or trace another process, or lift a limit. Files can be opened for reading only.
- Landlock refuses the same writes and connections by what they would do, whichever call asks for it.

What this process holds open already stays open. The numbers are those of the kernel's interface, which never change.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

NR, ARCH, ARGUMENTS = 0, 4, 16  # bytes into `struct seccomp_data`: the call, the machine, its arguments
LOAD, JUMP_EQUAL, JUMP_FROM, JUMP_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF; FROM: k or more
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
X32 = 0x40000000  # the other way to call x86-64, with other numbers
CLONE_THREAD, TIOCSTI = 0x10000, 0x5412
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | 0x400000  # the last: O_TMPFILE without its directory bit

# Numbers of system calls by machine as `platform` calls it; calls younger than 2019 have one number everywhere.
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CHECKED = {  # calls that are refused by their arguments only
    "x86_64": {"open": 2, "openat": 257, "clone": 56, "kill": 62, "tgkill": 234, "prlimit64": 302, "ioctl": 16},
    "aarch64": {"openat": 56, "clone": 220, "kill": 129, "tgkill": 131, "prlimit64": 261, "ioctl": 29},
}
_REFUSED = {
    "x86_64": (
        # socket, connect, accept, sendto, sendmsg, bind, listen, socketpair, accept4, sendmmsg
        (41, 42, 43, 44, 46, 49, 50, 53, 288, 307)
        # truncate, ftruncate, rename, mkdir, rmdir, creat, link, unlink, symlink, chmod, fchmod, chown, fchown, lchown
        + (76, 77, 82, 83, 84, 85, 86, 87, 88, 90, 91, 92, 93, 94)
        # utime, mknod, setxattr and its kin, removexattr and its kin, utimes, mq_open, mq_unlink
        + (132, 133, 188, 189, 190, 197, 198, 199, 235, 240, 241)
        # mkdirat, mknodat, fchownat, futimesat, unlinkat, renameat, linkat, symlinkat, fchmodat, utimensat, fallocate,
        # open_by_handle_at, renameat2
        + (258, 259, 260, 261, 263, 264, 265, 266, 268, 280, 285, 304, 316)
        # alarm, setitimer, fork, vfork, execve, ptrace, rt_sigqueueinfo, setrlimit, tkill, rt_tgsigqueueinfo,
        # process_vm_readv, process_vm_writev, execveat
        + (37, 38, 57, 58, 59, 101, 129, 160, 200, 297, 310, 311, 322)
        # what only root may do: pivot_root, chroot, acct, settimeofday, mount, umount2, swapon, swapoff, reboot,
        # sethostname, init_module, clock_settime, kexec_load, unshare, setns, finit_module
        + (155, 161, 163, 164, 165, 166, 167, 168, 169, 170, 175, 227, 246, 272, 308, 313)
        # add_key, request_key, keyctl, perf_event_open, bpf, userfaultfd
        + (248, 249, 250, 298, 321, 323)
    ),
    "aarch64": (
        (198, 203, 202, 206, 211, 200, 201, 199, 242, 269)
        + (45, 46, 52, 55, 5, 6, 7, 14, 15, 16, 180, 181)
        + (34, 33, 54, 35, 38, 37, 36, 53, 88, 47, 265, 276)
        + (103, 221, 117, 138, 164, 130, 240, 270, 271, 281)
        + (41, 51, 89, 170, 40, 39, 224, 225, 142, 161, 105, 112, 104, 97, 268, 273)
        + (217, 218, 219, 241, 280, 282)
    ),
}
# pidfd_send_signal, io_uring_setup, _enter, _register, open_tree, move_mount, fsopen, fsconfig, fsmount, fspick,
# pidfd_open, pidfd_getfd, mount_setattr, fchmodat2, setxattrat, removexattrat
_REFUSED_EVERYWHERE = (424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 442, 452, 463, 466)
# clone3 and openat2 take their flags in memory, where a filter cannot look: as if the kernel were too old for them
_UNKNOWN_EVERYWHERE = (435, 437)

# Landlock's rights: EXECUTE, WRITE_FILE, REMOVE_DIR to MAKE_SYM; with its version 2 REFER, with 3 TRUNCATE
_LANDLOCK_CALLS = (444, 446)  # landlock_create_ruleset, landlock_restrict_self
_LANDLOCK_FILES = 0x1FFF & ~0b1100  # without READ_FILE and READ_DIR
_NO_RULES_YET, _VERSION = None, 1


def confine() -> list[str]:
    """Gives up network, writing and other processes for good.

    Returns:
        the walls that hold now: "seccomp" and "landlock" as far as this system has them; none outside Linux.
    """
    if not sys.platform.startswith("linux"):
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return []
    walls = ["landlock"] if _landlock(libc) else []
    return [*walls, "seccomp"] if _seccomp(libc) else walls


def _landlock(libc: ctypes.CDLL) -> bool:
    create, restrict = _LANDLOCK_CALLS
    version = libc.syscall(create, _NO_RULES_YET, ctypes.c_size_t(0), _VERSION)
    if version < 1:
        return False
    files = _LANDLOCK_FILES | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0)
    # TCP from version 4 on, abstract sockets and signals from 6 on; older kernels know a shorter structure
    handled = struct.pack("=QQQ", files, 0b11, 0b11)[: 8 if version < 4 else 16 if version < 6 else 24]
    descriptor = libc.syscall(create, handled, ctypes.c_size_t(len(handled)), 0)
    if descriptor < 0:
        return False
    try:
        return libc.syscall(restrict, descriptor, 0) == 0
    finally:
        os.close(descriptor)


class _Program(ctypes.Structure):
    """`struct sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def _seccomp(libc: ctypes.CDLL) -> bool:
    machine = platform.machine()
    if machine not in _MACHINES or sys.byteorder != "little" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    code = b"".join(seccomp_program(machine, os.getpid()))
    program = _Program(len(code) // 8, code)
    return libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0


def seccomp_program(machine: str, process: int) -> list[bytes]:
    """The filter as BPF instructions, each a `struct sock_filter`.

    Args:
        machine: "x86_64" or "aarch64".
        process: the only one that may be signaled.
    """

    def step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
        return struct.pack("=HBBI", code, if_true, if_false, value)

    def argument(number: int) -> bytes:
        return step(LOAD, ARGUMENTS + 8 * number)  # its lower half

    refuse, allow = step(RETURN, REFUSE | errno.EPERM), step(RETURN, ALLOW)

    def checked(call: int, *test: bytes) -> list[bytes]:
        """`test` jumps over one instruction to allow a call."""
        return [step(JUMP_EQUAL, call, 0, len(test) + 2), *test, refuse, allow]

    program = [step(LOAD, ARCH), step(JUMP_EQUAL, _MACHINES[machine], 1, 0), refuse, step(LOAD, NR)]
    if machine == "x86_64":
        program += [step(JUMP_FROM, X32, 0, 1), refuse]
    calls = _CHECKED[machine]
    if "open" in calls:
        program += checked(calls["open"], argument(1), step(JUMP_ANY_BIT, WRITING, 0, 1))
    program += checked(calls["openat"], argument(2), step(JUMP_ANY_BIT, WRITING, 0, 1))
    program += checked(calls["clone"], argument(0), step(JUMP_ANY_BIT, CLONE_THREAD, 1, 0))
    for name in ("kill", "tgkill"):
        program += checked(calls[name], argument(0), step(JUMP_EQUAL, process, 1, 0))
    # a limit may be asked for, not set: the new one is a pointer, of which neither half may tell more than 0
    upper = step(LOAD, ARGUMENTS + 8 * 2 + 4)
    program += checked(calls["prlimit64"], argument(2), step(JUMP_EQUAL, 0, 0, 2), upper, step(JUMP_EQUAL, 0, 1, 0))
    program += checked(calls["ioctl"], argument(1), step(JUMP_EQUAL, TIOCSTI, 0, 1))  # typing into the terminal
    for call in (*_REFUSED[machine], *_REFUSED_EVERYWHERE):
        program += [step(JUMP_EQUAL, call, 0, 1), refuse]
    for call in _UNKNOWN_EVERYWHERE:
        program += [step(JUMP_EQUAL, call, 0, 1), step(RETURN, REFUSE | errno.ENOSYS)]
    return [*program, allow]
