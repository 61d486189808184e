"""Staging: an entry is written whole in tmp/ before anything can see it under its name.

with store.stage() as stage:
    tree = stage.tree("numpy-2.4.6-cp311")
    tree.write(b"numpy/__init__.py", data)
    store.publish(tree.finish(origin="numpy-2.4.6-cp311-….whl"))
"""

import datetime
import functools
import os
from collections.abc import Callable, Iterable
from typing import TypeVar

from blake3 import blake3

from cvs.store import fs, manifest, tree
from cvs.store.digest import EntryId, copy_hashed
from cvs.store.scratch import Scratch

T = TypeVar("T")

#: Endings by which ComfyUI's loaders tell formats apart; they look at the resolved path.
_KEPT_SUFFIXES = (".safetensors", ".gguf")


class Staged:
    """An entry that lies complete in a stage: its id, its manifest and the folder it lies in."""

    def __init__(self, entry: EntryId, document: manifest.Manifest, folder: str) -> None:
        self.id = entry
        self.manifest = document
        self.folder = folder


class Stage(Scratch):
    """A folder of its own in tmp/ for one entry; removed on leaving unless it was published."""

    def tree(self, name: str) -> "TreeWriter":
        """Begins a tree entry whose folder is called `name`."""
        return TreeWriter(self.folder, name)

    def file(
        self, chunks: Iterable[bytes | memoryview], *, origin: str = "", name: str = ""
    ) -> Staged:
        """Writes a file entry from its bytes, digested on the way.

        Args:
            chunks: the content, in order.
            origin: where it came from, without credentials; advice.
            name: the file's name at its origin; decides the suffix where the bytes do not.
        """
        staged = os.path.join(self.folder, "content")
        descriptor = fs.create(staged, 0o444)
        try:
            digest, sha256, size = copy_hashed(chunks, lambda data: fs.write(descriptor, data))
            fs.sync(descriptor)
        finally:
            fs.close(descriptor)
        content = "content" + _suffix(staged, name)
        if content != "content":
            fs.rename(staged, os.path.join(self.folder, content))
        document = manifest.FileManifest(
            format=manifest.FORMAT,
            digest=digest,
            size=size,
            sha256=sha256,
            content=content,
            origin=origin,
            created=now(),
        )
        return Staged(EntryId(digest), document, self.folder)

    def set(self, members: Iterable[EntryId], *, origin: str = "") -> Staged:
        """Makes a set entry."""
        ordered = tuple(sorted(set(members)))
        document = manifest.SetManifest(
            format=manifest.FORMAT, members=ordered, origin=origin, created=now()
        )
        return Staged(manifest.identity(document), document, self.folder)


class TreeWriter:
    """Writes the files of a tree entry, digesting them on the way.

    Paths are bytes relative to the tree's root; parents are made as needed. Links are made last,
    so that no file can be written through one.
    """

    def __init__(self, folder: str, name: str) -> None:
        tree.check_tree_name(name)
        self._folder = folder
        self._name = name
        self._root = os.fsencode(os.path.join(folder, name))
        self._nodes: list[tree.Node] = []
        self._folders: set[bytes] = {b""}
        self._links: list[tuple[bytes, bytes]] = []
        self._size = 0
        fs.mkdir(self._root)

    def folder(self, path: bytes) -> None:
        """Adds a folder and its parents; one that is there already is fine."""
        if path in self._folders:
            return
        tree.check_path(path)
        parent, _, name = path.rpartition(b"/")
        tree.check_name(name)
        self.folder(parent)
        self._create(fs.mkdir, path)
        self._folders.add(path)
        self._nodes.append(tree.Folder(tree.quote(path)))

    def write(self, path: bytes, data: bytes | memoryview, executable: bool = False) -> None:
        """Adds a file from memory."""
        descriptor = self._open(path, executable)
        try:
            fs.write(descriptor, data)
        finally:
            fs.close(descriptor)
        digest = blake3(data).hexdigest()
        self._add(tree.File(tree.quote(path), len(data), digest, executable))

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
        finally:
            fs.close(descriptor)
        self._add(tree.File(tree.quote(path), size, hasher.hexdigest(), executable))

    def link(self, path: bytes, target: bytes) -> None:
        """Adds a symbolic link, which must stay inside the tree."""
        tree.check_path(path)
        tree.check_target(path, target)
        parent, _, name = path.rpartition(b"/")
        tree.check_name(name)
        self.folder(parent)
        self._links.append((path, target))
        self._nodes.append(tree.Link(tree.quote(path), tree.quote(target)))

    def finish(self, *, origin: str = "") -> Staged:
        """Makes the links and the manifest, and computes the id.

        Raises:
            TreeError: a path given twice, or names that are one without case.
        """
        for path, target in self._links:
            self._create(functools.partial(fs.symlink, target), path)
        document = manifest.TreeManifest(
            format=manifest.FORMAT,
            name=self._name,
            size=self._size,
            nodes=tuple(sorted(self._nodes, key=lambda node: node.path)),
            origin=origin,
            created=now(),
        )
        return Staged(manifest.identity(document), document, self._folder)

    def _open(self, path: bytes, executable: bool) -> int:
        tree.check_path(path)
        parent, _, name = path.rpartition(b"/")
        if parent not in self._folders:
            self.folder(parent)
        tree.check_name(name)
        return self._create(lambda at: fs.create(at, 0o555 if executable else 0o444), path)

    def _create(self, call: Callable[[bytes], T], path: bytes) -> T:
        try:
            return call(self._root + b"/" + path)
        except FileExistsError:
            # Also what a file system that ignores case says of two names that it takes for one.
            raise tree.TreeError(f"{tree.quote(path)!r} is in the tree twice") from None

    def _add(self, node: tree.File) -> None:
        self._nodes.append(node)
        self._size += node.size


def now() -> str:
    """The present time in UTC, to the second, as documents keep it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _suffix(path: str, name: str) -> str:
    """The suffix that loaders expect: by the name if it is one of theirs, else by the bytes."""
    for suffix in _KEPT_SUFFIXES:
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
