"""The reserve: made while there is room, given up by what frees room, harmless at any moment."""

import errno
import multiprocessing
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from faults import fail_at, kill_at

from cvs.store import fs, reserve
from cvs.store.volume import Volume

#: Every piece.
ALL = sorted((*reserve.INODES, *reserve.BLOCKS))


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A prepared volume that syncs fast."""
    return memory_volume


@pytest.fixture
def folder(volume: Volume) -> str:
    """Its reserve, which is whole."""
    return volume.reserve


def pieces(folder: str) -> list[str]:
    return sorted(os.listdir(folder))


class Full:
    """A file system without room, but for what `free` other pieces of a reserve held."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: str, free: int = 0) -> None:
        self.folder = folder
        self.room = len(ALL) - free
        self.calls: list[str] = []
        for name in ("mkdir", "rename", "symlink", "link", "open", "write"):
            monkeypatch.setattr(os, name, self._around(name, getattr(os, name)))

    def _around(self, name: str, call: Any) -> Any:
        def full(*arguments: Any, **options: Any) -> Any:
            makes = name != "open" or arguments[1] & os.O_CREAT
            if makes:
                self.calls.append(name)
            if makes and len(os.listdir(self.folder)) > self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))
            return call(*arguments, **options)

        return full


def test_prepare_makes_it(folder: str) -> None:
    """Tens of inodes, and half a megabyte that no file system can make smaller."""
    assert pieces(folder) == ALL
    assert len(reserve.INODES) == 64
    for name in reserve.INODES:
        assert os.readlink(os.path.join(folder, name)) == reserve.TARGET
    contents = {Path(folder, name).read_bytes() for name in reserve.BLOCKS}
    assert {len(content) for content in contents} == {65536}
    assert len(contents) == len(reserve.BLOCKS) == 8
    assert all(len(set(content)) == 256 for content in contents)


def test_filling_changes_nothing_that_is_whole(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is there, no call changes anything."""
    calls: list[str] = []
    monkeypatch.setattr(fs, "observer", lambda call, _: calls.append(call))
    reserve.fill(folder)

    assert calls == []


def test_filling_makes_what_is_missing(folder: str) -> None:
    """Pieces come back; a block that has not all its bytes is made anew; the rest stays."""
    for name in ("inode-00", "inode-63", "block-3"):
        os.unlink(os.path.join(folder, name))
    os.truncate(os.path.join(folder, "block-7"), 100)
    Path(folder, "block-6").unlink()
    Path(folder, "block-6").touch()
    Path(folder, "mine").touch()
    kept = os.lstat(os.path.join(folder, "block-0"))
    reserve.fill(folder)

    assert pieces(folder) == sorted([*ALL, "mine"])
    for name in reserve.BLOCKS:
        assert os.path.getsize(os.path.join(folder, name)) == reserve.BLOCK
    assert os.path.samestat(kept, os.lstat(os.path.join(folder, "block-0")))


def test_releasing_gives_of_both(folder: str) -> None:
    """One step gives up a block and an inode; then inodes alone; then there is nothing left."""
    Path(folder, "mine").touch()
    assert reserve.release(folder)
    assert len(pieces(folder)) == len(ALL) - 2 + 1
    steps = 1
    while reserve.release(folder):
        steps += 1

    assert steps == len(reserve.INODES)
    assert pieces(folder) == ["mine"]


def test_no_reserve(tmp_path: Path) -> None:
    """A volume without one has nothing to give up, and nothing makes it but `prepare`."""
    missing = str(tmp_path / "reserve")
    assert not reserve.release(missing)
    reserve.fill(missing)
    with reserve.within(missing):
        fs.mkdir(str(tmp_path / "new"))

    assert os.listdir(tmp_path) == ["new"]


def test_within_it_what_finds_no_room_is_made_again(
    volume: Volume, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of call that makes something succeeds, and what it needed is made anew after."""
    at = volume.tmp
    full = Full(monkeypatch, folder)
    full.room = 5
    with reserve.within(folder):
        fs.mkdir(f"{at}/folder")
        assert len(pieces(folder)) == full.room
        for call in (
            lambda: fs.symlink("x", f"{at}/link"),
            lambda: fs.link(f"{at}/link", f"{at}/hard"),
            lambda: fs.rename(f"{at}/hard", f"{at}/renamed"),
            lambda: fs.write_file(f"{at}/file", b"bytes"),
        ):
            full.room -= 1
            call()
            assert len(pieces(folder)) == full.room
        full.room = len(ALL)

    assert pieces(folder) == ALL
    assert sorted(os.listdir(at)) == ["file", "folder", "link", "renamed"]
    assert Path(at, "file").read_bytes() == b"bytes"


def test_no_more_is_given_up_than_needed(
    volume: Volume, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that finds room gives up nothing; one that does not, one step at a time."""
    full = Full(monkeypatch, folder, free=0)
    with reserve.within(folder):
        fs.mkdir(f"{volume.tmp}/a")
        assert pieces(folder) == ALL
        full.room -= 4
        fs.mkdir(f"{volume.tmp}/b")
        assert len(pieces(folder)) == len(ALL) - 4


def test_where_nothing_is_left_the_error_is_told(
    volume: Volume, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the reserve is used up the call fails with its own error."""
    full = Full(monkeypatch, folder)
    full.room = -1
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)) as caught:
        with reserve.within(folder):
            fs.mkdir(f"{volume.tmp}/a")

    assert caught.value.filename == f"{volume.tmp}/a"
    assert pieces(folder) == []
    full.room = len(ALL)
    volume.prepare()
    assert pieces(folder) == ALL


def test_other_errors_take_nothing(volume: Volume, folder: str) -> None:
    """What is no lack of room is told as ever."""
    with reserve.within(folder):
        fs.mkdir(f"{volume.tmp}/a")
        with pytest.raises(FileExistsError):
            fs.mkdir(f"{volume.tmp}/a")
        with pytest.raises(FileNotFoundError):
            fs.mkdir(f"{volume.tmp}/missing/a")

    assert pieces(folder) == ALL


def test_others_get_nothing(volume: Volume, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs beside or after a block, in this thread or another, does not use the reserve."""
    full = Full(monkeypatch, folder)
    full.room = 0
    caught: list[object] = []

    def other() -> None:
        try:
            fs.mkdir(f"{volume.tmp}/other")
        except OSError as error:
            caught.append(error.errno)

    with reserve.within(folder):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    other()

    assert caught == [errno.ENOSPC, errno.ENOSPC]
    assert pieces(folder) == ALL


def test_no_sync_is_made_again(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync that found no room has lost bytes: a second one would say that all is well."""
    count = 0

    def sync(_: int) -> None:
        nonlocal count
        count += 1
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(os, "fsync", sync)
    with reserve.within(folder), pytest.raises(OSError, match="quota"):
        fs.write_synced(os.path.join(folder, "file"), b"x")

    assert count == 1
    assert len(pieces(folder)) == len(ALL) + 1


def test_filling_takes_nothing_from_itself(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparing within a block on a full volume gives up nothing to make something of it."""
    os.unlink(os.path.join(folder, "inode-00"))
    full = Full(monkeypatch, folder)
    full.room = 0
    with reserve.within(folder):
        with reserve.within(folder):
            reserve.fill(folder)
            assert len(full.calls) == 1

    assert pieces(folder) == ALL[:-64] + ALL[-63:]


def test_what_inner_blocks_take_is_made_anew(
    volume: Volume, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks may lie in each other."""
    full = Full(monkeypatch, folder)
    with reserve.within(folder):
        with reserve.within(folder):
            full.room -= 4
            fs.mkdir(f"{volume.tmp}/a")
            full.room = len(ALL)
        assert pieces(folder) == ALL
        full.room -= 4
        fs.mkdir(f"{volume.tmp}/b")
        full.room = len(ALL)

    assert pieces(folder) == ALL


def test_filling_may_fail_at_any_change(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call fails, with whatever error: nobody is told, and the next one makes the rest."""
    while reserve.release(folder):
        pass
    calls: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(fs, "observer", lambda call, _: calls.append(call))
        reserve.fill(folder)
    for number in range(1, len(calls) + 1):
        while reserve.release(folder):
            pass
        with fail_at(number, code=(errno.ENOSPC, errno.EROFS, errno.EIO)[number % 3]):
            reserve.fill(folder)
        assert pieces(folder) != ALL or calls[number - 1] in ("write", "close")
        reserve.fill(folder)
        assert pieces(folder) == ALL
        for name in reserve.BLOCKS:
            assert os.path.getsize(os.path.join(folder, name)) == reserve.BLOCK

    assert len(calls) > 80


def _die(number: int, volume: Volume) -> None:
    kill_at(number)
    while reserve.release(volume.reserve):
        pass
    volume.prepare()


def test_killed_at_any_change(volume: Volume, folder: str) -> None:
    """A process that dies while it gives up or makes pieces leaves a volume that the next one
    makes whole."""
    context = multiprocessing.get_context("fork")
    ended = 0
    for number in range(1, 200, 7):
        process = context.Process(target=_die, args=(number, volume))
        process.start()
        process.join()
        ended += process.exitcode == -9
        volume.prepare()
        assert pieces(folder) == ALL
        for name in reserve.BLOCKS:
            assert os.path.getsize(os.path.join(folder, name)) == reserve.BLOCK

    assert ended > 20


def _take_and_make(start: "multiprocessing.synchronize.Barrier", root: str) -> None:
    volume = Volume(root)
    start.wait()
    for number in range(50):
        for _ in range(number % 5):
            reserve.release(volume.reserve)
        volume.prepare()


def test_many_processes_at_once(volume: Volume, folder: str) -> None:
    """Processes that take and make pieces at once do not fail, and leave it whole."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [
        context.Process(target=_take_and_make, args=(start, volume.root)) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    volume.prepare()
    assert pieces(folder) == ALL
    for name in reserve.BLOCKS:
        assert os.path.getsize(os.path.join(folder, name)) == reserve.BLOCK
