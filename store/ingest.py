"""Taking local files and folders into the store in one pass, as copies or by adoption."""

import collections
import errno
import fcntl
import itertools
import os
import shlex
import stat
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from cvs.store import copying, damage, fs, moving, tree, workers
from cvs.store.copying import CHUNK, Copied
from cvs.store.digest import EntryId
from cvs.store.errors import InputError, IntegrityError, StoreError
from cvs.store.progress import SILENT, Progress
from cvs.store.stage import Staged
from cvs.store.workers import Advance

if TYPE_CHECKING:
    from cvs.store.entries import Store


def chunks(path: str | bytes) -> Iterator[memoryview]:
    """The bytes of a file in pieces of up to 256 KiB; a piece is valid until the next is asked for.

    Plain sequential reads: mapped files hang hard where a network volume stops answering.
    """
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while count := os.readv(descriptor, [buffer]):
            yield view[:count]
    finally:
        os.close(descriptor)


class _Found(NamedTuple):
    """What lies below a folder: paths relative to it, ascending."""

    folders: list[bytes]
    files: list[bytes]
    links: list[tuple[bytes, bytes]]


#: What is learned of each file of a tree: BLAKE3, size, whether it is executable, and by what to
#: know it again, its inode and time of change.
_RESULT = struct.Struct("<32sQ?QQ")


def add_path(
    store: "Store",
    path: str,
    *,
    name: str | None = None,
    move: bool = False,
    sha256: bool = True,
    progress: Progress = SILENT,
) -> EntryId:
    """Adds a local file or folder and returns its id.

    A folder becomes a tree called `name`, by default its own name. Executable is what its owner
    may execute: what the file system says of modes is believed here alone, once.

    Args:
        name: of a tree; of a file, the name that decides its suffix.
        move: adopt the files instead of copying them where that is safe and the file system can,
            and remove them at their old place once the entry is stored and sound.
        sha256: whether a file entry gets its SHA-256, by which others know it.

    Raises:
        InputError: neither file nor folder, or something else lies inside the folder.
        TreeError: names or links that no entry may have.
        IntegrityError: an entry of that name is there and damaged; nothing was removed.
    """
    absolute = os.path.abspath(path)
    if move:
        is_gone = not os.path.exists(absolute)
        before = moving.go_on(store, absolute)
        if is_gone and before is not None:
            return before
    if os.path.isdir(absolute):
        return _Tree(store, os.fsencode(absolute), name, move, progress).add()
    if os.path.isfile(absolute):
        return _add_file(store, os.fsencode(absolute), name, move, sha256, progress)
    if os.path.lexists(absolute):
        raise InputError(f"{path} is neither a file nor a folder")
    raise InputError(f"{path} is not there")


def _add_file(
    store: "Store", path: bytes, name: str | None, move: bool, sha256: bool, progress: Progress
) -> EntryId:
    base = os.path.basename(path)
    # A link to a model is what people have in their folders: the model is meant.
    source = os.path.realpath(path)
    _check_outside(store, os.fsdecode(source))
    what = f"add {tree.quote(base)}"
    with store.stage() as stage, progress.task(what, os.stat(source).st_size) as task:
        taken, status = take(
            source,
            os.fsencode(os.path.join(stage.folder, "content")),
            executable=False,
            move=move,
            sha256=sha256,
            synced=not store.volume.syncs_at_once,
            advance=task.advance,
            threads=blake3.AUTO,
        )
        staged = stage.taken(taken, origin=tree.quote(base), name=name or os.fsdecode(base))
        entry = _publish(store, staged, source, move)
    if move:
        _remove(source, (status.st_ino, taken.size, status.st_mtime_ns))
        if os.path.islink(path):
            fs.unlink(path)
    return entry


def _publish(store: "Store", staged: Staged, source: bytes, move: bool) -> EntryId:
    try:
        (entry,) = store.publish(staged)
        if move and os.path.lexists(staged.folder):
            # Another entry was there first, and what it was made from is about to be removed.
            store.check(entry)
    except IntegrityError as error:
        # What is damaged there is right here.
        hint = f"{damage.cure(staged.id)} --from {shlex.quote(os.fsdecode(source))}"
        raise IntegrityError(error.message, hint=hint) from error
    return entry


def _check_outside(store: "Store", path: str) -> None:
    root = os.path.realpath(store.volume.store)
    if path == root or path.startswith(root + "/") or root.startswith(path + "/"):
        raise InputError(f"{path} and the store lie in each other")


class _Tree:
    """The adding of one folder."""

    def __init__(
        self, store: "Store", root: bytes, name: str | None, move: bool, progress: Progress
    ) -> None:
        self._store = store
        self._origin = tree.quote(os.path.basename(root))
        self._name = name or os.fsdecode(os.path.basename(root))
        tree.check_tree_name(self._name)
        self._root = os.path.realpath(root)
        _check_outside(store, os.fsdecode(self._root))
        self._move = move
        self._progress = progress

    def add(self) -> EntryId:
        found = _walk(self._root)
        count = len(found.files)
        what = f"add {self._origin}"
        with self._store.stage() as stage, self._progress.task(what, count, "items") as task:
            writer = stage.tree(self._name)
            target = os.fsencode(os.path.join(stage.folder, self._name))
            local = self._store.volume.syncs_at_once
            folders = collections.deque(found.folders)

            def before(pieces: range) -> None:
                # In their order each folder comes before what lies in it.
                while folders and folders[0] < found.files[pieces[-1]]:
                    writer.folder(folders.popleft())

            def work(index: int, slot: memoryview, advance: Advance) -> None:
                path = found.files[index]
                taken, status = take(
                    self._root + b"/" + path,
                    target + b"/" + path,
                    move=self._move,
                    synced=not local,
                    advance=advance,
                )
                executable = bool(status.st_mode & stat.S_IXUSR)
                known = (status.st_ino, status.st_mtime_ns)
                _RESULT.pack_into(slot, 0, taken.digest, taken.size, executable, *known)

            def after(pieces: range, results: memoryview) -> None:
                for index in pieces:
                    row = _RESULT.unpack_from(results, index * _RESULT.size)
                    digest, size, executable, _, _ = row
                    writer.taken(found.files[index], size, digest, executable)

            results = workers.spread(
                work,
                count,
                _RESULT.size,
                workers=workers.count_for(local),
                task=task,
                before=before,
                after=after,
            )
            for folder in folders:
                writer.folder(folder)
            for path, link in found.links:
                writer.link(path, link)
            staged = writer.finish(origin=self._origin)
            entry = _publish(self._store, staged, self._root, self._move)
        if self._move:
            self._clear(entry, found, results)
        return entry

    def _clear(self, entry: EntryId, found: _Found, results: memoryview) -> None:
        """Removes what was adopted, and nothing that came later or was changed since."""
        root = moving.set_aside(self._root, entry)

        def remove(index: int, _slot: memoryview, _advance: Advance) -> None:
            _, size, _, inode, changed = _RESULT.unpack_from(results, index * _RESULT.size)
            _remove(root + b"/" + found.files[index], (inode, size, changed))

        many = workers.count_for(self._store.volume.syncs_at_once)
        workers.spread(remove, len(found.files), 0, workers=many, task=SILENT.task(""))
        for path, link in found.links:
            place = root + b"/" + path
            if os.path.islink(place) and os.readlink(place) == link:
                fs.unlink(place)
        moving.remove_folders(root, found.folders)
        moving.put_back(root, self._root)


def _walk(root: bytes) -> _Found:
    found = _Found([], [], [])
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


def take(
    source: bytes,
    target: bytes,
    *,
    executable: bool | None = None,
    move: bool = False,
    sha256: bool = False,
    synced: bool,
    advance: Advance,
    threads: int = 1,
) -> tuple[Copied, os.stat_result]:
    """Makes one file of the store from one outside: a copy, or the file itself if `move` allows.

    Args:
        executable: by default as the source is.
        synced: whether to wait until the file system has this file.

    Returns:
        What is stored, and the source's status when it was opened.
    """
    opened = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise StoreError(f"{os.fsdecode(source)} was changed while it was read")
        if executable is None:
            executable = bool(status.st_mode & stat.S_IXUSR)
        mode = 0o555 if executable else 0o444
        if move and _adopt(opened, source, target, status):
            fs.chmod(target, mode)
            taken = _digest(opened, status.st_size, sha256, advance, threads)
            if synced:
                fs.sync(opened)
            return taken, status
        if status.st_size < CHUNK:
            # Most files of a tree: in one piece, with no more calls than there must be.
            data = os.read(opened, status.st_size + 1)
            if len(data) == status.st_size:
                (fs.write_synced if synced else fs.write_file)(target, data, mode)
                advance(len(data))
                return copying.of(data, sha256), status
            os.lseek(opened, 0, os.SEEK_SET)
        large = status.st_size > copying.LARGE
        written = fs.create(target, mode, readable=large)
        try:
            if synced and large:
                # A quota refuses here and now what it would refuse after many bytes.
                fs.truncate(written, status.st_size)
                fs.truncate(written, 0)
            taken = copying.copy(
                opened,
                written,
                size=status.st_size,
                sha256=sha256,
                advance=advance,
                threads=threads,
            )
            if synced:
                fs.sync(written)
        finally:
            fs.close(written)
        return taken, status
    finally:
        os.close(opened)


def _adopt(descriptor: int, source: bytes, target: bytes, status: os.stat_result) -> bool:
    """Gives a file a second name in the stage; False where only a copy is safe or possible.

    A file with further names could be changed through them, and one that somebody has open for
    writing through that.
    """
    if status.st_nlink != 1 or not os.path.samestat(status, os.fstat(descriptor)):
        return False
    if _is_written(descriptor):
        return False
    try:
        fs.link(source, target)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            return False
        raise
    return True


def _is_written(descriptor: int) -> bool:
    """Whether anybody has the file open for writing; a file system that cannot say says no."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _digest(descriptor: int, size: int, sha256: bool, advance: Advance, threads: int) -> Copied:
    """Digests an open file from its beginning, of `size` bytes as far as known."""
    if not sha256 and size < CHUNK:
        data = os.read(descriptor, size + 1)
        if len(data) == size:
            return copying.of(data, sha256)
        os.lseek(descriptor, 0, os.SEEK_SET)
    return copying.digest(descriptor, sha256=sha256, advance=advance, threads=threads)


def _remove(path: bytes, known: tuple[int, int, int]) -> None:
    """Removes a file that was taken, unless it is another or was changed since.

    Args:
        known: its inode, size and time of change in nanoseconds.
    """
    try:
        now = os.lstat(path)
    except FileNotFoundError:
        return
    if (now.st_ino, now.st_size, now.st_mtime_ns) == known:
        fs.unlink(path)
