"""Play a scenario against a live server, and name what differs from run to run.

The answers hold placeholders where a value can not be the same twice: `<prompt_id>` for what a
step binds, `<timestamp>` and the like by the name of the member.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from . import pictures
from .scenarios import FILES, Scenario, Step

LIMIT = 60.0
"""Seconds that any step may take."""

QUIET = 0.5
"""Seconds without a message after which a websocket of an idle server is taken to be silent."""

NUMBERS = {
    "timestamp": "<timestamp>",
    "create_time": "<timestamp>",
    "number": "<number>",
    "ram_total": "<bytes>",
    "ram_free": "<bytes>",
    "vram_total": "<bytes>",
    "vram_free": "<bytes>",
    "torch_vram_total": "<bytes>",
    "torch_vram_free": "<bytes>",
}
"""Members whose number changes, and what is put in its place; another type stays to be seen."""

TEXTS = {"sid": "<sid>"}

SETS = ("errors", "dependent_outputs", "executed", "current_outputs", "nodes")
"""Members whose lists come from sets: their order changes with Python's hash seed."""


class Player:
    """Plays steps against one server.

    `places` maps text that is this machine's (the folder of the server, its site-packages) to the
    placeholder that stands for it.
    """

    def __init__(self, url: str, places: Mapping[str, str] | None = None) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "127.0.0.1", address.port or 80
        # The longest first: one place may lie in another.
        self._places = sorted((places or {}).items(), key=lambda place: -len(place[0]))
        self._bound: dict[str, str] = {}
        self._sockets: dict[str, ClientConnection] = {}
        self._open_sockets = ExitStack()
        self._received: dict[str, list[Any]] = {}

    def play(self, scenario: Scenario) -> list[Any]:
        """The answer of every step, None for a step that has none."""
        self._bound.clear()
        self._sockets.clear()
        self._received.clear()
        with self._open_sockets:
            return [self._normal(self._step(step)) for step in scenario.steps]

    def _step(self, step: Step) -> Any:
        if "request" in step:
            return self._exchange(step)
        if "open" in step:
            self._open(step)
            return None
        if "wait" in step:
            self._take(step["wait"], lambda messages: step["type"] in _types(messages))
            return None
        name = step["read"]
        if self._bound:  # a prompt was posted
            self._take(name, _ended)
        self._drain(name)
        return {"messages": list(self._received[name])}

    # HTTP ---------------------------------------------------------------------------------------

    def _exchange(self, step: Step) -> dict[str, Any]:
        wanted = [self._actual(key) for key in step.get("until", ())]
        end = time.monotonic() + LIMIT
        while True:
            answer = self._http(step)
            if all(key in answer.get("json", ()) for key in wanted):
                break
            if time.monotonic() > end:
                raise TimeoutError(f"{step['request']['path']} never showed {wanted}")
            time.sleep(0.05)
        for name, keys in step.get("bind", {}).items():
            value = answer.get("json")
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if isinstance(value, str):
                self._bound[name] = value
        if "keep" in step and isinstance(answer.get("json"), dict):
            everything = answer["json"]
            answer["keys"] = sorted(everything)
            answer["json"] = {key: everything[key] for key in step["keep"] if key in everything}
        return answer

    def _http(self, step: Step) -> dict[str, Any]:
        request = step["request"]
        body, headers = self._body(request)
        connection = HTTPConnection(self._host, self._port, timeout=LIMIT)
        try:
            connection.request(request["method"], self._actual(request["path"]), body, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        answer: dict[str, Any] = {"status": response.status}
        kind = response.headers.get_content_type() if "Content-Type" in response.headers else None
        answer["content_type"] = kind
        if kind == "application/json":
            answer["json"] = json.loads(content)
        elif step.get("picture") and response.status == 200:
            answer["disposition"] = response.headers.get("Content-Disposition")
            answer["bytes"] = {
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
            answer["picture"] = pictures.describe(content)
        else:
            answer["body"] = content.decode(errors="replace")
        return answer

    def _body(self, request: Mapping[str, Any]) -> tuple[bytes | None, dict[str, str]]:
        if "json" in request:
            text = self._actual(json.dumps(request["json"]))
            return text.encode(), {"Content-Type": "application/json"}
        if "body" in request:
            return request["body"].encode(), {"Content-Type": "application/json"}
        if "multipart" not in request:
            return None, {}
        boundary = uuid.uuid4().hex
        parts = [
            (
                f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            ).encode()
            for name, value in request["multipart"]["fields"].items()
        ]
        file = request["multipart"]["file"]
        parts.append(
            f'--{boundary}\r\nContent-Disposition: form-data; name="image"; '
            f'filename="{file["name"]}"\r\nContent-Type: image/png\r\n\r\n'.encode()
            + content_of(file["content"])
            + b"\r\n"
        )
        parts.append(f"--{boundary}--\r\n".encode())
        return b"".join(parts), {"Content-Type": f"multipart/form-data; boundary={boundary}"}

    # Websocket ----------------------------------------------------------------------------------

    def _open(self, step: Step) -> None:
        query = f"?clientId={step['client_id']}" if step["client_id"] else ""
        name = step["open"]
        connecting = connect(
            f"ws://{self._host}:{self._port}/ws{query}",
            max_size=None,
            open_timeout=LIMIT,
            proxy=None,
        )
        self._sockets[name] = self._open_sockets.enter_context(connecting)
        self._received[name] = []
        for message in step["send"]:
            self._sockets[name].send(json.dumps(message))
        # Whoever posts before the server has listed this listener misses the first messages.
        self._take(name, lambda messages: "status" in _types(messages))

    def _take(self, name: str, complete: Callable[[Sequence[Any]], bool]) -> None:
        """Take messages until `complete` says that they are."""
        messages, end = self._received[name], time.monotonic() + LIMIT
        while not complete(messages):
            if not self._next(name, end - time.monotonic()):
                seen = ", ".join(_types(messages))
                raise TimeoutError(f"the websocket sent no more than: {seen}")

    def _drain(self, name: str) -> None:
        """Take whatever still comes without a pause."""
        while self._next(name, QUIET):
            pass

    def _next(self, name: str, seconds: float) -> bool:
        try:
            message = self._sockets[name].recv(timeout=max(0.0, seconds))
        except (TimeoutError, ConnectionClosed):
            return False
        if isinstance(message, bytes):
            self._received[name].append({"type": "binary", "data": _binary(message)})
        else:
            self._received[name].append(json.loads(message))
        return True

    # Placeholders -------------------------------------------------------------------------------

    def _actual(self, text: str) -> str:
        for name, value in self._bound.items():
            text = text.replace(f"<{name}>", value)
        return text

    def _normal(self, value: Any, member: str = "") -> Any:
        if isinstance(value, dict):
            return {self._text(key): self._normal(item, key) for key, item in value.items()}
        if isinstance(value, list):
            if member == "traceback" and all(isinstance(line, str) for line in value):
                return "<traceback>"
            if member == "argv":
                return "<argv>"
            items = [self._normal(item) for item in value]
            # A queued prompt is [number, id, graph, extra, outputs]; the number counts what was
            # posted before.
            if len(value) == 5 and value[1] in self._bound.values() and _is_number(value[0]):
                items[0] = "<number>"
                items[4] = sorted(items[4])
            return sorted(items, key=json.dumps) if member in SETS else items
        if isinstance(value, str):
            return TEXTS[member] if member in TEXTS else self._text(value)
        return NUMBERS[member] if member in NUMBERS and _is_number(value) else value

    def _text(self, text: str) -> str:
        for name, value in self._bound.items():
            text = text.replace(value, f"<{name}>")
        for place, name in self._places:
            text = text.replace(place, name)
        return re.sub(r"ComfyUI_temp_[a-z]{5}_", "ComfyUI_temp_<random>_", text)


def _binary(message: bytes) -> dict[str, Any]:
    """A preview: event 1 is the kind of picture and the picture, 4 tells of it in JSON."""
    event, number = struct.unpack_from(">II", message)
    described: dict[str, Any] = {"event": event}
    picture = message[8:]
    if event == 1:
        described["kind"] = number
    elif event == 4:
        described["metadata"] = json.loads(picture[:number])
        picture = picture[number:]
    described["bytes"] = len(message)
    if picture.startswith(pictures.SIGNATURE):
        described["picture"] = pictures.describe(picture)
    return described


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _types(messages: Sequence[Any]) -> list[str]:
    return [message["type"] for message in messages]


def _ended(messages: Sequence[Any]) -> bool:
    """Whether a prompt has run to its end and the queue is empty again."""
    ends = [
        message
        for message in messages
        if message["type"] == "executing" and message["data"]["node"] is None
    ]
    statuses = [message["data"] for message in messages if message["type"] == "status"]
    return bool(ends) and statuses[-1]["status"]["exec_info"]["queue_remaining"] == 0


def content_of(content: Mapping[str, Any]) -> bytes:
    """The bytes of a file that a scenario describes."""
    if "png" in content:
        return pictures.encode(**content["png"])
    return str(content["text"]).encode()


def lay_files(folder: Path) -> None:
    """Put `FILES` into the folder of a ComfyUI that is not started yet."""
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if "link" in content:
            os.symlink(content["link"], path)
        else:
            path.write_bytes(content_of(content))
