"""Damaged marks: an entry that was found damaged is not served until it is repaired.

A mark is the folder `damaged/<id>`, for which there is room on a full volume too. What a
repair takes out of an entry is kept beside it, in `damaged/<id>.<unique>`, for somebody to look at.
"""

import contextlib
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cvs.store import fs, reserve
from cvs.store.digest import EntryId, is_id
from cvs.store.errors import IntegrityError
from cvs.store.progress import Task
from cvs.store.volume import Volume

if TYPE_CHECKING:
    from cvs.store.entries import Store
    from cvs.store.verify import Damage

#: So many entries are named in a hint.
_NAMED = 4


def mark(volume: Volume, entry: EntryId) -> None:
    """Marks an entry; one that is marked already stays so. On return the mark is kept, whatever
    happens."""
    with reserve.within(volume.reserve):
        fs.makedirs(os.path.join(volume.damaged, entry))
        fs.sync_folder(volume.damaged)


def clear(volume: Volume, entry: EntryId) -> None:
    """Takes the mark off an entry that was verified whole."""
    fs.remove_tree(os.path.join(volume.damaged, entry))


def marked(volume: Volume) -> set[EntryId]:
    """The entries that are marked."""
    try:
        return {EntryId(name) for name in os.listdir(volume.damaged) if is_id(name)}
    except FileNotFoundError:
        return set()


def refuse(volume: Volume, entries: Iterable[EntryId]) -> None:
    """Raises IntegrityError if one of the entries is marked."""
    found = sorted(marked(volume).intersection(entries))
    if found:
        raise IntegrityError(_sentence(found, ""), hint=cure(*found))


def look(store: "Store", entries: Sequence[EntryId]) -> None:
    """Raises IntegrityError if one of the entries is marked, or a glance shows that it is damaged:
    then it is marked.

    Raises:
        EntryMissing: one is not there.
    """
    from cvs.store.glance import glance

    refuse(store.volume, entries)
    found = [seen for entry in entries if (seen := glance(store, entry))]
    for seen in found:
        _try_mark(store.volume, seen.entry)
    if found:
        ids = [seen.entry for seen in found]
        raise IntegrityError(_sentence(ids, f": {found[0].path} {found[0].what}"), hint=cure(*ids))


def examine(
    store: "Store", entry: EntryId, task: Task | None = None, *, sample: float = 1.0
) -> "list[Damage]":
    """Verifies an entry; marks it if it is damaged, takes the mark off if it is whole. A sample of
    it proves damage, but not that it is whole.

    `marked` tells whether it could be marked: a volume may be read-only or full.

    Raises:
        EntryMissing: the entry is not there; a mark stays.
    """
    from cvs.store.verify import verify

    found = list(verify(store, entry, task, sample=sample))
    if found:
        _try_mark(store.volume, entry)
    elif sample >= 1.0:
        clear(store.volume, entry)
    return found


def _try_mark(volume: Volume, entry: EntryId) -> None:
    # That it is damaged is told all the same, and seen again by whoever looks.
    with contextlib.suppress(OSError):
        mark(volume, entry)


def _sentence(entries: Sequence[EntryId], how: str) -> str:
    more = f", and {len(entries) - 1} more" if len(entries) > 1 else ""
    return f"entry {entries[0][:16]} is damaged{how}{more}"


def cure(*entries: EntryId) -> str:
    """The command that repairs entries: named if they are few, else whatever is marked."""
    named = entries if len(entries) <= _NAMED else ()
    return " ".join(["cvs store repair", *(entry[:16] for entry in named)])
