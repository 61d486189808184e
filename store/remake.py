"""Making a manifest again from what lies beside it, where that is still what its name says.

Nothing here is believed: a manifest counts only if the entry's id follows from it, and of a file
from its bytes.
"""

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterator

import msgspec
from blake3 import blake3

from cvs.store import manifest, tree
from cvs.store.digest import EntryId
from cvs.store.document import read_stored
from cvs.store.entries import Store
from cvs.store.errors import StoreError
from cvs.store.ingest import chunks

#: The line of a manifest for an executable file, however damaged the rest is.
_EXECUTABLE = re.compile(rb'\["f",("(?:[^"\\]|\\.)*"),\d+,"[0-9a-f]{64}",true\]')


def remade(store: Store, entry: EntryId, *, origin: str = "") -> manifest.Manifest | None:
    """The manifest of an entry whose own is broken; None where nothing there tells it.

    Args:
        origin: what it is to say of where the entry came from.
    """
    folder = os.fsencode(store.path(entry))
    path = os.path.join(folder, os.fsencode(manifest.NAME))
    try:
        old = read_stored(os.fsdecode(path), manifest.SIZE_LIMIT)
    except (OSError, StoreError):
        old = b""
    document = _of_the_old(entry, old)
    if document is not None:
        return msgspec.structs.replace(document, origin=origin, created="")
    for name in sorted(os.listdir(folder)):
        try:
            mode = os.lstat(os.path.join(folder, name)).st_mode
            if stat.S_ISREG(mode) and name != os.fsencode(manifest.NAME):
                document = _of_file(entry, folder, name, origin)
            elif stat.S_ISDIR(mode):
                document = _of_tree(entry, folder, name, origin, old)
        except (OSError, StoreError, tree.TreeError):
            # What cannot be read, or be in an entry, is damaged or not part of it.
            continue
        if document is not None:
            return document
    return None


def _of_the_old(entry: EntryId, old: bytes) -> manifest.Manifest | None:
    """A manifest of which only advice was damaged. That of a file says too much besides."""
    try:
        document = manifest.decode_unchecked(old, manifest.NAME)
        if isinstance(document, manifest.FileManifest) or manifest.identity(document) != entry:
            return None
    except (StoreError, tree.TreeError):
        return None
    return document


def _of_file(
    entry: EntryId, folder: bytes, name: bytes, origin: str
) -> manifest.FileManifest | None:
    content, checksum, size = blake3(), hashlib.sha256(), 0
    for chunk in chunks(os.path.join(folder, name)):
        content.update(chunk)
        checksum.update(chunk)
        size += len(chunk)
    if content.hexdigest() != entry:
        return None
    document = manifest.FileManifest(
        format=manifest.FORMAT,
        digest=entry,
        size=size,
        sha256=checksum.hexdigest(),
        content=os.fsdecode(name),
        origin=origin,
    )
    # The name may be none that a content can have.
    manifest.decode(manifest.encode(document), manifest.NAME)
    return document


def _of_tree(
    entry: EntryId, folder: bytes, name: bytes, origin: str, old: bytes
) -> manifest.TreeManifest | None:
    """The manifest of a tree. What is executable, modes tell, or, where none are kept, what can
    be read of the old manifest."""
    told = _executable(old)
    found = sorted(_nodes(os.path.join(folder, name)), key=lambda node: node.path)
    for known in (None, told, frozenset()):
        nodes = tuple(found) if known is None else tuple(_with_bits(found, known))
        if tree.tree_id(os.fsdecode(name), tree.digest(nodes)) == entry:
            return manifest.TreeManifest(
                format=manifest.FORMAT,
                name=os.fsdecode(name),
                size=sum(node.size for node in nodes if isinstance(node, tree.File)),
                nodes=nodes,
                origin=origin,
            )
    return None


def _executable(old: bytes) -> frozenset[str]:
    """The executable files of a manifest, as far as it can be read."""
    found = set()
    for text in _EXECUTABLE.findall(old):
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            found.add(msgspec.json.decode(text, type=str))
    return frozenset(found)


def _with_bits(nodes: list[tree.Node], executable: frozenset[str]) -> Iterator[tree.Node]:
    for node in nodes:
        if isinstance(node, tree.File):
            node = msgspec.structs.replace(node, executable=node.path in executable)
        yield node


def _nodes(root: bytes) -> Iterator[tree.Node]:
    """What lies below a folder; of what is no file, folder or link raises TreeError."""
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        with os.scandir(os.path.join(root, folder)) as scan:
            items = list(scan)
        for item in items:
            path = folder + item.name
            shown = tree.quote(path)
            if item.is_symlink():
                yield tree.Link(shown, tree.quote(os.readlink(item.path)))
            elif item.is_dir(follow_symlinks=False):
                yield tree.Folder(shown)
                waiting.append(path + b"/")
            elif item.is_file(follow_symlinks=False):
                status = item.stat(follow_symlinks=False)
                content = blake3()
                for chunk in chunks(item.path):
                    content.update(chunk)
                executable = bool(status.st_mode & stat.S_IXUSR)
                yield tree.File(shown, status.st_size, content.hexdigest(), executable)
            else:
                raise tree.TreeError(f"{shown!r} cannot be in an entry")
