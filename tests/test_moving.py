"""Moving a folder into the store, and going on where that was ended."""

import errno
import os
from pathlib import Path

import pytest
from faults import assert_whole, fail_at

from cvs.store import fs, moving
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


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ENOENT])
def test_it_goes_on(store: Store, folder: Path, code: int) -> None:
    """Whichever change ends it, the next run ends well with the same entry, and there is no other:
    half a folder is not taken for another one."""
    entry = add_path(store, str(folder))
    number, failed = 1, True
    while failed:
        try:
            with fail_at(number, code=code):
                assert add_path(store, str(folder), move=True) == entry
            failed = False
        except OSError:
            number += 1
            assert add_path(store, str(folder), move=True) == entry
        assert os.listdir(folder.parent) == []
        assert list(store.ids()) == [entry]
        assert_whole(store)
        fill(folder)

    assert number > 20


def test_another_folder_of_that_name(store: Store, folder: Path) -> None:
    """What came to its place since is taken as well, as what it is."""
    first = interrupted(store, folder)
    folder.mkdir()
    (folder / "new").write_bytes(b"new")
    second = add_path(store, str(folder), move=True)

    assert sorted(store.ids()) == sorted([first, second])
    assert os.listdir(folder.parent) == []


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


def test_an_entry_that_is_gone_removes_nothing(store: Store, folder: Path) -> None:
    """What is nowhere else is kept."""
    entry = interrupted(store, folder)
    fs.remove_tree(store.path(entry))
    (aside,) = folder.parent.iterdir()
    with pytest.raises(InputError, match="is not there"):
        add_path(store, str(folder), move=True)

    assert (aside / "one").read_bytes() == b"1"


def test_a_copy_leaves_all_alone(store: Store, folder: Path) -> None:
    """What another run left is the business of a move."""
    interrupted(store, folder)
    with pytest.raises(InputError, match="is not there"):
        add_path(store, str(folder))

    assert len(os.listdir(folder.parent)) == 1


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


def test_a_rename_whose_answer_is_lost(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was renamed, whatever is said of it."""
    real = fs.rename

    def rename(source: str | bytes, target: str | bytes) -> None:
        real(source, target)
        if os.fsencode(source) == os.fsencode(folder):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fs, "rename", rename)
    add_path(store, str(folder), move=True)

    assert os.listdir(folder.parent) == []


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
