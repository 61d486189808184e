"""A client of ComfyUI's API: HTTP for questions and results, its websocket for progress.

Speaks to a server on this host alone, past any proxy. The shapes are those of ComfyUI 0.3.64
(tests/data has them recorded) and of cores since 2024.
"""

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from cvs.store.errors import InputError, RunError

#: Seconds for one answer; a prompt's work is not waited for in one request.
TIMEOUT = 30.0

#: Seconds between two looks at the history while no websocket message comes.
POLL = 1.0


class NoAnswer(RunError):
    """ComfyUI cannot be talked to; when it has ended, that is the better thing to say."""


class Output(msgspec.Struct, frozen=True):
    """A file that a workflow made."""

    node: str
    kind: str
    """The key under which the node reported it: `images`, `gifs`, `audio`…"""
    filename: str
    subfolder: str
    type: str
    """`output`, or `temp` for a preview."""


class Event(msgspec.Struct, frozen=True):
    """Something that happened while a workflow ran."""

    kind: str
    """`queued`, `refused` (an output that is not run, the others are), `node`, `progress`,
    `cached`."""
    node: str | None = None
    text: str = ""
    value: int = 0
    maximum: int = 0


class Client:
    """The API of one ComfyUI."""

    def __init__(self, url: str) -> None:
        self.url = url
        # A proxy from the environment is never meant for a server on this host.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def get(self, path: str) -> Any:
        """GET of a JSON answer.

        Raises:
            RunError: no answer, or one that is an error or no JSON.
        """
        return self._json(urllib.request.Request(self.url + path))

    def answers(self) -> bool:
        """Whether the server is up."""
        try:
            with self._opener.open(self.url + "/system_stats", timeout=5) as response:
                return bool(response.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def _json(self, request: urllib.request.Request) -> Any:
        place = urllib.parse.urlsplit(request.full_url).path
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise RunError(f"ComfyUI answered {error.code} to {place}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(f"ComfyUI did not answer {place}: {error}") from None

    def submit(self, graph: dict[str, Any], client_id: str) -> tuple[str, dict[str, str]]:
        """Queues a graph.

        Returns:
            Its prompt id, and the nodes that are not run, each with the reason: of several
            outputs ComfyUI runs those that are valid.

        Raises:
            InputError: ComfyUI refuses the graph; names node, field and reason.
        """
        body = json.dumps({"prompt": graph, "client_id": client_id}).encode()
        request = urllib.request.Request(
            self.url + "/prompt", data=body, headers={"Content-Type": "application/json"}
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT) as response:
                answer = json.loads(response.read())
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
            raise InputError(explain_refusal(text, graph)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoAnswer(f"ComfyUI did not take the workflow: {error}") from None
        if not isinstance(answer, dict) or "prompt_id" not in answer:
            raise RunError("ComfyUI did not take the workflow: its answer has no prompt_id")
        return str(answer["prompt_id"]), _problems(answer.get("node_errors"))

    def download(self, output: Output) -> Iterator[bytes]:
        """The bytes of an output, in pieces.

        Raises:
            RunError: it is not there.
        """
        query = urllib.parse.urlencode(
            {"filename": output.filename, "subfolder": output.subfolder, "type": output.type}
        )
        try:
            with self._opener.open(f"{self.url}/view?{query}", timeout=TIMEOUT) as response:
                left = response.length
                while chunk := response.read(1 << 20):
                    left = None if left is None else left - len(chunk)
                    yield chunk
                if left:
                    raise http.client.IncompleteRead(b"", left)
        except (OSError, http.client.HTTPException) as error:
            raise RunError(f"the output {output.filename} cannot be read: {error}") from None

    def interrupt(self) -> None:
        """Asks ComfyUI to stop what it runs; one that does not answer is left alone."""
        request = urllib.request.Request(self.url + "/interrupt", data=b"", method="POST")
        try:
            self._opener.open(request, timeout=5).close()
        except (OSError, http.client.HTTPException):
            pass

    def run(
        self,
        graph: dict[str, Any],
        *,
        timeout: float | None,
        alive: Callable[[], None],
        on_event: Callable[[Event], None],
    ) -> list[Output]:
        """Runs a graph to its end and returns the files that it made.

        Args:
            timeout: seconds for the whole run; None for no limit.
            alive: called now and then; raises when ComfyUI has died.

        Raises:
            InputError: ComfyUI refuses the graph.
            RunError: a node failed, the time is over, or ComfyUI died.
        """
        try:
            return self._run(graph, timeout, alive, on_event)
        except NoAnswer:
            # A process that dies closes its connections a moment before it can be seen to have.
            for _ in range(20):
                alive()
                time.sleep(0.05)
            raise

    def _run(
        self,
        graph: dict[str, Any],
        timeout: float | None,
        alive: Callable[[], None],
        on_event: Callable[[Event], None],
    ) -> list[Output]:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        client_id = uuid.uuid4().hex
        socket_url = f"ws{self.url.removeprefix('http')}/ws?clientId={client_id}"
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            socket = connect(socket_url, proxy=None, max_size=None, open_timeout=TIMEOUT)
        except (OSError, WebSocketException) as error:
            raise NoAnswer(f"ComfyUI's websocket cannot be opened: {error}") from None
        with socket:
            prompt, refused = self.submit(graph, client_id)
            on_event(Event("queued"))
            for node, reason in refused.items():
                on_event(Event("refused", node=node, text=reason))
            ended = False
            while not ended:
                alive()
                if deadline is not None and time.monotonic() > deadline:
                    self.interrupt()
                    raise RunError(f"the workflow did not end within {timeout:.0f} s")
                try:
                    message = socket.recv(timeout=POLL)
                except TimeoutError:
                    ended = self._history(prompt) is not None
                    continue
                except (OSError, WebSocketException):
                    # The work goes on without the websocket; its result is in the history.
                    time.sleep(POLL)
                    alive()
                    ended = self._history(prompt) is not None
                    continue
                if isinstance(message, str):
                    ended = _handle(message, prompt, graph, on_event)
        return self._results(prompt, graph)

    def _history(self, prompt: str) -> dict[str, Any] | None:
        found = self.get(f"/history/{prompt}").get(prompt)
        return found if isinstance(found, dict) else None

    def _results(self, prompt: str, graph: dict[str, Any]) -> list[Output]:
        # The last websocket message may come a moment before the history has the result.
        deadline = time.monotonic() + TIMEOUT
        while (entry := self._history(prompt)) is None:
            if time.monotonic() > deadline:
                raise RunError("ComfyUI ended the workflow and has no history of it")
            time.sleep(0.02)
        status = entry.get("status") or {}
        if status.get("status_str") == "error":
            for name, details in status.get("messages", ()):
                if name == "execution_error":
                    raise RunError(_failure(details, graph))
            raise RunError("the workflow was interrupted")
        return list(outputs(entry.get("outputs", {})))


def outputs(reported: dict[str, Any]) -> Iterator[Output]:
    """Every file among what the nodes of a prompt reported, whatever key it is under."""
    for node, values in reported.items():
        if not isinstance(values, dict):
            continue
        for kind, items in values.items():
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict) and isinstance(item.get("filename"), str):
                    yield Output(
                        node=node,
                        kind=kind,
                        filename=item["filename"],
                        subfolder=str(item.get("subfolder", "")),
                        type=str(item.get("type", "output")),
                    )


def _handle(
    text: str, prompt: str, graph: dict[str, Any], on_event: Callable[[Event], None]
) -> bool:
    """Handles one websocket message; True when the prompt has ended well.

    Raises:
        RunError: it failed.
    """
    try:
        message = json.loads(text)
        kind, data = message["type"], message.get("data") or {}
    except (ValueError, KeyError, TypeError):
        # Custom nodes send what they like.
        return False
    if not isinstance(data, dict) or data.get("prompt_id") != prompt:
        return False
    if kind == "executing":
        if data.get("node") is None:
            return True
        on_event(Event("node", node=str(data["node"])))
    elif kind == "progress":
        on_event(
            Event(
                "progress",
                node=str(data.get("node")),
                value=_whole(data.get("value")),
                maximum=_whole(data.get("max")),
            )
        )
    elif kind == "execution_cached":
        nodes = data.get("nodes")
        for node in nodes if isinstance(nodes, list) else ():
            on_event(Event("cached", node=str(node)))
    elif kind == "execution_error":
        raise RunError(_failure(data, graph))
    elif kind == "execution_interrupted":
        raise RunError("the workflow was interrupted")
    return bool(kind == "execution_success")


def _whole(value: object) -> int:
    return int(value) if isinstance(value, int | float) and abs(value) < 1e15 else 0


def _failure(data: dict[str, Any], graph: dict[str, Any]) -> str:
    node = str(data.get("node_id"))
    what = str(data.get("exception_message", "")).strip()
    kind = str(data.get("exception_type", ""))
    return f"{_named(node, graph)} failed: {kind + ': ' if kind else ''}{what}"


def _named(node: str, graph: dict[str, Any]) -> str:
    details = graph.get(node)
    if not isinstance(details, dict):
        return f"node {node}"
    title = (details.get("_meta") or {}).get("title")
    shown = f"{details.get('class_type')}"
    return (
        f"node {node} ({title}, {shown})" if title and title != shown else f"node {node} ({shown})"
    )


def _problems(node_errors: Any) -> dict[str, str]:
    """What ComfyUI has against nodes of a graph."""
    found: dict[str, str] = {}
    for node, reported in node_errors.items() if isinstance(node_errors, dict) else ():
        errors = reported.get("errors", ()) if isinstance(reported, dict) else ()
        texts = [
            str(error.get("message", ""))
            + (f" ({error['details']})" if error.get("details") else "")
            for error in errors
        ]
        found[str(node)] = "; ".join(texts)
    return found


def explain_refusal(body: bytes, graph: dict[str, Any]) -> str:
    """One sentence from ComfyUI's answer to a graph that it does not take."""
    try:
        answer = json.loads(body)
        error, node_errors = answer.get("error"), answer.get("node_errors") or {}
    except (ValueError, AttributeError):
        return f"ComfyUI refuses the workflow: {body[:200].decode('utf-8', 'replace')}"
    problems = _problems(node_errors)
    if problems:
        listed = "; ".join(f"{_named(node, graph)}: {text}" for node, text in problems.items())
        return f"ComfyUI refuses the workflow: {listed}"
    if isinstance(error, dict):
        details = f" ({error['details']})" if error.get("details") else ""
        return f"ComfyUI refuses the workflow: {error.get('message', 'no reason given')}{details}"
    return f"ComfyUI refuses the workflow: {error}"
