"""Verifying an entry: its content against its manifest, its manifest against its name."""

import functools
import os
import random
import stat
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from blake3 import blake3

from cvs.store import follower, hashing, manifest, pack, tree, workers
from cvs.store.copying import CHUNK
from cvs.store.digest import EntryId
from cvs.store.entries import content_path
from cvs.store.errors import EntryMissing, IntegrityError
from cvs.store.progress import SILENT, Task
from cvs.store.workers import Advance

if TYPE_CHECKING:
    from cvs.store.entries import Store

#: What is learned of a file: whether its bytes are right, and its mode.
_RESULT = struct.Struct("<?I")


class Damage(NamedTuple):
    """One thing that is not as the manifest says."""

    entry: EntryId
    path: str
    """Relative to the entry's folder, quoted as in the manifest."""
    what: str


def verify(
    store: "Store", entry: EntryId, task: Task | None = None, *, sample: float = 1.0
) -> Iterator[Damage]:
    """Finds every changed, missing, extra, truncated, renamed, relinked or mode-changed file.

    Modes are compared where the file system keeps them. A volume that ignores chmod shows every
    file alike, and nothing is learned from it there. A file's SHA-256 is covered by the check of
    the manifest that it stands in.

    Args:
        task: told of files that were looked at.
        sample: how many of the files are read, as a fraction of all; which ones, chance decides
            anew each time. All are looked at: names, kinds, sizes and modes are always compared.

    Raises:
        EntryMissing: the entry is not there.
    """
    path = store.path(entry)
    if os.path.islink(path):
        # What it leads to may change without the store, or be gone where the volume is elsewhere.
        yield Damage(entry, ".", "is a link")
        return
    mode = _mode(os.fsencode(os.path.join(path, manifest.NAME)))
    if mode and not stat.S_ISREG(mode):
        yield Damage(entry, manifest.NAME, "is not a file")
        return
    try:
        document = store.manifest(entry)
    except EntryMissing:
        if not os.path.lexists(path):
            raise
        yield Damage(entry, manifest.NAME, "is missing")
        return
    except IntegrityError as error:
        yield Damage(entry, manifest.NAME, error.message)
        return
    except OSError as error:
        yield Damage(entry, manifest.NAME, error.strerror or str(error))
        return
    found = _Verification(store, entry, document, task or SILENT.task(""), sample).run()
    if not os.path.lexists(path):
        raise EntryMissing(f"the store has no entry {entry}")
    yield from found


class _Verification:
    """The verifying of one entry whose manifest can be read."""

    def __init__(
        self,
        store: "Store",
        entry: EntryId,
        document: manifest.Manifest,
        task: Task,
        sample: float,
    ) -> None:
        self._entry = entry
        self.sample = sample
        self._document = document
        self._task = task
        self._folder = os.fsencode(store.path(entry))
        self._keeps_modes = store.volume.syncs_at_once
        self._is_local = store.volume.syncs_at_once
        self._damages: list[Damage] = []

    def run(self) -> list[Damage]:
        """What was found, the manifest alone if it is not that of an entry of this name."""
        document, expected = self._document, {manifest.NAME}
        if isinstance(document, manifest.SetManifest):
            trouble = self._identity()
        else:
            name = content_path(self._entry, document).partition("/")[2]
            expected.add(name)
            if isinstance(document, manifest.FileManifest):
                trouble = self._identity()
                if not trouble:
                    self._file(os.fsencode(name), document)
            elif path := pack.find(os.fsdecode(self._folder), document):
                expected = {manifest.NAME, pack.NAME}
                trouble = self._identity()
                if not trouble:
                    self._pack(path, document)
            else:
                trouble = _Tree(self, os.fsencode(name), document).run()
        if trouble:
            return [Damage(self._entry, manifest.NAME, trouble)]
        self._around(expected)
        return sorted(self._damages, key=lambda damage: damage.path)

    def _identity(self) -> str | None:
        """What is wrong with the manifest as a whole."""
        try:
            if manifest.identity(self._document) == self._entry:
                return None
        except tree.TreeError as error:
            return error.message
        return "does not belong to an entry of this name"

    def _around(self, expected: set[str]) -> None:
        """Judges the entry's folder and the manifest's own mode."""
        try:
            found = set(os.listdir(self._folder.decode(errors="surrogateescape")))
        except FileNotFoundError:
            return
        for extra in sorted(found - expected):
            self.tell(os.fsencode(extra), "is not part of the entry")
        self.judge_folder(b"", self._folder)
        self.judge_file(manifest.NAME.encode(), _mode(self._folder + b"/" + _MANIFEST), False)

    def _file(self, name: bytes, document: manifest.FileManifest) -> None:
        node = tree.File(tree.quote(name), document.size, document.digest)
        is_read = random.random() < self.sample
        fault = _fault(self._folder + b"/" + name, node, self._is_local, is_read)
        self._task.advance(1)
        if fault:
            self.tell(name, fault)
        else:
            self.judge_file(name, _mode(self._folder + b"/" + name), False)

    def _pack(self, path: str, document: manifest.TreeManifest) -> None:
        """A tree that is packed. Damage is that of a file where it is in one, else the pack's."""
        name = pack.NAME.encode()
        self.judge_file(name, _mode(os.fsencode(path)), False)
        extents = pack.layout(document)
        chosen = [random.random() < self.sample for _ in extents]
        try:
            with pack.Pack(path, document) as packed:
                found = packed.runs(extents)

                def work(index: int, slot: memoryview, advance: Advance) -> None:
                    run = [extents[at] for at in found[index] if chosen[at]]
                    slot[0] = not any(packed.faults(run))
                    advance(0)

                results = workers.spread(
                    work,
                    len(found),
                    1,
                    workers=workers.count_for(self._is_local),
                    task=SILENT.task(""),
                    batch=1,
                    after=lambda runs, _: self._task.advance(sum(len(found[at]) for at in runs)),
                )
                for run, is_sound in zip(found, results, strict=True):
                    if not is_sound:
                        for inside, what in packed.faults(extents[at] for at in run if chosen[at]):
                            self.tell(document.name.encode() + b"/" + tree.unquote(inside), what)
        except IntegrityError as error:
            self.tell(name, error.message.removeprefix(f"{path} "))
        except OSError as error:
            self.tell(name, f"cannot be read: {error.strerror}")

    def tell(self, path: bytes, what: str) -> None:
        """Notes damage."""
        self._damages.append(Damage(self._entry, tree.quote(path) or ".", what))

    def judge_file(self, path: bytes, mode: int, executable: bool) -> None:
        """Compares a file's mode, where modes are kept."""
        if self._keeps_modes and (fault := _mode_fault(mode, executable)):
            self.tell(path, fault)

    def judge_folder(self, path: bytes, place: bytes) -> None:
        """Compares a folder's mode, where modes are kept. The group bit is inherited."""
        if not self._keeps_modes:
            return
        mode = _mode(place)
        bits = stat.S_IMODE(mode) & ~stat.S_ISGID
        if stat.S_ISDIR(mode) and (bits & ~0o755 or bits & stat.S_IRWXU != stat.S_IRWXU):
            self.tell(path, f"has mode {bits:o} instead of 755")


class _Tree:
    """The verifying of a tree: workers read its files while its folders are listed here."""

    def __init__(self, owner: _Verification, name: bytes, document: manifest.TreeManifest) -> None:
        self._owner = owner
        self._name = name
        self._root = owner._folder + b"/" + name
        self._all = {tree.unquote(node.path): node for node in document.nodes}
        files = {path: node for path, node in self._all.items() if isinstance(node, tree.File)}
        self._paths = list(files)
        self._files = list(files.values())
        self._is_read = [random.random() < owner.sample for _ in files]
        self._kinds: dict[bytes, str] = {}
        self._unreadable: dict[bytes, str] = {}
        self._trouble: str | None = None

    def run(self) -> str | None:
        """Tells of all damage; returns what is wrong with the manifest as a whole, if that is."""
        owner = self._owner
        if not stat.S_ISDIR(_mode(self._root)):
            trouble = owner._identity()
            owner.tell(self._name, "is missing or not a folder")
            return trouble
        results = workers.spread(
            self._read,
            len(self._files),
            _RESULT.size,
            workers=workers.count_for(owner._is_local),
            task=owner._task,
            meanwhile=self._look,
        )
        if self._trouble:
            return self._trouble
        rows = list(_RESULT.iter_unpack(results))
        # A file system that ignores chmod shows all files as executable, or none.
        bits = {bool(mode & stat.S_IXUSR) for _, mode in rows if mode}
        for node, path, (sound, mode) in zip(self._files, self._paths, rows, strict=True):
            if not sound or self._kinds.get(path) != "file":
                # Also what was read by way of a link where a folder belongs.
                self._judge(node, path)
            elif owner._keeps_modes:
                if fault := _mode_fault(mode, node.executable):
                    owner.tell(self._shown(path), fault)
            elif len(bits) == 2 and bool(mode & stat.S_IXUSR) != node.executable:
                owner.tell(self._shown(path), "lost or gained its executable bit")
        return None

    def _shown(self, path: bytes) -> bytes:
        return self._name + b"/" + path

    def _read(self, index: int, slot: memoryview, advance: Advance) -> None:
        """In a worker: whether one file has its bytes, and its mode."""
        node = self._files[index]
        try:
            descriptor = _open(self._root + b"/" + self._paths[index])
        except OSError:
            return
        try:
            status = os.fstat(descriptor)
            size = node.size
            if status.st_size != size or not stat.S_ISREG(status.st_mode):
                return
            if not self._is_read[index]:
                digest = node.digest
            elif size < CHUNK:
                # Most files: no more is done for one than must be.
                data = os.read(descriptor, size + 1)
                digest = blake3(data).hexdigest()
            else:
                digest = hashing.plain(descriptor, size, advance)
            _RESULT.pack_into(slot, 0, digest == node.digest, status.st_mode)
        except OSError:
            # Said in words later, when it is read once more.
            return
        finally:
            os.close(descriptor)

    def _look(self) -> None:
        """Meanwhile: what there is by name and kind, and whether the manifest is the right one."""
        self._trouble = self._owner._identity()
        waiting = [b""]
        while waiting:
            prefix = waiting.pop()
            try:
                with os.scandir(self._root + b"/" + prefix) as scan:
                    for item in scan:
                        path = prefix + item.name
                        kind = _kind(item)
                        self._kinds[path] = kind
                        if kind == "folder":
                            waiting.append(path + b"/")
            except OSError as error:
                self._unreadable[prefix] = error.strerror or str(error)
        self._judge_others()

    def _judge_others(self) -> None:
        """All but the files of the entry."""
        owner = self._owner
        for folder, what in sorted(self._unreadable.items()):
            owner.tell(self._shown(folder), f"cannot be read: {what}")
        for path in self._kinds.keys() - self._all.keys():
            owner.tell(self._shown(path), "is not part of the entry")
        owner.judge_folder(self._name, self._root)
        for path, node in self._all.items():
            if isinstance(node, tree.File):
                continue
            kind = self._kinds.get(path)
            if kind is None:
                self._missing(path)
            elif isinstance(node, tree.Folder):
                if kind != "folder":
                    owner.tell(self._shown(path), "is not a folder")
                else:
                    owner.judge_folder(self._shown(path), self._root + b"/" + path)
            elif kind != "link":
                owner.tell(self._shown(path), "is not a link")
            elif fault := self._misled(path, node):
                owner.tell(self._shown(path), fault)

    def _misled(self, path: bytes, node: tree.Link) -> str | None:
        """What is wrong with a link."""
        try:
            is_right = os.readlink(self._root + b"/" + path) == tree.unquote(node.target)
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        return None if is_right else "leads elsewhere"

    def _judge(self, node: tree.File, path: bytes) -> None:
        """Says what is wrong with a file that was not found sound."""
        kind = self._kinds.get(path)
        if kind is None:
            self._missing(path)
            return
        fault: str | None = "is not a file"
        if kind == "file":
            fault = _fault(self._root + b"/" + path, node, False, True)
        if fault:
            self._owner.tell(self._shown(path), fault)

    def _missing(self, path: bytes) -> None:
        if not path.startswith(tuple(self._unreadable)):
            self._owner.tell(self._shown(path), "is missing")


_MANIFEST = manifest.NAME.encode()


@functools.cache
def _mode_fault(mode: int, executable: bool) -> str | None:
    """What is wrong with the mode of a file, if it is one."""
    wanted = 0o555 if executable else 0o444
    bits = stat.S_IMODE(mode)
    if not stat.S_ISREG(mode):
        return None
    if bits & stat.S_IXUSR != wanted & stat.S_IXUSR:
        return "lost or gained its executable bit"
    if bits & ~wanted or bits & stat.S_IRWXU != wanted & stat.S_IRWXU:
        # A umask may have taken from group and others; nothing gives them more.
        return f"has mode {bits:o} instead of {wanted:o}"
    return None


def _fault(path: bytes, node: tree.File, by_child: bool, is_read: bool) -> str | None:
    """What is wrong with one file, in words; None if nothing is.

    Args:
        by_child: whether a large file may be mapped, in a process of its own.
        is_read: whether its bytes are compared too.
    """
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            return "is not a file"
        if status.st_size != node.size:
            return f"has {status.st_size} bytes instead of {node.size}"
        if not is_read:
            return None
        descriptor = _open(path)
        try:
            if by_child and node.size >= follower.LARGE:
                found = hashing.digest(descriptor)
            else:
                found = hashing.plain(descriptor, node.size, lambda _: None)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if found == node.digest else "has other bytes"


def _open(path: bytes) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)


def _mode(path: bytes) -> int:
    """The mode of what lies at a path; 0 if there is nothing."""
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0


def _kind(item: os.DirEntry[bytes]) -> str:
    if item.is_symlink():
        return "link"
    if item.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if item.is_file(follow_symlinks=False) else "other"
