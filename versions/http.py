"""Files over http(s): one request, its redirects, and what an answer says, judged.

Redirects are followed here and not by the client: a token, a password and extra headers go to the
host that they were meant for and to no other. Messages show scheme, host and path of an address
alone, for user names, passwords and queries may hold credentials.
"""

import re
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import urljoin, urlsplit, urlunsplit

from cvs.store.errors import SourceError
from cvs.versions.remote import Changed, Passing, Reply
from cvs.versions.retry import Retry
from cvs.versions.tokens import NO_TOKENS, Tokens

if TYPE_CHECKING:
    import requests

#: Seconds to connect, and between two pieces of an answer; `wait` sets others.
TIMEOUTS = (15.0, 30.0)

#: Redirects that are followed, one after the other.
HOPS = 10

#: Connections that are kept open to one host.
POOL = 32

#: Bytes of the largest small answer.
SMALL = 16 << 20

#: Answers that a later try may not get: overload, time-outs, a server that is just restarting.
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

#: What a server that signs its addresses says of one that is too old.
_EXPIRED = frozenset({400, 401, 403, 404, 410})

#: Amounts that can be those of a file.
_AMOUNT = re.compile("[0-9]{1,15}")
_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,15})-([0-9]{1,15})|\*)/([0-9]{1,15}|\*)")


class Small(NamedTuple):
    """A small answer, read whole."""

    status: int
    headers: Mapping[str, str]
    """Names in any case."""
    data: bytes
    url: str
    """What answered, after redirects."""


class HttpRemote:
    """A file at an http(s) address; see `remote.Remote`.

    Args:
        url: may hold `user:password@`.
        tokens: by host.
        headers: sent to the first host alone.
    """

    def __init__(
        self,
        url: str,
        *,
        tokens: Tokens = NO_TOKENS,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._url = url
        self._client = Client(tokens, headers)
        # Where the redirects led: whoever asks for a hundred ranges asks the first host once.
        self._place = url

    @property
    def shown(self) -> str:
        """The address without user, password, query and fragment."""
        return show(self._url)

    def open(self, start: int, end: int | None, validator: str) -> Reply:
        """Asks for a range; see `remote.Remote.open`."""
        # A file that is compressed on the way would have another length than announced.
        asked = {"Accept-Encoding": "identity"}
        if start or end is not None:
            asked["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
            if validator and not validator.startswith("W/"):
                asked["If-Range"] = validator
        place = self._place
        response = self._client.send("GET", self._url, place, asked, stream=True)
        if place != self._url and response.status_code in _EXPIRED:
            response.close()
            response = self._client.send("GET", self._url, self._url, asked, stream=True)
        try:
            reply = self._judge(response, asked, start, end, validator)
        except BaseException:
            response.close()
            raise
        self._place = response.url
        return reply

    def _judge(
        self,
        response: "requests.Response",
        asked: Mapping[str, str],
        start: int,
        end: int | None,
        validator: str,
    ) -> Reply:
        shown, status = self.shown, response.status_code
        if status in PASSING:
            raise Passing(f"answered {status}", _retry_after(response))
        if status in (401, 403):
            message, hint = self._client.tokens.refusal(self._url, status, response.headers)
            raise SourceError(message, hint=hint)
        if status in (404, 410):
            raise SourceError(f"{shown} does not exist (answer {status})")
        found = _validator(response)
        span = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if status == 416 and span and span[1] is None and span[3] == "0" and not start:
            return Reply(ResponseBody(response), 0, 0, found, ranges=True)
        if status == 416 and start:
            raise Changed(f"{shown} changed while it was fetched: it is shorter now")
        if status not in (200, 206) or (status == 206 and not (start or end is not None)):
            # Also a range where none was asked for.
            raise SourceError(f"{shown} answered {status}")
        _check_kind(response, self._url)
        body = ResponseBody(response)
        length = response.headers.get("Content-Length", "")
        if status == 200:
            # A server that knows no ranges gives all of it.
            if validator and found != validator:
                raise Changed(f"{shown} changed while it was fetched")
            size = int(length) if _AMOUNT.fullmatch(length) else None
            return Reply(body, 0, size, found, ranges=False)
        last = None if span is None or span[2] is None else int(span[2])
        if (
            span is None
            or last is None
            or int(span[1]) != start
            or last < start
            or (end is not None and last >= end)
            or (_AMOUNT.fullmatch(length) and int(length) != last + 1 - start)
        ):
            raise SourceError(f"{shown} answers another range than was asked for")
        # What was asked with If-Range need not say the name again.
        if validator and found not in (validator, "" if "If-Range" in asked else validator):
            raise Changed(f"{shown} changed while it was fetched")
        size = None if span[3] == "*" else int(span[3])
        return Reply(body, start, size, found or validator, ranges=True)


class ResponseBody:
    """The body of an answer; see `remote.Body`."""

    def __init__(self, response: "requests.Response") -> None:
        self._response = response

    def read(self, limit: int) -> bytes:
        import urllib3

        try:
            data: bytes = self._response.raw.read1(limit, decode_content=False)
            return data
        except urllib3.exceptions.ReadTimeoutError:
            raise Passing("stopped answering") from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            # The last is of an answer that another thread ended.
            raise Passing("broke off") from None

    def end(self) -> None:
        try:
            self._response.raw.shutdown()
        except (RuntimeError, ValueError, OSError):
            # It ended by itself meanwhile.
            return

    def close(self) -> None:
        self._response.close()


class Client:
    """Requests that keep secrets at home; may be used by several threads.

    Args:
        headers: sent to the first host of a request alone.
    """

    def __init__(self, tokens: Tokens, headers: Mapping[str, str] | None = None) -> None:
        self.tokens = tokens
        self._headers = dict(headers or {})
        self._lock = threading.Lock()
        self._made: requests.Session | None = None

    def ask(
        self,
        url: str,
        *,
        method: Literal["GET", "HEAD"] = "GET",
        headers: Mapping[str, str] | None = None,
        follows: Callable[[str], bool] = lambda url: True,
    ) -> Small:
        """A small answer of any status that is no passing one, asked for until there is one.

        Args:
            follows: whether to follow a redirect to an address.

        Raises:
            SourceError: nobody answers there, or with more than a small answer.
        """
        retry = Retry(show(url))
        while True:
            try:
                response = self.send(method, url, url, headers or {}, stream=True, follows=follows)
                with response:
                    if response.status_code in PASSING:
                        raise Passing(f"answered {response.status_code}", _retry_after(response))
                    return Small(
                        response.status_code, response.headers, _all(response), response.url
                    )
            except Passing as error:
                retry.again(error)

    def send(
        self,
        method: str,
        url: str,
        place: str,
        headers: Mapping[str, str],
        *,
        stream: bool,
        follows: Callable[[str], bool] = lambda url: True,
    ) -> "requests.Response":
        """Sends one request and follows its redirects.

        Args:
            url: the address that was meant: its host alone is told secrets.
            place: where to ask, the same or where it led before.

        Raises:
            Passing: it may work another time.
            SourceError: the address leads nowhere.
        """
        for _ in range(HOPS + 1):
            response = self._send(method, url, place, headers, stream)
            location = response.headers.get("Location")
            if response.status_code not in _REDIRECTS or location is None:
                return response
            target = _target(place, location)
            if not follows(target):
                return response
            response.close()
            parts = urlsplit(target)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                break
            if place.startswith("https:") and parts.scheme == "http":
                raise SourceError(f"{show(url)} leads to an address that is not encrypted")
            place = target
        raise SourceError(f"{show(url)} leads to no file")

    def _send(
        self, method: str, url: str, place: str, headers: Mapping[str, str], stream: bool
    ) -> "requests.Response":
        import requests

        at_home = _origin(place) == _origin(url)
        sent = dict(headers)
        auth: Any = _nothing
        if at_home:
            token = self.tokens.header(url)
            sent |= {**self._headers, **token}
            # The client would put what ~/.netrc has in the place of a token.
            auth = _nothing if token and "@" not in urlsplit(url).netloc else None
            if "@" in urlsplit(url).netloc:
                place = _with_user(place, url)
        try:
            return self._session().request(
                method,
                place,
                headers=sent,
                auth=auth,
                stream=stream,
                timeout=TIMEOUTS,
                allow_redirects=False,
            )
        except requests.exceptions.SSLError:
            raise SourceError(f"{show(url)}: its certificate is not trusted") from None
        except requests.exceptions.ProxyError:
            raise Passing("cannot be reached through the proxy") from None
        except requests.Timeout:
            raise Passing("did not answer in time") from None
        except requests.exceptions.InvalidSchema:
            raise SourceError(f"{show(url)} leads to no file") from None
        except requests.exceptions.InvalidHeader:
            raise SourceError(f"{show(url)} contradicts itself in its answer") from None
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            raise Passing("cannot be reached") from None
        except (requests.RequestException, ValueError):
            raise SourceError(f"{show(url)} is not an address that can be fetched") from None

    def _session(self) -> "requests.Session":
        with self._lock:
            if self._made is None:
                from http.cookiejar import DefaultCookiePolicy

                import requests
                from requests.adapters import HTTPAdapter

                self._made = requests.Session()
                # Requests of several threads share this, and no server is to know one by another.
                self._made.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
                adapter = HTTPAdapter(pool_maxsize=POOL)
                self._made.mount("http://", adapter)
                self._made.mount("https://", adapter)
            return self._made


def wait(seconds: float) -> None:
    """Sets for this process how long a server may be silent before it is asked again."""
    global TIMEOUTS
    TIMEOUTS = (seconds, seconds)


def show(url: str) -> str:
    """An address without user, password, query and fragment."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _target(place: str, location: str) -> str:
    """Where a redirect leads; what it says of users is not for us."""
    # Servers send bytes beyond ASCII in it, which the client reads as Latin-1.
    try:
        location = location.encode("latin-1").decode()
    except UnicodeError:
        pass
    try:
        parts = urlsplit(urljoin(place, location))
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    except ValueError:
        return ""


def _origin(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return parts.scheme, parts.hostname or "", port or {"http": 80, "https": 443}.get(parts.scheme)


def _with_user(place: str, url: str) -> str:
    """An address of the same host with the user and password of another."""
    user = urlsplit(url).netloc.rpartition("@")[0]
    parts = urlsplit(place)
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))


def _nothing(request: Any) -> Any:
    """An authorization that adds none."""
    return request


def _all(response: "requests.Response") -> bytes:
    """The whole of a small body. Raises Passing if it breaks off, SourceError if it is large."""
    import requests

    found = bytearray()
    try:
        for piece in response.iter_content(1 << 16):
            found += piece
            if len(found) > SMALL:
                raise SourceError(f"{show(response.url)} answers more than {SMALL >> 20} MiB")
    except (requests.RequestException, OSError):
        raise Passing("broke off") from None
    return bytes(found)


def _check_kind(response: "requests.Response", url: str) -> None:
    """Raises SourceError unless an answer can be the file."""
    shown = show(url)
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/html" and not urlsplit(url).path.lower().endswith((".html", ".htm")):
        raise SourceError(
            f"{shown} gives a web page instead of the file", hint="it may ask for a login there"
        )
    if kind == "multipart/byteranges":
        raise SourceError(f"{shown} answers another range than was asked for")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise SourceError(f"{shown} gives the file compressed, which was not asked for")


def _validator(response: "requests.Response") -> str:
    """What names this version of the file: its ETag, else its date; "" if nothing does."""
    tag = response.headers.get("ETag", "")
    return tag or response.headers.get("Last-Modified", "")


def _retry_after(response: "requests.Response") -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None
