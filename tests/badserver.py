"""A server on loopback that misbehaves in every way; the first folder of a path says how.

    with BadServer(data) as server:
        fetch(server.at("stalls"))
        server.sent("stalls"), server.requests

Where nothing else is said a file is given as a good server does: whole or in ranges, over
connections that are kept, with its size and an ETag. All that came is written down: for counting
bytes, and for looking whether a token went where it must not.
"""

import hashlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

#: The name of the file in all addresses.
NAME = "m.safetensors"

#: What a page says.
PAGE = b"<!DOCTYPE html><html><head><title>Log in</title></head><body>...</body></html>"

#: Bytes of one write.
_PIECE = 1 << 16

#: What is endless ends here, in case that nobody hangs up.
_ENDLESS = 64 << 20


@dataclass
class Request:
    """A request as it came, and what was given."""

    way: str
    """How it was answered."""
    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case."""
    status: int = 0
    sent: int = 0
    """Bytes of the body that were handed to the system."""

    @property
    def range(self) -> tuple[int, int | None] | None:
        """First and last byte that were asked for."""
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range", ""))
        return (int(found[1]), int(found[2]) if found[2] else None) if found else None


@dataclass
class BadServer:
    """A server; use as a context manager.

    What is said below of the first requests counts all requests of a way.
    """

    data: bytes
    other: "BadServer | None" = None
    """Where `elsewhere` leads."""
    token: str = "secret"
    """What `token` wants."""
    piece: int = 1 << 18
    """Bytes after which a connection breaks off or stalls, where it does."""
    delay: float = 0.01
    """Seconds between the pieces of what is slow."""
    few: int = 2
    """How many may be served at once by `few`, and how often `signed` gives before it wants to be
    asked anew."""
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ended = threading.Event()
        self.lock = threading.Lock()
        self.serving = 0
        """Requests of `few` that are being served."""
        handler = type("Handler", (_Handler,), {"server_of": self})
        self._http = _Http(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    @property
    def host(self) -> str:
        """`127.0.0.1:<port>`"""
        return f"127.0.0.1:{self._http.server_address[1]}"

    def at(self, way: str, name: str = NAME) -> str:
        """The address of the file when it is served that way."""
        return f"http://{self.host}/{way}/{name}"

    def asked(self, way: str) -> list[Request]:
        """The requests that were answered that way."""
        with self.lock:
            return [one for one in self.requests if one.way == way]

    def sent(self, way: str) -> int:
        """Bytes that were given that way, all requests together."""
        return sum(one.sent for one in self.asked(way))


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """Keeps silent about clients that hang up."""


class _Handler(BaseHTTPRequestHandler):
    server_of: BadServer
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def log_message(self, *_: object) -> None:
        """Keeps silent."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        owner = self.server_of
        way = self.path.lstrip("/").partition("/")[0].partition("?")[0]
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.request_of = Request(way, self.command, self.path, headers)
        with owner.lock:
            self.number = sum(one.way == way for one in owner.requests)
            """How many requests of this way came before."""
            owner.requests.append(self.request_of)
        serve = WAYS.get(way)
        if serve is None:
            self.answer(404)
        else:
            serve(self)

    # What ways are made of

    def head(
        self, status: int, length: int | str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Sends status and headers; without a length the connection ends after the body."""
        self.request_of.status = status
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        elif "Transfer-Encoding" not in (headers or {}):
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()

    def body(self, data: bytes | memoryview, *, delay: float = 0, piece: int = _PIECE) -> None:
        """Sends bytes and counts them; with a delay between pieces."""
        if self.command == "HEAD":
            return
        for start in range(0, len(data), piece):
            if start and delay and self.server_of.ended.wait(delay):
                self.close_connection = True
                return
            part = data[start : start + piece]
            self.wfile.write(part)
            self.request_of.sent += len(part)

    def answer(
        self, status: int, data: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """A whole answer."""
        self.head(status, len(data), headers)
        self.body(data)

    def asked_for(self, data: bytes) -> tuple[int, int] | None:
        """Where the range that is asked for begins and ends; None for the whole file."""
        asked = self.request_of.range
        if asked is None:
            return None
        first, last = asked
        return first, min(len(data), len(data) if last is None else last + 1)

    def file(
        self,
        data: bytes | None = None,
        *,
        etag: str = '"1"',
        upto: int | None = None,
        then: Callable[[], None] | None = None,
        delay: float = 0,
        piece: int = _PIECE,
        headers: Mapping[str, str] | None = None,
        place: Callable[[int, int, int], str | None] = lambda start, end, size: (
            f"bytes {start}-{end - 1}/{size}"
        ),
        shift: int = 0,
    ) -> None:
        """The file or a range of it, as a good server does, but for:

        Args:
            data: another file.
            etag: of it; "" for none.
            upto: of the answer so many bytes alone are sent.
            then: is called after them; without it the connection is closed.
            delay: seconds between pieces.
            headers: more of them.
            place: the Content-Range; None for none.
            shift: the bytes are those from so much further on.
        """
        data = self.server_of.data if data is None else data
        known = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        known |= ({"ETag": etag} if etag else {}) | dict(headers or {})
        span = self.asked_for(data)
        condition = self.request_of.headers.get("if-range")
        if span is not None and (condition is None or condition == etag):
            start, end = span
            if start >= len(data):
                self.answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            text = place(start, end, len(data))
            self.head(206, end - start, known | ({"Content-Range": text} if text else {}))
        else:
            start, end = 0, len(data)
            self.head(200, end, known)
        part = memoryview(data + data[:shift])[start + shift : end + shift]
        if upto is None or upto >= len(part):
            self.body(part, delay=delay, piece=piece)
            return
        self.body(part[:upto], delay=delay, piece=piece)
        self.close_connection = True
        if then is not None:
            then()

    def wait(self) -> None:
        """Sends nothing more, until the server ends."""
        self.server_of.ended.wait()

    def reset(self) -> None:
        """Ends the connection as a machine that died."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def redirect(self, to: str, headers: Mapping[str, str] | None = None) -> None:
        """Leads elsewhere."""
        self.answer(302, b"", {"Location": to, **(headers or {})})

    def changed(self) -> bytes:
        """Another version of the file, of the same size: its end is another one."""
        data = self.server_of.data
        return data[:-4096] + bytes(255 - byte for byte in data[-4096:])


def _few(handler: _Handler, status: int) -> None:
    owner = handler.server_of
    with owner.lock:
        owner.serving += 1
        much = owner.serving > owner.few
    try:
        if much:
            handler.answer(status)
        else:
            handler.file(delay=owner.delay)
    finally:
        with owner.lock:
            owner.serving -= 1


def _multipart(handler: _Handler) -> None:
    data = handler.server_of.data
    span = handler.asked_for(data)
    if span is None:
        handler.file()
        return
    start, end = span
    head = f"--x\r\nContent-Range: bytes {start}-{end - 1}/{len(data)}\r\n\r\n".encode()
    body = head + data[start:end] + b"\r\n--x--\r\n"
    handler.answer(206, body, {"Content-Type": "multipart/byteranges; boundary=x", "ETag": '"1"'})


def _chunked(handler: _Handler, data: bytes, *, whole: bool) -> None:
    handler.head(200, headers={"Transfer-Encoding": "chunked", "ETag": '"1"'})
    for start in range(0, len(data), _PIECE):
        piece = data[start : start + _PIECE]
        handler.wfile.write(b"%x\r\n" % len(piece))
        handler.body(piece)
        handler.wfile.write(b"\r\n")
    if whole:
        handler.wfile.write(b"0\r\n\r\n")
    else:
        handler.close_connection = True


def _endless(handler: _Handler, status: int = 200) -> None:
    handler.head(status, headers={"Content-Type": "application/octet-stream"})
    for _ in range(_ENDLESS >> 20):
        if handler.server_of.ended.is_set():
            return
        handler.body(bytes(1 << 20))


def _signed(handler: _Handler) -> None:
    """Is good for some requests, and then refused until a new one is fetched from `signs`."""
    owner = handler.server_of
    with owner.lock:
        uses = sum(one.path == handler.path for one in owner.requests)
    if uses > owner.few:
        handler.answer(403, b"expired")
    else:
        handler.file()


def _token(handler: _Handler) -> None:
    wanted = f"Bearer {handler.server_of.token}"
    given = handler.request_of.headers.get("authorization")
    if given == wanted:
        handler.file()
    else:
        handler.answer(401 if given is None else 403, b"", {"WWW-Authenticate": "Bearer"})


def _elsewhere(handler: _Handler) -> None:
    other = handler.server_of.other
    assert other is not None
    handler.redirect(other.at("good"), {"Set-Cookie": f"session={handler.server_of.token}; Path=/"})


def _after(handler: _Handler, times: int, status: int, **headers: str) -> None:
    """The file, after so many answers that it cannot be had now."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if handler.number < times:
        handler.answer(status, b"", named)
    else:
        handler.file()


def _raw(handler: _Handler, data: bytes, times: int = 1) -> None:
    """An answer in these very bytes."""
    for _ in range(times):
        handler.wfile.write(data)
    handler.close_connection = True


def _sized(
    handler: _Handler,
    length: int | str | None,
    *,
    upto: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """All of the file under another length, or its beginning; the connection ends then."""
    handler.head(200, length, {"ETag": '"1"', **(headers or {})})
    handler.body(handler.server_of.data[:upto])
    handler.close_connection = True


def _changing(handler: _Handler, before: str, after: str) -> None:
    """Breaks off once; then it is another file. The ETags may tell."""
    if handler.number == 0:
        handler.file(etag=before, upto=handler.server_of.piece)
    else:
        handler.file(handler.changed(), etag=after)


def _pointer(data: bytes) -> bytes:
    digest = hashlib.sha256(data).hexdigest()
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n"
    ).encode()


#: All ways.
WAYS: dict[str, Callable[[_Handler], None]] = {
    # Good ones
    "good": lambda h: h.file(),
    "chunked": lambda h: _chunked(h, h.server_of.data, whole=True),
    "relative": lambda h: h.redirect(f"../good/{NAME}"),
    "elsewhere": _elsewhere,
    "signs": lambda h: h.redirect(f"/signed/{NAME}?signature={h.number}"),
    "signed": _signed,
    "token": _token,
    "slow": lambda h: h.file(delay=h.server_of.delay),
    # Without what others have
    "no-etag": lambda h: h.file(etag=""),
    "weak-etag": lambda h: h.file(etag='W/"1"'),
    "no-ranges": lambda h: h.answer(200, h.server_of.data, {"ETag": '"1"'}),
    "ignores-ranges": lambda h: h.answer(
        200, h.server_of.data, {"ETag": '"1"', "Accept-Ranges": "bytes"}
    ),
    "no-length": lambda h: _sized(h, None),
    # Ranges that are none
    "wrong-content-range": lambda h: h.file(place=lambda a, b, n: f"bytes {a + 1}-{b}/{n + 1}"),
    "other-range": lambda h: h.file(place=lambda a, b, n: f"bytes 0-{b - a - 1}/{n}"),
    "other-total": lambda h: h.file(place=lambda a, b, n: f"bytes {a}-{b - 1}/{n + 5}"),
    "other-bytes": lambda h: h.file(shift=0 if h.request_of.range is None else 7),
    "no-content-range": lambda h: h.file(place=lambda a, b, n: None),
    "garbled-content-range": lambda h: h.file(place=lambda a, b, n: "bytes all of them"),
    "unbounded-content-range": lambda h: h.file(
        place=lambda a, b, n: f"bytes {a}-{b - 1}/{'9' * 4000}"
    ),
    "multipart": _multipart,
    "416": lambda h: h.answer(416) if h.request_of.range else h.file(),
    # Lengths that are none
    "announces-more": lambda h: _sized(h, len(h.server_of.data) + 1000),
    "announces-less": lambda h: _sized(h, len(h.server_of.data) - 1000),
    "negative-length": lambda h: _sized(h, "-5"),
    "garbled-length": lambda h: _sized(h, "many"),
    "enormous-length": lambda h: _sized(h, "9" * 30),
    "two-lengths": lambda h: _sized(
        h, len(h.server_of.data), headers={"Content-Length": str(len(h.server_of.data) // 2)}
    ),
    "sizes": lambda h: h.file(h.server_of.data[: len(h.server_of.data) - 1000 * (h.number % 3)]),
    "endless": _endless,
    "endless-range": lambda h: _endless(h, 206),
    "empty": lambda h: h.answer(200, b"", {"ETag": '"1"'}),
    "no-content": lambda h: h.head(204, 0),
    # Connections that end or wait
    "breaks": lambda h: h.file(upto=h.server_of.piece),
    "breaks-once": lambda h: h.file(upto=h.server_of.piece if h.number == 0 else None),
    "breaks-at-once": lambda h: h.file(upto=0),
    "breaks-no-etag": lambda h: h.file(etag="", upto=h.server_of.piece),
    "breaks-no-ranges": lambda h: _sized(h, len(h.server_of.data), upto=h.server_of.piece),
    "stalls": lambda h: h.file(upto=h.server_of.piece, then=h.wait),
    "stalls-once": lambda h: h.file(upto=h.server_of.piece if h.number == 0 else None, then=h.wait),
    "stalls-at-once": lambda h: h.wait(),
    "drips": lambda h: h.file(piece=1, delay=0.5),
    "resets": lambda h: h.reset(),
    "resets-midway": lambda h: h.file(upto=h.server_of.piece, then=h.reset),
    "chunked-cut": lambda h: _chunked(h, h.server_of.data, whole=False),
    # Files that are not the same any more
    "changes": lambda h: _changing(h, '"1"', '"2"'),
    "changes-silently": lambda h: _changing(h, '"1"', '"1"'),
    "changes-without-etag": lambda h: _changing(h, "", ""),
    "changes-always": lambda h: h.file(etag=f'"{h.number}"', upto=h.server_of.piece),
    "other-file": lambda h: h.file(h.changed()),
    # Something else
    "page": lambda h: h.answer(200, PAGE, {"Content-Type": "text/html; charset=utf-8"}),
    "page-as-file": lambda h: h.answer(200, PAGE, {"Content-Type": "application/octet-stream"}),
    "error-as-file": lambda h: h.answer(
        200, b'{"error": "not found"}', {"Content-Type": "application/json"}
    ),
    "pointer": lambda h: h.file(_pointer(h.server_of.data)),
    "gzip": lambda h: h.file(headers={"Content-Encoding": "gzip"}),
    "304": lambda h: h.head(304, 0),
    "206": lambda h: h.answer(206, h.server_of.data, {"ETag": '"1"'}),
    "no-http": lambda h: _raw(h, b"220 mail.example.org ESMTP\r\n"),
    "no-status": lambda h: _raw(h, b"HTTP/1.1 OK\r\n\r\n"),
    "many-headers": lambda h: h.file(headers={f"X-{n}": "x" * 100 for n in range(500)}),
    "long-header": lambda h: h.file(headers={"X-Long": "x" * 100_000}),
    "many-cookies": lambda h: h.file(headers={"Set-Cookie": "a=" + "x" * 4000}),
    "continues": lambda h: _raw(h, b"HTTP/1.1 100 Continue\r\n\r\n", 2000),
    # Refusals
    "401": lambda h: h.answer(401, b"", {"WWW-Authenticate": "Bearer"}),
    "403": lambda h: h.answer(403),
    "404": lambda h: h.answer(404),
    "410": lambda h: h.answer(410),
    "451": lambda h: h.answer(451),
    "500": lambda h: h.answer(500),
    "503": lambda h: h.answer(503),
    "503-twice": lambda h: _after(h, 2, 503),
    "429": lambda h: h.answer(429, b"", {"Retry-After": "1"}),
    "429-once": lambda h: _after(h, 1, 429, Retry_After="1"),
    "429-for-ever": lambda h: h.answer(429, b"", {"Retry-After": "9" * 20}),
    "429-someday": lambda h: h.answer(429, b"", {"Retry-After": "Thu, 99 Foo 2026"}),
    "few-429": lambda h: _few(h, 429),
    "few-503": lambda h: _few(h, 503),
    # Redirects that lead nowhere
    "loop": lambda h: h.redirect(f"/loop/{NAME}"),
    "to-file": lambda h: h.redirect("file:///etc/passwd"),
    "to-nothing": lambda h: h.answer(302),
    "to-no-address": lambda h: h.redirect("http://[::1/x"),
    "to-no-host": lambda h: h.redirect("http:///x"),
    "to-script": lambda h: h.redirect("javascript:alert(1)"),
    "to-no-port": lambda h: h.redirect("http://127.0.0.1:99999/x"),
}
