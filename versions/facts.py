"""What is known of something beside its entry: kept so that what is stored needs no connection.

An entry cannot say it: commits with one tree share one entry, and differ in their dates; a wheel
does not tell what it was built from. Like a ref, and beside it, the facts are the target of a
symbolic link: made in one call, of no block, never half written; what does not fit into one is a
file. They may be lost; a lock has them too.
"""

import errno
import os
from typing import TypeVar

import msgspec

from cvs.store import document, fs, scratch
from cvs.store.errors import IntegrityError
from cvs.store.volume import Volume
from cvs.versions.lock import Submodule

T = TypeVar("T", bound=msgspec.Struct)

#: What facts of commits lie under, and those of wheels that were built.
COMMITS = "commit-facts"
BUILDS = "build-facts"

#: Linux takes link targets up to 4095 bytes. Facts that are longer than a file may be are not kept.
_LIMIT, _FILE_LIMIT = 4000, 1 << 20


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A commit's date in UTC, its submodules, and the paths that are stored with Git LFS."""

    date: str
    submodules: tuple[Submodule, ...] = ()
    lfs: tuple[str, ...] = ()


def get(volume: Volume, kind: str, key: str, form: type[T]) -> T | None:
    """The facts of a kind that are noted under a key, if they are still there."""
    path = os.fsencode(os.path.join(volume.refs, kind, key))
    try:
        try:
            text: bytes = os.readlink(path)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            text = document.read_stored(os.fsdecode(path), _FILE_LIMIT)
        return msgspec.json.decode(text, type=form)
    except (OSError, IntegrityError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def put(volume: Volume, kind: str, key: str, facts: msgspec.Struct) -> None:
    """Notes facts under a key."""
    text = msgspec.json.encode(facts)
    folder = os.path.join(volume.refs, kind)
    fs.makedirs(folder)
    path = os.path.join(folder, key)
    if len(text) <= _LIMIT:
        scratch.replace_symlink(text.decode(), path, volume.tmp)
    elif len(text) <= _FILE_LIMIT:
        scratch.replace_file(path, text, volume.tmp)
