"""Verifying an entry: its content against its manifest, its manifest against its name."""

import hashlib
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from blake3 import blake3

from cvs.store import fs, manifest, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store, content_path
from cvs.store.errors import EntryMissing, IntegrityError
from cvs.store.ingest import chunks


class Damage(NamedTuple):
    """One thing that is not as the manifest says."""

    entry: EntryId
    path: str
    """Relative to the entry's folder, quoted as in the manifest."""
    what: str


def verify(store: Store, entry: EntryId) -> Iterator[Damage]:
    """Finds every changed, missing, extra, truncated or relinked file of one entry.

    The executable bit is compared where the file system keeps modes; a volume that ignores
    chmod shows every file alike, and nothing is learned from it there. A file's SHA-256 is
    compared too: others find the entry by it.

    Raises:
        EntryMissing: the entry is not there.
    """
    path = store.path(entry)
    mode = _mode(os.fsencode(os.path.join(path, manifest.NAME)))
    if mode and not stat.S_ISREG(mode):
        yield Damage(entry, manifest.NAME, "is not a file")
        return
    try:
        document = store.manifest(entry)
        if manifest.identity(document) != entry:
            yield Damage(entry, manifest.NAME, "does not belong to an entry of this name")
            return
    except EntryMissing:
        if not os.path.lexists(path):
            raise
        yield Damage(entry, manifest.NAME, "is missing")
        return
    except (IntegrityError, tree.TreeError) as error:
        yield Damage(entry, manifest.NAME, error.message)
        return
    except OSError as error:
        yield Damage(entry, manifest.NAME, error.strerror or str(error))
        return
    expected = {manifest.NAME}
    if not isinstance(document, manifest.SetManifest):
        name = content_path(entry, document).partition("/")[2]
        expected.add(name)
    try:
        found = set(os.listdir(path))
    except FileNotFoundError:
        raise EntryMissing(f"the store has no entry {entry}") from None
    for extra in sorted(found - expected):
        yield Damage(entry, tree.quote(os.fsencode(extra)), "is not part of the entry")
    if isinstance(document, manifest.FileManifest):
        file = tree.File(document.content, document.size, document.digest)
        content = os.fsencode(os.path.join(path, document.content))
        yield from _verify_file(entry, content, file, check_mode=False, sha256=document.sha256)
    elif isinstance(document, manifest.TreeManifest):
        yield from _verify_tree(store, entry, document)


def _verify_tree(store: Store, entry: EntryId, document: manifest.TreeManifest) -> Iterator[Damage]:
    root = os.fsencode(os.path.join(store.path(entry), document.name))
    expected = {tree.unquote(node.path): node for node in document.nodes}
    shown_root = tree.quote(document.name.encode())
    if not stat.S_ISDIR(_mode(root)):
        yield Damage(entry, shown_root, "is missing or not a folder")
        return
    found, unreadable = _walk(root)
    # A file system that ignores chmod shows all files as executable, or none.
    bits = {executable for kind, executable in found.values() if kind == "f"}
    check_mode = len(bits) == 2 or store.volume.filesystem in fs.SYNCFS_TYPES
    prefix = shown_root + "/"
    for folder, what in unreadable.items():
        yield Damage(entry, prefix + tree.quote(folder), f"cannot be read: {what}")
    for path in sorted(found.keys() - expected.keys()):
        yield Damage(entry, prefix + tree.quote(path), "is not part of the entry")
    for path, node in sorted(expected.items()):
        shown = prefix + node.path
        here = found.get(path)
        if here is None:
            if not path.startswith(tuple(unreadable)):
                yield Damage(entry, shown, "is missing")
        elif isinstance(node, tree.Folder):
            if here[0] != "d":
                yield Damage(entry, shown, "is not a folder")
        elif isinstance(node, tree.Link):
            if here[0] != "l":
                yield Damage(entry, shown, "is not a link")
            elif os.readlink(root + b"/" + path) != tree.unquote(node.target):
                yield Damage(entry, shown, "leads elsewhere")
        elif here[0] != "f":
            yield Damage(entry, shown, "is not a file")
        else:
            for damage in _verify_file(entry, root + b"/" + path, node, check_mode=check_mode):
                yield damage._replace(path=shown)


def _verify_file(
    entry: EntryId, path: bytes, node: tree.File, *, check_mode: bool, sha256: str | None = None
) -> Iterator[Damage]:
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode):
            yield Damage(entry, node.path, "is not a file")
            return
        if status.st_size != node.size:
            yield Damage(entry, node.path, f"has {status.st_size} bytes instead of {node.size}")
            return
        content, checksum = blake3(), hashlib.sha256()
        for chunk in chunks(path):
            content.update(chunk)
            if sha256 is not None:
                checksum.update(chunk)
    except FileNotFoundError:
        yield Damage(entry, node.path, "is missing")
        return
    except OSError as error:
        yield Damage(entry, node.path, f"cannot be read: {error.strerror}")
        return
    if content.hexdigest() != node.digest:
        yield Damage(entry, node.path, "has other bytes")
    elif sha256 is not None and checksum.hexdigest() != sha256:
        yield Damage(entry, manifest.NAME, "has another SHA-256 than the file")
    elif check_mode and bool(status.st_mode & stat.S_IXUSR) != node.executable:
        yield Damage(entry, node.path, "lost or gained its executable bit")


def _walk(root: bytes) -> tuple[dict[bytes, tuple[str, bool]], dict[bytes, str]]:
    """Every path below `root` with its kind (f, l, d or o) and executable bit.

    Beside them the folders that cannot be read (with a final slash), and why.
    """
    found: dict[bytes, tuple[str, bool]] = {}
    unreadable: dict[bytes, str] = {}
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root + b"/" + folder) as scan:
                items = list(scan)
        except OSError as error:
            unreadable[folder] = error.strerror or str(error)
            continue
        for item in items:
            path = folder + item.name
            if item.is_symlink():
                found[path] = ("l", False)
            elif item.is_dir():
                found[path] = ("d", False)
                waiting.append(path + b"/")
            else:
                mode = _mode(item.path)
                kind = "f" if stat.S_ISREG(mode) else "o"
                found[path] = (kind, bool(mode & stat.S_IXUSR))
    return found, unreadable


def _mode(path: bytes) -> int:
    try:
        return os.lstat(path).st_mode
    except OSError:
        return 0
