"""Failing at the n-th change of the file system, and looking at what is left."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from cvs.store import fs, manifest
from cvs.store.entries import Store
from cvs.store.verify import verify
from cvs.store.volume import Volume


@contextmanager
def fail_at(
    number: int, *, code: int = errno.EDQUOT, calls: tuple[str, ...] = ()
) -> Iterator[list[str]]:
    """Lets the change with a number (from 1) fail; counts only `calls` if some are given.

    Yields a list, which names the call once it failed.
    """
    count = 0
    failed: list[str] = []

    def observe(call: str, where: object) -> None:
        nonlocal count
        if calls and call not in calls:
            return
        count += 1
        if count == number:
            failed.append(call)
            raise OSError(code, os.strerror(code), str(where))

    fs.observer = observe
    try:
        yield failed
    finally:
        fs.observer = None


def kill_at(number: int) -> None:
    """Lets this process die (SIGKILL) right before the change with a number."""
    count = 0

    def observe(*_: object) -> None:
        nonlocal count
        count += 1
        if count == number:
            os.kill(os.getpid(), 9)

    fs.observer = observe


def assert_whole(store: Store) -> None:
    """Every name under store/ is a complete entry, with every byte as its id promises."""
    for name in os.listdir(store.volume.store):
        assert os.path.exists(os.path.join(store.volume.store, name, manifest.NAME))
    for entry in store.ids():
        assert list(verify(store, entry)) == []


def leftovers(volume: Volume) -> list[str]:
    """What lies in tmp/."""
    return os.listdir(volume.tmp)
