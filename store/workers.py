"""Work in many small pieces, shared among processes; the results lie in memory that all see.

Processes rather than threads: a piece is some system calls and a short digest, and threads spend
much of that waiting for the interpreter. A process that has threads already is not forked, which
is unsafe; its pieces are shared among threads, and where there is little to do all is done here.
"""

import collections
import gc
import mmap
import os
import pickle
import select
import signal
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from cvs.store import apart
from cvs.store.errors import StoreError
from cvs.store.progress import Task

#: Called by a long piece often while it works; it is how a worker is told to stop.
Advance = Callable[[int], None]

#: Does one piece: its index, where its result goes, and what to call.
Work = Callable[[int, memoryview, Advance], None]

#: Pieces that are not worth a second process: the work of some ten milliseconds.
SMALL = 200

#: Pieces that a worker takes at once: few enough that none works long alone at the end.
_BATCH = 64

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


def _nothing() -> None:
    """There is nothing else to do."""


def spread(
    work: Work,
    count: int,
    width: int,
    *,
    workers: int,
    task: Task,
    meanwhile: Callable[[], None] = _nothing,
) -> memoryview:
    """Does all pieces of some work.

    Args:
        work: does one piece; called in other processes or threads, in any order.
        count: the number of pieces.
        width: bytes of one result.
        workers: how many at most.
        task: is told of pieces that are done.
        meanwhile: done in this process, while the others work if there are any.

    Returns:
        The results one after the other, `width` bytes each; zeros where a piece wrote none.

    Raises:
        Whatever a piece raised first.
        StoreError: a worker was killed.
    """
    if workers < 2 or count < SMALL:
        results = memoryview(bytearray(width * count))
        meanwhile()
        for index in range(count):
            work(index, results[index * width : (index + 1) * width], _go_on)
            task.advance(1)
        return results
    size = max(min(_BATCH, count // workers), count // _BATCHES + 1)
    # Neighbours in a batch are near each other on disk as well.
    batches = [range(start, min(start + size, count)) for start in range(0, count, size)]
    if threading.active_count() > 1:
        failed: list[BaseException] = []
        return apart.run(
            lambda: _in_threads(work, batches, count, width, workers, task, meanwhile, failed),
            lambda: failed.append(_Stop()),
        )
    return _in_processes(work, batches, count, width, workers, task, meanwhile)


def _go_on(_: int) -> None:
    """There is nobody who could tell this process to stop but a signal."""


def _in_threads(
    work: Work,
    batches: Sequence[range],
    count: int,
    width: int,
    workers: int,
    task: Task,
    meanwhile: Callable[[], None],
    failed: list[BaseException],
) -> memoryview:
    """Ends at the next piece when something is put into `failed`."""
    results = memoryview(bytearray(width * count))
    waiting = collections.deque(batches)

    def advance(_: int) -> None:
        if failed:
            raise _Stop

    def run() -> None:
        try:
            while not failed:
                try:
                    batch = waiting.popleft()
                except IndexError:
                    return
                advance(0)
                for index in batch:
                    work(index, results[index * width : (index + 1) * width], advance)
                task.advance(len(batch))
        except _Stop:
            return
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, name=f"worker-{n}") for n in range(workers)]
    try:
        for thread in threads:
            thread.start()
        meanwhile()
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

    def count(self, worker: int, pieces: int) -> None:
        """Counts pieces that one worker has done."""
        self._done[worker] += pieces

    def news(self) -> int:
        """Pieces done since the last call, by all."""
        total = sum(self._done)
        fresh, self._told = total - self._told, total
        return fresh


def _in_processes(
    work: Work,
    batches: Sequence[range],
    count: int,
    width: int,
    workers: int,
    task: Task,
    meanwhile: Callable[[], None],
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
            # What a Ctrl-C raises while a process is forked, Python throws away; before the child
            # is known here, nobody would wait for it.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
            try:
                child = os.fork()
                if not child:
                    _work(work, batches, width, shared, worker, numbers, teller, parent, before)
                os.close(teller)
                children[answer] = child
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        meanwhile()
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
    mask: Iterable[int],
) -> NoReturn:
    """The life of a worker process. It ends without the clean-up that its parent will do."""
    status = 1
    try:
        # Ctrl-C reaches the whole group; the parent decides, and removes what was begun.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        # What was made before is shared memory as long as nobody touches it, as a collector does.
        gc.disable()

        def advance(_: int) -> None:
            if shared.stopped or os.getppid() != parent:
                raise _Stop

        while said := os.read(numbers, _NUMBER.size):
            batch = batches[_NUMBER.unpack(said)[0]]
            advance(0)
            for index in batch:
                work(index, shared.results[index * width : (index + 1) * width], advance)
            shared.count(worker, len(batch))
        status = 0
    except _Stop:
        status = 0
    except BaseException as error:
        os.write(teller, pickle.dumps(error))
    finally:
        os._exit(status)
