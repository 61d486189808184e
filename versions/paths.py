"""Paths that come from documents: relative, plain, and never above their folder."""

import itertools
import re
from collections.abc import Sequence

from cvs.store.errors import InputError, shown

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
        raise InputError(f"{where}: {shown(text)} {problem}")
    return text


def check_distinct(items: Sequence[tuple[str, str]], what: str) -> None:
    """Refuses two names that are one where case does not count.

    Args:
        items: names, each with the place that it stands in, as `file: field`.
        what: what is called so, for the message.

    Raises:
        InputError: names both places.
    """
    seen: dict[str, tuple[str, str]] = {}
    for name, where in items:
        other = seen.setdefault(name.casefold(), (name, where))
        if other != (name, where):
            raise InputError(
                f"{where}: a second {what} is called {shown(name)}, "
                f"the first is {other[1].rpartition(': ')[2]}"
            )


def check_places(items: Sequence[tuple[str, str]], what: str) -> None:
    """Refuses two files in one place, and one below another, whatever their case.

    Raises:
        InputError: as `check_distinct`.
    """
    check_distinct(items, what)
    # Where '/' comes before every other character, what lies below a path comes right behind it.
    ordered = sorted((path.casefold().replace("/", "\0"), path, where) for path, where in items)
    for (above, other, _), (below, path, where) in itertools.pairwise(ordered):
        if below.startswith(above + "\0"):
            raise InputError(f"{where}: {shown(path)} lies below another {what}, {shown(other)}")
