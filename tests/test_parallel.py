"""Work in several threads that ends as one."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from world import PATIENCE

from cvs.store.errors import InputError, OfflineError
from cvs.versions import parallel

#: Interrupts itself from a job, again and again, with threads that change places all the time.
INTERRUPTED = """
import os, signal, sys, threading
from cvs.versions import parallel

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

sys.setswitchinterval(1e-6)
for _ in range(int(sys.argv[1])):
    try:
        parallel.gather([int, interrupt, int, int], workers=4, stop=threading.Event())
    except KeyboardInterrupt:
        print("interrupted")
"""


def gather(*jobs: Callable[[], object], workers: int = 2) -> list[object]:
    return parallel.gather(jobs, workers=workers, stop=threading.Event())


def test_results_are_in_order() -> None:
    """Whichever job is ready first."""
    first = threading.Event()

    def slow() -> str:
        assert first.wait(PATIENCE)
        return "slow"

    def quick() -> str:
        first.set()
        return "quick"

    assert gather(slow, quick) == ["slow", "quick"]
    assert gather() == []


def test_the_first_error_ends_all() -> None:
    """Jobs that run are told, those that wait do not begin."""
    stop = threading.Event()
    begun = []

    def fail() -> None:
        raise InputError("no")

    def work() -> None:
        assert stop.wait(PATIENCE)
        parallel.check(stop)

    with pytest.raises(InputError, match="no"):
        parallel.gather([work, fail, *[lambda: begun.append(1)] * 20], workers=2, stop=stop)

    assert len(begun) < 20


def test_what_stopped_the_work_is_told() -> None:
    """A job that has threads of its own tells all others to stop before it has ended itself."""
    stop = threading.Event()
    others_ended = threading.Event()

    def fail() -> None:
        stop.set()
        assert others_ended.wait(PATIENCE)
        raise InputError("the reason")

    def work() -> None:
        assert stop.wait(PATIENCE)
        others_ended.set()
        parallel.check(stop)

    with pytest.raises(InputError, match="the reason"):
        parallel.gather([work, fail], workers=2, stop=stop)


def test_what_lacks_a_connection_is_told_together() -> None:
    """Each job without one, in one sentence, after all others were tried."""

    def offline(what: str) -> Callable[[], None]:
        def job() -> None:
            raise OfflineError(f"{what} is missing", hint="go on line")

        return job

    with pytest.raises(OfflineError) as caught:
        gather(offline("one"), int, offline("two"))
    assert caught.value.message == (
        "2 things are missing and no connection may be made: one is missing; two is missing"
    )
    assert caught.value.hint == "go on line"
    with pytest.raises(OfflineError, match=r"^one is missing$"):
        gather(offline("one"), int)


def test_signals_reach_what_jobs_start() -> None:
    """No child process is deaf to a Ctrl-C because of how the threads were started."""
    (blocked,) = gather(lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    assert blocked == signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def test_ctrl_c_at_any_moment() -> None:
    """It always ends the work, however it falls between the steps of threads, and says nothing."""
    count = 300
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(count)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )

    assert done.stdout == "interrupted\n" * count
    assert done.stderr == ""
