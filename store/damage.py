"""Damaged marks: an entry that was found damaged is not served until it is repaired.

A mark is the folder `damaged/<id>`, which can be made on a volume whose quota is used up. What a
repair takes out of an entry is kept beside it, in `damaged/<id>.<unique>`, for somebody to look at.
"""

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cvs.store import fs
from cvs.store.digest import EntryId, is_id
from cvs.store.errors import IntegrityError
from cvs.store.volume import Volume

if TYPE_CHECKING:
    from cvs.store.entries import Store
    from cvs.store.verify import Damage

#: So many entries are named in a hint.
_NAMED = 4


def mark(volume: Volume, entry: EntryId) -> None:
    """Marks an entry; one that is marked already stays so. On return the mark is kept, whatever
    happens."""
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
    if not found:
        return
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    raise IntegrityError(f"entry {found[0][:16]} is damaged{more}", hint=cure(*found))


def examine(store: "Store", entry: EntryId) -> "list[Damage]":
    """Verifies an entry; marks it if it is damaged, takes the mark off if it is whole.

    Raises:
        EntryMissing: the entry is not there; a mark stays.
    """
    found = store.verify(entry)
    if found:
        mark(store.volume, entry)
    else:
        clear(store.volume, entry)
    return found


def cure(*entries: EntryId) -> str:
    """The command that repairs entries: named if they are few, else whatever is marked."""
    named = entries if len(entries) <= _NAMED else ()
    return " ".join(["cvs store repair", *(entry[:16] for entry in named)])
