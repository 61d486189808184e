"""Git repositories made object by object, and a real git server for them over smart HTTP.

The server runs `git http-backend`, so clients speak with what every git host runs. It can also ask
for a login, refuse commits that no ref names, and serve the batch API of Git LFS; it writes down
every request.
"""

import base64
import hashlib
import json
import os
import subprocess
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

Content = bytes | tuple[str, bytes]

#: Any date will do, as long as it is known.
SECONDS, DATE = 1700000000, "2023-11-14T22:13:20Z"


def link(target: bytes) -> Content:
    """A symbolic link in `Source.commit`."""
    return "120000", target


def script(data: bytes) -> Content:
    """An executable file."""
    return "100755", data


def submodule(commit: str) -> Content:
    """A commit of another repository."""
    return "160000", commit.encode()


def lfs_pointer(data: bytes) -> bytes:
    """The pointer that Git LFS puts in the place of `data`."""
    oid = hashlib.sha256(data).hexdigest()
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(data)}\n"
    ).encode()


def modules(urls: Mapping[str, str]) -> bytes:
    """A `.gitmodules` from paths to URLs."""
    return "".join(
        f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n' for path, url in urls.items()
    ).encode()


class Source:
    """A bare repository whose objects are written as they are given, valid or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = ["git", "init", "--quiet", "--bare", "--initial-branch=main", str(folder)]
        subprocess.run(command, check=True)

    def put(self, kind: str, data: bytes, id: str | None = None) -> str:
        """Writes a loose object; under a name that is not its own where `id` is given."""
        whole = f"{kind} {len(data)}\0".encode() + data
        id = id or hashlib.sha1(whole).hexdigest()
        path = self.object(id)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(whole, 1))
        return id

    def object(self, id: str) -> Path:
        """Where a loose object lies."""
        return self.folder / "objects" / id[:2] / id[2:]

    def tree(self, lines: list[tuple[str, bytes, str]]) -> str:
        """Writes a tree from lines of mode, name and id, in the order given."""
        raw = [mode.encode() + b" " + name + b"\0" + bytes.fromhex(id) for mode, name, id in lines]
        return self.put("tree", b"".join(raw))

    def files(self, files: Mapping[bytes, Content]) -> str:
        """Writes the tree of files given by path."""
        lines: dict[bytes, tuple[str, bytes, str]] = {}
        below: dict[bytes, dict[bytes, Content]] = {}
        for path, content in files.items():
            name, slash, rest = path.partition(b"/")
            if slash:
                below.setdefault(name, {})[rest] = content
                continue
            mode, data = content if isinstance(content, tuple) else ("100644", content)
            id = data.decode() if mode == "160000" else self.put("blob", data)
            lines[name] = (mode, name, id)
        for name, inner in below.items():
            lines[name + b"/"] = ("40000", name, self.files(inner))
        return self.tree([lines[key] for key in sorted(lines)])

    def commit(
        self,
        files: Mapping[bytes, Content] | str,
        *,
        branch: str | None = "main",
        parents: tuple[str, ...] = (),
        message: str = "A commit",
        seconds: int = SECONDS,
    ) -> str:
        """Writes a commit of files, or of a tree that exists, and moves a branch to it."""
        tree = files if isinstance(files, str) else self.files(files)
        lines = [f"tree {tree}", *(f"parent {parent}" for parent in parents)]
        lines += [f"{role} T <t@example.org> {seconds} +0200" for role in ("author", "committer")]
        id = self.put("commit", "\n".join([*lines, "", message, ""]).encode())
        if branch is not None:
            self.ref(f"refs/heads/{branch}", id)
        return id

    def tag(self, name: str, commit: str) -> str:
        """Writes an annotated tag."""
        head = f"object {commit}\ntype commit\ntag {name}\ntagger T <t@example.org> {SECONDS} +0000"
        id = self.put("tag", f"{head}\n\nA tag\n".encode())
        self.ref(f"refs/tags/{name}", id)
        return id

    def ref(self, name: str, id: str) -> None:
        """Points a ref at an object."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{id}\n")


@dataclass
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class GitServer:
    """Serves the bare repositories below `root`; use as a context manager."""

    root: Path
    login: tuple[str, str] | None = None
    """User and password that every request must bring."""
    only_refs: bool = False
    """Give only commits that a ref names, as servers of the old protocol do."""
    objects: dict[str, bytes] = field(default_factory=dict)
    """What Git LFS has, by SHA-256."""
    token: str | None = None
    """A header that downloads must bring; it is told in the answer to the batch request."""
    elsewhere: "GitServer | None" = None
    """Another server that downloads are redirected to."""
    cut: int | None = None
    """Break a download off after so many bytes."""
    ranges: bool = False
    """Go on where a download broke off."""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """The server's address."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def keep(self, data: bytes) -> bytes:
        """Gives Git LFS a file and returns the pointer to it."""
        self.objects[hashlib.sha256(data).hexdigest()] = data
        return lfs_pointer(data)

    def count(self, method: str, ending: str) -> int:
        """How many requests of a method there were for paths with an ending."""
        return sum(r.method == method and r.path.endswith(ending) for r in self.requests)


class _Handler(BaseHTTPRequestHandler):
    owner: GitServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._serve(body)

    def _serve(self, body: bytes) -> None:
        owner = self.owner
        owner.requests.append(Request(self.command, self.path, dict(self.headers), body))
        if self.path.startswith("/lfs/"):
            self._download(self.path.removeprefix("/lfs/"))
            return
        if owner.login is not None:
            wanted = base64.b64encode(":".join(owner.login).encode()).decode()
            if self.headers.get("Authorization") != f"Basic {wanted}":
                self._answer(401, b"", {"WWW-Authenticate": 'Basic realm="test"'})
                return
        if self.path.endswith("/info/lfs/objects/batch"):
            self._batch(json.loads(body))
        else:
            self._git(body)

    def _git(self, body: bytes) -> None:
        path, _, query = self.path.partition("?")
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_PROJECT_ROOT": str(self.owner.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REQUEST_METHOD": self.command,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
            "GIT_CONFIG_COUNT": "2",
            "GIT_CONFIG_KEY_0": "uploadpack.allowFilter",
            "GIT_CONFIG_VALUE_0": "true",
            "GIT_CONFIG_KEY_1": "safe.directory",
            "GIT_CONFIG_VALUE_1": "*",
        }
        if not self.owner.only_refs:
            environment["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        status = int(headers.pop("Status", "200").split(" ")[0])
        self._answer(status, content, headers)

    def _batch(self, request: dict[str, Any]) -> None:
        answers = []
        for item in request["objects"]:
            answer: dict[str, Any] = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] in self.owner.objects:
                action: dict[str, Any] = {"href": f"{self.owner.url}/lfs/{item['oid']}"}
                if self.owner.token is not None:
                    action["header"] = {"X-Token": self.owner.token}
                answer["actions"] = {"download": action}
            else:
                answer["error"] = {"code": 404, "message": "Object does not exist"}
            answers.append(answer)
        self._answer(
            200,
            json.dumps({"transfer": "basic", "objects": answers}).encode(),
            {"Content-Type": "application/vnd.git-lfs+json"},
        )

    def _download(self, oid: str) -> None:
        owner = self.owner
        if owner.token is not None and self.headers.get("X-Token") != owner.token:
            self._answer(403, b"")
        elif owner.elsewhere is not None:
            self._answer(302, b"", {"Location": f"{owner.elsewhere.url}/lfs/{oid}"})
        elif oid not in owner.objects:
            self._answer(404, b"")
        else:
            data, status = owner.objects[oid], 200
            if owner.ranges and (wanted := self.headers.get("Range")):
                data, status = data[int(wanted.removeprefix("bytes=").rstrip("-")) :], 206
            self._answer(status, data, cut=owner.cut)

    def _answer(
        self,
        status: int,
        body: bytes,
        headers: Mapping[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if cut is not None and cut < len(body):
            self.wfile.write(body[:cut])
            self.close_connection = True
        else:
            self.wfile.write(body)
