"""Sources: what may have an entry once more, for a repair.

A source is asked once, for the whole entry; of what it then offers, those files are taken that are
what the manifest says, wherever they lie. So an offer that is not the same entry may serve all the
same: a wheel that another Python compiled differs in its bytecode and in nothing else.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from cvs.store import manifest, pack, temporary, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store, contents
from cvs.store.errors import InputError, IntegrityError, SourceError, StoreError
from cvs.store.ingest import chunks
from cvs.store.stage import Stage, Staged
from cvs.store.volume import Volume


class Offered(NamedTuple):
    """One file of an offer, which may be what is wanted."""

    path: bytes
    """In the offer's folder."""
    executable: bool | None
    """What its mode says; None for nothing that counts."""


class Offer:
    """An entry as a source has it.

    Attributes:
        folder: where its content lies, named as its manifest says.
        document: its manifest; None where it has none that can be relied upon.
        contents: what lies in the folder, by path, as the manifest says.
        stage: where it was written for this repair, so that its files may be moved away; each is
            as durable as the stage's `synced` says. None if the files are somebody else's.
    """

    def __init__(
        self, folder: str, document: manifest.Manifest | None, stage: Stage | None = None
    ) -> None:
        self.folder = folder
        self.document = document
        self.stage = stage
        self.contents = {} if document is None else contents(document)
        self._files: dict[str, list[Offered]] = {}
        for path, node in self.contents.items():
            if isinstance(node, tree.File):
                self._files.setdefault(node.digest, []).append(Offered(path, node.executable))

    def find(self, path: bytes, wanted: tree.File) -> list[Offered]:
        """The files that should have the digest of `wanted`, which belongs at `path`."""
        if self.document is None:
            return [Offered(path, None)]
        found = self._files.get(wanted.digest, [])
        return sorted(found, key=lambda one: one.path != path)

    def forget(self, wanted: tree.File, moved: Offered) -> None:
        """Says that a file with the digest of `wanted` was moved away."""
        self._files[wanted.digest].remove(moved)

    def read(self, path: bytes, size: int) -> Iterator[memoryview]:
        """The bytes of a file, in pieces; none of them was compared with anything yet.

        Raises:
            SourceError: it is no file of that size, or cannot be read.
        """
        place = os.path.join(os.fsencode(self.folder), path) if path else os.fsencode(self.folder)
        try:
            status = os.lstat(place)
            if not stat.S_ISREG(status.st_mode):
                raise SourceError("it is not a file there")
            if status.st_size != size:
                raise SourceError(f"it has {status.st_size} bytes there instead of {size}")
            yield from chunks(place)
        except FileNotFoundError:
            raise SourceError("it is not there") from None
        except OSError as error:
            raise SourceError(f"it cannot be read there: {error.strerror}") from None


class PackOffer(Offer):
    """The files of an open pack."""

    def __init__(self, document: manifest.TreeManifest, packed: pack.Pack) -> None:
        super().__init__("", document)
        self._pack = packed
        prefix = document.name.encode() + b"/"
        self._extents = {prefix + extent.path: extent for extent in pack.layout(document)}

    def read(self, path: bytes, size: int) -> Iterator[memoryview]:
        """As of any offer."""
        try:
            yield from self._pack.read(self._extents[path])
        except IntegrityError:
            raise SourceError("it cannot be unpacked there") from None
        except OSError as error:
            raise SourceError(f"it cannot be read there: {error.strerror}") from None


class Source(Protocol):
    """What may have an entry once more."""

    @property
    def shown(self) -> str:
        """What users call it; without credentials."""

    @property
    def origin(self) -> str:
        """What the entry's manifest should say of where it came from; "" if that is unknown."""

    def packs(self, entry: EntryId) -> bool:
        """Whether it knows that an entry is kept as a pack on volumes that have packs."""

    def open(self, store: Store, entry: EntryId) -> AbstractContextManager[Offer]:
        """What it has of an entry, there for as long as the context lasts.

        Raises:
            CvsError: nothing; says why.
        """


class Maker:
    """A source that writes an entry anew: what a commit, a wheel or a model is, fetched again.

    Args:
        write: writes it into a stage of the store that is repaired; raises CvsError if it cannot.
        packs: whether it is kept as a pack on volumes that have packs.
    """

    def __init__(
        self,
        shown: str,
        write: Callable[[Stage], Staged],
        origin: str = "",
        *,
        packs: bool = False,
    ) -> None:
        self.shown = shown
        self.origin = origin
        self._write = write
        self._packs = packs

    def packs(self, entry: EntryId) -> bool:
        """What it was told."""
        return self._packs

    @contextlib.contextmanager
    def open(self, store: Store, entry: EntryId) -> Iterator[Offer]:
        """Writes the entry; digests are those of the bytes that were written."""
        with contextlib.ExitStack() as opened:
            is_packed = self._packs and store.volume.packs_wheels
            if is_packed or os.path.lexists(os.path.join(store.path(entry), pack.NAME)):
                # Where there is a pack, the volume is none for all the files that are in it.
                local = opened.enter_context(temporary.folder())
                stage = opened.enter_context(Stage(local.folder, synced=False))
            else:
                stage = opened.enter_context(store.stage())
            staged = self._write(stage)
            yield Offer(staged.folder, staged.manifest, stage)


class Copy:
    """A file or folder that may be what an entry was made from.

    Args:
        path: of the file, or of the folder that the tree's files lie in.
    """

    def __init__(self, path: str) -> None:
        self.shown = path
        self.origin = ""

    def packs(self, entry: EntryId) -> bool:
        """Nothing tells."""
        return False

    @contextlib.contextmanager
    def open(self, store: Store, entry: EntryId) -> Iterator[Offer]:
        """Its files, each for what lies in its place in the entry."""
        yield _CopyOffer(os.path.realpath(self.shown), None)


class _CopyOffer(Offer):
    """Files without a manifest, and without the folder of an entry around them."""

    def find(self, path: bytes, wanted: tree.File) -> list[Offered]:
        # Of a file's content there is no inside.
        return [Offered(path.partition(b"/")[2], None)]


class OtherStore:
    """Another volume's store, of which only what is needed is read.

    Args:
        root: the volume's root, as COMFY_CACHE_ROOT would name it.
    """

    def __init__(self, root: str) -> None:
        self.shown = root
        self.origin = ""
        self._store = Store(Volume(root))

    def packs(self, entry: EntryId) -> bool:
        """Whether it has a pack."""
        document = self._document(entry)
        if not isinstance(document, manifest.TreeManifest):
            return False
        return pack.find(self._store.path(entry), document) is not None

    @contextlib.contextmanager
    def open(self, store: Store, entry: EntryId) -> Iterator[Offer]:
        """What lies there under the entry's name, whole or not: each file is compared anyhow."""
        folder = self._store.path(entry)
        if not os.path.isdir(folder):
            raise SourceError("it does not have the entry")
        if os.path.samefile(self._store.volume.store, store.volume.store):
            raise SourceError("it is the same store")
        document = self._document(entry)
        packed = None
        if isinstance(document, manifest.TreeManifest):
            packed = pack.find(folder, document)
        if packed is None or not isinstance(document, manifest.TreeManifest):
            yield Offer(folder, document)
            return
        try:
            opened = pack.Pack(packed, document)
        except (IntegrityError, OSError):
            raise SourceError("its pack is damaged") from None
        with opened:
            yield PackOffer(document, opened)

    def _document(self, entry: EntryId) -> manifest.Manifest | None:
        try:
            document = self._store.manifest(entry)
            return document if manifest.identity(document) == entry else None
        except (StoreError, IntegrityError, tree.TreeError, OSError):
            # Damaged there as well: its files may be sound.
            return None


def at(path: str) -> OtherStore | Copy:
    """The source that a path is: the root of a volume, or else a copy.

    Raises:
        InputError: there is nothing.
        StoreError: it is a volume of a newer cvs.
    """
    volume = Volume(path)
    if volume.exists():
        volume.check()
        return OtherStore(path)
    if not os.path.exists(path):
        raise InputError(f"{path} is not there")
    return Copy(path)
