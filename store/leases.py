"""Leases: what a running process needs, said before it relies on anything.

The order is the whole point (docs/design.md): first the lease for the entire closure, then the
check that every entry is there and none is condemned. Whoever collects reads leases after
marking, so either it sees the lease or the holder sees the mark.

A lease is a file `leases/<id>.json`; its heartbeat is a folder `leases/<id>` beside it, whose
time the holder renews. A lease ends by being renamed away or unlinked, never by a clock.
"""

import contextlib
import errno
import os
import threading
import time
from types import TracebackType
from typing import Self

from cvs.store import fs
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import StoreError
from cvs.store.record import Record, encode, read
from cvs.store.scratch import Scratch, server_time
from cvs.store.volume import Volume

#: Seconds between two renewals of a heartbeat.
HEARTBEAT = 60.0

#: Seconds since its last heartbeat after which a lease is not taken for a running process where a
#: user asks; what a lease keeps does not depend on it.
LIVE = 5 * HEARTBEAT

#: How long to wait for a collection that has marked an entry, in seconds, and how often to look.
PATIENCE = 120.0
POLL = 0.2


class LeaseLost(StoreError):
    """The lease was expired by someone else; start again from the lease."""


class Lease:
    """A lease that is held; use as a context manager, which drops it."""

    def __init__(self, volume: Volume, name: str) -> None:
        self.name = name
        self.path = os.path.join(volume.leases, f"{name}.json")
        self.heartbeat = os.path.join(volume.leases, name)
        self._stop = threading.Event()

    @classmethod
    def take(cls, volume: Volume, record: Record) -> Self:
        """Writes a lease; on return it is visible to every later reader."""
        lease = cls(volume, fs.unique())
        try:
            with Scratch(volume.tmp) as scratch:
                staged = os.path.join(scratch.folder, "lease")
                fs.write_synced(staged, encode(record), 0o444)
                # Nobody else has the name: where it is taken, an answer was lost.
                with contextlib.suppress(FileExistsError):
                    fs.mkdir(lease.heartbeat)
                fs.rename(staged, lease.path)
        except BaseException:
            # Also a Ctrl-C while the scratch folder goes.
            lease.drop()
            raise
        return lease

    @classmethod
    def of_generation(cls, volume: Volume, path: str) -> Self:
        """A lease on what a generation consists of, without writing a byte of data.

        Raises:
            FileNotFoundError: the generation is gone.
        """
        lease = cls(volume, fs.unique())
        try:
            with contextlib.suppress(FileExistsError):
                fs.mkdir(lease.heartbeat)
            with contextlib.suppress(FileExistsError):
                fs.link(path, lease.path)
        except BaseException:
            lease.drop()
            raise
        return lease

    def publish(self, folder: str, number: int) -> int:
        """Gives the lease's record a permanent name, `folder/<n>.json`, and returns n.

        Begins at `number` and counts up past names that others took meanwhile.

        Raises:
            LeaseLost: the lease was expired before.
        """
        while True:
            target = os.path.join(folder, f"{number}.json")
            try:
                fs.link(self.path, target)
                return number
            except OSError as error:
                if self._is_same(target):
                    # The link was made and the answer was lost.
                    return number
                if error.errno == errno.EEXIST:
                    number += 1
                elif error.errno == errno.ENOENT:
                    raise LeaseLost(f"the lease {self.name} was expired by another host") from None
                else:
                    raise

    def _is_same(self, target: str) -> bool:
        try:
            return os.path.samestat(os.lstat(self.path), os.lstat(target))
        except OSError:
            return False

    def keep_alive(self) -> None:
        """Renews the heartbeat from a thread until the lease is dropped."""

        def renew() -> None:
            while not self._stop.wait(HEARTBEAT):
                try:
                    fs.touch(self.heartbeat)
                except OSError:
                    # A stall of the volume passes; a lease that is gone needs no heartbeat.
                    continue

        threading.Thread(target=renew, name="lease-heartbeat", daemon=True).start()

    def drop(self) -> None:
        """Ends the lease; one that is gone already is fine.

        What cannot be removed is left to be expired: it takes nothing from work that was done.
        """
        self._stop.set()
        try:
            with contextlib.suppress(OSError):
                fs.remove_for_good(self.path)
        finally:
            with contextlib.suppress(OSError):
                fs.remove_for_good(self.heartbeat)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.drop()


def missing(store: Store, entries: tuple[EntryId, ...]) -> list[EntryId]:
    """Which entries of a closure are not there to rely on; asked only under a lease for it.

    Waits for marks of a collection to clear.

    Raises:
        StoreError: a mark did not clear.
    """
    deadline = time.monotonic() + PATIENCE
    for entry in entries:
        while store.condemned(entry):
            if time.monotonic() > deadline:
                raise StoreError(
                    f"entry {entry[:16]} is held by a collection that does not end",
                    hint="a collection on another host may have died: its mark is condemned/"
                    f"{entry}",
                )
            time.sleep(POLL)
    return [entry for entry in entries if not store.has(entry)]


def held(volume: Volume) -> list[tuple[str, Record, float]]:
    """All leases: their names, records and the age of their heartbeats in seconds.

    Ages are differences of times that the file system gave, never of this host's clock.
    """
    try:
        names = [name for name in os.listdir(volume.leases) if name.endswith(".json")]
    except FileNotFoundError:
        return []
    if not names:
        return []
    now = server_time(volume.tmp)
    found = []
    for name in sorted(names):
        path = os.path.join(volume.leases, name)
        try:
            record = read(path)
            beat = os.stat(path.removesuffix(".json")).st_mtime
        except (FileNotFoundError, StoreError):
            # Dropped meanwhile, or of a newer cvs: nothing that can be told of it here.
            continue
        found.append((name.removesuffix(".json"), record, max(0.0, now - beat)))
    return found
