"""Fetching one file over several connections into a partial file, digested as it comes.

The calling thread watches: it starts connections while they make it quicker, tells the progress,
and ends everything at an error or a Ctrl-C. What was written stays for the next run.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from cvs.store import apart
from cvs.store.copying import Copied
from cvs.store.errors import SourceError
from cvs.store.history import History
from cvs.store.partial import PartialFile
from cvs.store.progress import Task
from cvs.store.trail import Trail
from cvs.versions import parallel
from cvs.versions.connections import FEWEST, MOST, Connections
from cvs.versions.ranges import Range, Ranges
from cvs.versions.remote import Body, Changed, Passing, Remote, Reply
from cvs.versions.retry import Retry

#: Bytes of a connection that are read and written at once. For more than 128 KiB the allocator asks
#: the kernel for fresh pages each time.
CHUNK = 120 << 10

#: What is fetched twice after a kill: of each connection at most so many bytes, or a part of the
#: file where that is more.
_NOTED = 32 << 10
_NOTES = 1 << 15

#: And nothing is noted before so much time has passed, in seconds, unless it is so much.
_NOTE_SECONDS = 0.004
_MUCH = 1 << 20

#: Bytes after which those who digest are told.
_TOLD = 1 << 20

#: Seconds between two looks at what goes on.
_TICK = 0.05

#: Seconds over which rates are compared before there are more connections, and what they must gain
#: to be kept.
_TRIAL = 0.5
_GAIN = 1.3

#: Bytes per second from which on more connections only take work from each other.
_PLENTY = 150e6

#: A transfer that brings less than so many bytes in so many seconds stalls.
_STALL_BYTES = 1 << 10
_STALL_SECONDS = 60.0


class Wanted(NamedTuple):
    """What is known of a file before it is fetched."""

    size: int | None
    is_digest_known: bool
    """Whether its bytes will be compared with a digest: then they may come from several versions
    of what a server has."""


def fetch(
    remote: Remote,
    file: PartialFile,
    wanted: Wanted,
    *,
    connections: Connections,
    task: Task,
    stop: threading.Event,
    reserve: Callable[[int], None],
) -> Copied:
    """Completes a file, and digests all of it.

    Args:
        reserve: called with the bytes that are still to come, once that is known; raises
            StoreError where there is no room for them.

    Raises:
        SourceError: the server does not give it.
        Changed: its server has another version now; nothing of this one is kept.
        StoreError: there is no room; what is there is kept.
        Stopped: `stop` was set.
    """
    transfer = _Transfer(remote, file, wanted, connections, task, stop, reserve)
    try:
        return apart.run(transfer.run, stop.set)
    except Changed:
        file.reset()
        raise


class _Worker:
    """A connection's thread."""

    def __init__(
        self, work: "Callable[[_Worker, Reply | None], None]", reply: Reply | None
    ) -> None:
        self.body: Body | None = None
        self.ended = threading.Event()
        # Held while bytes are written: who has set `ended` under it knows that no more will be.
        self.gate = threading.Lock()
        self.thread = threading.Thread(target=work, args=(self, reply), name="fetch", daemon=True)

    def end(self) -> None:
        """Returns when it writes no more; its thread ends soon after."""
        with self.gate:
            self.ended.set()
        body = self.body
        if body is not None:
            body.end()


class _Notes:
    """Notes what is written of a range: often enough, and not so often that it takes time."""

    def __init__(self, file: PartialFile, at: int, least: int) -> None:
        self._file = file
        self._noted = at
        self._least = least
        self._when = time.monotonic()

    def look(self, at: int) -> None:
        """Notes what was written up to a place, if that is much or some time ago."""
        count = at - self._noted
        if count < self._least:
            return
        now = time.monotonic()
        if count >= _MUCH or now - self._when >= _NOTE_SECONDS:
            self.end(at)
            self._when = now

    def end(self, at: int) -> None:
        """Notes all that was written up to a place."""
        if at > self._noted:
            self._file.wrote(self._noted, at)
            self._noted = at


class _Pace:
    """How many connections a file is worth, by what more of them gained."""

    def __init__(self, each: int | None) -> None:
        self.limit = each or FEWEST
        self._is_settled = each is not None
        self._before: float | None = None
        self._since = (time.monotonic(), 0)

    def settle(self, limit: int) -> None:
        """Ends the trying: the server wants no more connections than these."""
        self.limit = limit
        self._is_settled = True

    def look(self, arrived: int, busy: int) -> None:
        """Compares what came since the last change with what came before it."""
        if self._is_settled:
            return
        now = time.monotonic()
        if busy < self.limit:
            self._since = (now, arrived)
            return
        began, there = self._since
        if now - began < _TRIAL:
            return
        rate = (arrived - there) / (now - began)
        if self._before is not None and rate < _GAIN * self._before:
            self.settle(self.limit // 2)
        elif rate > _PLENTY or self.limit >= MOST:
            self._is_settled = True
        else:
            self.limit = min(MOST, self.limit * 2)
        self._before = rate
        self._since = (now, arrived)


class _Transfer:
    def __init__(
        self,
        remote: Remote,
        file: PartialFile,
        wanted: Wanted,
        connections: Connections,
        task: Task,
        stop: threading.Event,
        reserve: Callable[[int], None],
    ) -> None:
        self._remote, self._file, self._wanted = remote, file, wanted
        self._connections, self._task, self._stop = connections, task, stop
        self._reserve = reserve
        self._pace = _Pace(connections.each)
        # Whether a connection was given that has no thread yet, and the answer that it has got.
        self._is_spare = False
        self._first: Reply | None = None
        # Of everything below, and of who is told how far the file is there.
        self._lock = threading.Lock()
        self._workers: list[_Worker] = []
        self._error: BaseException | None = None
        self._arrived = 0
        self._told = 0
        self._trailed = 0

    def run(self) -> Copied:
        """Fetches and digests."""
        if not self._connections.first(self._stop):
            raise parallel.Stopped("stopped")
        self._is_spare = True
        try:
            self._begin()
            self._trail = Trail(
                self._file.descriptor, self._digests, self._file.is_good, self._reopen
            )
            with self._trail:
                self._trail.tell(self._ranges.there.prefix())
                return self._watch()
        finally:
            for worker in self._workers:
                worker.end()
            self._put_down(self._first)
            if self._is_spare:
                self._connections.give()

    # Before the first byte

    def _begin(self) -> None:
        """Asks the server for the first missing range, unless all is there."""
        wanted = self._wanted
        history = self._file.history()
        known = wanted.size if history.size is None else history.size
        if (known is None and history.there.total()) or wanted.size not in (None, known):
            history = self._forget()
            known = wanted.size
        self._use(history, known)
        if self._ranges.is_whole and history.size is not None:
            self._task.total(history.size)
            self._task.skip(history.size)
            return
        retry = Retry(self._remote.shown, self._stop)
        is_for_all = False
        while True:
            parallel.check(self._stop)
            start, end = self._first_range(known, is_for_all)
            try:
                # A digest says more than a name: where one is known, a server that calls the same
                # file otherwise today is no reason to fetch all of it again.
                name = "" if wanted.is_digest_known else history.validator
                self._first = self._remote.open(start, end, name)
                if not (is_for_all or self._first.validator or wanted.is_digest_known):
                    # Nothing would say that another answer is of the same file.
                    is_for_all = self._first.ranges
                    if is_for_all:
                        self._first.body.close()
                        continue
                self._accept(self._first, history)
                return
            except Changed:
                if not history.there.total():
                    raise
                history, known = self._forget(), wanted.size
                self._use(history, known)
            except Passing as error:
                retry.again(error)

    def _first_range(self, size: int | None, is_for_all: bool) -> tuple[int, int | None]:
        """What to ask for first: a piece of what is missing, or the whole file."""
        if is_for_all:
            return 0, None
        piece = self._ranges.piece
        if size is None:
            return 0, piece
        start, end = next(self._ranges.there.gaps(size), (0, piece))
        return start, min(end, start + piece)

    def _use(self, history: History, size: int | None) -> None:
        self._digests = history.digests
        self._ranges = Ranges(size, history.there)

    def _forget(self) -> History:
        self._file.reset()
        return self._file.history()

    def _accept(self, reply: Reply, history: History) -> None:
        """Takes the first answer for what the file is."""
        wanted = self._wanted
        if wanted.size is not None and reply.size not in (None, wanted.size):
            raise SourceError(
                f"{self._remote.shown} has {reply.size} bytes instead of {wanted.size}"
            )
        size = reply.size if reply.size is not None else wanted.size
        if size is None and reply.ranges:
            raise SourceError(
                f"{self._remote.shown} gives a part of the file and does not say how long it is"
            )
        may_join = bool(reply.validator) or wanted.is_digest_known
        if history.there.total() and (size != history.size or not may_join):
            reply.body.close()
            raise Changed(f"{self._remote.shown} changed since a part of it was fetched")
        self._validator = reply.validator
        if (history.size, history.validator) != (size, reply.validator):
            self._file.is_version(size, reply.validator)
        self._use(history, size)
        if not reply.ranges or not may_join:
            # One answer has to bring all of it.
            self._pace.settle(1)
            self._ranges.piece = size or CHUNK
        self._may_join = may_join
        if size is not None:
            there = history.there.total()
            self._task.total(size)
            self._task.skip(there)
            self._reserve(size - there)
            self._file.reserve(size)
        self._note = max(_NOTED, (size or 0) // _NOTES)

    # The calling thread

    def _watch(self) -> Copied:
        moved = time.monotonic(), 0
        while True:
            parallel.check(self._stop)
            self._trail.check()
            with self._lock:
                if self._error is not None:
                    raise self._error
                arrived, is_whole = self._arrived, self._ranges.is_whole
                if is_whole:
                    assert self._ranges.size is not None
                    self._trail.end(self._ranges.size)
            if arrived > self._told:
                self._task.advance(arrived - self._told)
                self._told = arrived
            if is_whole:
                found = self._trail.result(_TICK)
                if found is not None:
                    return found
                continue
            self._pace.look(arrived, self._busy)
            self._employ()
            moved = self._look_for_stalls(moved, arrived)
            for worker in self._workers[:1]:
                worker.thread.join(_TICK)

    def _look_for_stalls(self, moved: tuple[float, int], arrived: int) -> tuple[float, int]:
        now = time.monotonic()
        if arrived - moved[1] >= _STALL_BYTES:
            return now, arrived
        if now - moved[0] < _STALL_SECONDS:
            return moved
        for worker in self._workers:
            body = worker.body
            if body is not None:
                body.end()
        return now, arrived

    @property
    def _busy(self) -> int:
        return sum(not worker.ended.is_set() for worker in self._workers)

    def _employ(self) -> None:
        """Starts connections that have something to do."""
        self._workers = [one for one in self._workers if one.thread.is_alive()]
        while self._busy < self._pace.limit:
            with self._lock:
                if self._error is not None or not self._ranges.has_more(time.monotonic()):
                    return
            if not self._is_spare:
                if self._busy:
                    given = self._connections.another()
                else:
                    given = self._connections.first(self._stop)
                if not given:
                    return
            worker = _Worker(self._work, self._first)
            self._workers.append(worker)
            self._is_spare, self._first = False, None
            apart.start(worker.thread)

    def _reopen(self, start: int, end: int) -> None:
        """What an earlier process wrote is not what it was: it has to be fetched again."""
        with self._lock:
            self._file.lost(start)
            self._ranges.reopen(start, end)
            self._trail.rewind(self._ranges.there.prefix())
            self._trailed = start

    # The threads of the connections

    def _work(self, worker: _Worker, reply: Reply | None) -> None:
        try:
            self._serve(worker, reply)
        except BaseException as error:
            with self._lock:
                if self._error is None and not worker.ended.is_set():
                    self._error = error
        finally:
            worker.ended.set()
            self._connections.give()

    def _serve(self, worker: _Worker, reply: Reply | None) -> None:
        """Fetches one range after the other."""
        retry = Retry(self._remote.shown, self._stop)
        rate = 0.0
        while True:
            with self._lock:
                if worker.ended.is_set() or self._error is not None or self._is_one_too_many(reply):
                    break
                one = self._ranges.take(time.monotonic(), rate)
            if one is None:
                break
            before, failure = one.at, None
            try:
                if reply is None:
                    asked = time.monotonic()
                    reply = self._remote.open(one.at, one.end, self._validator)
                    self._suit(time.monotonic() - asked, rate)
                self._stream(worker, one, reply)
                rate = one.rate(time.monotonic())
            except Passing as error:
                failure = error
            finally:
                with self._lock:
                    self._ranges.ended(one)
                reply = None
            if one.at - before >= CHUNK:
                retry.progressed()
            if failure is not None:
                if self._leaves_it_to_others(worker):
                    break
                if before < one.at and not self._may_join:
                    raise SourceError(f"{self._remote.shown} {failure} and cannot be resumed")
                retry.again(failure)
        self._put_down(reply)

    def _put_down(self, reply: Reply | None) -> None:
        """Ends an answer that nobody will read."""
        if reply is not None:
            reply.body.close()

    def _is_one_too_many(self, reply: Reply | None) -> bool:
        """Whether other files, or the server, want this connection gone."""
        busy = self._busy
        return reply is None and busy > 1 and (busy > self._pace.limit or self._connections.crowded)

    def _leaves_it_to_others(self, worker: _Worker) -> bool:
        """After a failure: a server may not want so many connections; the last one is patient."""
        with self._lock:
            busy = self._busy
            if busy > 1:
                self._pace.settle(busy - 1)
                worker.ended.set()
            return busy > 1

    def _suit(self, latency: float, rate: float) -> None:
        with self._lock:
            if self._pace.limit > 1 and rate:
                self._ranges.suit(latency, rate)

    def _stream(self, worker: _Worker, one: Range, reply: Reply) -> None:
        """Writes what an answer brings of a range."""
        body, begun, notes = reply.body, one.at, _Notes(self._file, one.at, self._note)
        skip = one.at - reply.start
        worker.body = body
        try:
            while (one.end is None or one.at < one.end) and not worker.ended.is_set():
                data = body.read(CHUNK if one.end is None else min(CHUNK, one.end - one.at + skip))
                if not data:
                    break
                if skip:
                    # A server that knows no ranges gives again what is there.
                    data, skip = data[skip:], max(0, skip - len(data))
                with worker.gate:
                    if worker.ended.is_set():
                        return
                    self._put(one, data)
                    notes.look(one.at)
            self._check_end(one, reply)
        finally:
            worker.body = None
            body.close()
            with worker.gate:
                if not worker.ended.is_set():
                    notes.end(one.at)
        if one.end is not None and one.at < one.end and not worker.ended.is_set():
            got, all_ = one.at - begun, one.end - begun
            raise Passing(f"broke off after {got} of {all_} bytes")

    def _put(self, one: Range, data: bytes) -> None:
        with self._lock:
            room = self._ranges.claim(one, len(data))
        self._file.write(memoryview(data)[:room], one.at)
        with self._lock:
            self._ranges.arrived(one, room)
            self._arrived += room
            prefix = self._ranges.there.prefix()
            if prefix - self._trailed >= _TOLD:
                self._trailed = prefix
                self._trail.tell(prefix)

    def _check_end(self, one: Range, reply: Reply) -> None:
        """Of a server that does not say how long the file is: it ends where it ends."""
        if one.end is None:
            with self._lock:
                self._ranges.set_size(one.at)
        elif reply.size is None and one.at >= one.end and reply.body.read(1):
            raise SourceError(f"{self._remote.shown} has more than {one.end} bytes")
        elif reply.size is None and one.at < one.end:
            raise SourceError(f"{self._remote.shown} has {one.at} bytes instead of {one.end}")
