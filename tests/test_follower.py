"""Digesting a mapped file in a process of its own."""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from cvs.store.follower import STEP, WINDOW, Algorithm, Follower

#: More than is mapped at once, and no whole number of pages.
DATA = bytes(range(256)) * ((WINDOW + STEP) // 256) + b"end"


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    """An open file that is empty."""
    opened = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [("blake3", blake3(DATA).digest()), ("sha256", hashlib.sha256(DATA).digest())],
)
def test_a_file_that_grows(descriptor: int, algorithm: Algorithm, expected: bytes) -> None:
    """What was told in steps is digested as a whole."""
    with Follower(descriptor, algorithm) as follower:
        follower.tell(0)
        for at in range(0, len(DATA), STEP):
            os.pwrite(descriptor, DATA[at : at + STEP], at)
            follower.tell(min(at + STEP, len(DATA)))
        assert follower.digest() == expected


def test_nothing(descriptor: int) -> None:
    """An empty file has the digest of nothing."""
    with Follower(descriptor) as follower:
        assert follower.digest() == blake3().digest()


def test_a_file_that_shrinks(descriptor: int) -> None:
    """What cannot be read is an error here, and no end of this process."""
    with Follower(descriptor) as follower:
        follower.tell(STEP)
        with pytest.raises(OSError, match="Input/output") as caught:
            follower.digest()
    assert caught.value.errno == errno.EIO


def test_a_follower_that_is_gone(descriptor: int) -> None:
    """It is told of what it cannot hear: an error, whoever ended it."""
    with Follower(descriptor) as follower:
        assert follower._process is not None
        follower._process.kill()
        follower._process.wait()
        with pytest.raises(OSError, match="Input/output"):
            follower.tell(STEP)


def test_it_ends_with_the_context(descriptor: int) -> None:
    """Whoever raises leaves no process that goes on."""
    follower = Follower(descriptor)
    with pytest.raises(KeyboardInterrupt), follower:
        raise KeyboardInterrupt
    assert follower._process is not None and follower._process.returncode is not None
