"""Paths that come from documents: relative, plain, and never above their folder."""

import re

from cvs.store.errors import InputError

#: Bytes of the longest path; a system takes 4096 with all that stands before it.
LONGEST = 1024

_DRIVE = re.compile(r"[A-Za-z]:")


def relative_path(text: str, where: str) -> str:
    """A path that stays below the folder it is relative to.

    Raises:
        InputError: absolute, climbing out, or with parts that no file can have.
    """
    problem = None
    parts = text.split("/")
    if not text or text.isspace():
        problem = "is empty"
    elif text.startswith(("/", "~")) or _DRIVE.match(text):
        problem = "is not relative"
    elif ".." in parts:
        problem = "climbs out of its folder"
    elif "" in parts or "." in parts or "\\" in text:
        problem = "is not a plain path"
    elif (
        not text.isprintable()
        or len(text.encode()) > LONGEST
        or any(len(part.encode()) > 255 for part in parts)
    ):
        problem = "cannot be the path of a file"
    elif "$" in text or "%2e" in text.lower():
        problem = "holds a variable or escape that has no meaning here"
    if problem:
        raise InputError(f"{where}: {text[:200]!r} {problem}")
    return text
