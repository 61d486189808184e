"""Files and folders outside the store that are taken into it: what there is, and whose it is."""

import errno
import fcntl
import itertools
import os
import stat
import struct
from typing import NamedTuple

from cvs.store import fs, tree
from cvs.store.errors import InputError


class Found(NamedTuple):
    """What lies below a folder: paths relative to it, ascending."""

    folders: list[bytes]
    files: list[bytes]
    links: list[tuple[bytes, bytes]]


#: What is learned of each file of a tree: BLAKE3, size, whether it is executable, and by what to
#: know it again, its inode and time of change.
RESULT = struct.Struct("<32sQ?QQ")


def walk(root: bytes) -> Found:
    """Lists what lies below a folder.

    Raises:
        InputError: something is neither file, folder nor link.
        TreeError: a path is too long, or there are too many.
    """
    found = Found([], [], [])
    waiting = [b""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(root + b"/" + prefix) as scan:
            items = list(itertools.islice(scan, tree.NODE_LIMIT + 1))
        count = len(items) + len(found.folders) + len(found.files) + len(found.links)
        if count > tree.NODE_LIMIT:
            raise tree.TreeError(f"{os.fsdecode(root)} has more than {tree.NODE_LIMIT:,} files")
        for item in items:
            path = prefix + item.name
            # Here already: what lies deeper may have a path that no call takes.
            tree.check_path(path)
            if item.is_symlink():
                found.links.append((path, os.readlink(item.path)))
            elif item.is_dir(follow_symlinks=False):
                found.folders.append(path)
                waiting.append(path + b"/")
            elif item.is_file(follow_symlinks=False):
                found.files.append(path)
            else:
                raise InputError(f"{os.fsdecode(item.path)} is not a file, folder or link")
    found.folders.sort()
    found.files.sort()
    found.links.sort()
    return found


def is_alone(descriptor: int, status: os.stat_result) -> bool:
    """Whether a file, open for reading, can be changed by its one name alone.

    With further names it could be through them; with a process that has it open for writing,
    through that; with another owner, by that one.
    """
    return is_owned(status) and not is_written(descriptor)


def is_owned(status: os.stat_result, names: int = 1) -> bool:
    """Whether a file is this user's and has no more than so many names."""
    return status.st_nlink <= names and status.st_uid == os.geteuid()


def is_written(descriptor: int) -> bool:
    """Whether anybody has the file open for writing; a file system that cannot say says no."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def known(path: bytes, as_what: tuple[int, int, int]) -> os.stat_result | None:
    """The status of a file that was taken; None if it is another now or was changed since.

    Args:
        as_what: its inode, size and time of change in nanoseconds.
    """
    try:
        now = os.lstat(path)
    except FileNotFoundError:
        return None
    is_same = (now.st_ino, now.st_size, now.st_mtime_ns) == as_what
    return now if is_same and stat.S_ISREG(now.st_mode) else None


def remove(path: bytes, as_what: tuple[int, int, int]) -> None:
    """Removes a file that was taken, unless it is another or was changed since; see `known`."""
    if known(path, as_what) is not None:
        fs.unlink(path)
