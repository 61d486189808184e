"""Writers of one entry at once: on one host, and on two hosts of a real MooseFS.

In every round all writers add the same thing and wait for each other before one and the same
change of the file system, so that each step of an addition is raced against itself. What they
find in the end is compared, and looked at from every mount.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest
from faults import assert_whole, leftovers
from moosefs import MooseFS, unavailable
from world import PATIENCE

from cvs.store import fs
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.verify import verify
from cvs.store.volume import Volume

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]

#: What a writer found: the ids of what it added, or why it failed.
Found = tuple[EntryId, ...] | str | None


class Job(NamedTuple):
    """One addition, which every writer makes at once."""

    kind: str
    source: str
    name: str
    meeting: int
    """The number of the change before which all writers meet, from 1."""
    dies: bool = False
    """Whether this writer is killed when all have met."""


def add(store: Store, job: Job, number: int) -> tuple[EntryId, ...]:
    """Does what a job says; `number` is the writer's, of whom no two work in the same order."""
    if job.kind != "batch":
        return (store.add(job.source, name=job.name),)
    with store.stage() as one, store.stage() as two:
        staged = []
        for stage, part in ((one, "one"), (two, "two")):
            writer = stage.tree(f"{job.name}-{part}")
            writer.write(b"package/__init__.py", job.name.encode())
            staged.append(writer.finish(origin=part))
        return tuple(sorted(store.publish(*staged[:: -1 if number % 2 else 1])))


def work(root: str, number: int, orders: Connection, barrier: Callable[[], object]) -> None:
    """A writer: takes jobs until there are no more, and says of each what came of it."""
    store = Store(Volume(root))
    while (job := orders.recv()) is not None:
        if not job.dies:
            orders.send(attempt(store, job, number, barrier))
            continue
        child = os.fork()
        if not child:
            attempt(store, job, number, barrier)
            os._exit(0)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        orders.send(None)


def attempt(store: Store, job: Job, number: int, barrier: Callable[[], object]) -> Found:
    """Adds, having met the others; what is there then must be whole at once."""
    count = 0

    def meet(*_: object) -> None:
        nonlocal count
        count += 1
        if count == job.meeting:
            barrier()
            if job.dies:
                os.kill(os.getpid(), signal.SIGKILL)

    fs.observer = meet
    try:
        ids = add(store, job, number)
        fs.observer = None
        damages = [damage for entry in ids for damage in verify(store, entry)]
        return str(damages) if damages else ids
    except Exception:
        return traceback.format_exc()
    finally:
        fs.observer = None
        if count < job.meeting:
            # The others wait all the same: they may have more to do than who comes second.
            barrier()


class Writers:
    """Processes, each with a root of its own by which it sees the one volume."""

    def __init__(self, roots: Sequence[str]) -> None:
        self.stores = [Store(Volume(root)) for root in dict.fromkeys(roots)]
        context = multiprocessing.get_context("spawn")
        # Kept: its name is gone with the last reference, and a process may yet have to look it up.
        self._barrier = context.Barrier(len(roots), timeout=PATIENCE)
        self._writers: list[tuple[multiprocessing.process.BaseProcess, Connection]] = []
        for number, root in enumerate(roots):
            ours, theirs = context.Pipe()
            arguments = (root, number, theirs, self._barrier.wait)
            process = context.Process(target=work, args=arguments)
            process.start()
            theirs.close()
            self._writers.append((process, ours))

    def __enter__(self) -> "Writers":
        return self

    def __exit__(self, *_: object) -> None:
        for process, orders in self._writers:
            orders.close()
            process.terminate()
            process.join()

    def race(self, job: Job, victim: int | None = None) -> tuple[EntryId, ...]:
        """Lets all do a job, one of whom may die of it; returns what all others agree on.

        What they added verifies through every mount, and nothing else has come.
        """
        before = {entry for store in self.stores for entry in store.ids()}
        for number, (_, orders) in enumerate(self._writers):
            orders.send(job._replace(dies=number == victim))
        found: list[Found] = []
        for _, orders in self._writers:
            assert orders.poll(PATIENCE), job
            found.append(orders.recv())
        if victim is not None:
            assert found.pop(victim) is None
        first = found[0]
        assert isinstance(first, tuple), first
        assert found == [first] * len(found), job
        for store in self.stores:
            assert set(store.ids()) == before | set(first), job
            for entry in first:
                assert list(verify(store, entry)) == [], job
        return first


class Sources:
    """Things to add, each another one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self._tree = folder / "node"
        (self._tree / "lib" / "empty").mkdir(parents=True)
        (self._tree / "main.py").write_bytes(b"print('hello')\n")
        (self._tree / "lib" / "data").write_bytes(os.urandom(300_000))
        (self._tree / "lib" / "run").write_bytes(b"#!/bin/sh\n")
        (self._tree / "lib" / "run").chmod(0o755)
        (self._tree / "lib" / "up").symlink_to("../main.py")

    def job(self, kind: str, meeting: int) -> Job:
        """A job to add something that was never there."""
        self._count += 1
        path = self._tree
        if kind == "file":
            path = self._folder / "model.safetensors"
            path.write_bytes(os.urandom(300_000))
        return Job(kind, str(path), f"thing-{self._count}", meeting)


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Things to add, outside the volume."""
    return Sources(tmp_path)


@pytest.fixture
def one_host(memory_volume: Volume) -> Iterator[Writers]:
    """Four writers on one host."""
    with Writers([memory_volume.root] * 4) as writers:
        yield writers


@pytest.fixture(scope="module")
def moosefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MooseFS]:
    """A MooseFS that two hosts have mounted."""
    if why := unavailable():
        pytest.skip(why)
    with MooseFS(tmp_path_factory.mktemp("moosefs")) as running:
        yield running


@pytest.fixture
def two_hosts(moosefs: MooseFS, request: pytest.FixtureRequest) -> Iterator[Writers]:
    """Two writers on either of two hosts."""
    roots = [str(mount / request.node.name) for mount in moosefs.mounts]
    Volume(roots[0]).prepare()
    with Writers(roots * 2) as writers:
        yield writers


def changes(store: Store, job: Job) -> int:
    """How many changes of the file system one addition takes."""
    count = 0

    def observe(*_: object) -> None:
        nonlocal count
        count += 1

    fs.observer = observe
    add(store, job, 0)
    fs.observer = None
    assert count > 5
    return count


KINDS = ("file", "tree", "batch")


def race_all(writers: Writers, sources: Sources, step: int) -> None:
    """Races every kind of addition, meeting at every `step`-th change; all must be one."""
    for kind in KINDS:
        # One more than there are: they meet when they have ended, each of the others unseen.
        last = changes(writers.stores[0], sources.job(kind, 0)) + 1
        for meeting in range(1, last + 1, step):
            writers.race(sources.job(kind, meeting))
    assert_nothing_left(writers)


def kill_all(writers: Writers, sources: Sources, step: int) -> None:
    """As `race_all`, but one of the writers is killed at the meeting."""
    for kind in KINDS:
        for meeting in range(1, changes(writers.stores[0], sources.job(kind, 0)) + 1, step):
            writers.race(sources.job(kind, meeting), victim=meeting % 2)
    for store in writers.stores:
        assert_whole(store)


def assert_nothing_left(writers: Writers) -> None:
    """Every entry is whole from every mount, and tmp/ is empty."""
    for store in writers.stores:
        assert_whole(store)
        assert leftovers(store.volume) == []


def test_one_host(one_host: Writers, sources: Sources, nightly: bool) -> None:
    """Processes that add one thing at once all have it, whole, under one id; nothing is left."""
    for _ in range(10 if nightly else 1):
        race_all(one_host, sources, 1 if nightly else 3)


def test_one_host_killed(one_host: Writers, sources: Sources, nightly: bool) -> None:
    """A writer that dies in the middle of an addition does not keep the others from theirs, and
    what it leaves is swept."""
    (store,) = one_host.stores
    for _ in range(10 if nightly else 1):
        kill_all(one_host, sources, 1 if nightly else 3)
        assert leftovers(store.volume) != []
        store.volume.prepare()
        assert leftovers(store.volume) == []


def test_two_hosts(two_hosts: Writers, sources: Sources, nightly: bool) -> None:
    """The same on two hosts: one entry, seen whole from both at once, nothing left."""
    for _ in range(5 if nightly else 1):
        race_all(two_hosts, sources, 1 if nightly else 5)


def test_two_hosts_killed(two_hosts: Writers, sources: Sources, nightly: bool) -> None:
    """The same on two hosts: who dies does not keep the other host's writers from theirs."""
    for _ in range(5 if nightly else 1):
        kill_all(two_hosts, sources, 1 if nightly else 5)
