"""What is known of a commit beside its tree: kept so that a stored commit needs no connection.

An entry cannot say it: commits with one tree share one entry, and differ in their dates. Like a
ref, and beside it, the facts are the target of a symbolic link: made in one call, of no block,
never half written. They may be lost; a lock has them too.
"""

import os

import msgspec

from cvs.store import fs, scratch
from cvs.store.volume import Volume
from cvs.versions.lock import Submodule

_KIND = "commit-facts"

#: Linux takes link targets up to 4095 bytes; longer facts are not kept.
_LIMIT = 4000


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A commit's date in UTC, its submodules, and the paths that are stored with Git LFS."""

    date: str
    submodules: tuple[Submodule, ...] = ()
    lfs: tuple[str, ...] = ()


def get(volume: Volume, key: str) -> Facts | None:
    """The facts noted under a ref's key, if they are still there."""
    try:
        text = os.readlink(os.fsencode(os.path.join(volume.refs, _KIND, key)))
        return msgspec.json.decode(text, type=Facts)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def put(volume: Volume, key: str, facts: Facts) -> None:
    """Notes facts under a ref's key."""
    text = msgspec.json.encode(facts).decode()
    if len(text.encode()) > _LIMIT:
        return
    folder = os.path.join(volume.refs, _KIND)
    fs.makedirs(folder)
    scratch.replace_symlink(text, os.path.join(folder, key), volume.tmp)
