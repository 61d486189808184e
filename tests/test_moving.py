"""Moving a folder into the store, and going on where that was ended."""

import errno
import itertools
import os
from pathlib import Path
from typing import Any

import pytest
from faults import assert_whole, fail_at, leftovers

from cvs.store import fs, moving, scratch
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.store.ingest import add_path
from cvs.store.volume import Volume

FILES = {"one": b"1", "a/two": b"2", "a/b/three": b"3", "c/four": b"4"}


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def folder(memory: Path) -> Path:
    """A folder of the user's beside the volume, alone in its own."""
    return fill(memory / "loose" / "folder")


def fill(folder: Path) -> Path:
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    (folder / "empty").mkdir()
    (folder / "link").symlink_to("a/two")
    return folder


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the files of a folder be taken one by one."""
    monkeypatch.setattr(fs, "has_mounts", lambda _: True)


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ENOENT, errno.EXDEV])
@pytest.mark.parametrize("way", ["whole", "one by one", "twin"])
def test_it_goes_on(
    store: Store, folder: Path, code: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever change ends it, the next run ends well with the same entry, and there is no other:
    half a folder is not taken for another one."""
    if way == "one by one":
        monkeypatch.setattr(fs, "has_mounts", lambda _: True)
    entry = add_path(store, str(folder))
    for number in itertools.count(1):
        if way != "twin":
            fs.remove_tree(store.path(entry))
        try:
            with fail_at(number, code=code) as failed:
                assert add_path(store, str(folder), move=True) == entry
        except OSError:
            assert add_path(store, str(folder), move=True) == entry
        assert os.listdir(folder.parent) == []
        assert list(store.ids()) == [entry]
        assert_whole(store)
        assert leftovers(store.volume) == []
        if not failed:
            break
        fill(folder)
    assert number > 10


def test_two_that_claim_a_place(store: Store, folder: Path) -> None:
    """A folder that came to the place of one that was left in the middle takes nothing from it."""
    left = amid(folder)
    fill(folder)
    (folder / "one").write_bytes(b"another")
    with pytest.raises(InputError, match="is not the folder that was being moved") as caught:
        add_path(store, str(folder), move=True)

    (place,) = (path for path in folder.parent.iterdir() if path != folder)
    assert str(place) in (caught.value.hint or "")
    assert (place / "name" / "one").read_bytes() == b"1"
    assert (folder / "one").read_bytes() == b"another"
    assert not left.exists()


def test_a_place_that_is_taken_meanwhile(store: Store, folder: Path) -> None:
    """What cannot go back is said, and lies where that says."""
    reveal = store.reveal

    def late(*staged: Any) -> Any:
        folder.mkdir()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    store.reveal = late  # type: ignore[method-assign]
    with pytest.raises(InputError, match="is not the folder that was being moved") as caught:
        add_path(store, str(folder), move=True)
    store.reveal = reveal  # type: ignore[method-assign]

    (place,) = (path for path in folder.parent.iterdir() if path != folder)
    assert str(place) in (caught.value.hint or "")
    folder.rmdir()
    entry = add_path(store, str(folder), move=True)
    assert (Path(store.path(entry)) / "folder" / "one").read_bytes() == b"1"


def test_a_move_that_is_going_on(store: Store, folder: Path) -> None:
    """What another run has in its hands is left there."""
    left = amid(folder)
    descriptor = scratch.open_folder(str(left))
    assert scratch.lock(descriptor)
    with pytest.raises(InputError, match="is being moved into the store by another cvs"):
        add_path(store, str(folder), move=True)

    os.close(descriptor)
    assert (left / "name" / "one").read_bytes() == b"1"


def test_a_move_that_another_host_took_for_gone(store: Store, folder: Path) -> None:
    """It finds nothing to publish, and the folder is in the place where the other put it."""
    settle = store.settle

    def late(*staged: Any) -> None:
        settle(*staged)
        (place,) = (path for path in folder.parent.iterdir() if path != folder)
        place.rename(f"{folder}.moving-to-cvs-{'0' * 16}")

    store.settle = late  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No such file"):
        add_path(store, str(folder), move=True)
    assert (folder / "one").read_bytes() == b"1"
    assert list(store.ids()) == []


def amid(folder: Path) -> Path:
    """Where a run that is killed between two renames leaves the folder."""
    left = Path(f"{folder}.moving-to-cvs-{'0' * 16}")
    left.mkdir()
    folder.rename(left / "name")
    (left / "manifest.json").write_bytes(b"{}")
    return left


@pytest.mark.usefixtures("one_by_one")
def test_another_folder_of_that_name(store: Store, folder: Path) -> None:
    """What came to its place since is taken as well, as what it is."""
    first = interrupted(store, folder)
    folder.mkdir()
    (folder / "new").write_bytes(b"new")
    second = add_path(store, str(folder), move=True)

    assert sorted(store.ids()) == sorted([first, second])
    assert os.listdir(folder.parent) == []


@pytest.mark.usefixtures("one_by_one")
def test_what_was_changed_comes_back(store: Store, folder: Path) -> None:
    """What the entry does not have is not removed, and lies where it lay."""
    interrupted(store, folder)
    (aside,) = folder.parent.iterdir()
    (aside / "a" / "two").unlink()
    (aside / "a" / "two").write_bytes(b"changed")
    (aside / "a" / "b" / "new").write_bytes(b"new")
    add_path(store, str(folder), move=True)

    assert (folder / "a" / "two").read_bytes() == b"changed"
    assert (folder / "a" / "b" / "new").read_bytes() == b"new"
    assert sum(len(files) for _, _, files in os.walk(folder)) == 2


@pytest.mark.usefixtures("one_by_one")
def test_an_entry_that_is_gone_removes_nothing(store: Store, folder: Path) -> None:
    """What is nowhere else is kept."""
    entry = interrupted(store, folder)
    fs.remove_tree(store.path(entry))
    (aside,) = folder.parent.iterdir()
    with pytest.raises(InputError, match="is not there"):
        add_path(store, str(folder), move=True)

    assert (aside / "one").read_bytes() == b"1"


@pytest.mark.usefixtures("one_by_one")
def test_a_copy_leaves_all_alone(store: Store, folder: Path) -> None:
    """What another run left is the business of a move."""
    interrupted(store, folder)
    with pytest.raises(InputError, match="is not there"):
        add_path(store, str(folder))

    assert len(os.listdir(folder.parent)) == 1


@pytest.mark.usefixtures("one_by_one")
def test_a_place_that_cannot_be_renamed(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount point, say: then it is removed where it is."""
    real = fs.rename

    def rename(source: str | bytes, target: str | bytes) -> None:
        if os.fsencode(source) == os.fsencode(folder):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        real(source, target)

    monkeypatch.setattr(fs, "rename", rename)
    add_path(store, str(folder), move=True)

    assert os.listdir(folder.parent) == []


@pytest.mark.parametrize("way", ["whole", "one by one"])
def test_a_rename_whose_answer_is_lost(
    store: Store, folder: Path, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was renamed, whatever is said of it."""
    if way == "one by one":
        monkeypatch.setattr(fs, "has_mounts", lambda _: True)
    real = fs.rename

    def rename(source: str | bytes, target: str | bytes) -> None:
        real(source, target)
        if os.fsencode(source).startswith(os.fsencode(folder)):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fs, "rename", rename)
    add_path(store, str(folder), move=True)

    assert os.listdir(folder.parent) == []
    assert_whole(store)


def test_a_name_that_is_taken(folder: Path) -> None:
    """What lies there already is not replaced, be it empty."""
    entry = "0" * 64
    taken = Path(f"{folder}.moved-to-cvs-{'0' * 16}")
    taken.mkdir()

    assert moving.set_aside(os.fsencode(folder), entry) == os.fsencode(folder)
    assert (folder / "one").is_file()


def interrupted(store: Store, folder: Path) -> str:
    """Lets a move end when the first file is removed; the entry that it made."""
    with (
        pytest.raises(OSError, match="Input/output"),
        fail_at(2, code=errno.EIO, calls=("unlink",)),
    ):
        add_path(store, str(folder), move=True)
    assert not folder.exists()
    (entry,) = store.ids()
    return entry
