"""A file on some server, readable in ranges: what each kind of source offers to `transfer`.

`http`, `gcs` and `s3` have one each; `transfer` knows no more of them than this.
"""

from typing import NamedTuple, Protocol

from cvs.store.errors import SourceError


class Passing(Exception):
    """A failure that another try may not see; its text is the end of a sentence.

    Args:
        wait: seconds after which the server wants to be asked again; None if it does not say.
    """

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class Changed(SourceError):
    """The server has another version of the file now than the one that was begun."""


class Body(Protocol):
    """The bytes of an answer, as they come."""

    def read(self, limit: int) -> bytes:
        """Some of the bytes, as soon as there are any: up to `limit`; none at the end.

        Raises:
            Passing: the connection broke off or stalls.
        """
        ...

    def end(self) -> None:
        """Called from another thread: lets a `read` that waits come back soon, if that can be."""
        ...

    def close(self) -> None:
        """Ends the answer, whether all of it was read or not. Raises nothing."""
        ...


class Reply(NamedTuple):
    """An answer whose bytes were not read yet."""

    body: Body
    start: int
    """Where its bytes begin: 0, whatever was asked for, where a server knows no ranges."""
    size: int | None
    """Bytes of the whole file; None where the server does not say."""
    validator: str
    """Names this version of the file (ETag, date, generation); "" where nothing does."""
    ranges: bool
    """Whether the server gives ranges of this file."""


class Remote(Protocol):
    """One file of a server. Used by several threads at once, each with answers of its own."""

    @property
    def shown(self) -> str:
        """The file's address for messages: without user, password, query and other secrets."""
        ...

    def open(self, start: int, end: int | None, validator: str) -> Reply:
        """Asks for the bytes from `start` up to but without `end`; None for all that follow.

        Args:
            validator: what an earlier answer had; another version of the file is refused.

        Raises:
            Passing: it may work another time.
            Changed: the file has another version now.
            SourceError: the server does not have it, refuses it, or gives something else.
        """
        ...
