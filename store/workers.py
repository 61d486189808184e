"""Work in many small pieces, shared among processes; the results lie in memory that all see.

Processes rather than threads: a piece is some system calls and a short digest, and threads spend
much of that waiting for the interpreter. A process that has threads already is not forked, which
is unsafe; its pieces are shared among threads, and where there is little to do all is done here.
"""

import gc
import mmap
import os
import queue
import select
import signal
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, NoReturn

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

#: A worker says the number of each batch that it has done; this, before why it failed.
_NUMBER = struct.Struct("<I")
_FAILED = 0xFFFFFFFF

#: Bytes of what a worker said that are read at once: as much as a pipe holds.
_MOST = 1 << 16


class _Stop(Exception):
    """Another worker failed, or whoever waits for the results is gone."""


def count_for(filesystem_is_local: bool) -> int:
    """How many workers serve: as many as processors, more where they wait for a server."""
    return min(8, len(os.sched_getaffinity(0))) if filesystem_is_local else 16


def _nothing(*_: object) -> None:
    """There is nothing else to do."""


class _Host(NamedTuple):
    """What is done by whoever asks for the work, while others do it."""

    before: Callable[[range], None]
    meanwhile: Callable[[], None]
    after: Callable[[range, memoryview], None]


def spread(
    work: Work,
    count: int,
    width: int,
    *,
    workers: int,
    task: Task,
    batch: int = _BATCH,
    before: Callable[[range], None] = _nothing,
    meanwhile: Callable[[], None] = _nothing,
    after: Callable[[range, memoryview], None] = _nothing,
) -> memoryview:
    """Does all pieces of some work.

    Args:
        work: does one piece; called in other processes or threads, in any order.
        count: the number of pieces.
        width: bytes of one result.
        workers: how many at most.
        task: is told of pieces that are done.
        batch: how many pieces a worker takes at once, at most; 1 for pieces that are long.
        before: prepares for some pieces; called in ascending order, before they are begun.
        meanwhile: done once, when all is prepared.
        after: takes pieces that are done, and all results; called in any order.

    `before`, `meanwhile` and `after` are called one at a time, while the others work if there are
    any.

    Returns:
        The results one after the other, `width` bytes each; zeros where a piece wrote none.

    Raises:
        Whatever a piece raised first.
        StoreError: a worker was killed.
    """
    host = _Host(before, meanwhile, after)
    if workers < 2 or count * _BATCH < SMALL * batch:
        results = memoryview(bytearray(width * count))
        if count:
            before(range(count))
        meanwhile()
        for index in range(count):
            work(index, results[index * width : (index + 1) * width], _go_on)
            task.advance(1)
        if count:
            after(range(count), results)
        return results
    size = max(min(batch, count // workers), count // _BATCHES + 1)
    # Neighbours in a batch are near each other on disk as well.
    batches = [range(start, min(start + size, count)) for start in range(0, count, size)]
    if threading.active_count() > 1:
        failed: list[BaseException] = []
        return apart.run(
            lambda: _in_threads(work, batches, count, width, workers, task, host, failed),
            lambda: failed.append(_Stop()),
        )
    return _in_processes(work, batches, count, width, workers, task, host)


def _go_on(_: int) -> None:
    """There is nobody who could tell this process to stop but a signal."""


def _in_threads(
    work: Work,
    batches: Sequence[range],
    count: int,
    width: int,
    workers: int,
    task: Task,
    host: _Host,
    failed: list[BaseException],
) -> memoryview:
    """Ends at the next piece when something is put into `failed`."""
    results = memoryview(bytearray(width * count))
    waiting: queue.SimpleQueue[range | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[range | None] = queue.SimpleQueue()

    def advance(_: int) -> None:
        if failed:
            raise _Stop

    def run() -> None:
        try:
            while batch := waiting.get():
                advance(0)
                for index in batch:
                    work(index, results[index * width : (index + 1) * width], advance)
                done.put(batch)
        except _Stop:
            return
        except BaseException as error:
            failed.append(error)
        finally:
            done.put(None)

    threads = [threading.Thread(target=run, name=f"worker-{n}") for n in range(workers)]
    try:
        for thread in threads:
            thread.start()
        for batch in batches:
            host.before(batch)
            waiting.put(batch)
        for _ in threads:
            waiting.put(None)
        host.meanwhile()
        running = workers
        while running:
            if finished := done.get():
                host.after(finished, results)
                task.advance(len(finished))
            else:
                running -= 1
    except BaseException as error:
        failed.append(error)
        raise
    finally:
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
    if failed:
        raise failed[0]
    return results


class _Shared:
    """What the processes have in common: results, and whether to stop."""

    def __init__(self, size: int) -> None:
        self.memory = memoryview(mmap.mmap(-1, size + 1))
        self.results = self.memory[:size]
        self._stop = self.memory[size:]

    def stop(self) -> None:
        """Asks every worker to end at its next piece."""
        self._stop[0] = 1

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return bool(self._stop[0])


def _in_processes(
    work: Work,
    batches: Sequence[range],
    count: int,
    width: int,
    workers: int,
    task: Task,
    host: _Host,
) -> memoryview:
    shared = _Shared(width * count)
    numbers, filler = os.pipe()
    parent = os.getpid()
    children: dict[int, int] = {}
    try:
        try:
            for _ in range(min(workers, len(batches))):
                answer, teller = os.pipe()
                # What a Ctrl-C raises while a process is forked, Python throws away; before the
                # child is known here, nobody would wait for it.
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
                try:
                    child = os.fork()
                    if not child:
                        # The numbers end when no process can write one any more.
                        os.close(filler)
                        _work(work, batches, width, shared, numbers, teller, parent, mask)
                    os.close(teller)
                    children[answer] = child
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for number, batch in enumerate(batches):
                host.before(batch)
                # They all fit into the pipe: whoever reads may be slow, or gone.
                os.write(filler, _NUMBER.pack(number))
        finally:
            os.close(filler)
        host.meanwhile()
        _wait(children, shared, batches, task, host)
    except BaseException:
        shared.stop()
        while children:
            answer, child = children.popitem()
            os.close(answer)
            os.waitpid(child, 0)
        raise
    finally:
        os.close(numbers)
    return shared.results


def _wait(
    children: dict[int, int],
    shared: _Shared,
    batches: Sequence[range],
    task: Task,
    host: _Host,
) -> None:
    """Until every worker has ended; the first failure is raised when all have."""
    failure: BaseException | None = None
    said = dict.fromkeys(children, b"")
    while children:
        for answer in select.select(list(children), [], [])[0]:
            text = os.read(answer, _MOST)
            said[answer] = failing = _heed(said[answer] + text, shared, batches, task, host)
            if text:
                continue
            child = children.pop(answer)
            os.close(answer)
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if status:
                shared.stop()
                failure = failure or _failure(failing[_NUMBER.size :], status)
    if failure is not None:
        raise failure


def _heed(said: bytes, shared: _Shared, batches: Sequence[range], task: Task, host: _Host) -> bytes:
    """Takes the batches that a worker said are done; returns what it said after that."""
    at = 0
    while len(said) - at >= _NUMBER.size:
        (number,) = _NUMBER.unpack_from(said, at)
        if number == _FAILED:
            break
        at += _NUMBER.size
        if not shared.stopped:
            host.after(batches[number], shared.results)
        task.advance(len(batches[number]))
    return said[at:]


def _failure(said: bytes, status: int) -> BaseException:
    if said:
        import pickle

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
            os.write(teller, said)
        status = 0
    except _Stop:
        status = 0
    except BaseException as error:
        import pickle

        os.write(teller, _NUMBER.pack(_FAILED) + pickle.dumps(error))
    finally:
        os._exit(status)
