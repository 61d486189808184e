"""A small HTTP/1.1 server over asyncio streams, with the routing that custom nodes expect:
`PromptServer.instance.routes.get("/path")` decorates a function of one request.
"""

import asyncio
import json
import logging
import mimetypes
import os
import re
import time
import traceback
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from app.websocket import WebSocket, accept_key

MAX_HEADERS = 64 * 1024
SOFTWARE = "Python aiohttp-like"
JS = "application/javascript; charset=utf-8"


def http_date(seconds: float) -> str:
    """A time as HTTP writes it, in English whatever the locale."""
    now = time.gmtime(seconds)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[now.tm_wday]
    month = "JanFebMarAprMayJunJulAugSepOctNovDec"[now.tm_mon * 3 - 3 : now.tm_mon * 3]
    return f"{day}, {now.tm_mday:02} {month} {now.tm_year} {time.strftime('%H:%M:%S', now)} GMT"


class Response:
    """What goes back to a client."""

    def __init__(
        self,
        body: bytes = b"",
        status: int = 200,
        content_type: str | None = None,
        headers: dict[str, str] | None = None,
        text: str | None = None,
    ) -> None:
        if text is not None:
            body, content_type = text.encode(), "text/plain; charset=utf-8"
        self.body = body
        self.status = status
        kind = {} if content_type is None else {"Content-Type": content_type}
        self.headers = {**kind, **(headers or {})}


class HTTPError(Exception):
    """Ends a request with a status and its name."""

    def __init__(self, status: int, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}: {HTTPStatus(status).phrase}")
        self.status = status
        self.headers = headers


def json_response(data: Any, status: int = 200) -> Response:
    """A document."""
    return Response(json.dumps(data).encode(), status, "application/json; charset=utf-8")


class Request:
    """What a client asked for."""

    def __init__(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        parts = urlsplit(target) if not target.startswith("//") else urlsplit("/" + target)
        self.method = method
        self.raw_path = parts.path or "/"
        self.path = unquote(self.raw_path)
        self.query: dict[str, str] = {}
        for key, value in parse_qsl(parts.query, keep_blank_values=True):
            self.query.setdefault(key, value)
        self.headers = headers
        self.body = body
        self.match_info: dict[str, str] = {}
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def json(self) -> Any:
        """The body as a document."""
        return json.loads(self.body)

    async def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    async def upgrade(self) -> WebSocket:
        """Answer a websocket handshake; from here on the connection is no HTTP any more."""
        if self.headers.get("upgrade", "").lower().strip() != "websocket":
            raise HTTPError(400)
        key = self.headers.get("sec-websocket-key")
        if key is None or self.headers.get("sec-websocket-version") not in ("7", "8", "13"):
            raise HTTPError(400)
        assert self.reader is not None and self.writer is not None
        self.writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            + f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode()
        )
        await self.writer.drain()
        return WebSocket(self.reader, self.writer)


Handler = Callable[[Request], Awaitable[Response | None]]


class Routes:
    """Functions by method and path; `{name}` in a path is one segment, `{name:.*}` the rest."""

    def __init__(self) -> None:
        self.table: list[tuple[str, re.Pattern[str], Handler]] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Add a route."""
        parts = re.split(r"\{(\w+)(?::([^{}]+))?\}", path)
        pattern = re.escape(parts[0])
        for name, rule, literal in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            pattern += f"(?P<{name}>{rule or '[^{}/]+'})" + re.escape(literal)
        self.table.append((method, re.compile(pattern), handler))

    def repeat_under(self, prefix: str) -> None:
        """Add every route once more, with a prefix before its path."""
        for method, pattern, handler in list(self.table):
            self.table.append((method, re.compile(re.escape(prefix) + pattern.pattern), handler))

    def _decorator(self, method: str, path: str) -> Callable[[Handler], Handler]:
        def decorate(handler: Handler) -> Handler:
            self.add(method, path, handler)
            return handler

        return decorate

    def get(self, path: str) -> Callable[[Handler], Handler]:
        """Decorate what answers GET (and HEAD)."""
        return self._decorator("GET", path)

    def post(self, path: str) -> Callable[[Handler], Handler]:
        """Decorate what answers POST."""
        return self._decorator("POST", path)

    def find(self, method: str, path: str) -> tuple[Handler | None, dict[str, str], set[str]]:
        """The function for a request, what its path holds, and the methods this path has."""
        allowed: set[str] = set()
        for own_method, pattern, handler in self.table:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            if method == own_method or (method, own_method) == ("HEAD", "GET"):
                return handler, {k: unquote(v) for k, v in match.groupdict().items()}, set()
            allowed |= {"GET", "HEAD"} if own_method == "GET" else {own_method}
        return None, {}, allowed


def content_type_of(name: str) -> str:
    """The MIME type of a file name."""
    own = {".js": JS, ".webp": "image/webp"}
    ending = os.path.splitext(name)[1].lower()
    return own.get(ending) or mimetypes.guess_type(name)[0] or "application/octet-stream"


def file_response(request: Request, path: str, headers: dict[str, str] | None = None) -> Response:
    """A file, or the part of it that a Range asks for."""
    with open(path, "rb") as stream:
        body = stream.read()
        modified = http_date(os.fstat(stream.fileno()).st_mtime)
    all_headers = {"Last-Modified": modified, "Accept-Ranges": "bytes", **(headers or {})}
    kind = all_headers.pop("Content-Type", None) or content_type_of(path)
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if match is None or match[0] == "bytes=-":
        return Response(body, 200, kind, all_headers)
    size = len(body)
    if match[1]:
        start, end = int(match[1]), min(int(match[2]) if match[2] else size - 1, size - 1)
    else:
        start, end = max(size - int(match[2]), 0), size - 1
    if start > end or start >= size:
        return Response(b"", 416, kind, {**all_headers, "Content-Range": f"bytes */{size}"})
    all_headers["Content-Range"] = f"bytes {start}-{end}/{size}"
    return Response(body[start : end + 1], 206, kind, all_headers)


def static_response(request: Request, folder: str, name: str) -> Response:
    """A file of a folder that is served; a link that leads out of it is not followed."""
    root = os.path.realpath(folder)
    name = name.lstrip("/")
    path = os.path.realpath(os.path.join(root, name)) if "\0" not in name else ""
    inside = path.startswith(os.path.join(root, "")) or path == root
    if inside and os.path.isdir(path):
        raise HTTPError(403)
    if not inside or not os.path.isfile(path):
        return Response(status=404, content_type="application/octet-stream")
    return file_response(request, path)


class Server:
    """Reads requests off connections and hands them to `handle`."""

    def __init__(self, handle: Callable[[Request], Awaitable[Response | None]], limit: int) -> None:
        self.handle = handle
        self.limit = limit  # of a request's body

    async def start(self, address: str, port: int) -> None:
        """Listen; OSError if the port is taken."""
        await asyncio.start_server(self._connection, address, port, limit=MAX_HEADERS)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except asyncio.CancelledError:  # the server stops; nobody waits for this task
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; False when the connection is to be closed."""
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            await _write(writer, Response(status=400, text="Bad Request"), False, False)
            return False
        headers: dict[str, str] = {}
        for field in lines:
            name, colon, value = field.partition(":")
            if colon:
                headers.setdefault(name.strip().lower(), value.strip())
        connection = headers.get("connection", "").lower()
        keep = words[2] == "HTTP/1.1" and "close" not in connection
        if headers.get("expect", "").lower() == "100-continue":
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            body = await self._body(reader, headers)
            request = Request(words[0], words[1], headers, body)
            request.reader, request.writer = reader, writer
            response = await self._answer(request)
        except HTTPError as error:  # the rest of the body is still on its way
            response, keep = Response(status=error.status, text=str(error)), False
        if response is None:
            return False
        await _write(writer, response, words[0] == "HEAD", keep)
        return keep

    async def _body(self, reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            body = b""
            while True:
                digits = (await reader.readuntil(b"\r\n")).split(b";")[0].strip()
                if not re.fullmatch(rb"[0-9a-fA-F]{1,16}", digits):
                    raise HTTPError(400)
                size = int(digits, 16)
                if len(body) + size > self.limit:
                    raise HTTPError(413)
                body += await reader.readexactly(size)
                await reader.readuntil(b"\r\n")
                if size == 0:
                    return body
        length = headers.get("content-length", "0")
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise HTTPError(400)
        size = int(length)
        if size > self.limit:
            raise HTTPError(413)
        return await reader.readexactly(size) if size > 0 else b""

    async def _answer(self, request: Request) -> Response | None:
        try:
            return await self.handle(request)
        except HTTPError as error:
            return Response(status=error.status, text=str(error), headers=error.headers)
        except (ConnectionError, asyncio.IncompleteReadError):
            raise
        except Exception:
            logging.error("Error handling request")
            logging.error(traceback.format_exc())
            text = "500 Internal Server Error\n\nServer got itself in trouble"
            return Response(status=500, text=text)


async def _write(
    writer: asyncio.StreamWriter, response: Response, head_only: bool, keep: bool
) -> None:
    headers = {
        **response.headers,
        "Content-Length": str(len(response.body)),
        "Date": http_date(time.time()),
        "Server": SOFTWARE,
    }
    if not keep:
        headers["Connection"] = "close"
    phrase = HTTPStatus(response.status).phrase
    lines = [f"HTTP/1.1 {response.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    # A file's name may hold anything, but no header begins inside another.
    lines = [line.replace("\r", " ").replace("\n", " ") for line in lines]
    data = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8")
    writer.write(data if head_only else data + response.body)
    await writer.drain()
