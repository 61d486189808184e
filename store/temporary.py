"""Folders on this host's own disk for what does not reach the volume as it is there: objects of
git, downloads, trees that are to be packed."""

import contextlib
import os
import stat
import tempfile

from cvs.store import fs, scratch
from cvs.store.scratch import BESIDE, Scratch


def folder() -> Scratch:
    """A scratch folder below TMPDIR, where that of a process that was killed is swept."""
    parent = _parent()
    fs.makedirs(parent, 0o700)
    if not _is_ours(parent):
        return Scratch(tempfile.gettempdir(), BESIDE)
    scratch.sweep(parent)
    return Scratch(parent)


def sweep() -> None:
    """Removes what processes left that were killed: who goes on may need no folder any more."""
    with contextlib.suppress(FileNotFoundError):
        if _is_ours(parent := _parent()):
            scratch.sweep(parent)


def _parent() -> str:
    return os.path.join(tempfile.gettempdir(), f"cvs-{os.geteuid()}")


def _is_ours(parent: str) -> bool:
    """Whether nobody else took the name: the folder for temporary files is open to all."""
    status = os.lstat(parent)
    return (
        status.st_uid == os.geteuid() and stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o22
    )
