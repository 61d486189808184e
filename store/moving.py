"""What is left of a folder that became an entry: out of the way in one rename, then removed.

A run that is killed while it removes leaves the rest under a name that says which entry it was; the
next one goes on there. In its old place half a folder would pass for another tree.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from blake3 import blake3

from cvs.store import fs, tree
from cvs.store.digest import EntryId
from cvs.store.errors import EntryMissing
from cvs.store.manifest import TreeManifest

if TYPE_CHECKING:
    from cvs.store.entries import Store

#: What the name ends in: this, and the first digits of the entry.
_MARK = b".moved-to-cvs-"
_DIGITS = 16
_ASIDE = re.compile(rb"(.+)" + re.escape(_MARK) + rb"([0-9a-f]{%d})" % _DIGITS, re.DOTALL)


def set_aside(root: bytes, entry: EntryId) -> bytes:
    """Renames a folder that became an entry; its new place, or the old one where that fails."""
    aside = root + _MARK + entry[:_DIGITS].encode()
    if os.path.lexists(aside):
        return root
    try:
        fs.rename(root, aside)
    except OSError:
        if os.path.lexists(root):
            return root
        # It was renamed, and the answer was lost.
    return aside


def put_back(aside: bytes, root: bytes) -> None:
    """Gives its name back to what was not removed: it came later, or was changed since."""
    if aside != root and os.path.lexists(aside) and not os.path.lexists(root):
        with contextlib.suppress(OSError):
            fs.rename(aside, root)


def remove_folders(root: bytes, folders: list[bytes]) -> None:
    """Removes a folder and those below it (ascending) where they are empty."""
    for folder in (*reversed(folders), b""):
        place = root + b"/" + folder if folder else root
        try:
            fs.rmdir(place)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                continue
            # A stale cache may say of a folder that it is gone.
            if error.errno != errno.ENOENT or os.path.lexists(place):
                raise


def is_begun(path: str) -> bool:
    """Whether an earlier run left something of the folder at a path."""
    return any(True for _ in _left(os.path.realpath(os.fsencode(path))))


def go_on(store: "Store", path: str) -> EntryId | None:
    """Removes what an earlier run left of the folder at a path; the entry that it became, if any.

    Removes only what the entry has, byte for byte.
    """
    root = os.path.realpath(os.fsencode(path))
    done = None
    for aside, digits in _left(root):
        try:
            entry = store.find(digits)
            document = store.manifest(entry)
        except EntryMissing:
            continue
        if isinstance(document, TreeManifest):
            _remove(aside, os.fsencode(os.path.join(store.path(entry), document.name)), document)
            put_back(aside, root)
            done = entry
    return done


def _left(root: bytes) -> Iterator[tuple[bytes, str]]:
    """What was renamed from a place, each with the first digits of its entry."""
    parent, base = os.path.split(root)
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return
    for name in names:
        match = _ASIDE.fullmatch(name)
        if match is not None and match[1] == base:
            yield os.path.join(parent, name), match[2].decode()


def _remove(aside: bytes, stored: bytes, document: TreeManifest) -> None:
    folders: list[bytes] = []
    for node in document.nodes:
        path = tree.unquote(node.path)
        place = aside + b"/" + path
        if isinstance(node, tree.Folder):
            folders.append(path)
        elif isinstance(node, tree.Link):
            if os.path.islink(place) and os.readlink(place) == tree.unquote(node.target):
                fs.unlink(place)
        elif _is_same(place, stored + b"/" + path, node):
            fs.unlink(place)
    remove_folders(aside, sorted(folders))


def _is_same(place: bytes, stored: bytes, node: tree.File) -> bool:
    try:
        status = os.lstat(place)
        if not stat.S_ISREG(status.st_mode) or status.st_size != node.size:
            return False
        if os.path.samestat(status, os.lstat(stored)):
            return True
        with open(place, "rb") as file:
            hasher = blake3()
            while data := file.read(1 << 20):
                hasher.update(data)
    except FileNotFoundError:
        return False
    return hasher.hexdigest() == node.digest
