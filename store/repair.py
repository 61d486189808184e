"""Repairing an entry: what verifying finds damaged is put right, and nothing else is touched.

The manifest says what each file must be. What needs bytes is copied from a source, compared,
synced, and renamed over the broken file: a reader sees the old or the new one. What is taken out of
the entry is kept aside, in `damaged/<id>.<unique>`. Until the whole entry verifies it stays marked.

Nothing is locked. Each step is one rename of something that was verified, so that a process that
is killed leaves an entry less damaged than it was, or as damaged; the next repair goes on. Two at
once do the work twice, and each looks once more when it is done.
"""

import contextlib
import errno
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from blake3 import blake3

from cvs.store import damage, fs, manifest, pack, temporary, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store, contents
from cvs.store.errors import CvsError, EntryMissing, IntegrityError, SourceError, StoreError
from cvs.store.ingest import chunks
from cvs.store.progress import SILENT, Progress, Task
from cvs.store.remake import remade
from cvs.store.scratch import Scratch
from cvs.store.source import Offer, Offered, PackOffer, Source
from cvs.store.stage import Staged
from cvs.store.verify import Damage

#: Times that an entry is looked at again: what lies in a folder that could not be read, say, is
#: seen only when it can be. More are of no use where a disk changes what is written to it.
_ROUNDS = 16

#: Files are put in place when so many bytes wait: one sync serves them all, and a repair that is
#: broken off has kept what was put.
_BATCH_BYTES = 1 << 30

#: How a file system says that it makes no hard link here, or that a quota counts it.
_NO_LINK = frozenset(
    {errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EDQUOT, errno.ENOSPC}
)

_MANIFEST = os.fsencode(manifest.NAME)
_PACK = os.fsencode(pack.NAME)


class Lost(NamedTuple):
    """What could not be put right."""

    path: str
    """Relative to the entry's folder, quoted as in the manifest; "." for all of it."""
    why: str


class Repaired(NamedTuple):
    """What came of a repair."""

    entry: EntryId
    restored: tuple[str, ...]
    """Paths that were damaged and are not any more, those of what was taken out among them."""
    kept_aside: str | None
    """Where on the volume that is which was taken out."""
    lost: tuple[Lost, ...]
    """What is still damaged. Without any the entry is whole."""


class Step(NamedTuple):
    """One thing to put right."""

    path: bytes
    """In the entry's folder; b"" for all of it."""
    node: tree.Node | None
    """What belongs there; None for nothing."""
    needs_bytes: bool = False
    """Whether a source must give it; all else follows from the manifest."""


def repair(
    store: Store, entry: EntryId, sources: Iterable[Source] = (), progress: Progress = SILENT
) -> Repaired:
    """Puts right what is damaged in an entry, as far as its manifest and the sources go.

    Sources are asked in their order, and only when the ones before do not give all that is needed.
    An entry that is whole loses its mark and is left as it is; one that is gone comes back.
    """
    with contextlib.ExitStack() as opened, Scratch(store.volume.tmp) as scratch:
        offers = _Offers(store, entry, sources, opened)
        return _Repair(store, entry, offers, scratch, progress).run()


def plan(store: Store, entry: EntryId, found: Iterable[Damage]) -> list[Step]:
    """What is to be done about the damages of an entry; changes nothing.

    Of an entry that is gone, or whose manifest is broken, the only step is that: what else there
    is to do is known when it is done.
    """
    return _plan(store, entry, {_path_of(one) for one in found})


def shown(path: bytes) -> str:
    """How a path in an entry's folder is told."""
    return tree.quote(path) or "."


def _path_of(found: Damage) -> bytes:
    return b"" if found.path == "." else tree.unquote(found.path.rstrip("/"))


def _plan(store: Store, entry: EntryId, damaged: set[bytes]) -> list[Step]:
    root = os.fsencode(store.path(entry))
    if not stat.S_ISDIR(_mode(root, b"")):
        return [Step(b"", tree.Folder(""), needs_bytes=True)]
    if _MANIFEST in damaged:
        needs_bytes = not _is_readable(store, entry) and remade(store, entry) is None
        return [Step(_MANIFEST, tree.File(manifest.NAME, 0, ""), needs_bytes)]
    document = store.manifest(entry)
    packed = _pack_of(store, entry, document)
    if packed is None:
        return list(_steps(root, contents(document), damaged))
    broken = _broken(packed, damaged)
    nodes = contents(packed.document)
    needs_bytes = bool(broken - {_PACK}) or not packed.is_sound()
    return [
        *_steps(root, {}, damaged - broken),
        *(
            Step(path, nodes.get(path, tree.File(pack.NAME, 0, "")), needs_bytes)
            for path in sorted(broken)
        ),
    ]


class _Packed(NamedTuple):
    """The pack of an entry."""

    path: str
    document: manifest.TreeManifest

    def is_sound(self) -> bool:
        """Whether every file of it has its bytes."""
        try:
            with pack.Pack(self.path, self.document) as opened:
                return not any(opened.faults(pack.layout(self.document)))
        except (IntegrityError, OSError):
            return False


def _pack_of(store: Store, entry: EntryId, document: manifest.Manifest) -> _Packed | None:
    if not isinstance(document, manifest.TreeManifest):
        return None
    path = pack.find(store.path(entry), document)
    return None if path is None else _Packed(path, document)


def _broken(packed: _Packed, damaged: set[bytes]) -> set[bytes]:
    """What of the damage is that of a pack: its own, and that of files in it."""
    name = packed.document.name.encode()
    return {path for path in damaged if path in (_PACK, name) or path.startswith(name + b"/")}


def _steps(root: bytes, wanted: dict[bytes, tree.Node], damaged: set[bytes]) -> Iterator[Step]:
    """The steps in their order: folders, what does not belong, links and files."""
    if b"" in damaged:
        yield Step(b"", tree.Folder(""))
    # Whatever lies below these goes with them, and all that belongs below is to be made.
    moved: set[bytes] = set()
    for path, node in sorted(wanted.items()):
        if isinstance(node, tree.Folder):
            if not stat.S_ISDIR(_mode(root, path)):
                moved.add(path)
                yield Step(path, node)
            elif path in damaged:
                yield Step(path, node)
    for path in sorted(damaged - wanted.keys() - {b""}):
        if not _is_below(path, moved):
            moved.add(path)
            yield Step(path, None)
    for path, node in sorted(wanted.items()):
        is_gone = _is_below(path, moved)
        if path not in damaged and not is_gone:
            continue
        if isinstance(node, tree.Link):
            yield Step(path, node)
        elif isinstance(node, tree.File):
            yield Step(path, node, needs_bytes=is_gone or not _has_bytes(root, path, node))


def _is_below(path: bytes, folders: set[bytes]) -> bool:
    while path := path.rpartition(b"/")[0]:
        if path in folders:
            return True
    return False


def _has_bytes(root: bytes, path: bytes, node: tree.File) -> bool:
    """Whether a file that is damaged in some way has its bytes; read only if it may."""
    place = os.path.join(root, path)
    try:
        status = os.lstat(place)
        if not stat.S_ISREG(status.st_mode) or status.st_size != node.size:
            return False
        if not _mode_is_off(status.st_mode, node):
            return False
        content = blake3()
        for chunk in chunks(place):
            content.update(chunk)
    except OSError:
        return False
    return content.hexdigest() == node.digest


def _mode(root: bytes, path: bytes) -> int:
    """The mode of what lies in a place; 0 if there is nothing."""
    try:
        return os.lstat(os.path.join(root, path) if path else root).st_mode
    except OSError:
        return 0


def _inode(place: bytes) -> int | None:
    try:
        return os.lstat(place).st_ino
    except OSError:
        return None


def _wanted_mode(node: tree.File) -> int:
    return 0o555 if node.executable else 0o444


def _mode_is_off(mode: int, node: tree.File) -> bool:
    """Whether a mode is another than cvs gives, apart from what a umask takes of it."""
    wanted = _wanted_mode(node)
    return bool(stat.S_IMODE(mode) & ~wanted) or mode & 0o700 != wanted & 0o700


def _is_readable(store: Store, entry: EntryId) -> bool:
    """Whether the manifest of an entry is one, its own, and a file."""
    if not stat.S_ISREG(_mode(os.fsencode(store.path(entry)), _MANIFEST)):
        return False
    try:
        return manifest.identity(store.manifest(entry)) == entry
    except (StoreError, tree.TreeError, OSError):
        return False


class _Offers:
    """What the sources offer: each is opened once, when the ones before did not do."""

    def __init__(
        self,
        store: Store,
        entry: EntryId,
        sources: Iterable[Source],
        opened: contextlib.ExitStack,
    ) -> None:
        self._store = store
        self._entry = entry
        self._sources = list(sources)
        self._waiting = list(self._sources)
        self._stack = opened
        self._opened: list[tuple[str, Offer]] = []
        self.answers: dict[str, str] = {}
        """What sources said that offer nothing."""

    @property
    def origin(self) -> str:
        """Where the entry came from, as far as a source knows."""
        return next((source.origin for source in self._sources if source.origin), "")

    def packs(self) -> bool:
        """Whether the entry belongs into a pack, as far as a source knows."""
        if not self._store.volume.packs_wheels:
            return False
        return any(source.packs(self._entry) for source in self._sources)

    @contextlib.contextmanager
    def after(self, shown: str, offer: Offer) -> Iterator[None]:
        """For some time another offer is asked before them."""
        self._opened.insert(0, (shown, offer))
        try:
            yield
        finally:
            self._opened.pop(0)

    def __iter__(self) -> Iterator[tuple[str, Offer]]:
        number = 0
        while True:
            while number == len(self._opened):
                if not self._waiting:
                    return
                self._open(self._waiting.pop(0))
            yield self._opened[number]
            number += 1

    def _open(self, source: Source) -> None:
        try:
            offer = self._stack.enter_context(source.open(self._store, self._entry))
        except CvsError as error:
            self.answers[source.shown] = error.message
        else:
            self._opened.append((source.shown, offer))


class _Repair:
    """One repair of one entry."""

    def __init__(
        self,
        store: Store,
        entry: EntryId,
        offers: _Offers,
        scratch: Scratch,
        progress: Progress,
    ) -> None:
        self._store = store
        self._entry = entry
        self._root = os.fsencode(store.path(entry))
        self._offers = offers
        self._scratch = scratch
        self._progress = progress
        self._synced = not store.volume.syncs_at_once
        self._aside: str | None = None
        self._count = 0
        self._changed = False
        #: What was damaged in any round; and what is in the last, with how.
        self._seen: set[bytes] = set()
        self._left: dict[bytes, str] = {}
        #: Path → source → why it does not give it.
        self._refused: dict[bytes, dict[str, str]] = {}
        #: Folders of the entry in which names changed.
        self._touched: set[bytes] = set()

    def run(self) -> Repaired:
        """Looks and mends for as long as that changes something."""
        self._look()
        for _ in range(_ROUNDS):
            before = self._left.keys()
            if not before or (not self._mend() and before <= self._refused.keys()):
                break
            # Where nothing was changed another repair may have been quicker.
            self._look()
            if not self._changed and self._left.keys() == before:
                break
        restored = sorted(map(shown, self._seen - self._left.keys()))
        lost = [Lost(shown(path), self._why(path)) for path in sorted(self._left)]
        return Repaired(self._entry, tuple(restored), self._aside, tuple(lost))

    def _look(self) -> None:
        try:
            found = damage.examine(self._store, self._entry)
            self._left = {_path_of(one): one.what for one in found}
            if found and not stat.S_ISDIR(_mode(self._root, b"")):
                self._left = {b"": "is not a folder"}
        except EntryMissing:
            self._left = {b"": "is missing"}
        self._seen.update(self._left)

    def _why(self, path: bytes) -> str:
        answers = self._refused.get(path)
        if answers is None:
            return self._left[path]
        answers = self._offers.answers | answers
        if not answers:
            return f"{self._left[path]}, and no source of it is known"
        return "; ".join(f"{source}: {answer}" for source, answer in answers.items())

    def _mend(self) -> bool:
        """Puts right what can be; returns whether anything was."""
        self._changed = False
        if not stat.S_ISDIR(_mode(self._root, b"")):
            self._replace()
        elif _MANIFEST in self._left:
            self._mend_manifest()
        elif packed := self._packed():
            self._mend_pack(packed)
        else:
            steps = _plan(self._store, self._entry, set(self._left))
            self._seen.update(step.path for step in steps)
            self._take(self._root, steps)
        self._sync()
        return self._changed

    def _packed(self) -> _Packed | None:
        """The pack of the entry, or the one that belongs where nothing is."""
        document = self._store.manifest(self._entry)
        packed = _pack_of(self._store, self._entry, document)
        if packed or not isinstance(document, manifest.TreeManifest):
            return packed
        if _mode(self._root, document.name.encode()) or not self._offers.packs():
            return None
        return _Packed(os.path.join(self._store.path(self._entry), pack.NAME), document)

    def _mend_pack(self, packed: _Packed) -> None:
        """Writes a pack anew: what is sound in the old one from there, the rest from sources."""
        broken = _broken(packed, set(self._left))
        self._take(self._root, _steps(self._root, {}, set(self._left) - broken))
        if not broken:
            return
        if broken == {_PACK} and packed.is_sound():
            # It is its mode.
            self._chmod(self._root, _PACK, 0o444)
            return
        staged = self._name()
        lacking = self._write_pack(packed.document, staged, self._synced, packed.path)
        if not lacking:
            self._install(self._root, [(_PACK, staged)])
            return
        name = packed.document.name.encode()
        if name not in broken:
            for path in lacking:
                self._left.setdefault(path, "cannot be read")
        for path in broken & {_PACK, name}:
            self._refused[path] = self._refused[min(lacking)]

    def _write_pack(
        self, document: manifest.TreeManifest, path: str, synced: bool, old: str | None
    ) -> dict[bytes, tree.File]:
        """Writes the pack of a tree, which is put together on this host's own disk.

        Args:
            path: the pack's, which is made.
            old: the pack that the entry has, of which all that is sound is taken.

        Returns:
            The files that nobody gave; with any there is no pack.
        """
        with contextlib.ExitStack() as opened:
            local = opened.enter_context(temporary.folder())
            if old is not None:
                with contextlib.suppress(IntegrityError, OSError):
                    offer = PackOffer(document, opened.enter_context(pack.Pack(old, document)))
                    opened.enter_context(self._offers.after(old, offer))
            root = os.path.join(local.folder, "new")
            fs.mkdir(root)
            unpacking = _Repair(self._store, self._entry, self._offers, local, self._progress)
            unpacking._synced = False
            unpacking._refused = self._refused
            steps = _steps(os.fsencode(root), contents(document), set())
            lacking = unpacking._take(os.fsencode(root), list(steps))
            if not lacking:
                pack.write(document, os.path.join(root, document.name), path, synced=synced)
            return lacking

    def _replace(self) -> None:
        """Publishes the entry anew, where there is none or something else lies."""
        document = self._offered_document(b"")
        if document is None:
            return
        with self._store.stage() as stage:
            if isinstance(document, manifest.TreeManifest) and self._offers.packs():
                path = os.path.join(stage.folder, pack.NAME)
                lacking = self._write_pack(document, path, stage.synced, None)
            else:
                root = os.fsencode(stage.folder)
                lacking = self._take(root, list(_steps(root, contents(document), set())))
            for lost in sorted(lacking)[:1]:
                for source, answer in self._refused[lost].items():
                    self._refuse(b"", source, f"{shown(lost)}: {answer}")
            if lacking:
                return
            if _mode(self._root, b""):
                self._keep(b"")
            self._store.publish(Staged(self._entry, document, stage))
        self._changed = True

    def _mend_manifest(self) -> None:
        """Puts a manifest in place; what is damaged beside it is seen when it is there."""
        if _is_readable(self._store, self._entry):
            # It is its mode.
            self._chmod(self._root, _MANIFEST, 0o444)
            return
        document = remade(self._store, self._entry, origin=self._offers.origin)
        document = document or self._offered_document(_MANIFEST)
        if document is not None:
            staged = self._name()
            fs.write_synced(staged, manifest.encode(document), 0o444)
            self._put(self._root, _MANIFEST, staged)

    def _offered_document(self, path: bytes) -> manifest.Manifest | None:
        """The manifest of the entry as a source has it, for what is lost at `path` without."""
        self._refused.setdefault(path, {})
        for source, offer in self._offers:
            if offer.document is None:
                self._refuse(path, source, "it has no manifest that could serve")
            elif (other := manifest.identity(offer.document)) != self._entry:
                self._refuse(path, source, f"it gives another entry, {other[:16]}")
            else:
                return offer.document
        return None

    # Steps

    def _take(self, root: bytes, steps: Iterable[Step]) -> dict[bytes, tree.File]:
        """Takes steps in a folder: the entry's, or one where it is made anew.

        Returns:
            The files that no source gave.
        """
        lacking: dict[bytes, tree.File] = {}
        for step in steps:
            node = step.node
            if isinstance(node, tree.File):
                if step.needs_bytes:
                    lacking[step.path] = node
                else:
                    self._chmod(root, step.path, _wanted_mode(node))
            elif isinstance(node, tree.Folder):
                self._make_folder(root, step.path)
            elif isinstance(node, tree.Link):
                staged = self._name()
                fs.symlink(tree.unquote(node.target), staged)
                self._put(root, step.path, staged)
            else:
                self._keep(step.path)
        self._fetch(root, lacking)
        return lacking

    def _make_folder(self, root: bytes, path: bytes) -> None:
        mode = _mode(root, path)
        if stat.S_ISDIR(mode):
            self._chmod(root, path, 0o755)
            return
        if mode:
            self._keep(path)
        with contextlib.suppress(FileExistsError):
            fs.mkdir(os.path.join(root, path))
        self._note(root, path)

    def _chmod(self, root: bytes, path: bytes, wanted: int) -> None:
        before = _mode(root, path)
        # What is gone meanwhile was taken by another repair.
        with contextlib.suppress(FileNotFoundError):
            fs.chmod(os.path.join(root, path) if path else root, wanted)
        self._changed |= _mode(root, path) != before

    def _put(self, root: bytes, path: bytes, staged: str) -> None:
        """Renames what is staged to its place, after what lies there was kept."""
        mode = _mode(root, path)
        if mode:
            self._keep(path, leave=not stat.S_ISDIR(mode))
        # Another repair may just have moved the folder aside: what is missing then is seen later.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            fs.rename(staged, os.path.join(root, path))
        self._note(root, path)

    def _note(self, root: bytes, path: bytes) -> None:
        self._changed = True
        if root == self._root:
            self._touched.add(os.path.dirname(os.path.join(root, path)))

    def _keep(self, path: bytes, *, leave: bool = False) -> None:
        """Keeps aside what lies in the entry.

        Args:
            leave: a rename will replace it, and until then it stays where it is if it can.
        """
        source = os.path.join(self._root, path) if path else self._root
        target = self._place_aside(path)
        before = _inode(source)
        try:
            if leave and _linked(source, target):
                return
            fs.rename(source, target)
            self._note(self._root, path)
        except FileNotFoundError:
            # Another repair took it meanwhile; a stale cache may say so of what is there.
            if before is not None and _inode(source) == before:
                raise

    def _place_aside(self, path: bytes) -> bytes:
        volume = self._store.volume
        if self._aside is None:
            self._aside = f"{os.path.basename(volume.damaged)}/{self._entry}.{fs.unique()}"
        folder = os.path.join(volume.root, self._aside)
        if not _is_free(os.fsencode(folder), path):
            # What an earlier round took out is there, and nothing may be put through a link in it.
            folder = os.path.join(folder, fs.unique())
        target = os.path.join(folder, os.fsdecode(path)) if path else folder
        fs.makedirs(os.path.dirname(target))
        return os.fsencode(target)

    def _sync(self) -> None:
        """Waits until all that was changed is kept."""
        if not self._synced:
            fs.sync_all(self._scratch.descriptor, self._scratch.folder)
            return
        for folder in sorted(self._touched):
            # One that was moved aside needs no sync.
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                fs.sync_folder(folder)

    # Bytes

    def _fetch(self, root: bytes, lacking: dict[bytes, tree.File]) -> None:
        """Puts files in place that sources give, and takes them out of `lacking`."""
        if not lacking:
            return
        for path in lacking:
            self._refused.setdefault(path, {})
        total = sum(node.size for node in lacking.values())
        with self._progress.task(f"repairing {self._entry[:16]}", total) as task:
            for source, offer in self._offers:
                self._fetch_from(root, lacking, source, offer, task)
                if not lacking:
                    return

    def _fetch_from(
        self, root: bytes, lacking: dict[bytes, tree.File], source: str, offer: Offer, task: Task
    ) -> None:
        uses = Counter(node.digest for node in lacking.values())
        ready: list[tuple[bytes, str]] = []
        size = 0
        for path, node in sorted(lacking.items()):
            staged = self._obtain(path, node, source, offer, uses[node.digest], task)
            if staged is None:
                continue
            uses[node.digest] -= 1
            ready.append((path, staged))
            del lacking[path]
            size += node.size
            if size >= _BATCH_BYTES:
                self._install(root, ready)
                ready, size = [], 0
        self._install(root, ready)

    def _install(self, root: bytes, ready: Sequence[tuple[bytes, str]]) -> None:
        if ready and not self._synced:
            fs.sync_all(self._scratch.descriptor, self._scratch.folder)
        for path, staged in ready:
            self._put(root, path, staged)

    def _obtain(
        self, path: bytes, node: tree.File, source: str, offer: Offer, uses: int, task: Task
    ) -> str | None:
        """Where in the scratch folder a verified file lies now; None if the offer has none.

        Args:
            uses: how many files with this digest are still wanted.
        """
        if source in self._refused[path]:
            # It was asked in an earlier round.
            return None
        found = offer.find(path, node)
        why = "it has other bytes there" if path in offer.contents else "it does not have it"
        for one in found:
            staged = self._name()
            if self._may_move(offer) and uses <= len(found):
                self._move(offer, one, node, staged)
                task.advance(node.size)
                return staged
            try:
                self._copy(offer, one, node, staged, task)
                return staged
            except SourceError as error:
                why = error.message
                fs.unlink(staged)
        self._refuse(path, source, why)
        return None

    def _may_move(self, offer: Offer) -> bool:
        """Whether files of an offer may be moved here, and can: no rename leads to another disk."""
        if offer.stage is None:
            return False
        device = os.fstat(offer.stage.descriptor).st_dev
        return device == os.fstat(self._scratch.descriptor).st_dev

    def _move(self, offer: Offer, found: Offered, node: tree.File, staged: str) -> None:
        source = os.path.join(os.fsencode(offer.folder), found.path)
        if found.executable != node.executable:
            fs.chmod(source, _wanted_mode(node))
        fs.rename(source, staged)
        offer.forget(node, found)

    def _copy(self, offer: Offer, found: Offered, node: tree.File, staged: str, task: Task) -> None:
        content = blake3()
        descriptor = fs.create(staged, _wanted_mode(node))
        try:
            for chunk in offer.read(found.path, node.size):
                fs.write(descriptor, chunk)
                content.update(chunk)
                task.advance(len(chunk))
            if self._synced:
                fs.sync(descriptor)
        finally:
            fs.close(descriptor)
        if content.hexdigest() != node.digest:
            raise SourceError("it has other bytes there")

    def _name(self) -> str:
        """A name in the scratch folder that is free."""
        self._count += 1
        return os.path.join(self._scratch.folder, str(self._count))

    def _refuse(self, path: bytes, source: str, why: str) -> None:
        self._refused.setdefault(path, {})[source] = why


def _is_free(folder: bytes, path: bytes) -> bool:
    """Whether something can be put at a path in a folder, in real folders and over nothing."""
    if _mode(folder, path):
        return False
    while path := path.rpartition(b"/")[0]:
        if (mode := _mode(folder, path)) and not stat.S_ISDIR(mode):
            return False
    return True


def _linked(source: bytes, target: bytes) -> bool:
    """Gives what is to be replaced a second name; False where that cannot be."""
    try:
        fs.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        return False
    return True
