"""Runs a command and, when it ends, ends all that it started; run as a program.

    reaper.py COMMAND ARGUMENT…

A process group holds nobody who leaves it. Here whatever loses its parent becomes a child of this
process, and is found. The same when this process is told to end by SIGTERM, as it is when its own
parent is gone. The command cannot do that to this process: it is sealed off it.

Ends with the command's exit code, 128 + N if signal N ended it, 127 if it cannot be run. Standard
library alone: it is started by its path.
"""

import contextlib
import ctypes
import os
import signal
import struct
import sys

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER = 1, 38, 36
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
#: A Landlock domain that refuses to make devices, and signals to those outside of it. That a file
#: is renamed into another folder every domain refuses, unless it speaks of that.
_MAKE_DEVICE, _REFER, _SIGNALS = 1 << 6 | 1 << 11, 1 << 13, 1 << 1
_WITH_REFER, _WITH_SCOPES = 2, 6


def main(command: list[str]) -> int:
    """Runs a command; its exit code."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child = os.fork()
        if not child:
            _become(command, libc)
        while True:
            ended, status = os.wait()
            if ended == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_all()


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)


def _become(command: list[str], libc: ctypes.CDLL) -> None:
    """Never returns."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _leave(libc)
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be run: {error.strerror}\n")
        sys.stderr.flush()
    finally:
        os._exit(127)


def _leave(libc: ctypes.CDLL) -> None:
    """Enters a Landlock domain: nobody in it traces who is outside or, where the kernel can, ends
    them. Without Landlock there is nothing to enter."""
    version = libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), 1)
    if version < 1:
        return
    refer = _REFER if version >= _WITH_REFER else 0
    signals = _SIGNALS if version >= _WITH_SCOPES else 0
    attributes = (ctypes.c_uint64 * 3)(_MAKE_DEVICE | refer, 0, signals)
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    ruleset = libc.syscall(ctypes.c_long(_CREATE_RULESET), ctypes.byref(attributes), size, 0)
    if refer:
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        everywhere = struct.pack("=Qi", refer, root)
        libc.syscall(ctypes.c_long(_ADD_RULE), ruleset, 1, everywhere, 0)
        os.close(root)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if ruleset < 0 or libc.syscall(ctypes.c_long(_RESTRICT_SELF), ruleset, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    os.close(ruleset)


def _end_all() -> None:
    """Ends every child, and those that become children by that, until there is none."""
    while True:
        found = _children()
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            # Whoever is not seen cannot be ended, and would be waited for without end.
            os.waitpid(-1, 0 if found else os.WNOHANG)
        except ChildProcessError:
            return
        if not found:
            return


def _children() -> list[int]:
    own = os.getpid()
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name in parentheses may hold anything; the state and the parent follow it.
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if int(parent) == own and state != b"Z":
                    found.append(int(name))
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
