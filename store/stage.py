"""Staging: an entry is written whole in tmp/ before anything can see it under its name.

with store.stage() as stage:
    tree = stage.tree("numpy-2.4.6-cp311")
    tree.write(b"numpy/__init__.py", data)
    store.publish(tree.finish(origin="numpy-2.4.6-cp311-….whl"))
"""

import contextlib
import datetime
import functools
import os
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, TypeVar

from blake3 import blake3

from cvs.store import copying, fs, manifest, tree
from cvs.store.copying import Copied
from cvs.store.digest import EntryId
from cvs.store.scratch import Scratch

T = TypeVar("T")

#: Endings by which ComfyUI's loaders tell formats apart; they look at the resolved path.
KEPT_SUFFIXES = (".safetensors", ".gguf")


class Place(Protocol):
    """Where an entry lies before it is published."""

    folder: str
    """What is renamed to become the entry."""
    descriptor: int
    """That folder, opened before anything was written into it."""
    order: int
    """Ascending in the order in which folders were opened."""
    synced: bool
    """Whether the file system has each file already."""


class Staged(NamedTuple):
    """An entry that lies complete in a stage."""

    id: EntryId
    manifest: manifest.Manifest
    stage: Place

    @property
    def folder(self) -> str:
        """The folder that is renamed when the entry is published."""
        return self.stage.folder


class Stage(Scratch):
    """A folder of its own in tmp/ for one entry; removed on leaving unless it was published.

    Args:
        synced: whether the file system has each file when it is written; else all is synced at
            once before the entry is published.
    """

    def __init__(self, tmp: str, *, synced: bool) -> None:
        super().__init__(tmp)
        self.synced = synced

    def tree(self, name: str) -> "TreeWriter":
        """Begins a tree entry whose folder is called `name`."""
        return TreeWriter(self, name)

    def file(
        self, chunks: Iterable[bytes | memoryview], *, origin: str = "", name: str = ""
    ) -> Staged:
        """Writes a file entry from its bytes, digested on the way.

        Args:
            chunks: the content, in order.
            origin: where it came from, without credentials; advice.
            name: the file's name at its origin; decides the suffix where the bytes do not.
        """
        descriptor = fs.create(os.path.join(self.folder, "content"), 0o444)
        try:
            written = copying.write(chunks, descriptor)
            if self.synced:
                fs.sync(descriptor)
        finally:
            fs.close(descriptor)
        return self.taken(written, origin=origin, name=name)

    def taken(self, file: Copied, *, origin: str = "", name: str = "") -> Staged:
        """Makes a file entry of `content`, which lies in the stage already and was digested."""
        return file_entry(self, file, origin=origin, name=name)

    def set(self, members: Iterable[EntryId], *, origin: str = "") -> Staged:
        """Makes a set entry."""
        ordered = tuple(sorted(set(members)))
        document = manifest.SetManifest(
            format=manifest.FORMAT, members=ordered, origin=origin, created=now()
        )
        return Staged(manifest.identity(document), document, self)


def file_entry(place: Place, file: Copied, *, origin: str, name: str) -> Staged:
    """Makes a file entry of `content`, which lies in a place already and was digested.

    Args:
        origin, name: as of `Stage.file`.
    """
    staged = os.path.join(place.folder, "content")
    content = "content" + _suffix(staged, name)
    if content != "content":
        fs.rename(staged, os.path.join(place.folder, content))
    document = manifest.FileManifest(
        format=manifest.FORMAT,
        digest=file.digest.hex(),
        size=file.size,
        sha256=file.sha256.hex(),
        content=content,
        origin=origin,
        created=now(),
    )
    return Staged(manifest.identity(document), document, place)


class TreeListing:
    """What is known of a tree, put together in any order; folders are listed by who calls.

    Raises:
        TreeError: by every method, as `tree.Encoding`.
    """

    def __init__(self, name: str) -> None:
        tree.check_tree_name(name)
        self.name = name
        self.nodes: list[tree.Node] = []
        self._encoding = tree.Encoding()
        self._size = 0

    def folder(self, path: bytes) -> None:
        """Adds a folder."""
        self._encoding.folder(path)
        self.nodes.append(tree.Folder(tree.quote(path)))

    def file(self, path: bytes, size: int, digest: bytes, executable: bool) -> None:
        """Adds a file; `digest` is the BLAKE3 of its bytes."""
        self._encoding.file(path, size, digest, executable)
        self.nodes.append(tree.File(tree.quote(path), size, digest.hex(), executable))
        self._size += size

    def link(self, path: bytes, target: bytes) -> None:
        """Adds a symbolic link, which must stay inside the tree."""
        self._encoding.link(path, target)
        self.nodes.append(tree.Link(tree.quote(path), tree.quote(target)))

    def finish(self, origin: str) -> tuple[EntryId, manifest.TreeManifest]:
        """The entry's id, and its manifest."""
        document = manifest.TreeManifest(
            format=manifest.FORMAT,
            name=self.name,
            size=self._size,
            nodes=tuple(sorted(self.nodes, key=lambda node: node.path)),
            origin=origin,
            created=now(),
        )
        return tree.tree_id(self.name, self._encoding.digest()), document


class TreeWriter:
    """Writes the files of a tree entry, digesting them on the way.

    Paths are bytes relative to the tree's root; parents are made as needed. Links are made last,
    so that no file can be written through one.
    """

    def __init__(self, stage: Stage, name: str) -> None:
        self._listing = TreeListing(name)
        self._stage = stage
        self._root = os.fsencode(os.path.join(stage.folder, name))
        self._folders: set[bytes] = {b""}
        self._links: list[tuple[bytes, bytes]] = []
        with contextlib.suppress(FileExistsError):
            # As in `_create`.
            fs.mkdir(self._root)

    def folder(self, path: bytes) -> None:
        """Adds a folder and its parents; one that is there already is fine."""
        if path in self._folders:
            return
        self.folder(_check_place(path))
        self._listing.folder(path)
        self._create(fs.mkdir, path, known=1)
        self._folders.add(path)

    def write(self, path: bytes, data: bytes | memoryview, executable: bool = False) -> None:
        """Adds a file from memory."""
        descriptor = self._open(path, executable)
        try:
            fs.write(descriptor, data)
            if self._stage.synced:
                fs.sync(descriptor)
        finally:
            fs.close(descriptor)
        self.taken(path, len(data), blake3(data).digest(), executable)

    def write_chunks(
        self, path: bytes, chunks: Iterable[bytes | memoryview], executable: bool = False
    ) -> None:
        """Adds a file from a stream."""
        descriptor = self._open(path, executable)
        hasher, size = blake3(), 0
        try:
            for chunk in chunks:
                fs.write(descriptor, chunk)
                hasher.update(chunk)
                size += len(chunk)
            if self._stage.synced:
                fs.sync(descriptor)
        finally:
            fs.close(descriptor)
        self.taken(path, size, hasher.digest(), executable)

    def taken(self, path: bytes, size: int, digest: bytes, executable: bool) -> None:
        """Adds a file that lies in its place already and was digested."""
        self._listing.file(path, size, digest, executable)

    def link(self, path: bytes, target: bytes) -> None:
        """Adds a symbolic link, which must stay inside the tree."""
        self.folder(_check_place(path))
        self._listing.link(path, target)
        self._links.append((path, target))

    def finish(self, *, origin: str = "") -> Staged:
        """Makes the links and the manifest, and computes the id.

        Raises:
            TreeError: a path given twice, or names that are one without case.
        """
        for path, target in self._links:
            self._create(functools.partial(fs.symlink, target), path, known=1)
        entry, document = self._listing.finish(origin)
        return Staged(entry, document, self._stage)

    def _open(self, path: bytes, executable: bool) -> int:
        parent = _check_place(path)
        if parent not in self._folders:
            self.folder(parent)
        return self._create(lambda at: fs.create(at, 0o555 if executable else 0o444), path)

    def _create(self, call: Callable[[bytes], T], path: bytes, known: int = 0) -> T:
        """Makes what a path is for; `known` nodes have that path already, and are it."""
        place = self._root + b"/" + path
        try:
            return call(place)
        except FileExistsError:
            name = tree.folded(path)
            others = sum(
                tree.folded(tree.unquote(node.path)) == name for node in self._listing.nodes
            )
            if others > known:
                # Also what a file system that ignores case says of two names that it takes for one.
                raise tree.TreeError(f"{tree.quote(path)!r} is in the tree twice") from None
        # Nobody else writes here: an answer was lost, and the client of a network asked once more.
        fs.remove_tree(os.fsdecode(place))
        return call(place)


def _check_place(path: bytes) -> bytes:
    """The folder that a path lies in; raises TreeError where no file can be."""
    tree.check_path(path)
    parent, _, name = path.rpartition(b"/")
    tree.check_name(name)
    return parent


def now() -> str:
    """The present time in UTC, to the second, as documents keep it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _suffix(path: str, name: str) -> str:
    """The suffix that loaders expect: by the name if it is one of theirs, else by the bytes."""
    for suffix in KEPT_SUFFIXES:
        if name.lower().endswith(suffix):
            return suffix
    with open(path, "rb") as file:
        head = file.read(9)
    if head[:4] == b"GGUF":
        return ".gguf"
    # A safetensors file begins with the length of its JSON header (8 bytes) and the header.
    if len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < 1 << 27:
        return ".safetensors"
    return ""
