"""What can be seen of an entry without reading it: whether its files are there, with their sizes.

It takes a few microseconds a file, so it can be done whenever something is about to run.
"""

import os
import stat
from collections.abc import Iterator

from cvs.store import manifest, pack, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store, contents
from cvs.store.errors import IntegrityError
from cvs.store.verify import Damage

#: What a folder and a link have in the place of a size.
_FOLDER, _LINK = -1, -2


def glance(store: Store, entry: EntryId) -> Damage | None:
    """The first thing that is plainly wrong with an entry; None proves nothing.

    Of a file its content is looked at, of a tree everything; on a network file system, where each
    look may be a question to the server, only its folder. Of a pack its table.

    Raises:
        EntryMissing: the entry is not there.
    """
    folder = os.fsencode(store.path(entry))
    try:
        document = store.manifest(entry)
    except IntegrityError as error:
        return Damage(entry, manifest.NAME, error.message)
    if isinstance(document, manifest.TreeManifest):
        packed = pack.find(store.path(entry), document)
        if packed is not None:
            return _pack_fault(entry, packed, document)
    nodes = contents(document)
    wanted = {path: _size(node) for path, node in nodes.items()}
    for path, size in wanted.items():
        # The first is the content itself; in it lies all the rest.
        if what := _fault(os.path.join(folder, path), size):
            return Damage(entry, tree.quote(path), what)
        if size == _FOLDER and store.volume.syncs_at_once:
            del wanted[path]
            for below, what in _walk(folder + b"/", path, wanted):
                return Damage(entry, tree.quote(below), what)
        break
    return None


def _pack_fault(entry: EntryId, path: str, document: manifest.TreeManifest) -> Damage | None:
    """What the table of a pack shows."""
    try:
        with pack.Pack(path, document):
            return None
    except IntegrityError as error:
        return Damage(entry, pack.NAME, error.message.removeprefix(f"{path} "))
    except OSError as error:
        return Damage(entry, pack.NAME, f"cannot be read: {error.strerror}")


def _size(node: tree.Node) -> int:
    if isinstance(node, tree.File):
        return node.size
    return _FOLDER if isinstance(node, tree.Folder) else _LINK


def _walk(folder: bytes, root: bytes, missing: dict[bytes, int]) -> Iterator[tuple[bytes, str]]:
    """Compares what lies below a path with what should, path → size; tells what is off."""
    waiting = [root]
    while waiting:
        parent = waiting.pop()
        prefix = parent + b"/"
        try:
            with os.scandir(folder + parent) as scan:
                for item in scan:
                    path = prefix + item.name
                    wanted = missing.pop(path, None)
                    if wanted is None:
                        yield path, "is not part of the entry"
                    elif item.is_dir(follow_symlinks=False):
                        waiting.append(path)
                        if wanted != _FOLDER:
                            yield path, "is a folder"
                    elif item.is_symlink():
                        if wanted != _LINK:
                            yield path, "is a link"
                    elif item.stat(follow_symlinks=False).st_size != wanted or not item.is_file():
                        yield path, _fault(folder + path, wanted) or "was changed meanwhile"
        except OSError as error:
            yield parent, f"cannot be read: {error.strerror}"
            return
    for path in missing:
        yield path, "is missing"


def _fault(place: bytes, wanted: int) -> str | None:
    """What is wrong with what lies in a place, by its kind and size."""
    try:
        status = os.lstat(place)
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if wanted == _FOLDER:
        return None if stat.S_ISDIR(status.st_mode) else "is not a folder"
    if wanted == _LINK:
        return "is not a link"
    if not stat.S_ISREG(status.st_mode):
        return "is not a file"
    if status.st_size != wanted:
        return f"has {status.st_size} bytes instead of {wanted}"
    return None
