"""Digesting a file while it is fetched: from the beginning, close behind what is there.

BLAKE3 and SHA-256 have a thread each and read what was written out of the page cache. What an
earlier process left is compared on the way with the digests that it noted; where they differ, all
from the last good one on has to be fetched again.
"""

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from blake3 import blake3

from cvs.store import apart
from cvs.store.copying import Copied
from cvs.store.history import MARK

#: Bytes that are read at once: what BLAKE3 is quickest with, and what stays in a core's own cache.
_PIECE = 1 << 20
_SMALL_PIECE = 1 << 18


class Trail:
    """Use as a context manager; the threads end with it.

    Args:
        descriptor: the file, open for reading.
        digests: of so many bytes from the beginning, multiples of MARK: what to compare with.
        good: told of each digest that is not in `digests`, from a thread.
        bad: told, from a thread, of the bytes (from, up to) that are not what they were; has to
            call `rewind` in the same moment in which they count as missing.
    """

    def __init__(
        self,
        descriptor: int,
        digests: Mapping[int, bytes],
        good: Callable[[int, bytes], None],
        bad: Callable[[int, int], None],
    ) -> None:
        self._descriptor = descriptor
        self._digests = dict(digests)
        self._good, self._bad = good, bad
        self._news = threading.Condition()
        self._there = 0
        self._size: int | None = None
        self._proven = 0
        self._ended = False
        self._failure: BaseException | None = None
        self._content = blake3()
        self._checksum = hashlib.sha256()
        self._threads = [
            threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
            for name, work in (("blake3", self._blake3), ("sha256", self._sha256))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            apart.start(thread)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._news:
            self._ended = True
            self._news.notify_all()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def tell(self, there: int) -> None:
        """Says how many bytes from the beginning are there."""
        with self._news:
            if there > self._there:
                self._there = there
                self._news.notify_all()

    def rewind(self, there: int) -> None:
        """Says that no more than so many bytes from the beginning are there after all."""
        with self._news:
            self._there = there
            self._size = None
            self._news.notify_all()

    def end(self, size: int) -> None:
        """Says that all of the file is there."""
        with self._news:
            self._there = self._size = size
            self._news.notify_all()

    def check(self) -> None:
        """Raises what keeps the digests from being computed, if anything does."""
        if self._failure is not None:
            raise self._failure

    def result(self, seconds: float) -> Copied | None:
        """The digests, after `end`; None if they are not computed within so many seconds."""
        for thread in self._threads:
            thread.join(seconds)
        self.check()
        if any(thread.is_alive() for thread in self._threads):
            return None
        assert self._size is not None
        return Copied(self._size, self._content.digest(), self._checksum.digest())

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            with self._news:
                self._failure = error
                self._news.notify_all()

    def _blake3(self) -> None:
        """Digests, compares and notes; what it has proven the other thread may digest."""
        buffer = memoryview(bytearray(_PIECE))
        at = mark = 0
        last = self._content.copy()
        while True:
            if not self._wait(lambda done: self._there > done, at):
                return
            upto = min(self._there, mark + MARK)
            self._read(self._content.update, buffer, at, upto)
            at = upto
            if at == mark + MARK:
                digest = self._content.digest()
                known = self._digests.pop(at, None)
                if known is not None and known != digest:
                    at, self._content = mark, last.copy()
                    self._reopen(mark)
                    continue
                if known is None:
                    self._good(at, digest)
                mark, last = at, self._content.copy()
            with self._news:
                # Bytes that are still to be compared are not handed on.
                self._proven = mark if any(one > at for one in self._digests) else at
                self._news.notify_all()

    def _sha256(self) -> None:
        buffer = memoryview(bytearray(_SMALL_PIECE))
        at = 0
        while True:
            if not self._wait(lambda done: self._proven > done, at):
                return
            upto = self._proven
            self._read(self._checksum.update, buffer, at, upto)
            at = upto

    def _wait(self, is_due: Callable[[int], bool], done: int) -> bool:
        """Waits for more to do; False at the end of the file, or of this work."""
        with self._news:
            self._news.wait_for(lambda: self._is_over(done) or is_due(done))
            return not self._is_over(done)

    def _is_over(self, done: int) -> bool:
        return self._ended or self._failure is not None or done == self._size

    def _reopen(self, good: int) -> None:
        """What lies behind `good` is not what an earlier process said."""
        end = max([self._there, *self._digests])
        self._digests.clear()
        self._bad(good, end)

    def _read(
        self, update: Callable[[memoryview], object], buffer: memoryview, at: int, end: int
    ) -> None:
        while at < end and not self._ended:
            count = os.preadv(self._descriptor, [buffer[: min(len(buffer), end - at)]], at)
            if not count:
                raise OSError(5, "a file ended before what was written to it")
            update(buffer[:count])
            at += count
