"""Folders on this host's own disk for what does not reach the volume as it is there: objects of
git, downloads, trees that are to be packed."""

import os
import stat
import tempfile

from cvs.store import fs
from cvs.store.scratch import BESIDE, Scratch, sweep


def folder() -> Scratch:
    """A scratch folder below TMPDIR, where that of a process that was killed is swept."""
    parent = os.path.join(tempfile.gettempdir(), f"cvs-{os.geteuid()}")
    fs.makedirs(parent, 0o700)
    status = os.lstat(parent)
    if status.st_uid != os.geteuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o22:
        # The folder for temporary files is open to all: somebody else took the name.
        return Scratch(tempfile.gettempdir(), BESIDE)
    sweep(parent)
    return Scratch(parent)
