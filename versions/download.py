"""Fetching one file over http(s), in pieces: retried, resumed, and checked as far as HTTP goes.

Whether the bytes are the right ones is for the caller to say, who digests them on the way into
the store. Messages show scheme, host and path of an address alone: user names, passwords and
queries may hold credentials.
"""

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from cvs.store.errors import SourceError
from cvs.store.progress import Progress

if TYPE_CHECKING:
    import requests

#: Bytes per piece: what is in memory of a file at any time.
CHUNK = 1 << 20

#: Tries without any progress between them.
ATTEMPTS = 5

#: Seconds before the second try; doubles, with jitter, up to the longest wait.
FIRST_WAIT = 0.5
LONGEST_WAIT = 30.0

#: Seconds to connect, and between two pieces of an answer.
_TIMEOUTS = (15, 60)

#: Answers that a later try may not get: overload, time-outs, a server that is just restarting.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})

_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

#: Called between tries; tests put something quicker here.
sleep: Callable[[float], None] = time.sleep


class Answer(NamedTuple):
    """What a server says of a file before its bytes."""

    size: int | None
    """In bytes; None where the server does not say."""
    headers: Mapping[str, str]
    """The answer's headers; names in any case."""


class _Passing(Exception):
    """A failure that another try may not see; its text is the end of a sentence."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


def chunks(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    size: int | None = None,
    started: Callable[[Answer], None] | None = None,
) -> Iterator[memoryview]:
    """The bytes of a file in pieces of up to 1 MiB.

    A connection that breaks is resumed where it stopped, if the server names the version of the
    file (ETag or Last-Modified) and still has that one.

    Args:
        url: http or https; may hold `user:password@`.
        headers: sent to the first host; `Authorization` does not follow a redirect elsewhere.
        size: the bytes that the file must have, if that is known.
        started: called once, before the first piece.

    Raises:
        SourceError: the server does not have the file, refuses it, gives a web page in its place
            or another number of bytes, or does not answer several times in a row.
    """
    import requests

    shown = show(url)
    received = 0
    failures = 0
    first: requests.Response | None = None
    with requests.Session() as session:
        while True:
            before = received
            try:
                response = _ask(session, url, headers or {}, received, first)
                with response:
                    if first is None:
                        answer = _check(response, url, size)
                        first, total = response, answer.size
                        if started is not None:
                            started(answer)
                    for piece in _pieces(response, received if response.status_code == 200 else 0):
                        received += len(piece)
                        if total is not None and received > total:
                            raise SourceError(f"{shown} sends more than the {total} bytes it has")
                        yield memoryview(piece)
                    if total is not None and received < total:
                        raise _Passing(f"broke off after {received} of {total} bytes")
                if size is not None and received != size:
                    raise SourceError(f"{shown} has {received} bytes instead of {size}")
                return
            except _Passing as error:
                problem, wait = str(error), error.wait
            failures = 1 if received - before >= CHUNK else failures + 1
            if failures >= ATTEMPTS:
                raise SourceError(f"{shown} {problem}, {ATTEMPTS} times in a row")
            if received and not _validator(first):
                raise SourceError(f"{shown} {problem} and cannot be resumed")
            if wait is None:
                # Jitter, so that many workers do not come back all at once.
                wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (failures - 1))
                wait *= 0.5 + random.random() / 2
            sleep(wait)


def measure(url: str) -> Answer:
    """What the server says of a file, without its bytes. Raises what `chunks` raises.

    Asks with GET and hangs up: servers that sign their redirects refuse HEAD.
    """
    import requests

    with requests.Session() as session:
        for attempt in range(ATTEMPTS):
            try:
                with _ask(session, url, {}, 0, None) as response:
                    return _check(response, url, None)
            except _Passing as error:
                problem = str(error)
                sleep(error.wait or min(LONGEST_WAIT, FIRST_WAIT * 2**attempt))
    raise SourceError(f"{show(url)} {problem}, {ATTEMPTS} times in a row")


def measured(url: str, what: str, progress: Progress) -> tuple[str, int]:
    """SHA-256 and size of a file whose bytes nobody needs yet. Raises what `chunks` raises."""
    checksum, size = hashlib.sha256(), 0
    with progress.task(what) as task:
        for chunk in chunks(url):
            checksum.update(chunk)
            size += len(chunk)
            task.advance(len(chunk))
    return checksum.hexdigest(), size


def show(url: str) -> str:
    """An address without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


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


def _ask(
    session: "requests.Session",
    url: str,
    headers: Mapping[str, str],
    offset: int,
    first: "requests.Response | None",
) -> "requests.Response":
    """Sends one request and judges its status; from `offset` on if that is not 0."""
    import requests

    # A file that is compressed on the way would have another length than announced.
    asked = {"Accept-Encoding": "identity", **headers}
    if offset:
        asked |= {"Range": f"bytes={offset}-", "If-Range": _validator(first)}
    try:
        response = session.get(url, headers=asked, stream=True, timeout=_TIMEOUTS)
    except requests.exceptions.SSLError:
        raise SourceError(f"{show(url)}: its certificate is not trusted") from None
    except requests.Timeout:
        raise _Passing("did not answer in time") from None
    except requests.ConnectionError:
        raise _Passing("cannot be reached") from None
    except (requests.TooManyRedirects, requests.exceptions.InvalidSchema):
        raise SourceError(f"{show(url)} leads to no file") from None
    except (requests.RequestException, ValueError):
        raise SourceError(f"{show(url)} is not an address that can be fetched") from None
    try:
        _judge(response, url, offset, first)
    except BaseException:
        response.close()
        raise
    return response


def _judge(
    response: "requests.Response", url: str, offset: int, first: "requests.Response | None"
) -> None:
    shown, status = show(url), response.status_code
    if status in _PASSING:
        raise _Passing(f"answered {status}", _retry_after(response))
    if status in (401, 403):
        raise SourceError(
            f"{shown} was refused (answer {status})", hint="it may need a token or another account"
        )
    if status in (404, 410):
        raise SourceError(f"{shown} does not exist (answer {status})")
    if url.startswith("https:") and response.url.startswith("http:"):
        raise SourceError(f"{shown} leads to an address that is not encrypted")
    if first is None:
        if status != 200:
            raise SourceError(f"{shown} answered {status}")
        return
    if status == 206:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if found and int(found[1]) == offset and _validator(response) in ("", _validator(first)):
            return
        raise SourceError(f"{shown} answers another range than was asked for")
    if status != 200 or _validator(response) != _validator(first):
        raise SourceError(f"{shown} changed while it was fetched")
    # 200 with the same version: a server that does not resume. What is there is skipped.


def _check(response: "requests.Response", url: str, size: int | None) -> Answer:
    """What the first answer says; raises SourceError unless it can be the file."""
    shown = show(url)
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/html" and not urlsplit(url).path.lower().endswith((".html", ".htm")):
        raise SourceError(
            f"{shown} gives a web page instead of the file", hint="it may ask for a login there"
        )
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise SourceError(f"{shown} gives the file compressed, which was not asked for")
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdecimal() else None
    if total is not None and size is not None and total != size:
        raise SourceError(f"{shown} has {total} bytes instead of {size}")
    return Answer(total, response.headers)


def _pieces(response: "requests.Response", skip: int) -> Iterator[bytes]:
    """The body without its first `skip` bytes."""
    import urllib3

    try:
        for piece in response.raw.stream(CHUNK, decode_content=False):
            if skip >= len(piece):
                skip -= len(piece)
                continue
            yield piece[skip:] if skip else piece
            skip = 0
    except urllib3.exceptions.ReadTimeoutError:
        raise _Passing("stopped answering") from None
    except (urllib3.exceptions.HTTPError, OSError):
        raise _Passing("broke off") from None


def _validator(response: "requests.Response | None") -> str:
    """What names this version of the file: a strong ETag, else its date; "" if nothing does."""
    if response is None:
        return ""
    tag = response.headers.get("ETag", "")
    if tag and not tag.startswith("W/"):
        return tag
    return response.headers.get("Last-Modified", "")


def _retry_after(response: "requests.Response") -> float | None:
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_WAIT) if text.isdecimal() else None
