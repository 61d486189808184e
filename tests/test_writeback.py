"""Syncing early: advice to the disk, and nothing else."""

import errno
import os
import queue
import threading
from pathlib import Path

import pytest
from faults import assert_whole

from cvs.store import follower, fs, workers
from cvs.store.entries import Store
from cvs.store.writeback import Writeback


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> "queue.SimpleQueue[int]":
    """Hears of every early sync, by the folder's inode."""
    heard: queue.SimpleQueue[int] = queue.SimpleQueue()
    monkeypatch.setattr("cvs.store.writeback._PAUSE", 0.001)
    monkeypatch.setattr(fs, "write_back", lambda opened: heard.put(os.fstat(opened).st_ino))
    return heard


def test_it_goes_on_until_it_is_left(tmp_path: Path, synced: "queue.SimpleQueue[int]") -> None:
    """Again and again, in one thread, which is gone after."""
    with Writeback(str(tmp_path)) as writeback:
        writeback.start()
        writeback.start()
        assert [synced.get(timeout=60) for _ in range(3)] == [tmp_path.stat().st_ino] * 3
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("writeback") == 1
    assert threading.active_count() == 1


def test_an_error_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be removed need not be written; the thread ends when the disk lets it."""
    here, there = os.pipe()
    monkeypatch.setattr(fs, "write_back", lambda _: os.read(here, 1))
    writeback = Writeback(str(tmp_path))
    with pytest.raises(KeyboardInterrupt), writeback:
        writeback.start()
        raise KeyboardInterrupt
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "writeback")
    os.close(there)
    thread.join(timeout=60)
    assert not thread.is_alive()
    os.close(here)


def test_it_is_not_begun(tmp_path: Path, synced: "queue.SimpleQueue[int]") -> None:
    """Where nobody starts it, it does nothing."""
    with Writeback(str(tmp_path)):
        pass
    assert synced.empty()


def test_an_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: "queue.SimpleQueue[int]"
) -> None:
    """It is left to the sync that counts."""

    def fail(descriptor: int) -> None:
        synced.put(descriptor)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fs, "write_back", fail)
    with Writeback(str(tmp_path)) as writeback:
        writeback.start()
        synced.get(timeout=60)
    assert threading.active_count() == 1


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_large(
    store: Store,
    tmp_path: Path,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
    synced: "queue.SimpleQueue[int]",
) -> None:
    """It is written while it is taken in; on a network each file is synced by itself."""
    monkeypatch.setattr(follower, "LARGE", 1)
    path = tmp_path / "a"
    if what == "folder":
        path.mkdir()
        for number in range(workers.SMALL):
            (path / str(number)).write_text(str(number))
    else:
        path.write_bytes(b"1" * 9_000_000)
    started: list[str] = []
    start = Writeback.start
    monkeypatch.setattr(
        Writeback, "start", lambda self: (started.append(self._folder), start(self))
    )
    store.add(str(path))
    assert_whole(store)
    assert bool(started) == store.volume.syncs_at_once
    assert threading.active_count() == 1
