"""A folder that becomes an entry where it lies: its files are digested in place, and it is renamed.

Nothing is copied, linked or removed, so it costs little more than reading. It is done where all of
a folder can be had so; else `store/ingest.py` takes its files one by one. The folder stays in its
place until all is known, written and on the disk, and was looked at once more. Between two renames
right after each other it lies beside its place (`store/moving.py`).
"""

import errno
import os
import stat
from typing import TYPE_CHECKING

from cvs.store import copying, fs, loose, moving, workers
from cvs.store.digest import EntryId
from cvs.store.loose import RESULT, Found
from cvs.store.manifest import TreeManifest
from cvs.store.progress import SILENT, Task
from cvs.store.stage import Staged, TreeListing
from cvs.store.workers import Advance

if TYPE_CHECKING:
    from cvs.store.entries import Store

#: How a file system says that this folder cannot be renamed to where it should be.
_IN_PLACE = frozenset(
    {
        *(errno.EXDEV, errno.EBUSY, errno.EACCES, errno.EPERM, errno.EROFS),
        *(errno.ENAMETOOLONG, errno.EOPNOTSUPP, errno.EMLINK),
    }
)


class Elsewhere(Exception):
    """The folder cannot be had as it is: another file system, owners, writers, further names."""


class Adoption:
    """The adopting of one folder.

    Args:
        root: the folder, its real path.
        name: of the tree that it becomes.
    """

    def __init__(self, store: "Store", root: bytes, name: str, found: Found) -> None:
        self._store = store
        self._root = root
        self._name = name
        self._found = found
        self._local = store.volume.syncs_at_once
        self._device = os.stat(store.volume.store).st_dev
        self._open: list[bytes] = []
        self.results = memoryview(b"")
        """Of each file, in their order, a `loose.RESULT`."""

    def digest(self, origin: str, task: Task) -> tuple[EntryId, TreeManifest]:
        """Digests all files, and changes nothing.

        Raises:
            Elsewhere: it is not to be had as it is.
            TreeError: names or links that no entry may have.
        """
        found = self._found
        if fs.has_mounts(os.fsdecode(self._root)):
            raise Elsewhere
        for folder in (b"", *found.folders):
            self._look_at(self._root + b"/" + folder)
        listing = TreeListing(self._name)

        def listed() -> None:
            for folder in found.folders:
                listing.folder(folder)
            for path, target in found.links:
                listing.link(path, target)

        def after(pieces: range, results: memoryview) -> None:
            for index in pieces:
                row = RESULT.unpack_from(results, index * RESULT.size)
                digest, size, executable, inode, _ = row
                if not inode:
                    raise Elsewhere
                listing.file(found.files[index], size, digest, executable)

        self.results = workers.spread(
            self._take,
            len(found.files),
            RESULT.size,
            workers=workers.count_for(self._local),
            task=task,
            meanwhile=listed,
            after=after,
        )
        return listing.finish(origin)

    def publish(self, entry: EntryId, document: TreeManifest) -> bool:
        """Renames the folder into the store; False where another entry was there first.

        Raises:
            Elsewhere: it was changed since, or cannot be renamed.
        """
        try:
            with moving.Aside(self._root, synced=not self._local) as aside:
                staged = Staged(entry, document, aside)
                self._store.settle(staged)
                if not self._local:
                    fs.sync_folders(os.fsdecode(self._root))
                self._close()
                aside.take(self._name)
                try:
                    self._store.reveal(staged)
                except OSError:
                    if self._store.has(entry) and not os.path.lexists(aside.folder):
                        moving.leave_word(self._root, entry)
                    raise
                return not os.path.lexists(aside.folder)
        except OSError as error:
            if error.errno in _IN_PLACE:
                raise Elsewhere from error
            raise

    def _look_at(self, path: bytes) -> None:
        """Whether a folder is to be had, and needs the mode of those of the store."""
        status = os.lstat(path)
        if (
            not stat.S_ISDIR(status.st_mode)
            or status.st_dev != self._device
            or status.st_uid != os.geteuid()
        ):
            raise Elsewhere
        bits = stat.S_IMODE(status.st_mode) & ~stat.S_ISGID
        if bits & ~0o755 or bits & stat.S_IRWXU != stat.S_IRWXU:
            self._open.append(path)

    def _take(self, index: int, slot: memoryview, advance: Advance) -> None:
        """In a worker; leaves its result empty where the file is not to be had."""
        path = self._root + b"/" + self._found.files[index]
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(opened)
            if (
                not stat.S_ISREG(status.st_mode)
                or status.st_dev != self._device
                or not loose.is_alone(opened, status)
            ):
                return
            executable = bool(status.st_mode & stat.S_IXUSR)
            taken = copying.digest(opened, size=status.st_size, sha256=False, advance=advance)
            if not self._local:
                fs.sync(opened)
            known = (status.st_ino, status.st_mtime_ns)
            RESULT.pack_into(slot, 0, taken.digest, taken.size, executable, *known)
        finally:
            os.close(opened)

    def _close(self) -> None:
        """Makes all read-only. The folder still has what was digested then, and nothing else.

        Raises:
            Elsewhere: it does not.
        """
        for folder in self._open:
            fs.chmod(folder, 0o755)

        def close(index: int, slot: memoryview, _: Advance) -> None:
            row = RESULT.unpack_from(self.results, index * RESULT.size)
            _, size, executable, inode, changed = row
            path = self._root + b"/" + self._found.files[index]
            status = loose.known(path, (inode, size, changed))
            if status is None or status.st_nlink != 1:
                return
            mode = 0o555 if executable else 0o444
            if stat.S_IMODE(status.st_mode) != mode:
                fs.chmod(path, mode)
            slot[0] = True

        def walk() -> None:
            if loose.walk(self._root) != self._found:
                raise Elsewhere

        count = len(self._found.files)
        task = SILENT.task("")
        many = workers.count_for(self._local)
        if not all(workers.spread(close, count, 1, workers=many, task=task, meanwhile=walk)):
            raise Elsewhere
