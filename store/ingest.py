"""Taking local files and folders into the store in one pass, as copies or by adoption."""

import collections
import errno
import os
import shlex
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from blake3 import blake3

from cvs.store import copying, damage, follower, fs, loose, moving, tree, workers
from cvs.store.adopt import Adoption, Elsewhere
from cvs.store.copying import CHUNK, Copied
from cvs.store.digest import EntryId
from cvs.store.errors import InputError, IntegrityError, StoreError
from cvs.store.loose import RESULT, Found
from cvs.store.progress import SILENT, Progress, Task
from cvs.store.stage import Staged
from cvs.store.workers import Advance
from cvs.store.writeback import Writeback

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
            # The run before may have ended because this failed.
            fs.sync_folder(store.volume.store)
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
    size, local = os.stat(source).st_size, store.volume.syncs_at_once
    with store.stage() as stage, progress.task(what, size) as task:
        with Writeback(stage.folder) as writeback:
            if size >= follower.LARGE and local and not move:
                writeback.start()
            taken, status = take(
                source,
                os.fsencode(os.path.join(stage.folder, "content")),
                executable=False,
                move=move,
                sha256=sha256,
                synced=not local,
                advance=task.advance,
                threads=blake3.AUTO,
                mapped=local,
            )
        staged = stage.taken(taken, origin=tree.quote(base), name=name or os.fsdecode(base))
        entry = _publish(store, staged, source, move)
    if move:
        loose.remove(source, (status.st_ino, taken.size, status.st_mtime_ns))
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
        raise _with_cure(error, staged.id, source) from error
    return entry


def _with_cure(error: IntegrityError, entry: EntryId, source: bytes) -> IntegrityError:
    """What is damaged in the store is right outside."""
    hint = f"{damage.cure(entry)} --from {shlex.quote(os.fsdecode(source))}"
    return IntegrityError(error.message, hint=hint)


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
        if self._move:
            try:
                return self._adopt(loose.walk(self._root))
            except Elsewhere:
                # File by file then, as they are now.
                pass
        found = loose.walk(self._root)
        count = len(found.files)
        with self._store.stage() as stage, self._task(found) as task:
            writer = stage.tree(self._name)
            target = os.fsencode(os.path.join(stage.folder, self._name))
            local = self._store.volume.syncs_at_once
            folders = collections.deque(found.folders)

            def before(pieces: range) -> None:
                if local and count >= workers.SMALL:
                    writeback.start()
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
                RESULT.pack_into(slot, 0, taken.digest, taken.size, executable, *known)

            def after(pieces: range, results: memoryview) -> None:
                for index in pieces:
                    row = RESULT.unpack_from(results, index * RESULT.size)
                    digest, size, executable, _, _ = row
                    writer.taken(found.files[index], size, digest, executable)

            with Writeback(stage.folder) as writeback:
                results = workers.spread(
                    work,
                    count,
                    RESULT.size,
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

    def _adopt(self, found: Found) -> EntryId:
        adoption = Adoption(self._store, self._root, self._name, found)
        with self._task(found) as task:
            entry, document = adoption.digest(self._origin, task)
        try:
            if not self._store.has(entry) and adoption.publish(entry, document):
                return entry
            # Another was there first, and what this one was made from is about to be removed.
            self._store.check(entry)
        except IntegrityError as error:
            raise _with_cure(error, entry, self._root) from error
        self._clear(entry, found, adoption.results)
        return entry

    def _task(self, found: Found) -> Task:
        return self._progress.task(f"add {self._origin}", len(found.files), "items")

    def _clear(self, entry: EntryId, found: Found, results: memoryview) -> None:
        """Removes what was adopted, and nothing that came later or was changed since."""
        root = moving.set_aside(self._root, entry)

        def remove(index: int, _slot: memoryview, _advance: Advance) -> None:
            _, size, _, inode, changed = RESULT.unpack_from(results, index * RESULT.size)
            loose.remove(root + b"/" + found.files[index], (inode, size, changed))

        many = workers.count_for(self._store.volume.syncs_at_once)
        workers.spread(remove, len(found.files), 0, workers=many, task=SILENT.task(""))
        for path, link in found.links:
            place = root + b"/" + path
            if os.path.islink(place) and os.readlink(place) == link:
                fs.unlink(place)
        moving.remove_folders(root, found.folders)
        moving.put_back(root, self._root)


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
    mapped: bool = False,
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
            taken = copying.digest(
                opened,
                size=status.st_size,
                sha256=sha256,
                advance=advance,
                threads=threads,
            )
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
                mapped=mapped,
            )
            if synced:
                fs.sync(written)
        finally:
            fs.close(written)
        return taken, status
    finally:
        os.close(opened)


def _adopt(descriptor: int, source: bytes, target: bytes, status: os.stat_result) -> bool:
    """Gives a file a second name in the stage; False where only a copy is safe or possible."""
    if not loose.is_alone(descriptor, status):
        return False
    try:
        fs.link(source, target)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
            return False
        raise
    return True
