"""Scratch folders: there while they are held, swept when their process is gone."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from faults import fail_at

from cvs.store import fs, scratch
from cvs.store.scratch import Scratch, leftovers, sweep

HOLD = """
import os, signal, sys
from cvs.store.scratch import Scratch
with Scratch(sys.argv[1], sys.argv[2]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(parent: Path, prefix: str = "") -> None:
    """Lets a process be killed while it holds a folder."""
    done = subprocess.run([sys.executable, "-c", HOLD, str(parent), prefix], check=False)
    assert done.returncode == -signal.SIGKILL


def test_it_goes_with_the_block(tmp_path: Path) -> None:
    """The folder and what is in it are gone after the block, also after an error."""
    with pytest.raises(KeyError), Scratch(str(tmp_path)) as held:
        Path(held.folder, "file").write_text("x")
        raise KeyError

    assert os.listdir(tmp_path) == []


def test_what_was_renamed_stays(tmp_path: Path) -> None:
    """A folder that was given its final name is not removed."""
    with Scratch(str(tmp_path)) as held:
        os.rename(held.folder, tmp_path / "final")

    assert os.listdir(tmp_path) == ["final"]


def test_those_in_use_stay(tmp_path: Path) -> None:
    """Sweeping leaves what another process, or this one, holds."""
    with Scratch(str(tmp_path)) as one, Scratch(str(tmp_path)) as other:
        sweep(str(tmp_path))

        assert sorted(os.listdir(tmp_path)) == sorted(
            os.path.basename(held.folder) for held in (one, other)
        )
        assert leftovers(str(tmp_path)) == []


def test_those_of_killed_processes_go(tmp_path: Path) -> None:
    """What a process that was killed left is told, and removed by sweeping."""
    killed(tmp_path)
    assert len(leftovers(str(tmp_path))) == 1

    sweep(str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["other", "0123", ".cvs-" + "0" * 32, "0" * 33, "Z" * 32])
def test_what_is_not_ours_stays(tmp_path: Path, name: str) -> None:
    """A folder with another kind of name is left alone."""
    (tmp_path / name).mkdir()
    sweep(str(tmp_path))

    assert os.listdir(tmp_path) == [name]


def test_a_prefix_parts_them(tmp_path: Path) -> None:
    """Only folders with the prefix that is asked for are swept."""
    killed(tmp_path, ".cvs-")
    sweep(str(tmp_path))
    assert len(os.listdir(tmp_path)) == 1

    sweep(str(tmp_path), ".cvs-")
    assert os.listdir(tmp_path) == []


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A link with the name of a scratch folder leads nowhere."""
    (tmp_path / "kept").mkdir()
    (tmp_path / ("0" * 32)).symlink_to("kept")
    sweep(str(tmp_path))

    assert sorted(os.listdir(tmp_path)) == ["0" * 32, "kept"]


def test_elsewhere_only_what_is_old_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a network file system the holder may be on another host: what is young stays."""
    monkeypatch.setattr(fs, "filesystem_of", lambda _: "fuse")
    killed(tmp_path)
    old = tmp_path / ("0" * 32)
    old.mkdir()
    os.utime(old, (0, 0))
    sweep(str(tmp_path))

    assert len(os.listdir(tmp_path)) == 1
    assert not old.exists()


def test_elsewhere_a_file_that_grows_is_young(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in which a long download grows does not change itself."""
    monkeypatch.setattr(fs, "filesystem_of", lambda _: "fuse")
    old = tmp_path / ("0" * 32)
    old.mkdir()
    (old / "content").write_bytes(b"1")
    os.utime(old, (0, 0))
    sweep(str(tmp_path))
    assert old.exists()
    os.utime(old / "content", (0, 0))
    sweep(str(tmp_path))
    assert not old.exists()


def test_swept_before_it_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is swept between its making and its lock is made again."""
    found: list[str] = []
    make = os.mkdir

    def swept(path: str, mode: int) -> None:
        make(path, mode)
        if not found:
            sweep(str(tmp_path))
            assert os.listdir(tmp_path) == []
        found.append(path)

    monkeypatch.setattr(fs.os, "mkdir", swept)
    with Scratch(str(tmp_path)) as held:
        assert held.folder == found[1]
        assert os.listdir(tmp_path) == [os.path.basename(held.folder)]


def test_a_name_whose_answer_was_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was made, and made once more by a network client, is ours all the same."""
    make = os.mkdir

    def twice(path: str, mode: int) -> None:
        make(path, mode)
        make(path, mode)

    monkeypatch.setattr(fs.os, "mkdir", twice)
    with Scratch(str(tmp_path)) as held:
        assert leftovers(str(tmp_path)) == []
        assert os.listdir(tmp_path) == [os.path.basename(held.folder)]
    assert os.listdir(tmp_path) == []


def test_a_folder_whose_answer_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that was made although an error came back is not left."""
    make = os.mkdir

    def stalled(path: str, mode: int) -> None:
        make(path, mode)
        raise OSError(errno.EIO, os.strerror(errno.EIO), path)

    monkeypatch.setattr(fs.os, "mkdir", stalled)
    with pytest.raises(OSError, match="Input/output"), Scratch(str(tmp_path)):
        pass
    assert os.listdir(tmp_path) == []


def test_a_parent_that_a_stale_cache_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be made in a parent that is there is an error, not a wait without end."""

    def lost(path: str, _mode: int) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    monkeypatch.setattr(fs.os, "mkdir", lost)
    with pytest.raises(FileNotFoundError), Scratch(str(tmp_path)):
        pass


@pytest.mark.parametrize("call", ["unlink", "rmdir"])
def test_interrupted_while_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Ctrl-C while a folder is removed leaves nothing of it."""
    seen: list[str] = []

    def interrupt(name: str, _: object) -> None:
        seen.append(name)
        if name == call and seen.count(call) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Scratch(str(tmp_path)) as held:
        fs.write_file(os.path.join(held.folder, "file"), b"x")
        monkeypatch.setattr(fs, "observer", interrupt)

    assert os.listdir(tmp_path) == []


def test_no_parent(tmp_path: Path) -> None:
    """A parent that is not there is an error, not a wait without end."""
    with pytest.raises(FileNotFoundError), Scratch(str(tmp_path / "none")):
        pass


def test_what_cannot_be_removed_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing may fail: no work fails with it, and the folder is there to be swept."""

    def refuse(path: str) -> None:
        raise PermissionError(path)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "remove_tree", refuse)
        with Scratch(str(tmp_path)):
            pass
        with pytest.raises(KeyError), Scratch(str(tmp_path)):
            raise KeyError
    assert len(leftovers(str(tmp_path))) == 2


def test_sweeping_never_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be removed is left for later."""
    killed(tmp_path)

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(fs, "rename", refuse)
    sweep(str(tmp_path))
    assert len(os.listdir(tmp_path)) == 1


def test_sweeping_without_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the server's time cannot be had, nothing is known to be old, and nothing fails."""
    monkeypatch.setattr(fs, "filesystem_of", lambda _: "fuse")
    old = tmp_path / ("0" * 32)
    old.mkdir()
    os.utime(old, (0, 0))
    with fail_at(1, code=errno.EIO):
        sweep(str(tmp_path))

    assert os.listdir(tmp_path) == ["0" * 32]


def test_replace_file_is_whole_or_not_at_all(tmp_path: Path) -> None:
    """The folder is made, the content exchanged in one rename; a failure leaves nothing."""
    path = tmp_path / "new" / "file"
    scratch.replace_file(str(path), b"old")
    (path.parent / "full").mkdir()
    (path.parent / "full" / "x").touch()
    with pytest.raises(OSError, match="directory"):
        scratch.replace_file(str(path.parent / "full"), b"no file can take a folder's place")
    scratch.replace_file(str(path), b"new")

    assert path.read_bytes() == b"new"
    assert sorted(os.listdir(path.parent)) == ["file", "full"]


def test_replace_symlink(tmp_path: Path) -> None:
    """A link is pointed elsewhere in one rename, also by way of another folder."""
    path = tmp_path / "current"
    (tmp_path / "tmp").mkdir()
    scratch.replace_symlink("1", str(path))
    scratch.replace_symlink("2", str(path), str(tmp_path / "tmp"))

    assert os.readlink(path) == "2"
    assert sorted(os.listdir(tmp_path)) == ["current", "tmp"]


def test_replace_symlink_never_replaces_a_folder(tmp_path: Path) -> None:
    """What is no link stays, and nothing is left beside it."""
    (tmp_path / "current").mkdir()
    with pytest.raises(OSError, match="directory"):
        scratch.replace_symlink("1", str(tmp_path / "current"))

    assert os.listdir(tmp_path) == ["current"]


def test_what_a_kill_left_beside_goes(tmp_path: Path) -> None:
    """What a killed process left beside a file of the user goes with the next replacement."""
    killed(tmp_path, scratch.BESIDE)
    scratch.replace_file(str(tmp_path / "file"), b"x")

    assert os.listdir(tmp_path) == ["file"]
