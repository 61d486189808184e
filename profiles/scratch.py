"""Scratch folders: local files of one process, gone with it; those of killed ones are swept.

A scratch folder is held with flock, which ends with its process however that ends. It lies on the
host's own disk, where such locks can be believed; at stake are temporary files alone.
"""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from cvs.store import fs

_LOCK = "lock"


@contextlib.contextmanager
def hold(parent: str) -> Iterator[str]:
    """A new folder in `parent` for the time of a `with` block; its path is short.

    Sockets are made in it, whose paths Linux limits to 107 bytes.
    """
    fs.makedirs(parent)
    sweep(parent)
    while True:
        folder = os.path.join(parent, fs.unique()[:12])
        fs.mkdir(folder)
        descriptor = fs.create(os.path.join(folder, _LOCK))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.exists(os.path.join(folder, _LOCK)):
            break
        # Swept between its making and its lock.
        fs.close(descriptor)
    try:
        yield folder
    finally:
        fs.remove_tree(folder)
        fs.close(descriptor)


def sweep(parent: str) -> None:
    """Removes the folders of processes that are gone."""
    for name in os.listdir(parent):
        folder = os.path.join(parent, name)
        try:
            descriptor = os.open(os.path.join(folder, _LOCK), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            # Being made or removed at this moment, or not one of ours.
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fs.remove_tree(folder)
        except OSError:
            # In use, or somebody else sweeps it.
            continue
        finally:
            os.close(descriptor)
