"""Refs: from every input of a resolution to the entry it gave; a cache that may be lost.

A ref is a symbolic link whose target is the id: it costs no block, is made in one call and never
half written. Its key is a digest over every input that the entry depends on.
"""

import os

from blake3 import blake3

from cvs.store import fs, scratch
from cvs.store.digest import EntryId, is_id
from cvs.store.volume import Volume


def key(*inputs: str) -> str:
    """A key over inputs: each counts with its length, so that no two lists give one key."""
    hasher = blake3()
    for text in inputs:
        raw = text.encode()
        hasher.update(len(raw).to_bytes(8, "little"))
        hasher.update(raw)
    return hasher.hexdigest()


def get(volume: Volume, kind: str, ref: str) -> EntryId | None:
    """The entry that a key led to before, if that is known. It may be gone from the store."""
    try:
        target = os.readlink(os.path.join(volume.refs, kind, ref))
    except OSError:
        return None
    return EntryId(target) if is_id(target) else None


def put(volume: Volume, kind: str, ref: str, entry: EntryId) -> None:
    """Notes that a key leads to an entry."""
    folder = os.path.join(volume.refs, kind)
    fs.makedirs(folder)
    scratch.replace_symlink(entry, os.path.join(folder, ref), volume.tmp)
