"""Folders that become entries where they lie."""

import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import assert_whole, leftovers

from cvs.store import fs, loose, workers
from cvs.store.entries import Store
from cvs.store.tree import TreeError


@pytest.fixture
def folder(store: Store) -> Path:
    """A folder on the file system of the store."""
    root = Path(store.volume.root).parent / "beside" / "node"
    (root / "deep" / "empty").mkdir(parents=True)
    (root / "file").write_bytes(b"1")
    (root / "deep" / "run").write_bytes(b"2")
    (root / "deep" / "run").chmod(0o755)
    (root / "link").symlink_to("deep/run")
    return root


def moved(store: Store, folder: Path) -> tuple[Path, bool]:
    """Moves a folder into the store: where it is now, and whether it is the same folder still."""
    inode = folder.stat().st_ino
    entry = store.add(str(folder), move=True)
    assert_whole(store)
    assert leftovers(store.volume) == []
    assert os.listdir(folder.parent) == []
    stored = Path(store.volume.store, store.content(entry))
    return stored, stored.stat().st_ino == inode


def test_it_is_renamed(store: Store, folder: Path) -> None:
    """The entry is the folder itself, with the id and the modes that a copy has."""
    copied = store.add(str(folder))
    fs.remove_tree(store.path(copied))
    (folder / "deep").chmod(0o2777)
    (folder / "deep" / "empty").chmod(0o700)
    stored, same = moved(store, folder)

    assert same
    assert list(store.ids()) == [copied]
    assert stat.S_IMODE((stored / "file").stat().st_mode) == 0o444
    assert stat.S_IMODE((stored / "deep" / "run").stat().st_mode) == 0o555
    assert not (stored / "deep").stat().st_mode & 0o022


def test_many_files(store: Store, folder: Path) -> None:
    """Also where work is shared among processes."""
    for number in range(workers.SMALL + 50):
        (folder / str(number)).write_text(str(number))
    stored, same = moved(store, folder)

    assert same
    assert (stored / "210").read_text() == "210"


def test_another_name(store: Store, folder: Path) -> None:
    """The folder of the entry is called as it was asked for."""
    entry = store.add(str(folder), name="other", move=True)
    assert os.listdir(store.path(entry)).count("other") == 1


def _linked(folder: Path) -> None:
    os.link(folder / "file", folder / "twin")


def _foreign_file(folder: Path) -> None:
    os.chown(folder / "file", 1234, -1)


def _foreign_folder(folder: Path) -> None:
    os.chown(folder / "deep", 1234, -1)


@pytest.mark.parametrize("make", [_linked, _foreign_file, _foreign_folder])
@pytest.mark.parametrize("many", [0, workers.SMALL])
def test_what_others_could_change(
    store: Store, folder: Path, make: Callable[[Path], None], many: int
) -> None:
    """A file with two names, and what belongs to somebody else, is not taken as it is."""
    if os.geteuid() and make is not _linked:
        pytest.skip("only root gives files away")
    for number in range(many):
        (folder / str(number)).write_text(str(number))
    make(folder)
    stored, same = moved(store, folder)

    assert not same
    assert (stored / "file").stat().st_uid == (stored / "deep").stat().st_uid == os.geteuid()
    assert (stored / "file").stat().st_nlink == 1


def test_a_file_that_is_being_written(store: Store, folder: Path) -> None:
    """It is copied, so that the writer changes nothing in the store."""
    with open(folder / "file", "r+b") as writer:
        stored, same = moved(store, folder)
        writer.write(b"9")

    assert not same
    assert (stored / "file").read_bytes() == b"1"


@pytest.mark.parametrize("what", ["content", "new", "gone", "linked", "replaced"])
def test_what_is_changed_at_the_last_moment(store: Store, folder: Path, what: str) -> None:
    """What was digested is not the folder any more: it is taken anew, as it is now."""
    settle = store.settle
    changes: dict[str, Callable[[], object]] = {
        "content": lambda: (folder / "file").write_bytes(b"changed"),
        "new": lambda: (folder / "deep" / "new").write_bytes(b"new"),
        "gone": lambda: (folder / "file").unlink(),
        "linked": lambda: os.link(folder / "file", store.volume.models + "/other"),
        "replaced": lambda: os.replace(folder / "deep" / "run", folder / "file"),
    }

    def late(*staged: Any) -> None:
        settle(*staged)
        if change := changes.pop(what, None):
            change()

    store.settle = late  # type: ignore[method-assign]
    expected = {
        "content": [b"2", b"changed"],
        "new": [b"1", b"2", b"new"],
        "gone": [b"2"],
        "linked": [b"1", b"2"],
        "replaced": [b"2"],
    }
    stored, same = moved(store, folder)

    assert not same
    files = [path for path in stored.rglob("*") if path.is_file() and not path.is_symlink()]
    assert sorted(path.read_bytes() for path in files) == expected[what]


def test_another_file_system(store: Store, folder: Path, memory: Path) -> None:
    """It is copied, and then removed."""
    if os.stat(memory).st_dev == os.stat(folder).st_dev:
        pytest.skip("all is on one file system")
    other = memory / "loose" / "node"
    shutil.copytree(folder, other, symlinks=True)
    _, same = moved(store, other)
    assert not same


def test_a_tree_that_no_entry_may_have(store: Store, folder: Path) -> None:
    """It stays where it is, as it is."""
    (folder / "bad").symlink_to("/etc")
    modes = {path: path.stat().st_mode for path in folder.rglob("*")}
    with pytest.raises(TreeError, match="leaves it"):
        store.add(str(folder), move=True)

    assert {path: path.stat().st_mode for path in folder.rglob("*")} == modes
    assert (folder / "file").read_bytes() == b"1"
    assert os.listdir(folder.parent) == ["node"]


def test_a_place_that_may_not_be_changed(store: Store, folder: Path) -> None:
    """Nothing can be made beside it: its files are taken one by one."""
    real = fs.mkdir

    def mkdir(path: str | bytes, mode: int = 0o755) -> None:
        if ".moving-to-cvs-" in os.fsdecode(path):
            raise PermissionError(13, "Permission denied", path)
        real(path, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fs, "mkdir", mkdir)
        _, same = moved(store, folder)
    assert not same


def test_is_alone(tmp_path: Path) -> None:
    """One name, its own owner, and nobody who writes."""
    path = tmp_path / "file"
    path.write_bytes(b"1")
    descriptor = os.open(path, os.O_RDONLY)
    assert loose.is_alone(descriptor, os.fstat(descriptor))
    os.link(path, tmp_path / "other")
    assert not loose.is_alone(descriptor, os.fstat(descriptor))
    os.close(descriptor)
