"""Pins: roots that nothing but their removal ends, one for each entry that a user wants kept.

pins/<hash>.json    the record of a closure that is this entry alone
"""

import os
import socket

from cvs.store import manifest, scratch
from cvs.store.digest import EntryId
from cvs.store.record import Place, Record, encode
from cvs.store.stage import now
from cvs.store.volume import Volume

#: What keeps them, in the place of a version; no version can be called so.
ADOPTED = "(adopted)"


def hold(volume: Volume, entry: EntryId, content: str) -> None:
    """Keeps an entry for good; on return the pin is kept, whatever happens.

    Args:
        content: of the entry, relative to store/: `<hash>/<name>`.
    """
    path = os.path.join(volume.pins, f"{entry}.json")
    if os.path.lexists(path):
        return
    record = Record(
        version=ADOPTED,
        created=now(),
        host=socket.gethostname(),
        parts={},
        entries=(entry,),
        wheel_set=manifest.identity(manifest.SetManifest(format=manifest.FORMAT, members=())),
        interpreter={},
        links=(Place("", content),),
        lock="",
    )
    scratch.replace_file(path, encode(record), volume.tmp)
