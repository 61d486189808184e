"""The seam to the file system."""

import contextlib
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvs.store import fs


def test_every_change_is_observed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call tells the observer what it is about to do, before it does it."""
    seen: list[str] = []
    monkeypatch.setattr(fs, "observer", lambda call, _: seen.append(call))
    at = str(tmp_path)

    fs.makedirs(f"{at}/a/b")
    fs.write_synced(f"{at}/a/f", b"x")
    fs.write_file(f"{at}/a/g", b"x")
    fs.symlink("f", f"{at}/a/l")
    fs.link(f"{at}/a/f", f"{at}/a/h")
    fs.touch(f"{at}/a/f")
    fs.sync_tree(at, True)
    fs.sync_tree(f"{at}/a/b", False)
    fs.remove_tree(f"{at}/a")

    expected = ["mkdir", "mkdir", "create", "write", "fsync", "close", "create", "write", "close"]
    expected += ["symlink", "link", "utime", "syncfs", "fsync"]
    assert seen[: len(expected)] == expected
    assert sorted(seen[len(expected) :]) == ["rmdir", "rmdir", *["unlink"] * 4]


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that takes one byte at a time still gets them all."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:1]))

    for kind in (bytes, bytearray, memoryview):
        path = tmp_path / kind.__name__
        descriptor = fs.create(str(path))
        fs.write(descriptor, kind(b"hello\n"))
        fs.close(descriptor)
        assert path.read_bytes() == b"hello\n"


@pytest.mark.parametrize("after", [0, 3])
def test_a_write_that_takes_nothing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """It is not asked again for ever."""
    counts = iter([after, 0])
    monkeypatch.setattr(os, "write", lambda *_: next(counts))
    with pytest.raises(OSError, match="Input/output"):
        fs.write_file(str(tmp_path / "f"), b"hello\n")


def test_a_copy_that_ends_too_early_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that says it is at the end where it is not is asked in another way."""
    (tmp_path / "source").write_bytes(b"some bytes")
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    with open(tmp_path / "source", "rb") as source, open(tmp_path / "target", "wb") as target:
        while fs.copy_range(source.fileno(), target.fileno(), 4):
            continue

    assert (tmp_path / "target").read_bytes() == b"some bytes"


@pytest.mark.parametrize("call", ["write", "fsync", "close"])
def test_every_error_of_a_file_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A quota that shows only at fsync or close is an error as one at write is."""

    def fail(*_: Any) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="quota"):
            fs.write_synced(str(tmp_path / "f"), b"x")


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("write", lambda source, target: fs.write(target, b"x")),
        ("fsync", lambda source, target: fs.sync(target)),
        ("ftruncate", lambda source, target: fs.truncate(target, 9)),
        ("copy_file_range", lambda source, target: fs.copy_range(source, target, 9)),
    ],
)
def test_an_error_of_an_open_file_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, call: Callable[[int, int], object]
) -> None:
    """Of a descriptor the kernel says no name; whoever reads of a full disk must know which."""

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "source").write_bytes(b"some bytes")
    with open(tmp_path / "source", "rb") as source, open(tmp_path / "target", "wb") as target:
        monkeypatch.setattr(os, name, fail)
        with pytest.raises(OSError) as caught:
            call(source.fileno(), target.fileno())

    assert caught.value.filename == str(tmp_path / "target")
    assert str(caught.value).endswith(f"'{tmp_path}/target'")


CALLS: dict[str, Callable[[str], object]] = {
    "mkdir": lambda at: fs.mkdir(f"{at}/new"),
    "rename": lambda at: fs.rename(f"{at}/file", f"{at}/new"),
    "symlink": lambda at: fs.symlink("file", f"{at}/new"),
    "link": lambda at: fs.link(f"{at}/file", f"{at}/new"),
    "unlink": lambda at: fs.unlink(f"{at}/file"),
    "rmdir": lambda at: fs.rmdir(f"{at}/folder"),
    "utime": lambda at: fs.touch(f"{at}/file"),
    "open": lambda at: fs.close(fs.create(f"{at}/new")),
    "write": lambda at: fs.write_file(f"{at}/new", b"x"),
    "fsync": lambda at: fs.write_synced(f"{at}/new", b"x"),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupted_call_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A signal that means nothing, as that of a window's new size, ends no work."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    real = getattr(os, name)
    count = 0

    def interrupted(*arguments: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count < 3:
            raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
        return real(*arguments, **options)

    monkeypatch.setattr(os, name, interrupted)
    CALLS[name](str(tmp_path))

    assert count == 3


def test_an_interrupted_close_has_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor is gone then: to close it again would close somebody else's."""
    real = os.close
    closed: list[int] = []

    def interrupted(descriptor: int) -> None:
        real(descriptor)
        closed.append(descriptor)
        raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))

    descriptor = fs.create(str(tmp_path / "new"))
    monkeypatch.setattr(os, "close", interrupted)
    fs.close(descriptor)

    assert closed == [descriptor]


def test_an_error_of_a_link_names_the_link(tmp_path: Path) -> None:
    """What it was to say need be no place; where it was to lie is one."""
    path = str(tmp_path / "none" / "link")
    with pytest.raises(FileNotFoundError) as caught:
        fs.symlink("../../store", path)

    assert (caught.value.filename, caught.value.filename2) == (path, None)
    assert str(caught.value).endswith(f"'{path}'")


def test_create_replaces_nothing(tmp_path: Path) -> None:
    """A file, a folder or a link in the way is an error, and a link is not followed."""
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "folder").mkdir()

    for name in ("file", "link", "folder"):
        with pytest.raises(FileExistsError):
            fs.write_file(str(tmp_path / name), b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert not (tmp_path / "elsewhere").exists()


def test_makedirs_accepts_what_is_there(tmp_path: Path) -> None:
    """Folders that exist are fine; a file in the way is not."""
    fs.makedirs(str(tmp_path / "a/b/c"))
    fs.makedirs(str(tmp_path / "a/b/c"))
    (tmp_path / "file").write_bytes(b"")

    assert (tmp_path / "a/b/c").is_dir()
    with pytest.raises(OSError):
        fs.makedirs(str(tmp_path / "file/x"))
    with pytest.raises(FileExistsError):
        fs.makedirs(str(tmp_path / "file"))


def test_makedirs_by_many_at_once(tmp_path: Path) -> None:
    """Whoever makes a folder first, all are content."""
    errors: list[BaseException] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        try:
            for number in range(20):
                fs.makedirs(str(tmp_path / f"{number}/a/b"))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert errors == []


def test_link_takes_a_link_itself(tmp_path: Path) -> None:
    """A hard link of a symbolic link is that link; a name that is taken is an error."""
    (tmp_path / "link").symlink_to("target")
    fs.link(str(tmp_path / "link"), str(tmp_path / "other"))

    assert os.readlink(tmp_path / "other") == "target"
    assert os.lstat(tmp_path / "link").st_ino == os.lstat(tmp_path / "other").st_ino
    with pytest.raises(FileExistsError):
        fs.link(str(tmp_path / "link"), str(tmp_path / "other"))


def test_remove_tree_follows_no_link(tmp_path: Path) -> None:
    """Links to files and folders are removed, what they lead to is not."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    (inside / "deep/folder").symlink_to(outside)
    (inside / "deep/file").symlink_to(outside / "kept")
    (inside / "up").symlink_to("..")
    os.mkfifo(inside / "fifo")
    (tmp_path / "link").symlink_to(outside)

    fs.remove_tree(str(inside))
    fs.remove_tree(str(tmp_path / "link"))

    assert os.listdir(tmp_path) == ["outside"]
    assert (outside / "kept").read_bytes() == b"kept"


def test_remove_tree_of_nothing(tmp_path: Path) -> None:
    """What is gone already is fine."""
    fs.remove_tree(str(tmp_path / "nothing"))


def test_remove_tree_takes_strange_names(tmp_path: Path) -> None:
    """Names that are not UTF-8 or begin with a dash are removed like others."""
    root = os.fsencode(tmp_path) + b"/root"
    os.mkdir(root)
    for name in (b"\xff", b"-rf", b"a\nb"):
        os.mkdir(root + b"/" + name)
        os.symlink(b"\xfe", root + b"/" + name + b"/\xff")

    fs.remove_tree(os.fsdecode(root))

    assert not os.path.lexists(root)


@pytest.mark.parametrize("name", ["d", "d" * 255])
def test_remove_tree_that_is_deeper_than_a_path(tmp_path: Path, name: str) -> None:
    """A program that changes its folder can make folders that no path leads to; they go too."""
    (tmp_path / "root").mkdir()
    with contextlib.chdir(tmp_path / "root"):
        for _ in range(2500):
            os.mkdir(name)
            os.chdir(name)
        open("file", "w").close()
        os.chmod("/proc/self/cwd", 0)
    (tmp_path / "root" / "other").mkdir()

    fs.remove_tree(str(tmp_path / "root"))

    assert os.listdir(tmp_path) == []


def test_remove_tree_that_is_closed(tmp_path: Path) -> None:
    """Folders that their owner may not look or write into go all the same."""
    for name, mode in (("a/b/c", 0), ("a/b", 0o500), ("a/d/e", 0o300), ("a", 0)):
        (tmp_path / "root" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name / "file").write_bytes(b"")
        (tmp_path / "root" / name).chmod(mode)

    fs.remove_tree(str(tmp_path / "root"))

    assert os.listdir(tmp_path) == []


def test_remove_tree_beside_another_remover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever another remover takes away first, at any moment, is fine."""
    for step in range(12):
        root = tmp_path / "root"
        for folder in ("a", "b", "c"):
            (root / folder).mkdir(parents=True)
            (root / folder / "f").write_bytes(b"")
        count = 0

        def other(*_: object, root: Path = root, step: int = step) -> None:
            nonlocal count
            count += 1
            if count == step + 1:
                with monkeypatch.context() as patch:
                    patch.setattr(fs, "observer", None)
                    fs.remove_tree(str(root))

        monkeypatch.setattr(fs, "observer", other)
        fs.remove_tree(str(root))
        monkeypatch.setattr(fs, "observer", None)
        assert not root.exists()


def test_remove_tree_believes_no_stale_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said to be gone and is there is an error: it would stay, and nobody would know."""
    (tmp_path / "file").touch()

    def gone(path: str) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

    monkeypatch.setattr(os, "unlink", gone)
    with pytest.raises(FileNotFoundError):
        fs.remove_tree(str(tmp_path / "file"))


@pytest.mark.parametrize("error", [OSError(errno.EIO, "stalled"), KeyboardInterrupt()])
def test_remove_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """One error or Ctrl-C on the way leaves nothing; of the two only Ctrl-C is heard of."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "file").touch()
    errors = [error]

    def once(*_: object) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(fs, "observer", once)
    if isinstance(error, OSError):
        fs.remove_for_good(str(folder))
    else:
        with pytest.raises(KeyboardInterrupt):
            fs.remove_for_good(str(folder))

    assert not folder.exists()


def test_remove_for_good_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be removed at all is an error."""
    (tmp_path / "file").touch()

    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(fs, "observer", refuse)
    with pytest.raises(PermissionError):
        fs.remove_for_good(str(tmp_path / "file"))


def test_sync_tree_syncs_every_file_and_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where syncfs does not serve each file and folder is synced, and no link is followed."""
    (tmp_path / "a/b").mkdir(parents=True)
    for name in ("f", "a/f", "a/b/f"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a/link").symlink_to("/etc")
    (tmp_path / "dangling").symlink_to("nowhere")
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}").removeprefix(str(tmp_path)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    fs.sync_tree(str(tmp_path), False)

    assert synced == ["/f", "/a/f", "/a/b/f", "/a/b", "/a", ""]


def test_sync_tree_misses_no_folder_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that cannot be listed cannot be synced: an error, not a promise."""
    (tmp_path / "a").mkdir()
    real = os.scandir

    def scandir(path: str) -> Any:
        if path.endswith("/a"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OSError, match="Input/output"):
        fs.sync_tree(str(tmp_path), False)


def test_a_failing_syncfs_is_an_error() -> None:
    """An error of the one syncfs is raised with its number."""
    with pytest.raises(OSError) as caught:
        fs.sync_all(-1, "/where")

    assert (caught.value.errno, caught.value.filename) == (errno.EBADF, "/where")


@pytest.mark.parametrize(("path", "expected"), [("/proc", "proc"), ("/proc/self", "proc")])
def test_filesystem_of_proc(path: str, expected: str) -> None:
    """The kernel's own file system is found, also below its mount point."""
    assert expected == fs.filesystem_of(path)


@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="there is no /dev/shm")
def test_filesystem_of_memory(tmp_path: Path) -> None:
    """A path is followed to where it really lies; one that is not there yet has its parent's."""
    (tmp_path / "link").symlink_to("/dev/shm")

    assert fs.filesystem_of("/dev/shm/not/there/yet") == "tmpfs"
    assert fs.filesystem_of(str(tmp_path / "link")) == "tmpfs"
    assert fs.filesystem_of("/dev/shmother") != "tmpfs"


def test_filesystem_of_strange_mount_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mount points with spaces and letters beyond ASCII are read; the last mount is on top."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 8:2 / /my\\040disk rw shared:1 master:2 - xfs /dev/b rw\n"
        "3 1 8:3 / /größe\\134x rw - fuse.mfs mfs rw\n"
        "4 1 8:4 / /twice rw - ext4 /dev/d rw\n"
        "5 1 8:5 / /twice rw - tmpfs none rw\n",
        encoding="utf-8",
    )
    real = open

    def opened(path: str, *arguments: Any, **options: Any) -> Any:
        shown = mounts if path == "/proc/self/mountinfo" else path
        return real(shown, *arguments, **options)

    monkeypatch.setattr("builtins.open", opened)

    found = [
        fs.filesystem_of(path)
        for path in ("/my disk/x", "/größe\\x/cache", "/twice/x", "/my diskette", "/")
    ]
    assert found == ["xfs", "fuse.mfs", "tmpfs", "ext4", "ext4"]


def test_filesystem_of_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc the type is unknown, which means the careful way."""

    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)

    assert fs.filesystem_of("/") == ""


def test_unique_names_are_unique() -> None:
    """Random names have 32 hexadecimal digits and do not repeat."""
    names = {fs.unique() for _ in range(100)}

    assert len(names) == 100
    assert all(len(name) == 32 and int(name, 16) >= 0 for name in names)
