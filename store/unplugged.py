"""Unplugged: a process, and all that it starts, without a network.

A seccomp filter that a process puts on itself, before it runs what it is not to trust; it needs no
privileges and nothing takes it off. No socket can be opened, of any family: Unix sockets lead to
daemons that have a network. A pair of connected ones can, which leads nowhere else; programs talk
to their own children through it. (So it is for pairs of streams. One of datagrams could be sent to
any address.) Rings of io_uring would open sockets without a system call and are refused, as are
the descriptors of other processes. System calls of another architecture, by which one kernel can be
asked in two ways, end the process.

What a network file system shows can be read, as any file. Numbers: linux/seccomp.h,
linux/filter.h, linux/audit.h, and the tables of system calls.
"""

import ctypes
import errno
import functools
import platform
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

from cvs.store.seal import Seal

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
_SECCOMP_MODE_FILTER = 2

_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000

#: Load a word of the call's description; compare it; mask it; decide.
_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
#: Where the description has the call's number, the architecture, and the lower halves of the
#: first arguments.
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24

_AF_UNIX, _SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_TYPE = 1, 1, 5, 0xF

#: The numbers of x32, which share the architecture of x86-64; no system call of arm64 has any.
_X32 = 0x40000000

#: io_uring_setup, io_uring_enter, io_uring_register: the same number everywhere.
_RINGS = (425, 426, 427)
_PIDFD_GETFD = 438


class _Machine(NamedTuple):
    """What of a machine's system calls has to do with sockets."""

    architecture: int
    socketpair: int
    refused: tuple[int, ...]
    """socket, connect, bind"""


_MACHINES = {
    "x86_64": _Machine(0xC000003E, 53, (41, 42, 49)),
    "aarch64": _Machine(0xC00000B7, 199, (198, 203, 200)),
}


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("when", ctypes.c_uint8),
        ("otherwise", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Instruction)))


def state() -> str:
    """What the kernel can do: `full` or `none: …` (why)."""
    if _machine() is None:
        return f"none: the system calls of {platform.machine()} are not known"
    # A kernel that filters looks for the program, which is nowhere.
    _libc().prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, None, 0, 0)
    if ctypes.get_errno() == errno.EFAULT:
        return "full"
    return "none: there is no seccomp here, or this container forbids it"


def make() -> Seal:
    """Prepares the filter, in the form of a seal; where it cannot be had that does nothing."""
    machine, found = _machine(), state()
    if machine is None or found != "full":
        return Seal(found, lambda: None, lambda: None)
    lines = _filter(machine)
    instructions = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), instructions)
    libc, pointer = _libc(), ctypes.byref(program)

    def apply() -> None:
        if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs")
        if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, pointer, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "seccomp")

    return Seal(found, apply, lambda: None)


def _filter(machine: _Machine) -> Sequence[tuple[int, int, int, int]]:
    """The program: code, instructions to skip when it is so and when not, value."""
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, machine.architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _REFUSE | errno.ENOSYS),
    ]
    for numbers, why in (
        (machine.refused, errno.EACCES),
        (_RINGS, errno.ENOSYS),
        ((_PIDFD_GETFD,), errno.EPERM),
    ):
        for number in numbers:
            lines += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE | why)]
    return [
        *lines,
        (_EQUAL, 1, 0, machine.socketpair),
        (_RETURN, 0, 0, _ALLOW),
        (_LOAD, 0, 0, _FIRST),
        (_EQUAL, 0, 4, _AF_UNIX),
        (_LOAD, 0, 0, _SECOND),
        (_AND, 0, 0, _SOCK_TYPE),
        (_EQUAL, 2, 0, _SOCK_STREAM),
        (_EQUAL, 1, 0, _SOCK_SEQPACKET),
        (_RETURN, 0, 0, _REFUSE | errno.EACCES),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _machine() -> _Machine | None:
    """This process's kind of machine: not that of its kernel, where that runs older programs."""
    if struct.calcsize("P") != 8 or sys.byteorder != "little":
        return None
    return _MACHINES.get(platform.machine())


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
