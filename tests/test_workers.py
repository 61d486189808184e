"""Work that is shared among processes or threads."""

import errno
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cvs.store import workers
from cvs.store.errors import InputError, StoreError
from cvs.store.progress import Task
from cvs.store.workers import Advance, spread

#: Pieces enough to be shared.
COUNT = 2 * workers.SMALL


class Counting(Task):
    """Counts what is done."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, amount: int) -> None:
        self.done += amount


@pytest.fixture(params=["processes", "threads"])
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    """In which way work is shared: threads where this process has some already."""
    if request.param == "processes":
        yield request.param
        return
    stop = threading.Event()
    other = threading.Thread(target=stop.wait)
    other.start()
    yield request.param
    stop.set()
    other.join()


def numbers(index: int, slot: memoryview, _: Advance) -> None:
    slot[:4] = (index + 1).to_bytes(4, "little")
    slot[4:] = os.getpid().to_bytes(4, "little")


def run(work: workers.Work, count: int = 4, task: Task | None = None) -> memoryview:
    return spread(work, COUNT, 8, workers=count, task=task or Task())


def test_every_piece_is_done_once(kind: str) -> None:
    """Each result lies in its place and is counted; processes are used where that is safe."""
    task = Counting()
    rows = list(struct.iter_unpack("<II", run(numbers, task=task)))

    assert [number for number, _ in rows] == list(range(1, COUNT + 1))
    assert task.done == COUNT
    makers = {maker for _, maker in rows}
    assert (makers == {os.getpid()}) == (kind == "threads")


@pytest.mark.parametrize("count", [0, 1, 4])
@pytest.mark.usefixtures("kind")
def test_what_is_done_beside(count: int) -> None:
    """All is prepared in order, each piece before it is begun; all that is done is taken once."""
    ready = mmap.mmap(-1, COUNT)
    prepared: list[int] = []
    taken: list[int] = []

    def before(pieces: range) -> None:
        assert "meanwhile" not in events
        prepared.extend(pieces)
        ready[pieces.start : pieces.stop] = b"\1" * len(pieces)

    def work(index: int, slot: memoryview, _: Advance) -> None:
        slot[0] = ready[index]

    def after(pieces: range, results: memoryview) -> None:
        assert all(results[index] for index in pieces)
        taken.extend(pieces)

    events: list[str] = []
    spread(
        work,
        COUNT,
        1,
        workers=count,
        task=Task(),
        before=before,
        meanwhile=lambda: events.append("meanwhile"),
        after=after,
    )
    assert prepared == list(range(COUNT)) == sorted(taken)
    assert events == ["meanwhile"]


@pytest.mark.parametrize("which", ["before", "meanwhile", "after"])
@pytest.mark.usefixtures("kind")
def test_what_is_done_beside_fails(which: str) -> None:
    """It ends the work; no worker is left, waiting for more."""
    here, there = os.pipe()

    def fail(*_: object) -> None:
        raise InputError("no")

    threads = threading.active_count()
    beside: dict[str, Any] = {which: fail}
    with pytest.raises(InputError, match="no"):
        spread(numbers, COUNT, 8, workers=4, task=Task(), **beside)
    assert threading.active_count() == threads
    os.close(there)
    # At the end of the pipe nobody holds its other side any more.
    assert os.read(here, 1) == b""
    os.close(here)


@pytest.mark.parametrize("count", [0, 1])
def test_one_worker_is_this_process(count: int) -> None:
    """Nothing is shared where there is nobody to share with."""
    results = run(numbers, count)
    assert int.from_bytes(results[4:8], "little") == os.getpid()


def test_little_work_is_done_here() -> None:
    """A second process costs more than a little work."""
    results = spread(numbers, workers.SMALL - 1, 8, workers=4, task=Task())
    assert int.from_bytes(results[4:8], "little") == os.getpid()
    assert len(spread(numbers, 0, 8, workers=4, task=Task())) == 0


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a"),
        InputError("no", hint="cure"),
        ValueError("a defect"),
    ],
)
@pytest.mark.usefixtures("kind")
def test_the_first_failure_is_raised(error: Exception) -> None:
    """With everything that it says, and after all workers have ended."""

    def fail(index: int, _slot: memoryview, advance: Advance) -> None:
        advance(1)
        if index >= 20:
            raise error

    with pytest.raises(type(error)) as caught:
        run(fail)

    assert str(caught.value) == str(error)
    assert vars(caught.value) == vars(error)


def test_a_worker_that_is_killed() -> None:
    """It is an error that says so, not a result that is missing."""

    def die(index: int, _slot: memoryview, advance: Advance) -> None:
        advance(1)
        if index == 30:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(StoreError, match="SIGKILL"):
        run(die)


def test_ctrl_c_ends_all_workers() -> None:
    """Workers do not outlive who waits for them; Ctrl-C is the business of that one alone."""
    here, there = os.pipe()

    def endless(index: int, _slot: memoryview, advance: Advance) -> None:
        if not index:
            os.kill(os.getppid(), signal.SIGINT)
        while True:
            advance(1)

    with pytest.raises(KeyboardInterrupt):
        run(endless)
    os.close(there)
    # At the end of the pipe nobody holds its other side any more.
    assert os.read(here, 1) == b""
    os.close(here)


def test_ctrl_c_amid_a_fork() -> None:
    """Ctrl-C at the moment at which a worker begins is not thrown away, and leaves no worker."""
    # In a process of its own: what is called at a fork is called for the life of the process, and
    # a signal goes to any thread that there is.
    done = subprocess.run(
        [sys.executable, "-c", _AMID_A_FORK, str(COUNT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("interrupted\nno worker is left\n", "")


_AMID_A_FORK = """
import os, signal, sys
from cvs.store.progress import Task
from cvs.store.workers import spread

signal.signal(signal.SIGINT, signal.default_int_handler)
amid = [True]

def interrupt():
    if amid:
        amid.clear()
        os.kill(os.getpid(), signal.SIGINT)

os.register_at_fork(after_in_parent=interrupt)
try:
    spread(lambda index, slot, advance: None, int(sys.argv[1]), 1, workers=4, task=Task())
except KeyboardInterrupt:
    print("interrupted")
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("no worker is left")
"""


def test_workers_end_with_their_parent() -> None:
    """A process that is killed leaves no worker that goes on writing."""
    here, there = os.pipe()
    child = os.fork()
    if not child:
        os.close(here)

        def endless(_index: int, _slot: memoryview, advance: Advance) -> None:
            os.write(there, b"x")
            while True:
                advance(1)

        run(endless)
        os._exit(0)
    os.close(there)
    assert os.read(here, 1) == b"x"
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while os.read(here, 100):
        continue
    os.close(here)


@pytest.mark.parametrize("count", [workers.SMALL, 4096 * 64 + 1, 5 * 4096 * 64])
def test_any_number(count: int) -> None:
    """Every piece is done, also where there are more than a pipe holds the numbers of."""

    def mark(_index: int, slot: memoryview, _: Advance) -> None:
        slot[0] = 1

    assert bytes(spread(mark, count, 1, workers=2, task=Task())) == b"\1" * count


def test_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as processors, more for a server that lets them wait."""
    count: Callable[[bool], int] = workers.count_for
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert (count(True), count(False)) == (8, 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert (count(True), count(False)) == (1, 16)
