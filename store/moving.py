"""Beside the place of a folder that becomes an entry: where a run that is killed may leave it.

A folder that is renamed into the store lies for a moment in `<folder>.moving-to-cvs-<random>`,
which becomes the entry's folder; the next run puts it back. What is left of one whose files were
taken one by one is `<folder>.moved-to-cvs-<hash>` while it is removed, and the next run goes on: in
its old place half a folder would pass for another tree.
"""

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from blake3 import blake3

from cvs.store import fs, scratch, tree
from cvs.store.digest import EntryId
from cvs.store.errors import EntryMissing, InputError
from cvs.store.manifest import NAME, TreeManifest

if TYPE_CHECKING:
    from cvs.store.entries import Store

#: What the names end in: one of these, and the first digits of the entry, or random ones.
_MARK = b".moved-to-cvs-"
_MOVING = b".moving-to-cvs-"
_DIGITS = 16
_NAME = rb"(.+)(?:%s)([0-9a-f]{%d})"
_ASIDE = re.compile(_NAME % (re.escape(_MARK), _DIGITS), re.DOTALL)
_AMID = re.compile(_NAME % (re.escape(_MOVING), _DIGITS), re.DOTALL)


class Aside:
    """The folder of an entry that is made of a folder of the user's, beside that; a `stage.Place`.

    On leaving, what was taken and not published is back in its place.
    """

    def __init__(self, root: bytes, *, synced: bool) -> None:
        self._root = root
        self.folder = os.fsdecode(_amid(root))
        self.descriptor = -1
        self.order = 0
        self.synced = synced

    def __enter__(self) -> Self:
        try:
            # Nobody else has the name: where it is taken, an answer was lost and the call repeated.
            with contextlib.suppress(FileExistsError):
                fs.mkdir(self.folder)
            self.descriptor = scratch.open_folder(self.folder)
            scratch.lock(self.descriptor)
        except BaseException:
            self.__exit__()
            raise
        return self

    def take(self, name: str) -> None:
        """Renames the folder into this one."""
        taken = os.path.join(self.folder, name)
        try:
            fs.rename(self._root, taken)
        except OSError:
            # Unless it was renamed, and the answer was lost.
            if not os.path.lexists(taken):
                raise

    def __exit__(self, *_: object) -> None:
        try:
            try:
                _give_back(os.fsencode(self.folder), self._root)
            except BaseException:
                # What is outside its place weighs more than a Ctrl-C or one error.
                _give_back(os.fsencode(self.folder), self._root)
                raise
        finally:
            if self.descriptor >= 0:
                os.close(self.descriptor)
                self.descriptor = -1


def _amid(root: bytes) -> bytes:
    return root + _MOVING + fs.unique()[:_DIGITS].encode()


def _give_back(aside: bytes, root: bytes) -> None:
    """Puts what was taken back into its place, and removes the rest.

    Raises:
        InputError: the place was taken since; nothing is removed.
    """
    try:
        names = os.listdir(aside)
    except FileNotFoundError:
        return
    for name in names:
        if name == NAME.encode():
            continue
        if os.path.lexists(root):
            raise InputError(
                f"{os.fsdecode(root)} is not the folder that was being moved into the store",
                hint=f"that one lies in {os.fsdecode(aside)}; move one of them elsewhere",
            )
        fs.rename(aside + b"/" + name, root)
    with contextlib.suppress(FileNotFoundError):
        fs.unlink(aside + b"/" + NAME.encode())
    with contextlib.suppress(FileNotFoundError):
        fs.rmdir(aside)


def _take_over(aside: bytes, root: bytes) -> None:
    """Puts back what a run that is gone left in the middle.

    Raises:
        InputError: the run is not gone; its place was taken since.
    """
    descriptor = scratch.open_folder(aside)
    try:
        if not scratch.lock(descriptor):
            raise InputError(f"{os.fsdecode(root)} is being moved into the store by another cvs")
        # A run of another host, which is not gone after all, then finds nothing to publish.
        mine = _amid(root)
        fs.rename(aside, mine)
        _give_back(mine, root)
    finally:
        os.close(descriptor)


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


def leave_word(root: bytes, entry: EntryId) -> None:
    """Tells the next run what a folder became, of which this one cannot say that it is kept."""
    with contextlib.suppress(OSError):
        fs.mkdir(root + _MARK + entry[:_DIGITS].encode())


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
    root = os.path.realpath(os.fsencode(path))
    return any(True for mark in (_ASIDE, _AMID) for _ in _left(root, mark))


def go_on(store: "Store", path: str) -> EntryId | None:
    """Puts back or removes what an earlier run left of the folder at a path.

    Removes only what an entry has, byte for byte.

    Returns:
        The entry that it became, if what was left of it was removed.

    Raises:
        InputError: another run is moving it; two folders claim its place.
    """
    root = os.path.realpath(os.fsencode(path))
    for aside, _ in list(_left(root, _AMID)):
        with contextlib.suppress(FileNotFoundError):
            _take_over(aside, root)
    done = None
    for aside, digits in _left(root, _ASIDE):
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


def _left(root: bytes, mark: re.Pattern[bytes]) -> Iterator[tuple[bytes, str]]:
    """What was renamed from a place, each with the first digits of its entry."""
    parent, base = os.path.split(root)
    try:
        names = sorted(os.listdir(parent))
    except OSError:
        return
    for name in names:
        match = mark.fullmatch(name)
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
