"""Drift: what lies where a version looks and is not in its lock; paths quoted as in manifests."""

import os
from collections.abc import Iterator

from cvs.profiles import state
from cvs.store.record import Record
from cvs.store.tree import quote
from cvs.store.volume import Volume

#: Files that are listed at the most; a folder of thousands is counted by who looks into it.
LIMIT = 1000

_IGNORED = frozenset({"__pycache__", ".DS_Store"})


def nodes(volume: Volume, version: str) -> list[str]:
    """Custom nodes that were added at run time, in ascending order."""
    folder = os.path.join(state.folder(volume, version), state.CUSTOM_NODES)
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(
        quote(os.fsencode(name))
        for name in names
        if name not in _IGNORED and not name.startswith(".") and not name.endswith(".disabled")
    )


def models(volume: Volume, record: Record) -> list[str]:
    """Loose models that the lock does not have, as paths below models/, in ascending order."""
    locked = {place.path.removeprefix("models/") for place in record.links}
    root = os.path.join(state.folder(volume, record.version), state.MODELS)
    found: list[str] = []
    for path in _files(root):
        if path not in locked:
            found.append(quote(os.fsencode(path)))
            if len(found) >= LIMIT:
                break
    return sorted(found)


def _files(root: str) -> Iterator[str]:
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(os.path.join(root, folder)) as items:
                children = sorted(items, key=lambda item: item.name)
        except OSError:
            continue
        for item in children:
            path = f"{folder}/{item.name}" if folder else item.name
            if item.name in _IGNORED or item.name.startswith((".", "put_")):
                continue
            if item.is_dir(follow_symlinks=False):
                waiting.append(path)
            else:
                yield path
