"""Work apart from the thread that hears of signals."""

import signal
import subprocess
import sys
import threading

import pytest
from world import PATIENCE

from cvs.store import apart


def nothing() -> None:
    pass


def test_what_it_gives_and_raises() -> None:
    """The work's own result, and its own error."""

    def fail() -> None:
        raise LookupError("no")

    assert apart.run(lambda: 7, nothing) == 7
    assert apart.run(lambda: None, nothing) is None
    with pytest.raises(LookupError, match="no"):
        apart.run(fail, nothing)


def test_which_thread_works() -> None:
    """Another one where this is the main one, which alone is interrupted; else this one."""
    found = []

    def nested() -> None:
        found.append(threading.get_ident())
        found.append(apart.run(threading.get_ident, nothing))

    apart.run(nested, nothing)
    assert found[0] != threading.get_ident()
    assert found[0] == found[1]


def test_signals_are_not_held_back() -> None:
    """Neither here nor in what the work starts, once it runs."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())

    assert apart.run(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()), nothing) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_ctrl_c_ends_the_work_first() -> None:
    """It is raised when the work has ended, which was asked to."""
    # In a process of its own: a signal goes to any thread that there is, masked or not.
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED, str(PATIENCE)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("asked\ninterrupted\n", "")


_INTERRUPTED = """
import os, signal, sys, threading
from cvs.store import apart

signal.signal(signal.SIGINT, signal.default_int_handler)
asked = threading.Event()

def work():
    os.kill(os.getpid(), signal.SIGINT)
    if asked.wait(float(sys.argv[1])):
        print("asked", flush=True)

try:
    apart.run(work, asked.set)
except KeyboardInterrupt:
    print("interrupted")
"""
