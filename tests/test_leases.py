"""Leases: said before they are relied on, published or expired but never both."""

import errno
import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import locks
import pytest
from faults import fail_at, leftovers

from cvs.store import fs, leases
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import StoreError
from cvs.store.leases import Lease, LeaseLost
from cvs.store.record import encode, read
from cvs.store.volume import Volume

Small = Callable[..., EntryId]

#: Only a broken test waits so long.
PATIENCE = 250


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def folder(volume: Volume) -> str:
    """The folder of a version's generations."""
    path = os.path.join(volume.profiles, "x")
    os.mkdir(path)
    return path


def expire(lease: Lease) -> None:
    """What another host does with a lease whose holder it takes for dead."""
    os.rename(lease.path, os.path.join(os.path.dirname(os.path.dirname(lease.path)), "expired"))


# Taking and dropping.


def test_a_lease_is_a_record_and_a_heartbeat(volume: Volume) -> None:
    """While it is held it can be read; afterwards nothing of it is left."""
    with Lease.take(volume, locks.record()) as lease:
        assert read(lease.path) == locks.record()
        assert sorted(os.listdir(volume.leases)) == [lease.name, f"{lease.name}.json"]
        assert os.path.isdir(lease.heartbeat)
        assert [(name, record) for name, record, _ in leases.held(volume)] == [
            (lease.name, locks.record())
        ]
    assert os.listdir(volume.leases) == []
    assert leftovers(volume) == []


def test_leases_do_not_meet(volume: Volume) -> None:
    """Every lease has a name of its own."""
    with Lease.take(volume, locks.record()) as one, Lease.take(volume, locks.record()) as other:
        assert one.name != other.name
        one.drop()
        assert [name for name, _, _ in leases.held(volume)] == [other.name]


def test_dropping_twice(volume: Volume) -> None:
    """A lease that was dropped or expired can be dropped again."""
    lease = Lease.take(volume, locks.record())
    lease.drop()
    lease.drop()
    lease = Lease.take(volume, locks.record())
    expire(lease)
    lease.drop()

    assert os.listdir(volume.leases) == []


def test_an_error_drops_the_lease(volume: Volume) -> None:
    """Whatever ends the work ends the lease."""
    with pytest.raises(KeyboardInterrupt), Lease.take(volume, locks.record()):
        raise KeyboardInterrupt

    assert os.listdir(volume.leases) == []


def test_taking_may_fail(volume: Volume) -> None:
    """Whichever change fails, no lease is held and nothing is left."""
    number, failed = 1, True
    while failed:
        try:
            with fail_at(number):
                lease = Lease.take(volume, locks.record())
            failed = False
        except OSError:
            number += 1
            assert os.listdir(volume.leases) == []
            assert leftovers(volume) == []
    lease.drop()

    assert number > 5


def test_taking_may_be_interrupted(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C at whichever change, the last one included, leaves no lease that nobody drops."""
    number, interrupted = 0, True
    while interrupted:
        number += 1
        calls: list[str] = []

        def interrupt(call: str, _: object, seen: list[str] = calls, number: int = number) -> None:
            seen.append(call)
            if len(seen) == number:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(fs, "observer", interrupt)
            try:
                lease = Lease.take(volume, locks.record())
                interrupted = False
            except KeyboardInterrupt:
                assert os.listdir(volume.leases) == []
                assert leftovers(volume) == []
    lease.drop()

    assert number > 6


@pytest.mark.parametrize("number", [1, 2])
def test_dropping_goes_on(volume: Volume, number: int) -> None:
    """One error of the volume ends no drop: what is left would keep its closure."""
    lease = Lease.take(volume, locks.record())
    with fail_at(number, code=errno.EIO, calls=("unlink", "rmdir")):
        lease.drop()

    assert os.listdir(volume.leases) == []


@pytest.mark.parametrize("call", ["unlink", "rmdir"])
def test_dropping_is_not_interrupted(
    volume: Volume, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Ctrl-C while a lease is dropped leaves neither it nor its heartbeat."""
    lease = Lease.take(volume, locks.record())
    seen: list[str] = []

    def interrupt(name: str, _: object) -> None:
        seen.append(name)
        if name == call and seen.count(call) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(fs, "observer", interrupt)
    with pytest.raises(KeyboardInterrupt):
        lease.drop()

    assert os.listdir(volume.leases) == []


def test_a_lease_that_cannot_be_dropped(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left to be expired: the work that it was for is done."""

    def refuse(*_: object) -> None:
        raise PermissionError

    with Lease.take(volume, locks.record()) as lease:
        monkeypatch.setattr(fs, "observer", refuse)
    monkeypatch.undo()

    assert sorted(os.listdir(volume.leases)) == [lease.name, f"{lease.name}.json"]


def test_a_heartbeat_whose_answer_was_lost(
    volume: Volume, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat that was made although an error came back is ours, or is not left."""
    path = os.path.join(folder, "1.json")
    Path(path).write_bytes(encode(locks.record()))
    make = fs.mkdir

    def answer(code: int) -> Callable[[str], None]:
        def lost(path: str, mode: int = 0o755) -> None:
            make(path, mode)
            if path.startswith(volume.leases):
                raise OSError(code, os.strerror(code), path)

        return lost

    for take in (
        lambda: Lease.take(volume, locks.record()),
        lambda: Lease.of_generation(volume, path),
    ):
        monkeypatch.setattr(fs, "mkdir", answer(errno.EEXIST))
        with take() as lease:
            assert sorted(os.listdir(volume.leases)) == [lease.name, f"{lease.name}.json"]
        monkeypatch.setattr(fs, "mkdir", answer(errno.EIO))
        with pytest.raises(OSError, match="Input/output"):
            take()
        assert os.listdir(volume.leases) == []


def test_the_lease_of_a_generation_writes_no_data(
    volume: Volume, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease on what is stored already needs a folder and a link: it works on a full volume."""
    path = os.path.join(folder, "1.json")
    Path(path).write_bytes(encode(locks.record()))
    calls: list[str] = []
    monkeypatch.setattr(fs, "observer", lambda call, _: calls.append(call))
    with Lease.of_generation(volume, path) as lease:
        assert os.path.samefile(lease.path, path)
        assert read(lease.path) == locks.record()
    monkeypatch.undo()

    assert set(calls) <= {"mkdir", "link", "unlink", "rmdir"}
    assert read(path) == locks.record()
    assert os.listdir(volume.leases) == []


def test_the_lease_of_a_generation_that_is_gone(volume: Volume, folder: str) -> None:
    """A generation that was removed gives no lease, and nothing is left of the try."""
    with pytest.raises(FileNotFoundError):
        Lease.of_generation(volume, os.path.join(folder, "1.json"))

    assert os.listdir(volume.leases) == []


# Publishing.


def test_publishing_links_the_lease(volume: Volume, folder: str) -> None:
    """A generation is the lease's own file; dropping the lease leaves it."""
    with Lease.take(volume, locks.record()) as lease:
        assert lease.publish(folder, 3) == 3
        assert os.path.samefile(lease.path, os.path.join(folder, "3.json"))

    assert read(os.path.join(folder, "3.json")) == locks.record()


def test_a_number_that_is_taken(volume: Volume, folder: str) -> None:
    """Names that others took are passed over, and never replaced."""
    for number in (1, 2, 4):
        Path(folder, f"{number}.json").write_text("other")
    with Lease.take(volume, locks.record()) as lease:
        assert lease.publish(folder, 1) == 3

    assert Path(folder, "2.json").read_text() == "other"


def test_a_lease_that_was_expired_is_not_published(volume: Volume, folder: str) -> None:
    """Of publishing and expiring exactly one wins: here expiring did."""
    with Lease.take(volume, locks.record()) as lease:
        expire(lease)
        with pytest.raises(LeaseLost, match=f"the lease {lease.name} was expired"):
            lease.publish(folder, 1)

    assert os.listdir(folder) == []


def test_a_lease_that_expires_while_it_looks_for_a_number(
    volume: Volume, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also between two numbers."""
    Path(folder, "1.json").write_text("other")
    lease = Lease.take(volume, locks.record())
    tries = []

    def observe(call: str, where: object) -> None:
        if call == "link":
            tries.append(where)
            if len(tries) == 2:
                expire(lease)

    monkeypatch.setattr(fs, "observer", observe)
    with pytest.raises(LeaseLost):
        lease.publish(folder, 1)
    monkeypatch.undo()

    assert len(tries) == 2
    assert os.listdir(folder) == ["1.json"]


@pytest.mark.parametrize("code", [errno.EIO, errno.EEXIST, errno.ETIMEDOUT, errno.ENOENT])
def test_a_lost_reply_is_recognised(
    volume: Volume, folder: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that was made although an error came back is not made a second time."""

    def link(source: str, target: str) -> None:
        os.link(source, target)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fs, "link", link)
    with Lease.take(volume, locks.record()) as lease:
        assert lease.publish(folder, 1) == 1

    assert os.listdir(folder) == ["1.json"]


@pytest.mark.parametrize("code", [errno.EIO, errno.EDQUOT, errno.EPERM])
def test_other_errors_are_told(volume: Volume, folder: str, code: int) -> None:
    """An error without a link is an error, and nothing was published."""
    with Lease.take(volume, locks.record()) as lease:
        with pytest.raises(OSError, match=os.strerror(code)), fail_at(1, code=code):
            lease.publish(folder, 1)
        assert os.listdir(folder) == []

        assert lease.publish(folder, 1) == 1


def _publish(start: "multiprocessing.synchronize.Barrier", root: str, host: str) -> None:
    volume = Volume(root)
    folder = os.path.join(volume.profiles, "x")
    numbers = []
    for _ in range(20):
        with Lease.take(volume, locks.record(host=host)) as lease:
            start.wait()
            numbers.append(lease.publish(folder, 1))
    Path(root, host).write_text(json.dumps(numbers))


def test_many_processes_publish(volume: Volume, folder: str) -> None:
    """Every publication has a number of its own and all its own record; none is left out."""
    context = multiprocessing.get_context("spawn")
    start, hosts = context.Barrier(3), ("one", "two", "three")
    processes = [
        context.Process(target=_publish, args=(start, volume.root, host)) for host in hosts
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    published = {host: json.loads(Path(volume.root, host).read_text()) for host in hosts}
    assert sorted(n for numbers in published.values() for n in numbers) == [*range(1, 61)]
    for host, numbers in published.items():
        found = [read(os.path.join(folder, f"{number}.json")).host for number in numbers]
        assert found == [host] * 20
    assert os.listdir(volume.leases) == []


# Relying on entries.


def test_missing_entries(store: Store, small: Small) -> None:
    """What of a closure is not there is named, in the closure's order."""
    there, gone = small(), locks.entry(1)

    assert leases.missing(store, (there,)) == []
    assert leases.missing(store, (gone, there, locks.entry(2))) == [gone, locks.entry(2)]


def test_a_mark_is_waited_for(store: Store, small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    """A condemned entry counts only once its mark has cleared: it may be gone by then."""
    entry, other = small("one"), small("two")
    os.mkdir(store.volume.condemned)
    for name in (entry, other):
        Path(store.volume.condemned, name).touch()
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            os.rename(store.path(entry), os.path.join(store.volume.root, "trash"))
            os.unlink(os.path.join(store.volume.condemned, entry))
        if len(waits) == 5:
            os.unlink(os.path.join(store.volume.condemned, other))

    monkeypatch.setattr(leases.time, "sleep", sleep)

    assert leases.missing(store, (entry, other)) == [entry]
    assert waits == [leases.POLL] * 5


def test_a_mark_that_does_not_clear(
    store: Store, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting ends with the entry's name and what to do."""
    entry = small()
    os.mkdir(store.volume.condemned)
    Path(store.volume.condemned, entry).touch()
    monkeypatch.setattr(leases, "PATIENCE", -1.0)
    with pytest.raises(StoreError, match=f"entry {entry[:16]} is held by a collection") as caught:
        leases.missing(store, (entry,))

    assert caught.value.hint is not None


# Heartbeats.


def test_a_heartbeat_is_renewed(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on beating when the volume fails for a moment, until the lease is dropped."""
    monkeypatch.setattr(leases, "HEARTBEAT", 0.001)
    beats: list[object] = []
    enough = threading.Event()

    def observe(call: str, where: object) -> None:
        if call == "utime":
            beats.append(where)
            if len(beats) == 2:
                raise OSError(errno.EIO, "stalled")
            if len(beats) == 4:
                enough.set()

    monkeypatch.setattr(fs, "observer", observe)
    lease = Lease.take(volume, locks.record())
    lease.keep_alive()
    assert enough.wait(PATIENCE)
    lease.drop()
    for thread in threading.enumerate():
        if thread.name == "lease-heartbeat":
            thread.join(PATIENCE)

    assert set(beats) == {lease.heartbeat}
    assert os.listdir(volume.leases) == []


def test_ages_are_those_of_the_file_system(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of a heartbeat is the difference of two times that the file system gave."""
    monkeypatch.setattr(leases.time, "time", lambda: 0.0)
    with Lease.take(volume, locks.record()) as old, Lease.take(volume, locks.record()) as ahead:
        made = os.stat(old.heartbeat).st_mtime
        os.utime(old.heartbeat, (made - 1000, made - 1000))
        os.utime(ahead.heartbeat, (made + 1000, made + 1000))
        ages = {name: age for name, _, age in leases.held(volume)}

        assert ages[old.name] >= 1000
        assert ages[ahead.name] == 0.0
    assert leftovers(volume) == []


def test_what_is_no_lease(volume: Volume) -> None:
    """What was dropped meanwhile, is damaged, or of a newer cvs, is passed over."""
    assert leases.held(volume) == []
    newer = json.loads(encode(locks.record())) | {"format": 9}
    Path(volume.leases, "newer.json").write_text(json.dumps(newer))
    Path(volume.leases, "damaged.json").write_text("{")
    Path(volume.leases, "other").write_text("")
    Path(volume.leases, "dangling.json").symlink_to("nowhere")
    with Lease.take(volume, locks.record()) as lease:
        assert [name for name, _, _ in leases.held(volume)] == [lease.name]
        os.rmdir(lease.heartbeat)
        assert leases.held(volume) == []
    os.rename(volume.leases, volume.leases + "2")
    assert leases.held(volume) == []
