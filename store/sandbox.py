"""A sandbox: running code that nobody has read so that it changes nothing but its own folders.

It is sealed (`seal.only`), has no network (`unplugged`), no terminal and no input, and ends with
all that it started when it ends, takes too long, or this process is gone (`reaper`). It can read
what this user can. Where the kernel cannot do all of that it is not run.
"""

import ctypes
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cvs.store import reaper, seal, unplugged
from cvs.store.errors import RunError

#: Bytes of what is said that are kept: the last ones.
_KEPT = 1 << 16

#: Seconds between two looks at whether it is to stop.
_LOOK = 0.2

#: Seconds in which whoever is told to end has to have ended all others.
_GRACE = 10.0

_PR_SET_PDEATHSIG = 1


class Done(NamedTuple):
    """What became of a command."""

    code: int | None
    """Its exit code, 128 + N if signal N ended it; None if it took too long."""
    said: str
    """The end of what it wrote, errors included."""


def check(what: str) -> None:
    """Raises RunError where there is no sandbox; `what` then is not run."""
    for state in (seal.state(), unplugged.state()):
        if state != "full":
            raise _refusal(what, state)


def run(
    command: Sequence[str],
    what: str,
    *,
    folder: str,
    variables: Mapping[str, str],
    writable: Iterable[str],
    seconds: float,
    stop: threading.Event | None = None,
) -> Done:
    """Runs a command in a sandbox until it ends.

    Args:
        what: what it is, for messages.
        folder: where it runs.
        variables: all that it gets: no secrets.
        writable: folders that it may write in; TMPDIR and HOME should lie there.
        seconds: how long it may take.
        stop: ends it when it is set, as if it had taken too long.

    Raises:
        RunError: there is no sandbox here.
    """
    sealed = seal.together(seal.only(writable), unplugged.make())
    libc = ctypes.CDLL(None)

    def begin() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        sealed.apply()

    try:
        if sealed.state != "full":
            raise _refusal(what, sealed.state)
        with subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, *command],
            cwd=folder,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=begin,
        ) as running:
            try:
                return _follow(running, seconds, stop)
            finally:
                _end(running)
    finally:
        sealed.close()


def _refusal(what: str, state: str) -> RunError:
    return RunError(
        f"{what} is not run: it cannot be sealed here, {state.removeprefix('none: ')}",
        hint="it takes Landlock (Linux 6.2) and seccomp, and a container that allows them",
    )


def _follow(
    running: "subprocess.Popen[bytes]", seconds: float, stop: threading.Event | None
) -> Done:
    """Reads what a process says until it ends or its time is over."""
    assert running.stdout is not None
    descriptor = running.stdout.fileno()
    waiting = select.poll()
    waiting.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + seconds
    said = bytearray()
    code = None
    while (left := deadline - time.monotonic()) > 0 and not (stop and stop.is_set()):
        if not waiting.poll(1000 * (min(left, _LOOK) if stop else left)):
            continue
        data = os.read(descriptor, _KEPT)
        if not data:
            # It may have closed that, and go on.
            try:
                code = running.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            break
        said += data
        del said[:-_KEPT]
    return Done(code, said.decode("utf-8", "replace"))


def _end(running: "subprocess.Popen[bytes]") -> None:
    """Ends a process that has not ended, with all that it started."""
    if running.poll() is not None:
        return
    running.terminate()
    try:
        running.wait(_GRACE)
    except subprocess.TimeoutExpired:
        # Its group is its own.
        os.killpg(running.pid, signal.SIGKILL)
