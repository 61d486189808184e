"""Fetching one file over http(s) in order, in pieces: for those who need it once and at once.

Whether the bytes are the right ones is for the caller to say. What may be large and is worth going
on with in another run is for `fetch`.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import urlsplit, urlunsplit

from cvs.store.errors import SourceError
from cvs.store.progress import Progress
from cvs.versions.http import HttpRemote
from cvs.versions.http import show as show
from cvs.versions.remote import Passing, Remote, Reply
from cvs.versions.retry import Retry

#: Bytes of the largest piece; see `transfer.CHUNK`.
CHUNK = 120 << 10

#: Bytes that are progress.
_PROGRESS = 1 << 20


def chunks(
    url: str, *, headers: Mapping[str, str] | None = None, size: int | None = None
) -> Iterator[memoryview]:
    """The bytes of a file in pieces of up to CHUNK bytes.

    A connection that breaks is resumed where it stopped, if the server names the version of the
    file (ETag or Last-Modified) and still has that one.

    Args:
        url: http or https; may hold `user:password@`.
        headers: sent to the first host; they do not follow a redirect elsewhere.
        size: the bytes that the file must have, if that is known.

    Raises:
        SourceError: the server does not have the file, refuses it, gives a web page in its place
            or another number of bytes, or does not answer several times in a row.
    """
    return stream(HttpRemote(url, headers=headers), size)


def stream(remote: Remote, size: int | None) -> Iterator[memoryview]:
    """The bytes of any remote file; see `chunks`."""
    shown = remote.shown
    retry = Retry(shown)
    received = 0
    validator, total = "", size
    while True:
        before = received
        try:
            reply = remote.open(received, None, validator)
            try:
                validator = validator or reply.validator
                total = _total(reply, total, shown)
                for piece in _pieces(reply, received):
                    received += len(piece)
                    if total is not None and received > total:
                        raise SourceError(f"{shown} sends more than the {total} bytes it has")
                    yield piece
            finally:
                reply.body.close()
            if total is not None and received < total:
                if reply.size is None:
                    raise SourceError(f"{shown} has {received} bytes instead of {total}")
                raise Passing(f"broke off after {received} of {total} bytes")
            return
        except Passing as error:
            if received and (not validator or validator.startswith("W/")):
                raise SourceError(f"{shown} {error} and cannot be resumed") from None
            if received - before >= _PROGRESS:
                retry.progressed()
            retry.again(error)


def _total(reply: Reply, size: int | None, shown: str) -> int | None:
    if reply.size is not None and size not in (None, reply.size):
        raise SourceError(f"{shown} has {reply.size} bytes instead of {size}")
    return size if reply.size is None else reply.size


def _pieces(reply: Reply, received: int) -> Iterator[memoryview]:
    """The bytes of an answer that were not received before."""
    skip = received - reply.start
    while data := reply.body.read(CHUNK):
        if len(data) > skip:
            yield memoryview(data)[skip:]
        skip = max(0, skip - len(data))


def answer(remote: Remote) -> Reply:
    """What a server says of a file, without its bytes. Raises what `chunks` raises.

    Asks with GET: servers that sign their redirects refuse HEAD.
    """
    retry = Retry(remote.shown)
    while True:
        try:
            reply = remote.open(0, 1, "")
            reply.body.close()
            return reply
        except Passing as error:
            retry.again(error)


def measured(url: str, what: str, progress: Progress) -> tuple[str, int]:
    """SHA-256 and size of a file whose bytes nobody needs yet. Raises what `chunks` raises."""
    checksum, size = hashlib.sha256(), 0
    with progress.task(what) as task:
        for chunk in chunks(url):
            checksum.update(chunk)
            size += len(chunk)
            task.advance(len(chunk))
    return checksum.hexdigest(), size


def lend_credentials(url: str, lenders: Sequence[str]) -> str:
    """The address with the credentials of the first lender (an index URL) of the same origin."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        return url
    for lender in map(urlsplit, lenders):
        user, at, host = lender.netloc.rpartition("@")
        if at and (lender.scheme, host) == (parts.scheme, parts.netloc):
            return urlunsplit(parts._replace(netloc=f"{user}@{host}"))
    return url
