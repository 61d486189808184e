"""Every call of cvs that changes a file system: one small seam.

Tests count, fail or stop a run at each of these calls through `observer`; nothing else in the
package creates, renames or removes files on the volume. File contents go through `write`, which
loops over short writes, and `sync`/`close`, which both raise: an exceeded quota may show only
there (EDQUOT on network file systems). A call that a signal interrupted is made again: Python does
that for files that are open, and a file system that is a process (FUSE) may say so of names too.
"""

import errno
import fcntl
import functools
import os
import re
import stat
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    import ctypes

Path = str | bytes
P = ParamSpec("P")
T = TypeVar("T")

#: Called before every change as (name of the call, path or descriptor); None costs nothing.
observer: Callable[[str, object], None] | None = None

#: How a file system says that it, or a quota of it, is full.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

#: Makes room when a call of this thread finds none, and says whether it could: the call is made
#: again then. `store/reserve.py` sets it for what may use the reserve.
make_room: ContextVar[Callable[[], bool] | None] = ContextVar("make_room", default=None)

#: File system types whose `syncfs` flushes data and reports write-back errors. Elsewhere (FUSE,
#: NFS: the kernel does not ask the server) each file is synced by itself.
SYNCFS_TYPES = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "f2fs"})

#: How copy_file_range says that it cannot serve these two files, though others can.
_NO_WAY = frozenset({errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM})

#: The call that lets files share blocks, and how a file system says that it does not.
_FICLONE = 0x40049409
_NO_CLONE = _NO_WAY | {errno.ENOTTY, errno.ETXTBSY}

#: How a file is made that is not there: never by way of a link.
_NEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: Folders inside of each other, and bytes of a path, from which on what is removed is moved up
#: before: a path has 4,096 bytes at most, and Python calls itself a thousand times.
_DEEP, _LONG = 64, 2048

#: How mountinfo writes a space, tab, newline or backslash in a mount point.
_OCTAL = re.compile(r"\\([0-7]{3})")


def _observe(call: str, where: object) -> None:
    if observer is not None:
        observer(call, where)


def _finish(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Makes a call of the kernel, again for as long as a signal that means nothing interrupts it.

    One that means something, such as Ctrl-C, has raised what it raises before.
    """
    while True:
        try:
            return call(*arguments, **options)
        except InterruptedError:
            continue


def _fit(call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """`_finish` of a call that needs room: made again for as long as somebody makes some.

    Never for a sync, which has lost the bytes that it had no room for.
    """
    while True:
        try:
            return call(*arguments, **options)
        except InterruptedError:
            continue
        except OSError as error:
            make = make_room.get()
            if error.errno not in FULL or make is None or not make():
                raise


def _name(error: OSError, descriptor: int) -> None:
    """Adds to an error which open file it was: of a descriptor the kernel names none."""
    try:
        error.filename = os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return


def mkdir(path: Path, mode: int = 0o755) -> None:
    """Makes one folder; FileExistsError if there is one."""
    _observe("mkdir", path)
    _fit(os.mkdir, path, mode)


def makedirs(path: str, mode: int = 0o755) -> None:
    """Makes a folder and its parents; one that exists is fine, whoever made it."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if parent and parent != path:
        makedirs(parent)
    try:
        mkdir(path, mode)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def rename(source: Path, target: Path) -> None:
    """rename(2): atomic; replaces a file or link, never a folder that is not empty."""
    _observe("rename", target)
    _fit(os.rename, source, target)


def symlink(target: Path, path: Path) -> None:
    """Makes a symbolic link; FileExistsError if the name is taken."""
    _observe("symlink", path)
    try:
        _fit(os.symlink, target, path)
    except OSError as error:
        # Of the two names the kernel's comes first what the link says, which need be no place.
        del error.filename2
        error.filename = path
        raise


def link(source: Path, target: Path) -> None:
    """Makes a hard link (of a symlink itself where `source` is one); never replaces."""
    _observe("link", target)
    _fit(os.link, source, target, follow_symlinks=False)


def unlink(path: Path) -> None:
    """Removes a file or link."""
    _observe("unlink", path)
    _finish(os.unlink, path)


def rmdir(path: Path) -> None:
    """Removes an empty folder."""
    _observe("rmdir", path)
    _finish(os.rmdir, path)


def touch(path: str) -> None:
    """Sets the times of a file or folder to the server's now."""
    _observe("utime", path)
    _finish(os.utime, path)


def create(path: Path, mode: int = 0o644, *, readable: bool = False, appends: bool = False) -> int:
    """Creates a file that must not exist and opens it for writing; never follows a link."""
    _observe("create", path)
    flags = _NEW | (os.O_RDWR if readable else os.O_WRONLY) | (os.O_APPEND if appends else 0)
    return _fit(os.open, path, flags, mode)


def create_or_open(path: Path, *, readable: bool = False, appends: bool = False) -> int:
    """Opens a file for writing, which may be there and then keeps what it has."""
    try:
        return create(path, readable=readable, appends=appends)
    except FileExistsError:
        flags = (os.O_RDWR if readable else os.O_WRONLY) | (os.O_APPEND if appends else 0)
        flags |= os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(path, flags)
        except PermissionError:
            # It was made read-only as the last thing before its writer ended.
            chmod(path, 0o644)
            return os.open(path, flags)


def write(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Writes all of `data`: a short write is no error to the kernel, losing the rest is."""
    _observe("write", descriptor)
    try:
        written = _fit(os.write, descriptor, data)
        if written == len(data):
            return
        rest = memoryview(data)[written:]
        while rest:
            if not written:
                # Never of a disk; asked again and again it would say so for ever.
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            written = _fit(os.write, descriptor, rest)
            rest = rest[written:]
    except OSError as error:
        _name(error, descriptor)
        raise


def write_at(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    """Writes all of `data` at a place of an open file; the file's own position stays."""
    _observe("write", descriptor)
    try:
        written = _fit(os.pwrite, descriptor, data, offset)
        while written < len(data):
            if not written:
                # As in `write`.
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            data, offset = memoryview(data)[written:], offset + written
            written = _fit(os.pwrite, descriptor, data, offset)
    except OSError as error:
        _name(error, descriptor)
        raise


def copy_range(source: int, target: int, count: int) -> int:
    """Copies up to `count` bytes between two open files inside the kernel; 0 at the end.

    A file system that can share blocks does so. Where two file systems have no way of their own
    the bytes still do not pass through this process.
    """
    _observe("copy", target)
    try:
        try:
            copied = _finish(os.copy_file_range, source, target, count)
            if copied:
                return copied
            # The end; or some file system that has no way of its own and does not say so.
            return _finish(os.sendfile, target, source, None, count)
        except OSError as error:
            if error.errno not in _NO_WAY:
                raise
            return _finish(os.sendfile, target, source, None, count)
    except OSError as error:
        _name(error, target)
        raise


def clone(source: int, target: int) -> bool:
    """Makes an open, empty file share all blocks of another; False where that cannot be."""
    _observe("clone", target)
    try:
        _fit(fcntl.ioctl, target, _FICLONE, source)
    except OSError as error:
        if error.errno in _NO_CLONE:
            return False
        _name(error, target)
        raise
    return True


def truncate(descriptor: int, size: int) -> None:
    """ftruncate(2). Growing a file asks a quota for the room at once, and writes nothing."""
    _observe("truncate", descriptor)
    try:
        _fit(os.ftruncate, descriptor, size)
    except OSError as error:
        _name(error, descriptor)
        raise


def chmod(path: Path | int, mode: int) -> None:
    """chmod(2) of a file or folder, or of an open one; never through a link on purpose."""
    _observe("chmod", path)
    _finish(os.chmod, path, mode)


def sync(descriptor: int) -> None:
    """fsync(2)."""
    _observe("fsync", descriptor)
    try:
        _finish(os.fsync, descriptor)
    except OSError as error:
        _name(error, descriptor)
        raise


def close(descriptor: int) -> None:
    """close(2), whose error counts: the last place where a full quota can show.

    Interrupted it has closed all the same; what must be kept is synced, which tells of its errors.
    """
    _observe("close", descriptor)
    try:
        os.close(descriptor)
    except InterruptedError:
        return


def write_file(path: Path, data: bytes | bytearray, mode: int = 0o644) -> None:
    """Creates `path` with `data`, not yet synced."""
    descriptor = create(path, mode)
    try:
        write(descriptor, data)
    finally:
        close(descriptor)


def write_synced(path: Path, data: bytes | bytearray, mode: int = 0o644) -> None:
    """Creates `path` with `data` and waits until the file system has it."""
    descriptor = create(path, mode)
    try:
        write(descriptor, data)
        sync(descriptor)
    finally:
        close(descriptor)


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are kept; file systems that cannot are left alone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(descriptor)
    except OSError as error:
        # EINVAL: this file system has no fsync for folders, its renames are in order already.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: str, at_once: bool) -> None:
    """Waits until everything below `path` is kept.

    Args:
        at_once: whether one `syncfs` serves; else every file is synced by itself.
    """
    if at_once:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sync_all(descriptor, path)
        finally:
            os.close(descriptor)
        return
    for folder, _, names in os.walk(path, onerror=_raise):
        for name in names:
            file = os.path.join(folder, name)
            if stat.S_ISREG(os.lstat(file).st_mode):
                descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    sync(descriptor)
                finally:
                    close(descriptor)
    sync_folders(path)


def sync_folders(path: str) -> None:
    """Waits until the names of everything below `path` are kept, innermost first."""
    for folder, _, _ in os.walk(path, topdown=False, onerror=_raise):
        sync_folder(folder)


def sync_all(descriptor: int, where: str) -> None:
    """syncfs(2): waits until the whole file system of an open folder is kept.

    Tells of write-back errors since the folder was opened.
    """
    _observe("syncfs", where)
    _finish(_syncfs, descriptor, where)


def write_back(descriptor: int) -> None:
    """syncfs(2) to be early, on which nothing rests: no change in the sense of `observer`."""
    _finish(_syncfs, descriptor, "")


def _syncfs(descriptor: int, where: str) -> None:
    import ctypes

    if _libc().syncfs(descriptor) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), where)


@functools.cache
def _libc() -> "ctypes.CDLL":
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _raise(error: OSError) -> None:
    raise error


def remove_tree(path: str) -> None:
    """Removes a file, link or folder with all below it; what is gone already is fine.

    Follows no link. Uses unlink and rmdir alone, which work on a full volume; and rename where
    folders lie deeper than a path can say.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        _forgiving(unlink, path)
        return
    folders = [path]
    for folder in folders:
        # Those that lie too deep are moved up, and come after it.
        _clear(folder, path, folders, 0)
    for folder in reversed(folders):
        _forgiving(rmdir, folder)


def _clear(folder: str, top: str, moved: list[str], depth: int) -> None:
    try:
        children = _opened(functools.partial(_children, folder), folder)
    except FileNotFoundError:
        return
    for child, is_folder in children:
        if not is_folder:
            _opened(functools.partial(_forgiving, unlink, child), folder)
        elif depth < _DEEP and len(os.fsencode(child)) < _LONG:
            _clear(child, top, moved, depth + 1)
            _opened(functools.partial(_forgiving, rmdir, child), folder)
        else:
            up = os.path.join(top, unique())
            move = functools.partial(rename, target=up)
            _opened(functools.partial(_forgiving, move, child), folder, child)
            moved.append(up)


def _children(folder: str) -> list[tuple[str, bool]]:
    with os.scandir(folder) as entries:
        return [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]


def _opened(call: Callable[[], T], *folders: str) -> T:
    """Makes a call; where somebody closed the folders that it is about, opens them for it."""
    try:
        return call()
    except PermissionError:
        for folder in folders:
            chmod(folder, 0o700)
        return call()


def remove_for_good(path: str) -> None:
    """`remove_tree`, which a Ctrl-C or one error on its way does not end.

    Raises:
        OSError: it failed once more.
        KeyboardInterrupt, SystemExit: when it is done.
    """
    try:
        remove_tree(path)
    except BaseException as error:
        remove_tree(path)
        if not isinstance(error, OSError):
            raise


def _forgiving(call: Callable[[str], None], path: str) -> None:
    try:
        call(path)
    except FileNotFoundError:
        if os.path.lexists(path):
            # A cache of the file system's had lost it: it would stay, and nobody would know.
            raise


def unique() -> str:
    """A name that nobody else has: 32 random hexadecimal digits."""
    return os.urandom(16).hex()


def filesystem_of(path: str) -> str:
    """The type of the file system that holds `path`, as mountinfo names it ("" if unknown)."""
    real = os.path.realpath(path)
    best, found = "", ""
    for point, kind in _mounts():
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # Of two mounts on one point the later one is on top.
        if inside and len(point) >= len(best):
            best, found = point, kind
    return found


def has_mounts(path: str) -> bool:
    """Whether something is mounted at a folder or below it."""
    real = os.path.realpath(path)
    return any(point == real or point.startswith(real + "/") for point, _ in _mounts())


def _mounts() -> list[tuple[str, str]]:
    """Mount points of this process and the types of what is mounted there."""
    found: list[tuple[str, str]] = []
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
            for line in mounts:
                fields = line.split(" ")
                point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4])
                found.append((point, fields[fields.index("-") + 1]))
    except OSError:
        return []
    return found
