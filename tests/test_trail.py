"""Digests of a file that is still being written, and of what an earlier process left of it."""

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from cvs.store.copying import Copied
from cvs.store.history import MARK
from cvs.store.trail import Trail

DATA = os.urandom(1 << 20) * 35
SIZE = len(DATA)


class Watched:
    """A file with a trail, and what that says."""

    def __init__(self, path: Path, digests: dict[int, bytes]) -> None:
        self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        self.good: dict[int, bytes] = {}
        self.bad: list[tuple[int, int]] = []
        self.told = threading.Event()
        self.trail = Trail(self.descriptor, digests, self.good.__setitem__, self._is_bad)

    def _is_bad(self, start: int, end: int) -> None:
        self.bad.append((start, end))
        self.trail.rewind(start)
        self.told.set()

    def write(self, start: int, end: int, data: bytes = DATA) -> None:
        os.pwrite(self.descriptor, data[start:end], start)

    def finish(self) -> Copied:
        self.trail.end(SIZE)
        while (found := self.trail.result(1)) is None:
            continue
        return found


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[Watched]]:
    found: list[Watched] = []
    yield found
    for one in found:
        os.close(one.descriptor)


def assert_digested(found: Copied) -> None:
    assert found == Copied(SIZE, blake3(DATA).digest(), hashlib.sha256(DATA).digest())


def test_a_file_is_digested_while_it_grows(tmp_path: Path, made: list[Watched]) -> None:
    one = Watched(tmp_path / "file", {})
    made.append(one)
    with one.trail:
        for start in range(0, SIZE, 3 << 20):
            end = min(SIZE, start + (3 << 20))
            one.write(start, end)
            one.trail.tell(end)
        assert_digested(one.finish())

    assert one.good == {count: blake3(DATA[:count]).digest() for count in (MARK, 2 * MARK)}
    assert not one.bad


def test_what_is_as_it_was_is_read_and_not_fetched(tmp_path: Path, made: list[Watched]) -> None:
    one = Watched(tmp_path / "file", {MARK: blake3(DATA[:MARK]).digest()})
    made.append(one)
    one.write(0, SIZE)
    with one.trail:
        assert_digested(one.finish())

    assert not one.bad
    assert list(one.good) == [2 * MARK]


@pytest.mark.parametrize("broken", [0, MARK - 1, MARK, 2 * MARK - 1])
def test_what_is_not_as_it_was_is_fetched_again(
    tmp_path: Path, made: list[Watched], broken: int
) -> None:
    """From the last digest on that is right; SHA-256 has seen nothing of it."""
    known = {count: blake3(DATA[:count]).digest() for count in (MARK, 2 * MARK)}
    one = Watched(tmp_path / "file", known)
    made.append(one)
    one.write(0, 2 * MARK)
    os.pwrite(one.descriptor, bytes([DATA[broken] ^ 1]), broken)
    with one.trail:
        one.trail.tell(2 * MARK)
        assert one.told.wait(30)
        start = broken - broken % MARK
        assert one.bad == [(start, 2 * MARK)]
        one.write(start, SIZE)
        assert_digested(one.finish())

    assert one.good[2 * MARK] == known[2 * MARK]


def test_an_empty_file_has_digests(tmp_path: Path, made: list[Watched]) -> None:
    one = Watched(tmp_path / "file", {})
    made.append(one)
    with one.trail:
        one.trail.end(0)
        while (found := one.trail.result(1)) is None:
            continue

    assert found == Copied(0, blake3(b"").digest(), hashlib.sha256(b"").digest())


def test_a_file_that_is_shorter_than_what_was_written_is_an_error(
    tmp_path: Path, made: list[Watched]
) -> None:
    one = Watched(tmp_path / "file", {})
    made.append(one)
    with one.trail, pytest.raises(OSError, match="ended before"):
        one.trail.tell(100)
        while True:
            one.trail.check()


def test_the_threads_end_with_the_work(tmp_path: Path, made: list[Watched]) -> None:
    before = threading.active_count()
    one = Watched(tmp_path / "file", {})
    made.append(one)
    with one.trail:
        one.trail.tell(0)

    assert threading.active_count() == before
