"""A package index on this host: simple pages as HTML and JSON, wheels with ranges."""

import base64
import json
import os
import re
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self

import wheelmaker
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

Mode = Literal["ok", "404", "500", "garbage", "wrong-hash", "no-hash", "cut", "silent", "redirect"]

_JSON = "application/vnd.pypi.simple.v1+json"


class IndexServer:
    """Serves the wheels that it is given; use as a context manager.

    Attributes:
        mode: what goes wrong with pages, if anything.
        files: what goes wrong with wheels.
        elsewhere: what a redirect leads to, before the path.
        user: `name:password` that every request must bear; None for nobody.
        paths: what was asked for, in order.
        credentials: the requests' `Authorization`.
        certified: as a proxy, what it answers with in the place of the host that is asked for;
            None for no proxy.
    """

    def __init__(self) -> None:
        self.mode: Mode = "ok"
        self.files: Mode = "ok"
        self.elsewhere = ""
        self.credentials: list[str | None] = []
        self.ended = threading.Event()
        self.user: str | None = None
        self.paths: list[str] = []
        self.certified: ssl.SSLContext | None = None
        self._wheels: dict[str, dict[str, tuple[str, str | None]]] = {}
        handler = type("Handler", (_Handler,), {"index": self})
        self._server = _Server(("127.0.0.1", 0), handler)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def host(self) -> str:
        """`127.0.0.1:<port>`"""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """The address of the index, without credentials."""
        return f"http://{self.host}/simple/"

    def add(self, path: str, uploaded: str | None = "2026-01-01T00:00:00Z") -> str:
        """Serves a wheel or source archive from now on; None for one without a date. Returns its
        URL."""
        file = os.path.basename(path)
        read = parse_wheel_filename if file.endswith(".whl") else parse_sdist_filename
        name = canonicalize_name(read(file)[0])
        self._wheels.setdefault(name, {})[file] = (path, uploaded)
        return f"http://{self.host}/files/{file}"

    def page(self, name: str) -> list[dict[str, object]] | None:
        """The files of a package as its JSON page lists them."""
        wheels = self._wheels.get(name)
        if wheels is None:
            return None
        files = []
        for file, (path, uploaded) in sorted(wheels.items()):
            sha256 = "0" * 64 if self.mode == "wrong-hash" else wheelmaker.sha256(path)
            one: dict[str, object] = {
                "filename": file,
                "url": f"../../files/{file}",
                "hashes": {} if self.mode == "no-hash" else {"sha256": sha256},
                "size": os.path.getsize(path),
            }
            if uploaded is not None:
                one["upload-time"] = uploaded
            files.append(one)
        return files

    def file(self, name: str) -> str | None:
        """The path of a wheel that is served under this name."""
        for wheels in self._wheels.values():
            if name in wheels:
                return wheels[name][0]
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Keeps silent about clients that end a connection early."""


class _Handler(BaseHTTPRequestHandler):
    index: IndexServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Keeps silent."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_CONNECT(self) -> None:
        """Becomes the host that a client of this proxy wants."""
        if self.index.certified is None:
            self._answer(405, b"")
            return
        self.send_response(200)
        self.end_headers()
        self.rfile.close()
        self.connection = self.index.certified.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", 0)

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def do_GET(self) -> None:
        index = self.index
        index.paths.append(self.path)
        index.credentials.append(self.headers.get("Authorization"))
        if index.user is not None:
            wanted = "Basic " + base64.b64encode(index.user.encode()).decode()
            if self.headers.get("Authorization") != wanted:
                self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="index"'})
                return
        if file := re.match(r"(?:/whl)?/files/(.+)", self.path):
            self._file(file[1].replace("%2B", "+"))
        elif page := re.fullmatch(r"/(?:simple|whl/[a-z0-9.]+)/([^/]+)/?", self.path):
            self._page(page[1])
        else:
            self._answer(404, b"")

    def _goes_wrong(self, mode: Mode, kind: str, size: int = 1000) -> bool:
        """Answers as a server that fails, if it is to.

        Args:
            kind: the content type of a right answer.
            size: its bytes.
        """
        if mode in ("404", "500"):
            self._answer(int(mode), b"")
        elif mode == "garbage":
            self._answer(200, b"\x00 no page \xff", {"Content-Type": kind})
        elif mode == "redirect":
            self._answer(302, b"", {"Location": self.index.elsewhere + self.path})
        elif mode == "cut":
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(b"PK")
            self.close_connection = True
        elif mode == "silent":
            self.index.ended.wait()
        else:
            return False
        return True

    def _page(self, name: str) -> None:
        if self._goes_wrong(self.index.mode, _JSON):
            return
        files = self.index.page(name)
        if files is None:
            self._answer(404, b"")
        elif "json" in self.headers.get("Accept", ""):
            page = {"meta": {"api-version": "1.1"}, "name": name, "files": files, "versions": []}
            self._answer(200, json.dumps(page).encode(), {"Content-Type": _JSON})
        else:
            text = "".join(f'<a href="{one["url"]}">{one["filename"]}</a>\n' for one in files)
            self._answer(200, text.encode(), {"Content-Type": "text/html"})

    def _file(self, name: str) -> None:
        path = self.index.file(name)
        if path is None:
            self._answer(404, b"")
            return
        if self._goes_wrong(self.index.files, "application/zip", os.path.getsize(path)):
            return
        with open(path, "rb") as file:
            data = file.read()
        headers = {"Accept-Ranges": "bytes", "ETag": f'"{wheelmaker.sha256(path)}"'}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self._answer(200, data, headers)
            return
        first = int(asked[1]) if asked[1] else max(0, len(data) - int(asked[2]))
        last = int(asked[2]) if asked[1] and asked[2] else len(data) - 1
        headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
        self._answer(206, data[first : last + 1], headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def certified(folder: str, host: str) -> ssl.SSLContext:
    """What a server of that name answers with; nobody trusts who vouches for it."""
    key, certificate = os.path.join(folder, "key"), os.path.join(folder, "certificate")
    command = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2"]
    command += ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
