"""Scratch folders: where something is made before it may be seen; gone with its maker.

A process holds its scratch folder with flock on the folder itself, which ends with the process
however that ends; what nobody holds is swept by the next one. A folder may be renamed to its final
place while it is held: that is how an entry is published.

flock on a folder reaches no other host, so on a network file system a folder is swept only when it
has not changed for a day. Nothing that must be right rests on either: a folder is renamed before it
is swept, so that what its owner, should there be one, still wants to publish is not there any more,
whole or not.
"""

import contextlib
import fcntl
import itertools
import os
import re
from collections.abc import Callable
from types import TracebackType
from typing import Self

from cvs.store import fs

#: Seconds since the last change after which what no process of this host holds is left over, on a
#: file system where the holder may be elsewhere.
ABANDONED = 86400.0

#: Digits of a name, and of one that must be short: sockets have paths of at most 107 bytes.
DIGITS = 32
SHORT = 12

#: Numbers of folders, in the order in which they were opened.
ORDER = itertools.count(1)

_UNIQUE = re.compile(f"[0-9a-f]{{{SHORT},{DIGITS}}}")


class Scratch:
    """A new folder in `parent`, held until it is left; use as a context manager.

    Args:
        parent: a folder that exists, on the file system of what will be made.
        prefix: the beginning of its name, for folders that lie among those of others.
        digits: the length of the rest.
    """

    def __init__(self, parent: str, prefix: str = "", digits: int = DIGITS) -> None:
        self._parent = parent
        self._prefix = prefix
        self._digits = digits
        self.folder = ""
        self.descriptor = -1
        """The open folder: a file system that is synced through it tells of every error since."""
        self.order = 0
        """Ascending in the order in which folders were opened."""

    def __enter__(self) -> Self:
        while not self._take():
            # Swept between its making and its lock.
            continue
        return self

    def _take(self) -> bool:
        self.folder = os.path.join(self._parent, self._prefix + fs.unique()[: self._digits])
        try:
            # Nobody else has the name: where it is taken, an answer was lost and the call repeated.
            with contextlib.suppress(FileExistsError):
                fs.mkdir(self.folder, 0o755)
            return self._hold()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def _hold(self) -> bool:
        try:
            self.descriptor = open_folder(self.folder)
            self.order = next(ORDER)
            if lock(self.descriptor) and is_at(self.descriptor, self.folder):
                return True
        except FileNotFoundError:
            pass
        self._close()
        return False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Removes the folder, unless it was renamed. What cannot be removed is swept later: it
        takes nothing from work that was done, and is not why other work failed."""
        try:
            with contextlib.suppress(OSError):
                fs.remove_for_good(self.folder)
        finally:
            self._close()

    def _close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def put(staged: str, path: str, is_whole: Callable[[], bool], prefix: str) -> None:
    """Renames a folder that was made into place, unless another process was first.

    Args:
        is_whole: whether what lies at `path` is as good; else somebody began to remove it.
        prefix: of scratch folders beside `path`.
    """
    try:
        fs.rename(staged, path)
    except OSError:
        if is_whole():
            return
        if not os.path.lexists(path):
            raise
        with Scratch(os.path.dirname(path), prefix) as aside:
            fs.rename(path, os.path.join(aside.folder, "old"))
            fs.rename(staged, path)


def sweep(parent: str, prefix: str = "") -> None:
    """Removes the scratch folders of processes that are gone.

    What cannot be removed now is left: sweeping is a service to the next work, never a part of it.
    """
    try:
        names = [name for name in os.listdir(parent) if _is_ours(name, prefix)]
    except OSError:
        return
    if not names:
        return
    oldest = None
    if fs.filesystem_of(parent) not in fs.SYNCFS_TYPES:
        try:
            oldest = server_time(parent) - ABANDONED
        except OSError:
            return
    for name in names:
        try:
            _sweep(os.path.join(parent, name), os.path.join(parent, prefix + fs.unique()), oldest)
        except OSError:
            continue


def leftovers(parent: str, prefix: str = "") -> list[str]:
    """The scratch folders in `parent` that no process of this host holds."""
    try:
        names = [name for name in os.listdir(parent) if _is_ours(name, prefix)]
    except OSError:
        return []
    return [path for name in names if not _is_held(path := os.path.join(parent, name))]


def _is_held(path: str) -> bool:
    try:
        descriptor = open_folder(path)
    except OSError:
        return True
    try:
        return not lock(descriptor)
    finally:
        os.close(descriptor)


def _is_ours(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and bool(_UNIQUE.fullmatch(name, len(prefix)))


def _sweep(path: str, aside: str, oldest: float | None) -> None:
    descriptor = open_folder(path)
    try:
        if not lock(descriptor):
            return
        if oldest is not None and _changed(path) > oldest:
            return
        fs.rename(path, aside)
        fs.remove_tree(aside)
    finally:
        os.close(descriptor)


def _changed(path: str) -> float:
    """When a folder changed last, or what lies right in it: a file that grows is no change of its
    folder."""
    with os.scandir(path) as items:
        times = [item.stat(follow_symlinks=False).st_mtime for item in items]
    return max([os.stat(path).st_mtime, *times])


def open_folder(path: str | bytes) -> int:
    """Opens a folder, never by way of a link."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def lock(descriptor: int) -> bool:
    """Holds an open folder; whether this process does now, as far as this host can say."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # No locks here at all: then only age tells, and there is always an age on such a system.
        return True
    return True


def is_at(descriptor: int, path: str) -> bool:
    """Whether an open folder is what lies at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def server_time(parent: str) -> float:
    """The time by the clock of the server that keeps `parent`, in seconds: never this host's."""
    with Scratch(parent) as probe:
        return os.fstat(probe.descriptor).st_mtime


def replace_file(path: str, data: bytes, tmp: str | None = None) -> None:
    """Gives `path` new content in one rename, making its folder; readers see old or new, whole.

    On return the new content is kept, whatever happens.

    Args:
        tmp: where scratch folders are made, on the same file system; by default beside `path`.
    """
    folder = os.path.dirname(os.path.abspath(path))
    fs.makedirs(folder)
    with beside(folder, tmp) as scratch:
        staged = os.path.join(scratch.folder, "file")
        fs.write_synced(staged, data)
        fs.rename(staged, path)
    fs.sync_folder(folder)


def replace_symlink(target: str, path: str, tmp: str | None = None) -> None:
    """Points the link `path` at `target` in one rename; a folder there is never replaced.

    Args:
        tmp: as of `replace_file`.
    """
    with beside(os.path.dirname(os.path.abspath(path)), tmp) as scratch:
        staged = os.path.join(scratch.folder, "link")
        fs.symlink(target, staged)
        fs.rename(staged, path)


#: Of scratch folders that lie among the files of users.
BESIDE = ".cvs-"


def beside(folder: str, tmp: str | None) -> Scratch:
    """A scratch folder whose content can be renamed into `folder`: in tmp/, or in `folder`."""
    if tmp is not None:
        return Scratch(tmp)
    sweep(folder, BESIDE)
    return Scratch(folder, BESIDE)
