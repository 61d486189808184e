"""Works on a volume until it is stopped, and says what is done as soon as it is.

Started by promises.py as a process of its own. Its argument is a JSON document; on standard
output it writes a line of JSON for everything that cvs has said is stored.
"""

import fcntl
import itertools
import json
import os
import random
import signal
import struct
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from blake3 import blake3

from cvs.main import main
from cvs.profiles.generations import Profile
from cvs.store import damage, fs, leases
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.record import Place, Record
from cvs.store.repair import repair
from cvs.store.source import OtherStore
from cvs.store.stage import now
from cvs.store.volume import Volume

#: FS_IOC_SHUTDOWN, and its flag NOLOGFLUSH: nothing is written any more, not even the journal.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2

#: The document of an order; `cut` is the number of the change before which the power fails, from
#: 1, and None where somebody else cuts it.
Order = dict[str, Any]


def cut_power(disks: list[str], neighbour: bool) -> int:
    """Lets the file systems that are mounted in `disks` lose all that they have not written yet.

    Args:
        neighbour: whether another program had just synced a file of its own there. Then the
            journal is written: all names and sizes are kept, of bytes only those that were synced.

    Returns:
        When: what was acknowledged before is on the disks. Processes go on, as on no machine
        without power, and of what they do then XFS says that it is kept: fsync of a folder does
        not look whether the file system was shut down.
    """
    with ExitStack() as stack:
        files = []
        for disk in disks:
            file = stack.enter_context(open(os.path.join(disk, "neighbour"), "wb"))
            if neighbour:
                file.write(b"mine\n")
                file.flush()
                os.fsync(file.fileno())
            files.append(file)
        cut = time.monotonic_ns()
        for file in files:
            fcntl.ioctl(file.fileno(), _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
    return cut


class Fuse:
    """Counts the changes of the file system; before a chosen one cuts the power, and dies."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._lock = threading.Lock()
        self.count = 0

    def __call__(self, *_: object) -> None:
        with self._lock:
            self.count += 1
            if self.count == self._order["cut"]:
                cut_power(self._order["disks"], self._order["neighbour"])
                os.kill(os.getpid(), signal.SIGKILL)


def acknowledge(**members: Any) -> None:
    """Says that something is done, and when: from now on it must never be lost."""
    os.write(1, json.dumps(members | {"at": time.monotonic_ns()}).encode() + b"\n")


class Deeds:
    """What one process does to a store, by chance but the same for the same seed."""

    def __init__(self, order: Order) -> None:
        self._chance = random.Random(order["seed"])
        self._store = Store(Volume(order["volume"]))
        self._profile = Profile(self._store.volume, f"version-{order['seed']}")
        self._source = Path(order["source"])
        self._trees: list[EntryId] = []
        node = self._source / "node"
        (node / "empty").mkdir(parents=True)
        (node / "nothing").touch()
        (node / "run").write_bytes(b"#!/bin/sh\n")
        (node / "run").chmod(0o755)
        (node / "link").symlink_to("run")

    def one(self) -> None:
        """Does one thing and acknowledges it."""
        deeds = [self.file, self.tree, self.batch, self.adopted, self.generation]
        self._chance.choice(deeds)()

    def file(self) -> None:
        path = self._source / "model.safetensors"
        path.write_bytes(self._bytes(200_000))
        acknowledge(entries=[self._store.add(str(path))])

    def tree(self) -> None:
        """A tree with what a node may have: folders, links, programs, an empty file."""
        node = self._source / "node"
        (node / "data").write_bytes(self._bytes(50_000))
        entry = self._store.add(str(node))
        acknowledge(entries=[entry])
        self._trees.append(entry)

    def adopted(self) -> None:
        """A file of the same file system that is moved into the store: it is there or here."""
        place = f"{self._store.volume.models}/{fs.unique()}"
        data = self._bytes(200_000)
        with open(place, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fs.sync_folder(self._store.volume.models)
        acknowledge(kept=place, content=blake3(data).hexdigest())
        acknowledge(entries=[self._store.add(place, move=True)])

    def batch(self) -> None:
        """Trees that are published together, as wheels are."""
        with self._store.stage() as one, self._store.stage() as two:
            staged = []
            for stage in (one, two):
                writer = stage.tree("package")
                for number in range(self._chance.randrange(1, 20)):
                    writer.write(b"module/%d.py" % number, self._bytes(5_000))
                staged.append(writer.finish(origin="package"))
            entries = self._store.publish(*staged)
        acknowledge(entries=entries)
        self._trees += entries

    def generation(self) -> None:
        """A set of all trees, and a generation that needs it and is current."""
        if not self._trees:
            self.tree()
        with self._store.stage() as stage:
            (wheels,) = self._store.publish(stage.set(self._trees[-5:]))
        entries = tuple(sorted(self._store.closure([wheels])))
        record = Record(
            version=self._profile.version,
            created=now(),
            host="here",
            parts={},
            entries=entries,
            wheel_set=wheels,
            interpreter={},
            links=(Place("", f"{entries[0]}/core"),),
            lock="",
        )
        with leases.Lease.take(self._store.volume, record) as lease:
            assert leases.missing(self._store, entries) == []
            number = self._profile.publish(lease)
            self._profile.flip(number)
        acknowledge(entries=entries, version=record.version, generation=number)

    def _bytes(self, most: int) -> bytes:
        return self._chance.randbytes(self._chance.randrange(most))


def work(order: Order) -> None:
    """Does what an order says."""
    volume = Volume(order["volume"])
    volume.prepare()
    acknowledge(ready=True)
    if order["repair"] is not None:
        store = Store(volume)
        for entry in sorted(damage.marked(volume)):
            repair(store, entry, [OtherStore(order["repair"])])
        if order["cut"] is not None:
            # It is said to be whole: from now on it must be.
            cut_power(order["disks"], order["neighbour"])
        return
    deeds = Deeds(order)
    for _ in range(order["deeds"]) if order["deeds"] else itertools.count():
        deeds.one()


def serve() -> None:
    """Carries out the order in the argument."""
    order = json.loads(sys.argv[1])
    fs.observer = fuse = Fuse(order)
    if order["arguments"] is None:
        work(order)
        return
    with open(os.devnull, "w", encoding="utf-8") as sys.stdout:
        code = main(order["arguments"])
    if code == 0:
        acknowledge(done=True, changes=fuse.count)
        cut_power(order["disks"], order["neighbour"])
    sys.exit(code)


if __name__ == "__main__":
    serve()
