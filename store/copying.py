"""Copying one file with its digests in one pass: each byte is read once and written once.

A large file is copied inside the kernel by one thread while others digest what is written, close
behind, out of the page cache. They read the copy, not the source: what is digested is what is
stored, whoever changes the source meanwhile; and a file system that can share blocks does so.
"""

import contextlib
import os
import queue
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from blake3 import blake3

from cvs.store import apart, follower, fs
from cvs.store.follower import Follower

if TYPE_CHECKING:
    import hashlib

#: Large enough to be cheap per byte, small enough to stay in the cache of one core.
CHUNK = 1 << 18

#: Files up to this size are not worth a thread.
LARGE = 8 << 20

#: What BLAKE3 is given at once when it lags behind: enough for several threads.
_BEHIND = 2 << 20

#: Bytes that are digested sooner than another thread could be told of them.
_ALONE = 1 << 15

#: How far the copying goes between two words to those who digest.
_STEP = 1 << 20


class Copied(NamedTuple):
    """What is known of a file after copying."""

    size: int
    digest: bytes
    """BLAKE3, 32 bytes."""
    sha256: bytes
    """32 bytes; empty if it was not wanted."""


def _sha256(data: bytes = b"") -> "hashlib._Hash":
    # Loads OpenSSL, which most commands and all trees do without.
    import hashlib

    return hashlib.sha256(data)


def of(data: bytes, sha256: bool) -> Copied:
    """What is known of a file whose content is at hand."""
    checksum = _sha256(data).digest() if sha256 else b""
    return Copied(len(data), blake3(data).digest(), checksum)


class _Hasher(Protocol):
    def update(self, data: bytes | memoryview, /) -> object: ...

    def digest(self) -> bytes: ...


def copy(
    source: int,
    target: int,
    *,
    size: int,
    sha256: bool,
    advance: Callable[[int], None],
    threads: int = 1,
    mapped: bool = False,
) -> Copied:
    """Copies an open file into an empty one.

    Args:
        source: open for reading, at its beginning.
        target: open for reading and writing.
        size: what the source has, as far as known; what is copied is what is there.
        sha256: whether to compute that as well.
        advance: told of bytes that are copied; whatever it raises ends the copying.
        threads: for BLAKE3 alone; more than one never in a process that was forked, where the
            threads that its parent had are missing.
        mapped: whether processes of their own may map a large copy (`store/follower.py`).
    """
    if size > LARGE:
        mapped = mapped and size >= follower.LARGE
        pipeline = _Pipeline(source, target, sha256, advance, threads, mapped)
        return apart.run(pipeline.run, pipeline.stop)
    content, checksum = blake3(), _sha256() if sha256 else None
    # One read finds a small file and, being short, its end.
    done, wanted = 0, min(size + 1, CHUNK)
    while data := os.read(source, wanted):
        is_last = len(data) < wanted
        fs.write(target, data)
        content.update(data)
        if checksum is not None:
            checksum.update(data)
        done, wanted = done + len(data), CHUNK
        advance(len(data))
        if is_last and done == size:
            break
    return Copied(done, content.digest(), checksum.digest() if checksum is not None else b"")


def digest(
    source: int, *, size: int, sha256: bool, advance: Callable[[int], None], threads: int = 1
) -> Copied:
    """Digests an open file without copying it; the arguments are those of `copy`."""
    if size < CHUNK:
        # Most files of a tree: in one piece, unless it grows.
        data = os.read(source, size + 1)
        if len(data) == size:
            advance(size)
            return of(data, sha256)
        os.lseek(source, 0, os.SEEK_SET)
    content, checksum = blake3(max_threads=threads), _sha256()
    buffer = memoryview(bytearray(CHUNK if threads == 1 else _BEHIND))
    done = 0
    with _Second(checksum) as second:
        while count := os.readv(source, [buffer]):
            if sha256:
                second.begin(buffer[:count])
            content.update(buffer[:count])
            if sha256:
                second.end()
            done += count
            advance(count)
    return Copied(done, content.digest(), checksum.digest() if sha256 else b"")


def write(chunks: Iterable[bytes | memoryview], target: int) -> Copied:
    """Writes a stream into an open file; SHA-256 is computed by a second thread meanwhile."""
    content, checksum = blake3(), _sha256()
    size = 0
    with _Second(checksum) as second:
        for chunk in chunks:
            # The chunk is valid until the next is asked for.
            is_large = len(chunk) > _ALONE
            if is_large:
                second.begin(chunk)
            fs.write(target, chunk)
            content.update(chunk)
            if is_large:
                second.end()
            else:
                checksum.update(chunk)
            size += len(chunk)
    return Copied(size, content.digest(), checksum.digest())


class _Second:
    """A thread that digests one chunk at a time; there when it is needed first."""

    def __init__(self, hasher: _Hasher) -> None:
        self._hasher = hasher
        self._todo: queue.SimpleQueue[bytes | memoryview | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def begin(self, chunk: bytes | memoryview) -> None:
        """Hands over a chunk, which stays valid until `end`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sha256")
            apart.start(self._thread)
        self._todo.put(chunk)

    def end(self) -> None:
        """Waits until it is digested."""
        self._done.get()

    def _run(self) -> None:
        while (chunk := self._todo.get()) is not None:
            self._hasher.update(chunk)
            self._done.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._todo.put(None)
        if self._thread is not None and self._thread.ident is not None:
            self._thread.join()


class _Pipeline:
    """One thread copies; others, or processes, digest what is there with BLAKE3 and SHA-256."""

    def __init__(
        self,
        source: int,
        target: int,
        sha256: bool,
        advance: Callable[[int], None],
        threads: int,
        mapped: bool,
    ) -> None:
        self._mapped = mapped
        self._source, self._target, self._advance = source, target, advance
        self._wants_sha256 = sha256
        self._threads = threads
        self._news = threading.Condition()
        self._copied = 0
        self._ended = False
        self._failures: list[BaseException] = []
        self._stopped = False

    def stop(self) -> None:
        """Ends the copying at its next step, and all with it. Takes no lock."""
        self._stopped = True

    def run(self) -> Copied:
        if self._mapped:
            return self._follow()
        content, checksum = blake3(max_threads=self._threads), _sha256()
        threads = [threading.Thread(target=self._run, args=(self._copy,), name="copy")]
        if self._wants_sha256:
            digest = threading.Thread(target=self._run, args=(self._digest, checksum, False))
            threads.append(digest)
        try:
            for thread in threads:
                thread.start()
            self._digest(content, True)
        except BaseException as error:
            self._fail(error)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        if self._failures:
            raise self._failures[0]
        sha256 = checksum.digest() if self._wants_sha256 else b""
        return Copied(self._copied, content.digest(), sha256)

    def _follow(self) -> Copied:
        followers = [Follower(self._target)]
        if self._wants_sha256:
            # It takes longest, and nobody can help it: it has a processor, and so has the copying.
            threads = max(1, len(os.sched_getaffinity(0)) - 2)
            followers = [
                Follower(self._target, threads=threads),
                Follower(self._target, "sha256"),
            ]
        copier = threading.Thread(target=self._run, args=(self._copy,), name="copy")
        with contextlib.ExitStack() as stack:
            for one in followers:
                stack.enter_context(one)
            copier.start()
            try:
                self._tell(followers)
            except BaseException as error:
                self._fail(error)
            copier.join()
            if self._failures:
                raise self._failures[0]
            digests = [one.digest() for one in followers]
        return Copied(self._copied, digests[0], digests[1] if self._wants_sha256 else b"")

    def _tell(self, followers: list[Follower]) -> None:
        told, is_all = 0, False
        while not (is_all or self._failures):
            with self._news:
                while not (self._ended or self._failures or self._copied - told >= follower.STEP):
                    self._news.wait()
                there, is_all = self._copied, self._ended
            if not is_all:
                there -= there % follower.STEP
            for one in followers:
                one.tell(there)
            self._advance(there - told)
            told = there

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._news:
            self._failures.append(error)
            self._news.notify_all()

    def _copy(self) -> None:
        while not self._failures:
            count = 0 if self._stopped else fs.copy_range(self._source, self._target, _STEP)
            with self._news:
                self._copied += count
                self._ended = not count
                self._news.notify_all()
            if not count:
                return

    def _digest(self, hasher: _Hasher, tells: bool) -> None:
        buffer = memoryview(bytearray(_BEHIND if tells else CHUNK))
        done = 0
        while True:
            with self._news:
                while self._copied == done and not (self._ended or self._failures):
                    self._news.wait()
                there = self._copied
            if self._failures or there == done:
                return
            while done < there:
                wanted = buffer[: min(len(buffer), there - done)]
                count = os.preadv(self._target, [wanted], done)
                if not count:
                    raise OSError(5, "a file ended before what was written to it")
                hasher.update(buffer[:count])
                done += count
                if tells:
                    self._advance(count)
