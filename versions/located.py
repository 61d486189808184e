"""What is known of a model before its bytes: where it lies for good, and by what it is known."""

from typing import NamedTuple

from cvs.store.digest import EntryId


class Located(NamedTuple):
    """A file at its origin. What is not known is None or ""."""

    source: str
    """The address that a lock keeps: the immutable one where there is one, without credentials."""
    name: str
    """What the file is called there."""
    size: int | None = None
    """In bytes."""
    sha256: str | None = None
    """64 hexadecimal digits."""
    entry: EntryId | None = None
    """The BLAKE3 of its bytes, which is the name of its entry."""
    git: str | None = None
    """The id of its bytes as a blob of git (SHA-1), where the server knows nothing better."""


class Folder(NamedTuple):
    """A folder at its origin: a model that consists of many files."""

    source: str
    """As of `Located`."""
    name: str
    files: tuple[tuple[str, Located], ...]
    """By their paths in it, in ascending order, with '/' between the parts."""
