"""The store: immutable entries under `store/<hash>`, published by one rename.

At any instant a name under store/ is complete or absent. Adding is idempotent and needs no lock:
of two writers of one entry the second finds the first's, checks it and drops its own.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from cvs.store import damage, fs, manifest, tree
from cvs.store.digest import SHORTEST_PREFIX, EntryId, is_id, is_prefix
from cvs.store.document import read_stored
from cvs.store.errors import EntryMissing, InputError, IntegrityError
from cvs.store.progress import SILENT, Progress
from cvs.store.stage import Stage, Staged
from cvs.store.tree import TreeError
from cvs.store.volume import Volume

if TYPE_CHECKING:
    from cvs.store.roots import Root
    from cvs.store.verify import Damage


class AmbiguousPrefix(InputError):
    """More than one entry begins with the digits that were given: `candidates`, ascending."""

    def __init__(self, text: str, candidates: Sequence[EntryId]) -> None:
        super().__init__(f"{text} is ambiguous: {', '.join(entry[:16] for entry in candidates)}")
        self.candidates = tuple(candidates)


class Store:
    """The entries of a volume."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume

    def path(self, entry: EntryId) -> str:
        """The folder of an entry, whether it is there or not."""
        return os.path.join(self.volume.store, entry)

    def has(self, entry: EntryId) -> bool:
        """Whether the entry is there. By the store's invariant it is complete then."""
        return os.path.lexists(os.path.join(self.volume.store, entry, manifest.NAME))

    def condemned(self, entry: EntryId) -> bool:
        """Whether a collection in progress has marked the entry: it may vanish at any moment."""
        return os.path.lexists(os.path.join(self.volume.condemned, entry))

    def ids(self) -> Iterator[EntryId]:
        """The ids of all entries, in no order."""
        try:
            with os.scandir(self.volume.store) as names:
                for item in names:
                    if is_id(item.name):
                        yield EntryId(item.name)
        except FileNotFoundError:
            return

    def find(self, text: str) -> EntryId:
        """The entry that a unique prefix of 8 or more digits names.

        Raises:
            InputError: not such a prefix.
            AmbiguousPrefix: more than one entry begins with it.
            EntryMissing: no entry does.
        """
        if not is_prefix(text):
            raise InputError(
                f"{text!r} is not an entry: {SHORTEST_PREFIX} to 64 digits of its hash are needed"
            )
        if len(text) == 64:
            found = [EntryId(text)] if self.has(EntryId(text)) else []
        else:
            found = sorted(entry for entry in self.ids() if entry.startswith(text))
        if not found:
            raise EntryMissing(f"no entry of the store begins with {text}")
        if len(found) > 1:
            raise AmbiguousPrefix(text, found)
        return found[0]

    def manifest(self, entry: EntryId) -> manifest.Manifest:
        """Reads the manifest of an entry.

        Raises:
            EntryMissing: the entry is not there.
            IntegrityError: its manifest is not one.
        """
        path = os.path.join(self.volume.store, entry, manifest.NAME)
        try:
            data = read_stored(path, manifest.SIZE_LIMIT)
        except FileNotFoundError:
            raise EntryMissing(f"the store has no entry {entry}") from None
        try:
            return manifest.decode(data, path)
        except IntegrityError as error:
            raise IntegrityError(error.message, hint=error.hint or damage.cure(entry)) from error

    def content(self, entry: EntryId) -> str:
        """The path of an entry's file or folder, relative to store/: `<hash>/<name>`.

        Raises:
            EntryMissing, IntegrityError: as `manifest`.
            InputError: a set has no content.
        """
        return content_path(entry, self.manifest(entry))

    def get(self, entry: EntryId | str) -> str:
        """The absolute path of an entry's file or folder, to read from.

        Args:
            entry: its id, or a unique prefix of 8 or more digits.

        Raises:
            InputError, EntryMissing, IntegrityError: as `find` and `content`; the entry is packed;
                it was found damaged and is not served.
        """
        from cvs.store import pack

        found = self.find(entry)
        damage.refuse(self.volume, [found])
        document = self.manifest(found)
        if isinstance(document, manifest.TreeManifest) and pack.find(self.path(found), document):
            raise InputError(
                f"entry {found[:16]} is packed: its files have no paths",
                hint="`cvs.store.unpacked` puts them on a disk",
            )
        return os.path.join(self.volume.store, content_path(found, document))

    def roots(self) -> "list[Root]":
        """What keeps entries: `cvs.store.roots.roots`."""
        from cvs.store.roots import roots

        return list(roots(self.volume))

    def stage(self) -> Stage:
        """A place to write one entry in."""
        return Stage(self.volume.tmp, synced=not self.volume.syncs_at_once)

    def add(
        self,
        path: str,
        *,
        name: str | None = None,
        move: bool = False,
        sha256: bool = True,
        progress: Progress = SILENT,
    ) -> EntryId:
        """Adds a local file or folder: `cvs.store.ingest.add_path`."""
        from cvs.store.ingest import add_path

        return add_path(self, path, name=name, move=move, sha256=sha256, progress=progress)

    def verify(self, entry: EntryId) -> "list[Damage]":
        """What is not as the manifest of an entry says: `cvs.store.verify.verify`."""
        from cvs.store.verify import verify

        return list(verify(self, entry))

    def check(self, entry: EntryId) -> None:
        """Verifies an entry and raises IntegrityError for the first thing that is not right."""
        for found in self.verify(entry):
            raise IntegrityError(
                f"entry {entry[:16]} is damaged: {found.path} {found.what}",
                hint=damage.cure(entry),
            )

    def publish(self, *staged: Staged) -> list[EntryId]:
        """Makes staged entries appear under their names, each in one rename.

        All are synced to the file system before the first is renamed. An entry that is there
        already is kept and the staged one is left for its stage to remove.

        Raises:
            IntegrityError: a different entry lies under the name of one of them, or one that was
                found damaged.
        """
        self.settle(*staged)
        return self.reveal(*staged)

    def settle(self, *staged: Staged) -> None:
        """The first half of publishing: writes the manifests and waits until all is kept."""
        for item in staged:
            path = os.path.join(item.folder, manifest.NAME)
            write = fs.write_synced if item.stage.synced else fs.write_file
            write(path, manifest.encode(item.manifest), 0o444)
            if item.stage.synced:
                fs.sync_folders(item.folder)
        if not staged[0].stage.synced:
            # Through a folder that was opened before anything was written: no error is missed.
            first = min(staged, key=lambda item: item.stage.order)
            fs.sync_all(first.stage.descriptor, first.folder)

    def reveal(self, *staged: Staged) -> list[EntryId]:
        """The second half of publishing, after `settle`: gives the entries their names."""
        marked = damage.marked(self.volume)
        for item in staged:
            try:
                fs.rename(item.folder, self.path(item.id))
            except OSError as error:
                # Or it was renamed, and the answer was lost.
                is_there = not os.path.lexists(item.folder) and self.has(item.id)
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) and not is_there:
                    raise
                self._check_winner(item)
            else:
                if item.id in marked:
                    # The damaged one was removed, and this one is whole.
                    damage.clear(self.volume, item.id)
        fs.sync_folder(self.volume.store)
        return [item.id for item in staged]

    def _check_winner(self, item: Staged) -> None:
        damage.refuse(self.volume, [item.id])
        try:
            sound = manifest.identity(self.manifest(item.id)) == item.id
        except EntryMissing:
            # A collection may have taken it meanwhile; a folder without its manifest is damaged.
            if not os.path.lexists(self.path(item.id)):
                raise
            sound = False
        except TreeError:
            sound = False
        if not sound:
            raise IntegrityError(
                f"{self.path(item.id)} is not what its name says",
                hint=damage.cure(item.id),
            )

    def closure(self, roots: Iterable[EntryId]) -> set[EntryId]:
        """The roots and, of sets among them, the members.

        Raises:
            EntryMissing, IntegrityError: as `manifest`.
        """
        reached: set[EntryId] = set()
        waiting = list(roots)
        while waiting:
            entry = waiting.pop()
            if entry in reached:
                continue
            reached.add(entry)
            document = self.manifest(entry)
            if isinstance(document, manifest.SetManifest):
                waiting.extend(document.members)
        return reached


def contents(document: manifest.Manifest) -> dict[bytes, tree.Node]:
    """What lies in an entry's folder beside its manifest: path there → node.

    The path of a node itself begins in the folder of a tree, one level below.
    """
    if isinstance(document, manifest.SetManifest):
        return {}
    if isinstance(document, manifest.FileManifest):
        node = tree.File(document.content, document.size, document.digest)
        return {document.content.encode(): node}
    root = document.name.encode()
    nodes = {root + b"/" + tree.unquote(node.path): node for node in document.nodes}
    return {root: tree.Folder(tree.quote(root)), **nodes}


def content_path(entry: EntryId, document: manifest.Manifest) -> str:
    """Where the content of an entry lies, relative to store/."""
    if isinstance(document, manifest.SetManifest):
        raise InputError(f"{entry} is a set of entries and has no content of its own")
    name = document.content if isinstance(document, manifest.FileManifest) else document.name
    return f"{entry}/{name}"
