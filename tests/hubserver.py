"""A stand-in for HuggingFace and Civitai on loopback, and for the other host that has their bytes.

It answers as the sites are documented to: HuggingFace as its own client (huggingface_hub) takes
it, which a test checks; Civitai as its public source code has it.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from blake3 import blake3

#: Items on a page of a listing.
PAGE = 3

COMMIT = "a" * 40
TOKEN = "canary_0123456789"
SIGNATURE = "signed0123456789"


@dataclass
class Repository:
    """A repository of HuggingFace with one commit."""

    files: dict[str, bytes]
    large: frozenset[str] = frozenset()
    """Those of its files that are stored with LFS or Xet."""
    revisions: tuple[str, ...] = ("main",)
    gated: bool = False
    private: bool = False
    commit: str = COMMIT

    def oid(self, path: str) -> str:
        """The id of a file as a blob of git: that of a pointer for large ones."""
        data = self.files[path]
        if path in self.large:
            data = f"pointer to {hashlib.sha256(data).hexdigest()}".encode()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Request:
    """What one of the hosts was asked."""

    method: str
    path: str
    authorization: str | None


@dataclass
class Answer:
    """What is answered."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""


def _json(data: object, status: int = 200, **headers: str) -> Answer:
    return Answer(
        status, {"Content-Type": "application/json", **headers}, json.dumps(data).encode()
    )


class _Http(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up when they know enough."""


class _Host:
    """A server whose every answer is made by a function."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        self.requests: list[Request] = []
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                request = Request(self.command, self.path, self.headers.get("Authorization"))
                host.requests.append(request)
                found = answer(request)
                data, span = found.data, self.headers.get("Range", "")
                if found.status == 200 and span:
                    first, _, last = span.removeprefix("bytes=").partition("-")
                    begin, end = int(first), min(int(last or len(data)), len(data) - 1)
                    found.headers["Content-Range"] = f"bytes {begin}-{end}/{len(data)}"
                    found.status, data = 206, data[begin : end + 1]
                self.send_response(found.status)
                for name, value in found.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(data)

            do_HEAD = do_GET

        self._http = _Http(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def close(self) -> None:
        """Stops serving."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class HubServer:
    """Both sites at one host, and the bytes at another."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        """By place: `org/repo`, `datasets/org/repo`."""
        self.renamed: dict[str, str] = {}
        self.versions: dict[int, dict[str, Any]] = {}
        """Versions of models at Civitai, as their API tells them; see `version`."""
        self.models: dict[int, list[int]] = {}
        """Their versions, the newest first."""
        self.bytes: dict[str, bytes] = {}
        self.links = ""
        """What the address of the next page of a listing begins with; "" for the site's own."""
        self.access = True
        """Whether the token may read what is gated."""
        self.site = _Host(self._site)
        self.cdn = _Host(self._cdn)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.site.close()
        self.cdn.close()

    def version(
        self, number: int, files: Sequence[tuple[bytes, dict[str, Any]]], **fields: Any
    ) -> dict[str, Any]:
        """Adds a version of a model at Civitai; its files with what the API says of them."""
        made = {"id": number, "name": "v1", "usageControl": "Download", **fields}
        made["files"] = [
            {
                "id": number * 10 + index,
                "name": "model.safetensors",
                "type": "Model",
                "sizeKB": len(data) / 1024,
                "metadata": {"format": "SafeTensor", "size": "pruned", "fp": "fp16"},
                "hashes": {
                    "AutoV2": "0123456789",
                    "SHA256": hashlib.sha256(data).hexdigest().upper(),
                    "BLAKE3": blake3(data).hexdigest().upper(),
                },
                "downloadUrl": f"https://civitai.com/api/download/models/{number}",
                **said,
            }
            for index, (data, said) in enumerate(files)
        ]
        self.versions[number] = made
        for (data, _), file in zip(files, made["files"], strict=True):
            self.bytes[f"civitai-{file['id']}"] = data
        return made

    # Both sites

    def _site(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        path, query = unquote(parts.path).strip("/"), dict(parse_qsl(parts.query))
        if path.startswith(("api/v1/", "api/download/")):
            return self._civitai(path, query, request)
        return self._huggingface(parts.path.strip("/"), query, request)

    def _cdn(self, request: Request) -> Answer:
        parts = urlsplit(request.path)
        if dict(parse_qsl(parts.query)).get("Signature") != SIGNATURE or request.authorization:
            # Signed addresses take no other authorization, as S3 does not.
            return Answer(400)
        data = self.bytes.get(parts.path.strip("/"))
        return Answer(404) if data is None else Answer(200, {"ETag": '"cdn"'}, data)

    def _elsewhere(self, name: str) -> str:
        return f"{self.cdn.url}/{name}?Expires=1&Signature={SIGNATURE}"

    # HuggingFace

    def _huggingface(self, path: str, query: Mapping[str, str], request: Request) -> Answer:
        steps = path.split("/")
        kind = "models"
        if steps[:2] == ["api", "resolve-cache"]:
            kind, steps = steps[2], [*steps[3:5], "cached", *steps[5:]]
        elif steps[0] == "api":
            kind, steps = steps[1], steps[2:]
        elif steps[0] in ("datasets", "spaces"):
            kind, steps = steps[0], steps[1:]
        repo, verb, revision = "/".join(steps[:2]), *map(unquote, steps[2:4])
        below = unquote("/".join(steps[4:]))
        place = repo if kind == "models" else f"{kind}/{repo}"
        if place in self.renamed:
            target = request.path.replace(place, self.renamed[place], 1)
            return Answer(307, {"Location": target})
        repository = self.repositories.get(place)
        allowed = request.authorization == f"Bearer {TOKEN}"
        if repository is None or (repository.private and not allowed):
            return _error(404 if allowed else 401, "RepoNotFound", "Repository not found")
        if repository.gated and not (allowed and self.access):
            return _error(403 if allowed else 401, "GatedRepo", "Access is restricted")
        if revision not in (*repository.revisions, repository.commit):
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if verb == "revision":
            names = [{"rfilename": name} for name in sorted(repository.files)]
            return _json({"id": repo, "sha": repository.commit, "siblings": names})
        if verb == "tree":
            return self._tree(repository, below, request.path, query)
        return self._resolve(repository, place, below, cached=verb == "cached")

    def _resolve(self, repository: Repository, place: str, path: str, *, cached: bool) -> Answer:
        data = repository.files.get(path)
        if data is None:
            return _error(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if path in repository.large:
            sha256 = hashlib.sha256(data).hexdigest()
            self.bytes[sha256] = data
            headers |= {
                "X-Linked-Size": str(len(data)),
                "X-Linked-Etag": f'"{sha256}"',
                "ETag": '"0123456789abcdef"',
                "Location": self._elsewhere(sha256),
            }
            return Answer(302, headers)
        headers["ETag"] = f'"{repository.oid(path)}"'
        if not cached:
            kind = "" if place.startswith(("datasets/", "spaces/")) else "models/"
            target = f"/api/resolve-cache/{kind}{place}/{repository.commit}/{quote(path)}"
            return Answer(307, {**headers, "Location": target})
        return Answer(200, {**headers, "Content-Type": "text/plain"}, data)

    def _tree(
        self, repository: Repository, folder: str, asked: str, query: Mapping[str, str]
    ) -> Answer:
        items: list[dict[str, Any]] = []
        folders = set()
        for path, data in sorted(repository.files.items()):
            if folder and not path.startswith(f"{folder}/"):
                continue
            parent = path.rpartition("/")[0]
            if parent and parent != folder and parent not in folders:
                folders.add(parent)
                items.append({"type": "directory", "oid": "d" * 40, "size": 0, "path": parent})
            item = {"type": "file", "oid": repository.oid(path), "size": len(data), "path": path}
            if path in repository.large:
                sha256 = hashlib.sha256(data).hexdigest()
                item["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
                item["xetHash"] = "e" * 64
            items.append(item)
        if folder and not items:
            return _error(404, "EntryNotFound", f"{folder} does not exist")
        assert query.get("recursive", "").lower() == "true"
        first = int(query.get("cursor", "0"))
        headers = {}
        if first + PAGE < len(items):
            base = asked.partition("&cursor=")[0]
            following = f"{self.links or self.site.url}{base}&cursor={first + PAGE}"
            headers["Link"] = f'<{following}>; rel="next"'
        return _json(items[first : first + PAGE], **headers)

    # Civitai

    def _civitai(self, path: str, query: Mapping[str, str], request: Request) -> Answer:
        number = int(path.rpartition("/")[2])
        if path.startswith("api/v1/models/"):
            if number not in self.models:
                return _json({"error": f"No model with id {number}"}, 404)
            found = [self.versions[one] for one in self.models[number]]
            return _json({"id": number, "name": "A model", "modelVersions": found})
        version = self.versions.get(number)
        if version is None:
            return _json({"error": "Model not found"}, 404)
        if path.startswith("api/v1/"):
            return _json(version)
        if version.get("requireAuth") and request.authorization != f"Bearer {TOKEN}":
            message = "The creator of this asset requires you to be logged in to download it"
            return _json({"error": "Unauthorized", "message": message}, 401)
        if version.get("earlyAccess"):
            return _json({"error": "Early Access", "deadline": "2027-01-01T00:00:00.000Z"}, 403)
        for file in version["files"]:
            told = {"fileId": str(file["id"]), "type": file["type"], **file["metadata"]}
            if all(told.get(name) == value for name, value in query.items()):
                return Answer(307, {"Location": self._elsewhere(f"civitai-{file['id']}")})
        return _json({"error": "File not found"}, 404)


def _error(status: int, code: str, message: str) -> Answer:
    return _json({"error": message}, status, **{"X-Error-Code": code, "X-Error-Message": message})
