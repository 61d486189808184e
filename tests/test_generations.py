"""Generations: numbered for good, one of them current at every moment, and the way back."""

import errno
import multiprocessing
import os
import threading
from pathlib import Path

import locks
import pytest
from faults import fail_at, leftovers

from cvs.profiles import realize
from cvs.profiles.generations import Profile
from cvs.store import fs
from cvs.store.entries import Store
from cvs.store.errors import InputError, StoreError
from cvs.store.leases import Lease, LeaseLost
from cvs.store.record import Record
from cvs.store.volume import Volume


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def profile(volume: Volume) -> Profile:
    """The generations of a version that has none."""
    return Profile(volume, "x")


def publish(profile: Profile, **fields: object) -> int:
    """Publishes a record that is nowhere."""
    with Lease.take(profile.volume, locks.record(**fields)) as lease:
        return profile.publish(lease)


def names(profile: Profile) -> list[str]:
    """What lies in the folder of a version."""
    return sorted(os.listdir(profile.folder))


# Publishing.


def test_nothing_yet(profile: Profile) -> None:
    """Of a version that was never realized there is nothing."""
    assert not profile.exists()
    assert profile.numbers() == []
    assert profile.current() is None
    assert profile.find(locks.record()) is None
    with pytest.raises(InputError) as caught:
        profile.record(1)
    assert (caught.value.message, caught.value.hint) == (
        "x has no generation 1",
        "there are: none",
    )
    with pytest.raises(InputError, match="x has no generation before 1"):
        profile.before(1)
    assert not profile.exists()


def test_numbers_count_up(profile: Profile) -> None:
    """Each publication has the next number; none is given twice while the newest is there."""
    assert [publish(profile, created=str(number)) for number in range(3)] == [1, 2, 3]
    os.unlink(profile.record_path(2))
    assert publish(profile) == 4
    for name in ("05.json", "0.json", "x.json", "6.json.new", "7x", "current.1"):
        Path(profile.folder, name).touch()

    assert profile.numbers() == [1, 3, 4]
    assert publish(profile) == 5
    assert profile.before(4) == 3
    assert profile.before(3) == 1
    with pytest.raises(InputError) as caught:
        profile.record(2)
    assert caught.value.hint == "there are: 1, 3, 4, 5"


@pytest.mark.parametrize("name", ["3", "3.link"])
def test_a_number_of_which_something_is_left(profile: Profile, name: str) -> None:
    """A view or link of a removed generation is never taken for that of a new one."""
    for _ in range(3):
        publish(profile)
    os.unlink(profile.record_path(3))
    os.mkdir(os.path.join(profile.folder, name))

    assert publish(profile) == 4


def test_records_that_cannot_be_read(
    store: Store, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged record, or one of a newer cvs, keeps nobody from finding another."""
    for _ in range(3):
        publish(profile)
    os.unlink(profile.record_path(3))
    Path(profile.record_path(3)).write_text("{")
    profile.flip(3)

    assert profile.find(locks.record()) == 2
    assert realize._is_whole(store, profile) is False
    with pytest.raises(StoreError, match="is not a record"):
        profile.record(3)


def test_publishing_is_not_flipping(profile: Profile) -> None:
    """A published generation is not current yet."""
    publish(profile)

    assert profile.current() is None
    assert names(profile) == ["1.json"]


def test_an_expired_lease_publishes_nothing(profile: Profile) -> None:
    """A record that someone else expired makes no generation."""
    with Lease.take(profile.volume, locks.record()) as lease:
        os.unlink(lease.path)
        with pytest.raises(LeaseLost):
            profile.publish(lease)

    assert profile.numbers() == []


def test_the_newest_of_one_content_is_found(profile: Profile) -> None:
    """A closure that a generation has makes no new one; when it was made does not count."""
    for fields in ({}, {"created": "later"}, {"wheel_set": locks.entry(8)}):
        publish(profile, **fields)

    assert profile.find(locks.record(created="now")) == 2
    assert profile.find(locks.record(wheel_set=locks.entry(8))) == 3
    assert profile.find(locks.record(wheel_set=locks.entry(7))) is None


# Flipping.


def flippable(profile: Profile) -> None:
    """Two generations, of which the first is current."""
    for _ in range(2):
        publish(profile)
    profile.flip(1)


def test_flipping_there_and_back(profile: Profile) -> None:
    """`current` leads to the generation; each keeps the link that it was flipped with."""
    flippable(profile)
    assert (profile.current(), os.readlink(profile.current_link)) == (1, "1")
    assert profile.flip(2) is True
    assert profile.current() == 2
    assert profile.flip(1) is True
    assert profile.current() == 1

    assert names(profile) == ["1.json", "1.link", "2.json", "2.link", "current"]
    assert os.path.samestat(os.lstat(profile.current_link), os.lstat(f"{profile.folder}/1.link"))


def test_flipping_to_the_current_one_changes_nothing(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing to do is nothing done."""
    flippable(profile)

    def observe(call: str, where: object) -> None:
        raise AssertionError(f"{call} {where}")

    monkeypatch.setattr(fs, "observer", observe)

    assert profile.flip(1) is False


def test_flipping_over_a_link_of_the_same_inode(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rename(2) of one hard link over another does nothing: both are cleaned up all the same."""
    flippable(profile)
    monkeypatch.setattr(profile, "current", lambda: None)

    assert profile.flip(1) is True
    assert names(profile) == ["1.json", "1.link", "2.json", "current"]


def test_flipping_uses_what_works_on_a_full_volume(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file is created and none written."""
    flippable(profile)
    calls = []
    monkeypatch.setattr(fs, "observer", lambda call, _: calls.append(call))
    profile.flip(2)

    assert set(calls) <= {"mkdir", "symlink", "link", "rename", "unlink", "rmdir", "fsync"}


def test_flipping_may_fail(profile: Profile) -> None:
    """Whichever change fails, the old one is current or the new one, and no scrap is left."""
    flippable(profile)
    number, failed = 1, True
    while failed:
        try:
            with fail_at(number, code=errno.EIO):
                profile.flip(2)
            failed = False
        except OSError:
            number += 1
        assert profile.current() in (1, 2)
        assert not [name for name in names(profile) if name.endswith(".new")]

    assert number > 3
    assert profile.current() == 2


def test_there_is_always_a_current_one(profile: Profile) -> None:
    """Whoever looks while it flips sees the old one or the new one, never none."""
    flippable(profile)
    stop = threading.Event()
    seen: list[set[str]] = []
    failures: list[OSError] = []

    def look() -> None:
        mine: set[str] = set()
        seen.append(mine)
        while not stop.is_set():
            try:
                mine.add(os.readlink(profile.current_link))
                os.lstat(profile.current_link)
            except OSError as error:
                failures.append(error)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    for turn in range(500):
        profile.flip(2 - turn % 2)
    stop.set()
    for reader in readers:
        reader.join()

    assert failures == []
    assert all(mine <= {"1", "2"} and mine for mine in seen)


def _flip(start: "multiprocessing.synchronize.Barrier", root: str, number: int) -> None:
    profile = Profile(Volume(root), "x")
    for _ in range(30):
        start.wait()
        profile.flip(number)


def test_processes_flip_at_once(profile: Profile) -> None:
    """Of hosts that flip to different generations one wins, and none fails."""
    flippable(profile)
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [
        context.Process(target=_flip, args=(start, profile.volume.root, number))
        for number in (1, 2, 2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert profile.current() in (1, 2)
    assert names(profile) == ["1.json", "1.link", "2.json", "2.link", "current"]


def test_a_current_that_is_no_link(profile: Profile) -> None:
    """What is not ours there is told, and not taken for a generation."""
    os.makedirs(profile.folder)
    os.symlink("../elsewhere", profile.current_link)
    with pytest.raises(StoreError, match=r"leads to '\.\./elsewhere', not to a generation"):
        profile.current()
    os.unlink(profile.current_link)
    os.mkdir(profile.current_link)
    with pytest.raises(StoreError, match="is not a link"):
        profile.current()


# Rolling back.


@pytest.fixture
def records(store: Store) -> list[Record]:
    """Two generations whose entries are stored; the second is current."""
    made = [
        locks.stored(store),
        locks.stored(store, nodes={"node": {"__init__.py": b""}}, models={"vae/m.st": b"model"}),
    ]
    assert [locks.generation(store, record) for record in made] == [1, 2]
    return made


def test_rolling_back(store: Store, profile: Profile, records: list[Record]) -> None:
    """The one before is current again, or any other; there is no new generation."""
    assert realize.rollback(store, profile) == (2, 1)
    assert profile.current() == 1
    assert realize.rollback(store, profile, 2) == (1, 2)
    assert profile.current() == 2
    assert profile.numbers() == [1, 2]
    assert os.listdir(store.volume.leases) == []


def test_rolling_back_to_where_it_is(store: Store, profile: Profile, records: list[Record]) -> None:
    """Nothing is wrong with asking for the current one."""
    assert realize.rollback(store, profile, 2) == (2, 2)


@pytest.mark.parametrize(
    ("number", "message"),
    [(None, "x has no generation before 1"), (7, "x has no generation 7")],
)
def test_rolling_back_to_nothing(
    store: Store, profile: Profile, records: list[Record], number: int | None, message: str
) -> None:
    """A generation that there never was is refused, and nothing changes."""
    realize.rollback(store, profile)
    with pytest.raises(InputError, match=message):
        realize.rollback(store, profile, number)

    assert profile.current() == 1


def test_rolling_back_what_is_not_realized(store: Store) -> None:
    """A version that is nowhere is named, with the command that makes it."""
    with pytest.raises(InputError) as caught:
        realize.rollback(store, Profile(store.volume, "y"))

    assert caught.value.message == "y is not realized here"
    assert caught.value.hint == "cvs realize y"


def test_rolling_back_to_what_is_removed_meanwhile(
    store: Store, profile: Profile, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retention may remove a generation at any moment: that is noticed before anything flips."""

    def observe(call: str, where: object) -> None:
        if call == "link" and os.path.exists(profile.record_path(1)):
            os.unlink(profile.record_path(1))

    monkeypatch.setattr(fs, "observer", observe)
    with pytest.raises(InputError, match="x has no generation 1 any more"):
        realize.rollback(store, profile)

    assert profile.current() == 2
    assert os.listdir(store.volume.leases) == []


def test_the_lease_comes_first(
    store: Store, profile: Profile, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is held before anything else is done, and until after the flip."""
    calls: list[tuple[str, str]] = []

    def observe(call: str, where: object) -> None:
        calls.append((call, os.path.relpath(str(where), store.volume.root).partition("/")[0]))

    monkeypatch.setattr(fs, "observer", observe)
    realize.rollback(store, profile)

    assert [call for call in calls if call[0] != "fsync"] == [
        ("mkdir", "leases"),
        ("link", "leases"),
        ("symlink", "profiles"),
        ("mkdir", "tmp"),
        ("link", "tmp"),
        ("rename", "profiles"),
        ("rmdir", "tmp"),
        ("unlink", "leases"),
        ("rmdir", "leases"),
    ]


def test_a_generation_that_a_stale_cache_lost(
    store: Store, profile: Profile, records: list[Record]
) -> None:
    """It is not said to be gone when it is there."""
    with fail_at(1, code=errno.ENOENT, calls=("link",)), pytest.raises(FileNotFoundError):
        realize.rollback(store, profile)

    assert profile.current() == 2


def test_rolling_back_to_lost_entries(
    store: Store, profile: Profile, records: list[Record], tmp_path: Path
) -> None:
    """A generation whose entries are gone is not made current."""
    realize.rollback(store, profile)
    (lost,) = (
        set(records[1].entries)
        - set(records[0].entries)
        - {locks.tree(store, "node", {"__init__.py": b""})}
    )
    os.rename(store.path(lost), os.path.join(store.volume.root, "lost"))
    with pytest.raises(StoreError) as caught:
        realize.rollback(store, profile, 2)

    assert caught.value.message == f"1 entries of x are gone, the first is {lost[:16]}"
    assert profile.current() == 1
    assert os.listdir(store.volume.leases) == []


def test_rolling_back_sweeps(store: Store, profile: Profile, records: list[Record]) -> None:
    """What a killed process left in tmp/ goes with the next work on the volume, whichever it is."""
    os.mkdir(os.path.join(store.volume.tmp, "0" * 32))
    realize.rollback(store, profile)

    assert leftovers(store.volume) == []


def test_rolling_back_builds_a_view_that_is_gone(
    store: Store, profile: Profile, records: list[Record]
) -> None:
    """A view that was deleted is built again before it is current."""
    fs.remove_tree(profile.view(1))
    realize.rollback(store, profile)

    assert os.path.isfile(os.path.join(profile.view(1), "main.py"))
    assert leftovers(store.volume) == []
