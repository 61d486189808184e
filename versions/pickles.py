"""Models that are pickles: programs that run when they are loaded. Specs may refuse them."""

import os
from collections.abc import Iterable
from typing import NamedTuple

from cvs.store import tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import CvsError, InputError
from cvs.store.manifest import FileManifest, TreeManifest
from cvs.versions import formats, models
from cvs.versions.lock import Model


class Pickle(NamedTuple):
    """A model that is a pickle, or would be loaded as one."""

    path: str
    """Below models/."""
    seen: bool
    """Whether its bytes say so; else its name does, since it is not stored."""


def find(store: Store, wanted: Iterable[Model]) -> list[Pickle]:
    """The pickles among some models; looks at the first bytes of what is stored."""
    found = []
    for model in wanted:
        entry = models.stored(store, model)
        names = [model.path, *(one.path for one in model.files)]
        if entry is not None:
            if _is_one(store, entry, model.path):
                found.append(Pickle(model.path, seen=True))
        elif any(map(formats.is_pickle, names)):
            found.append(Pickle(model.path, seen=False))
    return found


def refuse(store: Store, wanted: Iterable[Model], where: str) -> None:
    """Refuses stored pickles, for a spec that allows none; `where` begins the message.

    Raises:
        InputError: names the first.
    """
    for one in find(store, wanted):
        if one.seen:
            raise InputError(
                f"{where}: models/{one.path} is a pickle, which may run any program, and "
                "options.allow_pickle is false",
                hint=formats.NO_PICKLE,
            )


def _is_one(store: Store, entry: EntryId, path: str) -> bool:
    try:
        document = store.manifest(entry)
    except CvsError:
        # Damaged: nothing loads it.
        return False
    folder = store.path(entry)
    if isinstance(document, FileManifest):
        return _is_pickle(os.path.join(folder, document.content), path)
    if not isinstance(document, TreeManifest):
        return False
    return any(
        _is_pickle(os.path.join(folder, document.name, os.fsdecode(name)), os.fsdecode(name))
        for node in document.nodes
        if isinstance(node, tree.File)
        for name in [tree.unquote(node.path)]
        if formats.is_pickle(os.fsdecode(name))
    )


def _is_pickle(file: str, name: str) -> bool:
    try:
        kind = formats.read(file, name).kind
    except (CvsError, OSError):
        # Broken, whatever it is; whoever loads it may take it for one.
        kind = "unknown"
    return kind == "pickle" or (kind == "unknown" and formats.is_pickle(name))
