"""Fetching one file over several connections: every byte once, whatever the server does."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from remotes import Body, Remote

from cvs.store import partial
from cvs.store.copying import Copied
from cvs.store.errors import SourceError, StoreError
from cvs.store.partial import PartialFile
from cvs.store.progress import Task
from cvs.store.volume import Volume
from cvs.versions import parallel, retry, transfer
from cvs.versions.connections import Connections
from cvs.versions.remote import Changed, Reply
from cvs.versions.transfer import Wanted

DATA = os.urandom(1 << 20) * 20
WHOLE = Copied(len(DATA), blake3(DATA).digest(), hashlib.sha256(DATA).digest())
UNKNOWN = Wanted(None, False)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    found: list[float] = []
    monkeypatch.setattr(retry, "pause", lambda seconds, stop: found.append(seconds))
    return found


@pytest.fixture
def file(memory_volume: Volume) -> Iterator[PartialFile]:
    memory_volume.prepare()
    held = partial.hold(memory_volume, partial.key("x"), lambda _: True)
    assert held is not None
    with held, held.content() as found:
        yield found


class Told(Task):
    def __init__(self) -> None:
        self.done = self.skipped = 0
        self.all: int | None = None

    def advance(self, amount: int) -> None:
        self.done += amount

    def skip(self, amount: int) -> None:
        self.skipped += amount

    def total(self, amount: int) -> None:
        self.all = amount


def fetch(
    remote: Remote,
    file: PartialFile,
    wanted: Wanted = UNKNOWN,
    *,
    each: int | None = 4,
    stop: threading.Event | None = None,
    task: Task | None = None,
    connections: Connections | None = None,
) -> Copied:
    return transfer.fetch(
        remote,
        file,
        wanted,
        connections=connections or Connections(each),
        task=task or Task(),
        stop=stop or threading.Event(),
        reserve=lambda count: None,
    )


def content(file: PartialFile) -> bytes:
    return Path(file.path).read_bytes()


@pytest.mark.parametrize("each", [1, 2, 4, 16, None])
def test_every_byte_comes_once(file: PartialFile, each: int | None) -> None:
    remote, task = Remote(DATA), Told()

    assert fetch(remote, file, each=each, task=task) == WHOLE
    assert content(file) == DATA
    # Whose range is shared may be amid a read.
    assert len(DATA) <= remote.given <= len(DATA) + 16 * transfer.CHUNK
    assert (task.all, task.skipped) == (len(DATA), 0)
    assert task.done >= len(DATA)
    assert remote.open_now == 0


def test_a_server_without_ranges_is_read_in_one(file: PartialFile) -> None:
    remote = Remote(DATA)
    remote.ranges = False

    assert fetch(remote, file) == WHOLE
    assert len(remote.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_breaks_are_gone_on_with(file: PartialFile, ranges: bool) -> None:
    remote = Remote(DATA)
    remote.ranges = ranges
    remote.breaks = [3_000_000, 5_000_000, 0, 7_000_000]

    assert fetch(remote, file) == WHOLE
    assert content(file) == DATA


@pytest.mark.parametrize(("wanted", "ranges"), [(None, False), (len(DATA), False)])
def test_a_server_that_does_not_say_how_long(
    file: PartialFile, wanted: int | None, ranges: bool
) -> None:
    remote = Remote(DATA)
    remote.says_size, remote.ranges = False, ranges

    assert fetch(remote, file, Wanted(wanted, False)) == WHOLE


@pytest.mark.parametrize("by", [-1, 1])
def test_a_file_of_another_length_than_the_lock_has(file: PartialFile, by: int) -> None:
    remote = Remote(DATA)
    with pytest.raises(SourceError, match=f"has {len(DATA)} bytes instead of {len(DATA) + by}"):
        fetch(remote, file, Wanted(len(DATA) + by, True))

    remote.says_size, remote.ranges = False, False
    problem = "has more than" if by < 0 else "bytes instead of"
    with pytest.raises(SourceError, match=problem):
        fetch(remote, file, Wanted(len(DATA) + by, True))


def test_a_part_without_the_length_of_the_whole(file: PartialFile) -> None:
    """The end of the part would pass for the end of the file."""
    remote = Remote(DATA)
    remote.says_size = False
    with pytest.raises(SourceError, match="does not say how long it is"):
        fetch(remote, file)


def test_another_run_fetches_what_is_missing(file: PartialFile) -> None:
    first, task = Remote(DATA), Told()
    first.breaks = [6_000_000] + [0] * 99
    with pytest.raises(SourceError, match=r"broke off.*, 5 times in a row"):
        fetch(first, file, each=1)
    assert file.history().there.prefix() == 6_000_000
    second = Remote(DATA)

    assert fetch(second, file, task=task) == WHOLE
    assert second.given <= len(DATA) - 6_000_000 + 4 * transfer.CHUNK
    assert task.skipped == 6_000_000


def test_what_is_whole_is_digested_and_nobody_asked(file: PartialFile) -> None:
    fetch(Remote(DATA), file)
    remote = Remote(DATA)

    assert fetch(remote, file) == WHOLE
    assert not remote.asked


@pytest.mark.parametrize("is_known", [True, False])
def test_another_name_for_the_rest(file: PartialFile, is_known: bool) -> None:
    """Where a digest says what the bytes must be, what is there is worth keeping; else halves of
    two files would be joined."""
    first = Remote(DATA)
    first.breaks = [6_000_000] + [0] * 99
    with pytest.raises(SourceError):
        fetch(first, file, each=1)
    second = Remote(DATA)
    second.validator = '"2"'

    assert fetch(second, file, Wanted(None, is_known), each=1) == WHOLE
    assert second.given == len(DATA) - (6_000_000 if is_known else 0)


def test_a_file_that_changes_meanwhile_is_refused_and_not_kept(file: PartialFile) -> None:
    remote = Remote(DATA)
    remote.breaks = [3_000_000]
    real = remote.open

    def open_(start: int, end: int | None, validator: str) -> Reply:
        if start:
            remote.validator = '"2"'
        return real(start, end, validator)

    remote.open = open_  # type: ignore[method-assign]
    with pytest.raises(Changed, match="changed while it was fetched"):
        fetch(remote, file, each=1)
    assert not content(file)


def test_without_any_name_of_the_version_one_answer_brings_all(file: PartialFile) -> None:
    remote = Remote(DATA)
    remote.validator = ""

    assert fetch(remote, file) == WHOLE
    assert remote.asked[1:] == [(0, None)]


def test_without_any_name_of_the_version_nothing_is_joined(file: PartialFile) -> None:
    remote = Remote(DATA)
    remote.validator = ""
    remote.breaks = [0, 3_000_000]
    with pytest.raises(SourceError, match=r"broke off .*and cannot be resumed"):
        fetch(remote, file)
    remote.breaks = []

    assert fetch(remote, file) == WHOLE
    assert remote.given == len(DATA) + 3_000_000


def test_a_server_that_wants_fewer_connections(file: PartialFile) -> None:
    remote = Remote(DATA)
    remote.most = 2
    remote.delay = 0.001

    assert fetch(remote, file, each=8) == WHOLE
    assert remote.most_seen <= 2


def test_patience_ends(file: PartialFile, waits: list[float]) -> None:
    remote = Remote(DATA)
    remote.most = 0
    with pytest.raises(SourceError, match=r"^http://server/file answered 503, 5 times in a row$"):
        fetch(remote, file)
    assert len(waits) == retry.ATTEMPTS - 1


def test_who_is_told_to_stop_stops_and_keeps_what_is_there(file: PartialFile) -> None:
    remote, stop = Remote(DATA), threading.Event()
    remote.delay = 0.01
    task = Told()

    def advance(amount: int) -> None:
        stop.set()

    task.advance = advance  # type: ignore[method-assign]
    with pytest.raises(parallel.Stopped):
        fetch(remote, file, stop=stop, task=task)

    there = file.history().there.total()
    assert 0 < there < len(DATA)
    again = Remote(DATA)
    assert fetch(again, file) == WHOLE
    assert again.given <= len(DATA) - there + 4 * transfer.CHUNK


def test_no_room_is_said_before_the_first_byte(file: PartialFile) -> None:
    def reserve(count: int) -> None:
        assert count == len(DATA)
        raise StoreError("no room")

    remote = Remote(DATA)
    with pytest.raises(StoreError, match="no room"):
        transfer.fetch(
            remote,
            file,
            UNKNOWN,
            connections=Connections(),
            task=Task(),
            stop=threading.Event(),
            reserve=reserve,
        )
    assert not remote.given
    assert remote.open_now == 0


def test_a_full_disk_keeps_what_is_there(
    file: PartialFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PartialFile.write

    def write(self: PartialFile, data: bytes | memoryview, at: int) -> None:
        if at > 10_000_000:
            raise OSError(28, "No space left on device")
        real(self, data, at)

    monkeypatch.setattr(PartialFile, "write", write)
    with pytest.raises(OSError, match="No space left"):
        fetch(Remote(DATA), file, each=1)
    there = file.history().there.total()
    assert there > 9_000_000
    monkeypatch.undo()
    again = Remote(DATA)

    assert fetch(again, file, each=1) == WHOLE
    assert again.given == len(DATA) - there


def test_all_connections_are_given_back(file: PartialFile) -> None:
    budget = Connections(total=3)
    fetch(Remote(DATA), file, connections=budget)
    file.reset()
    bad = Remote(DATA)
    bad.breaks = [100] * 99
    with pytest.raises(SourceError):
        fetch(bad, file, connections=budget)
    deadline, back = time.monotonic() + 30, 0
    while back < 3:
        back += budget.another()
        assert time.monotonic() < deadline


def test_nothing_is_written_after_the_end(file: PartialFile) -> None:
    """A connection that hangs may come back when its file has become an entry."""
    remote = Remote(DATA)
    hangs, goes_on = threading.Event(), threading.Event()
    real = Body.read

    class Slow(Body):
        def read(self, limit: int) -> bytes:
            if self.at >= 8 << 20:
                hangs.set()
                assert goes_on.wait(30)
            return real(self, limit)

    def open_(start: int, end: int | None, validator: str) -> Reply:
        body = Slow(remote, start, end, None)
        return Reply(body, start, len(DATA), '"1"', True)

    remote.open = open_  # type: ignore[method-assign]
    stop = threading.Event()
    threading.Thread(target=lambda: hangs.wait(30) and stop.set()).start()
    with pytest.raises(parallel.Stopped):
        fetch(remote, file, stop=stop)
    before = content(file), file.history()
    goes_on.set()
    for thread in threading.enumerate():
        if thread.name == "fetch":
            thread.join(30)

    assert (content(file), file.history()) == before
