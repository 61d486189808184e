"""Git LFS: the files that a commit only points at, fetched and checked.

A pointer is told by its content, as no attribute of a repository is followed. What cannot be
fetched is an error that names the file: a pointer is never stored in the place of a model.
"""

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec

from cvs.store.errors import CvsError, OfflineError, SourceError
from cvs.store.ingest import chunks as read_chunks
from cvs.store.tree import quote
from cvs.versions.repository import Repository, is_loopback

if TYPE_CHECKING:
    import requests

#: A pointer is smaller than this, in bytes.
POINTER_LIMIT = 1024

_POINTER = re.compile(
    rb"version https://(?:git-lfs|hawser)\.github\.com/spec/v1\r?\n"
    rb"(?P<extensions>(?:ext-\d+-\S+ [^\r\n]*\r?\n)*)"
    rb"oid sha256:(?P<oid>[0-9a-f]{64})\r?\n"
    rb"size (?P<size>\d{1,18})(?:\r?\n)?"
)
_MEDIA = "application/vnd.git-lfs+json"
_CHUNK = 1 << 20
#: Objects asked for in one request, and the largest answer to it in bytes.
_GROUP, _ANSWER_LIMIT = 100, 4 << 20
_REDIRECTS = 5
#: Seconds to wait for a connection and for the next bytes.
_TIMEOUT = (30.0, 120.0)
#: Seconds before each new attempt at a transfer that broke off or a server that was busy.
_PAUSES = (0.5, 2.0, 5.0)
_BUSY = (429, 500, 502, 503, 504)
#: Headers that belong to a connection, not to an object.
_OWN_HEADERS = frozenset({"connection", "content-length", "host", "transfer-encoding"})

#: Gives user name and password for the repository's host, or None.
Login = Callable[[], tuple[str, str] | None]


class Pointer(NamedTuple):
    """A file of a tree that is stored elsewhere: `oid` is the SHA-256 of its content."""

    path: bytes
    oid: str
    size: int
    executable: bool = False


class _Action(msgspec.Struct, frozen=True):
    href: str
    header: dict[str, str] = {}


class _Problem(msgspec.Struct, frozen=True):
    code: int
    message: str = ""


class _Object(msgspec.Struct, frozen=True):
    oid: str
    actions: dict[str, _Action] = {}
    error: _Problem | None = None


class _Answer(msgspec.Struct, frozen=True):
    objects: list[_Object]
    transfer: str = "basic"


def pointer(path: bytes, data: bytes, executable: bool = False) -> Pointer | None:
    """The pointer that a file is; None for an ordinary one.

    Raises:
        SourceError: a pointer of a kind that only programs of its author can follow.
    """
    match = _POINTER.fullmatch(data)
    if match is None:
        return None
    if match["extensions"]:
        raise SourceError(f"{quote(path)} is stored with a Git LFS extension")
    return Pointer(path, match["oid"].decode(), int(match["size"]), executable)


def fetch(
    pointers: Sequence[Pointer],
    repository: Repository,
    *,
    objects: str | None,
    login: Login,
    offline: bool = False,
) -> Iterator[tuple[Pointer, Iterable[bytes | memoryview]]]:
    """The content of each pointer, in chunks that are checked while they are read.

    Args:
        objects: the folder `lfs/objects` of a local repository; None for one on a server.
        login: asked when the server wants to know who asks.

    Raises:
        SourceError: some content cannot be had, or is not what the pointer says; also while
            chunks are read. The message names the file and why.
        OfflineError: a connection would be needed.
    """
    if objects is not None:
        for item in pointers:
            yield item, _checked(item, _stored(item, objects, repository), repository)
        return
    if offline and pointers:
        raise OfflineError(f"{_named(pointers[0], repository)} and no connection may be made")
    if repository.is_ssh and pointers:
        raise _error(
            pointers[0],
            repository,
            "is not fetched through ssh",
            hint="name the repository by its https:// URL",
        )
    import requests

    with requests.Session() as session:
        client = _Client(session, repository, login)
        for first in range(0, len(pointers), _GROUP):
            group = pointers[first : first + _GROUP]
            actions = client.locate(group)
            for item in group:
                yield item, _checked(item, client.download(item, actions[item.oid]), repository)


def _named(item: Pointer, repository: Repository) -> str:
    return f"{quote(item.path)} of {repository.shown} is stored with Git LFS"


def _error(item: Pointer, repository: Repository, why: str, hint: str | None = None) -> SourceError:
    return SourceError(f"{_named(item, repository)} and {why}", hint=hint)


def _stored(item: Pointer, objects: str, repository: Repository) -> Iterator[bytes | memoryview]:
    path = os.path.join(objects, item.oid[:2], item.oid[2:4], item.oid)
    if not os.path.isfile(path):
        raise _error(
            item, repository, "its content is not there", hint="`git lfs fetch --all` fetches it"
        )
    yield from read_chunks(path)


def _checked(
    item: Pointer, chunks: Iterable[bytes | memoryview], repository: Repository
) -> Iterator[bytes | memoryview]:
    """Passes chunks on; ends in an error unless they are exactly what the pointer names."""
    hasher, size = hashlib.sha256(), 0
    for chunk in chunks:
        size += len(chunk)
        if size > item.size:
            break
        hasher.update(chunk)
        yield chunk
    if size != item.size or hasher.hexdigest() != item.oid:
        raise _error(item, repository, "other bytes came than its pointer names")


class _Client:
    """Speaks the batch API of one repository."""

    def __init__(self, session: "requests.Session", repository: Repository, login: Login) -> None:
        self._session = session
        self._repository = repository
        self._login = login
        self._basic: tuple[str, str] | None = None
        url = repository.url.rstrip("/")
        url = url if url.endswith(".git") else url + ".git"
        self._url = f"{url}/info/lfs/objects/batch"

    def locate(self, group: Sequence[Pointer]) -> dict[str, _Action]:
        """Where each object is downloaded, by its oid."""
        sizes = {item.oid: item.size for item in group}
        request = {
            "operation": "download",
            "transfers": ["basic"],
            "objects": [{"oid": oid, "size": size} for oid, size in sizes.items()],
        }
        answer = self._batch(group[0], msgspec.json.encode(request))
        found = {item.oid: item for item in answer.objects}
        actions = {}
        for item in group:
            given = found.get(item.oid)
            if given is None or given.error is not None or "download" not in given.actions:
                code = given.error.code if given is not None and given.error is not None else 0
                why = "the server does not have its content"
                if code not in (0, 404, 410):
                    why = f"the server does not give its content (status {code})"
                raise _error(item, self._repository, why)
            actions[item.oid] = given.actions["download"]
        return actions

    def _batch(self, item: Pointer, body: bytes) -> _Answer:
        response = self._ask(item, body)
        if response.status_code == 401:
            response.close()
            self._basic = self._login()
            response = self._ask(item, body)
        with response:
            self._check(item, response)
            data = b""
            for chunk in self._chunks(item, response):
                data += chunk
                if len(data) > _ANSWER_LIMIT:
                    raise self._strange(item)
        try:
            answer = msgspec.json.decode(data, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise self._strange(item) from None
        if answer.transfer != "basic":
            raise self._strange(item)
        return answer

    def _ask(self, item: Pointer, body: bytes) -> "requests.Response":
        """Sends the batch request, again while the server is busy."""
        headers = {"Accept": _MEDIA, "Content-Type": _MEDIA}
        for pause in _PAUSES:
            response = self._send(item, "POST", self._url, headers, body=body)
            if response.status_code not in _BUSY:
                return response
            response.close()
            time.sleep(pause)
        return self._send(item, "POST", self._url, headers, body=body)

    def download(self, item: Pointer, action: _Action) -> Iterator[bytes]:
        """The bytes of an object; a transfer that breaks off goes on where it was."""
        import requests

        headers = {k: v for k, v in action.header.items() if k.lower() not in _OWN_HEADERS}
        headers["Accept-Encoding"] = "identity"
        got = 0
        for pause in (*_PAUSES, None):
            ranged = {"Range": f"bytes={got}-"} if got else {}
            try:
                response = self._send(item, "GET", action.href, headers | ranged)
                with response:
                    # 416: there is no more, although the pointer says so.
                    if response.status_code == 416:
                        break
                    if response.status_code not in _BUSY or pause is None:
                        self._check(item, response)
                        # A server that does not know ranges begins anew: pass over what we have.
                        skip = 0 if response.status_code == 206 else got
                        for chunk in response.iter_content(_CHUNK):
                            fresh = chunk[skip:]
                            skip -= min(skip, len(chunk))
                            got += len(fresh)
                            if fresh:
                                yield fresh
                        if got >= item.size:
                            return
            except requests.RequestException:
                pass
            if pause is None:
                break
            time.sleep(pause)
        raise _error(
            item, self._repository, f"the transfer broke off after {got} of {item.size} bytes"
        )

    def _send(
        self,
        item: Pointer,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None = None,
    ) -> "requests.Response":
        """Sends one request and follows its redirects; credentials stay with their origin.

        Of a login in ~/.netrc requests makes use by itself, for the batch request alone: the
        headers of a download are the whole of what its server wants.
        """
        first = self._allowed(item, url)
        for _ in range(_REDIRECTS + 1):
            here = self._allowed(item, url)
            same = _origin(here) == _origin(first)
            auth: Any = None if body is not None else _unchanged
            if body is not None and self._basic is not None and same:
                auth = self._basic
            sent = headers if same else {k: headers[k] for k in headers if k in _SAFE_HEADERS}
            response = self._request(item, method, url, sent, body, auth)
            if response.status_code not in (301, 302, 303, 307, 308):
                return response
            response.close()
            url = urljoin(url, response.headers.get("Location", ""))
        raise _error(item, self._repository, "the server redirects without end")

    def _request(
        self,
        item: Pointer,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        auth: Any,
    ) -> "requests.Response":
        import requests

        try:
            return self._session.request(
                method,
                url,
                headers=headers,
                data=body,
                auth=auth,
                timeout=_TIMEOUT,
                allow_redirects=False,
                stream=True,
            )
        except requests.RequestException as error:
            if body is None:
                raise
            raise self._unreachable(item, url) from error

    def _allowed(self, item: Pointer, url: str) -> SplitResult:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            parts.port  # noqa: B018 - raises for a port that is none
        except ValueError:
            raise self._strange(item) from None
        plain = self._repository.is_loopback and parts.scheme == "http" and is_loopback(host)
        if not host or parts.username or not (parts.scheme == "https" or plain):
            raise _error(
                item, self._repository, f"its server leads to {parts.scheme}://, not to https://"
            )
        return parts

    def _check(self, item: Pointer, response: "requests.Response") -> None:
        status = response.status_code
        if status in (200, 206):
            return
        why = f"the server answered with status {status}"
        if status in (401, 403):
            why = "the server wants a login"
        elif status in (404, 410):
            why = "the server does not have its content"
        raise _error(item, self._repository, why)

    def _chunks(self, item: Pointer, response: "requests.Response") -> Iterator[bytes]:
        import requests

        try:
            yield from response.iter_content(_CHUNK)
        except requests.RequestException as error:
            raise self._unreachable(item, self._url) from error

    def _strange(self, item: Pointer) -> CvsError:
        return _error(item, self._repository, "the server's answer is not one of Git LFS")

    def _unreachable(self, item: Pointer, url: str) -> CvsError:
        host = urlsplit(url).hostname
        return _error(item, self._repository, f"{host} cannot be reached")


#: What is sent along to another origin.
_SAFE_HEADERS = frozenset({"Accept", "Accept-Encoding", "Content-Type", "Range"})


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port


def _unchanged(request: Any) -> Any:
    """An `auth` for requests that adds nothing; without one it would look into ~/.netrc."""
    return request
