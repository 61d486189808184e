"""Work in many small pieces, shared among processes; the results lie in memory that all see.

Processes rather than threads: a piece is some system calls and a short digest, and threads spend
much of that waiting for the interpreter. A process that has threads already is not forked, which
is unsafe; its pieces are shared among threads, and where there is little to do all is done here.
"""

import collections
import mmap
import os
import pickle
import select
import signal
import struct
import threading
from collections.abc import Callable, Sequence
from typing import NoReturn

from cvs.store.errors import StoreError
from cvs.store.progress import Task

#: Counts bytes as done. A piece calls it often: it is also how a worker is told to stop.
Advance = Callable[[int], None]

#: Does one piece: its index, where its result goes, and what counts.
Work = Callable[[int, memoryview, Advance], None]

#: What a piece costs besides its bytes, in bytes: opening and closing takes as long as copying so
#: many.
PIECE = 100_000

#: Work that is not worth a second process, in the same unit.
SMALL = 48_000_000

#: At most so many batches: their numbers must fit into a pipe that nobody reads yet.
_BATCHES = 4096

#: Seconds between two looks at how far the workers are.
_TICK = 0.1

_NUMBER = struct.Struct("<I")


class _Stop(Exception):
    """Another worker failed, or whoever waits for the results is gone."""


def count_for(filesystem_is_local: bool) -> int:
    """How many workers serve: as many as processors, more where they wait for a server."""
    return min(8, len(os.sched_getaffinity(0))) if filesystem_is_local else 16


def spread(work: Work, sizes: Sequence[int], width: int, *, workers: int, task: Task) -> memoryview:
    """Does all pieces of some work.

    Args:
        work: does one piece; called in other processes or threads, in any order.
        sizes: bytes of each piece, for sharing evenly.
        width: bytes of one result.
        workers: how many at most.
        task: is told of bytes that are done.

    Returns:
        The results one after the other, `width` bytes each; zeros where a piece wrote none.

    Raises:
        Whatever a piece raised first.
        StoreError: a worker was killed.
    """
    cost = sum(sizes) + PIECE * len(sizes)
    if workers < 2 or len(sizes) < 2 or cost < SMALL:
        results = memoryview(bytearray(width * len(sizes)))
        for index in range(len(sizes)):
            work(index, results[index * width : (index + 1) * width], task.advance)
        return results
    batches = _batches(sizes, cost // (workers * 16) + 1)
    if threading.active_count() > 1:
        return _in_threads(work, batches, len(sizes), width, workers, task)
    return _in_processes(work, batches, len(sizes), width, workers, task)


def _batches(sizes: Sequence[int], aim: int) -> list[range]:
    """Runs of neighbouring pieces of about the same cost, the dearest first."""
    aim = max(aim, sum(sizes) // _BATCHES + PIECE)
    found: list[tuple[int, range]] = []
    start, cost = 0, 0
    for index, size in enumerate(sizes):
        cost += size + PIECE
        if cost >= aim:
            found.append((cost, range(start, index + 1)))
            start, cost = index + 1, 0
    if start < len(sizes):
        found.append((cost, range(start, len(sizes))))
    # Stable: batches that cost the same stay in the order of the tree, near each other on disk.
    found.sort(key=lambda item: -(item[0] // aim))
    return [batch for _, batch in found]


def _in_threads(
    work: Work, batches: Sequence[range], count: int, width: int, workers: int, task: Task
) -> memoryview:
    results = memoryview(bytearray(width * count))
    waiting = collections.deque(batches)
    failed: list[BaseException] = []

    def advance(amount: int) -> None:
        if failed:
            raise _Stop
        task.advance(amount)

    def run() -> None:
        try:
            while not failed:
                try:
                    batch = waiting.popleft()
                except IndexError:
                    return
                for index in batch:
                    work(index, results[index * width : (index + 1) * width], advance)
        except _Stop:
            return
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, name=f"worker-{n}") for n in range(workers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as error:
        failed.append(error)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise
    if failed:
        raise failed[0]
    return results


class _Shared:
    """What the processes have in common: results, how far each is, and whether to stop."""

    def __init__(self, size: int, workers: int) -> None:
        self.memory = memoryview(mmap.mmap(-1, size + 8 * workers + 1))
        self.results = self.memory[:size]
        self._done = self.memory[size : size + 8 * workers].cast("Q")
        self._stop = self.memory[size + 8 * workers :]
        self._told = 0

    def stop(self) -> None:
        """Asks every worker to end at its next piece."""
        self._stop[0] = 1

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return bool(self._stop[0])

    def count(self, worker: int, amount: int) -> None:
        """Counts bytes of one worker."""
        self._done[worker] += amount

    def news(self) -> int:
        """Bytes done since the last call, by all."""
        total = sum(self._done)
        fresh, self._told = total - self._told, total
        return fresh


def _in_processes(
    work: Work, batches: Sequence[range], count: int, width: int, workers: int, task: Task
) -> memoryview:
    shared = _Shared(width * count, workers)
    numbers, filler = os.pipe()
    for number in range(len(batches)):
        os.write(filler, _NUMBER.pack(number))
    os.close(filler)
    parent = os.getpid()
    children: dict[int, int] = {}
    try:
        for worker in range(min(workers, len(batches))):
            answer, teller = os.pipe()
            child = os.fork()
            if not child:
                _work(work, batches, width, shared, worker, numbers, teller, parent)
            os.close(teller)
            children[answer] = child
        _wait(children, shared, task)
    except BaseException:
        shared.stop()
        while children:
            answer, child = children.popitem()
            os.close(answer)
            os.waitpid(child, 0)
        raise
    finally:
        os.close(numbers)
    task.advance(shared.news())
    return shared.results


def _wait(children: dict[int, int], shared: _Shared, task: Task) -> None:
    """Until every worker has ended; the first failure is raised when all have."""
    failure: BaseException | None = None
    while children:
        ready = select.select(list(children), [], [], _TICK)[0]
        task.advance(shared.news())
        for answer in ready:
            # What a worker says is shorter than a pipe holds, and it says it once: at its end.
            with os.fdopen(answer, "rb") as file:
                child = children.pop(answer)
                said = file.read()
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status:
                shared.stop()
                failure = failure or _failure(said, status)
    if failure is not None:
        raise failure


def _failure(said: bytes, status: int) -> BaseException:
    if said:
        error = pickle.loads(said)
        assert isinstance(error, BaseException)
        return error
    if status < 0:
        return StoreError(f"a worker of cvs was ended by {signal.Signals(-status).name}")
    return StoreError(f"a worker of cvs ended with status {status}")


def _work(
    work: Work,
    batches: Sequence[range],
    width: int,
    shared: _Shared,
    worker: int,
    numbers: int,
    teller: int,
    parent: int,
) -> NoReturn:
    """The life of a worker process. It ends without the clean-up that its parent will do."""
    status = 1
    try:
        # Ctrl-C reaches the whole group; the parent decides, and removes what was begun.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

        def advance(amount: int) -> None:
            if shared.stopped or os.getppid() != parent:
                raise _Stop
            shared.count(worker, amount)

        while said := os.read(numbers, _NUMBER.size):
            for index in batches[_NUMBER.unpack(said)[0]]:
                work(index, shared.results[index * width : (index + 1) * width], advance)
        status = 0
    except _Stop:
        status = 0
    except BaseException as error:
        os.write(teller, pickle.dumps(error))
    finally:
        os._exit(status)
