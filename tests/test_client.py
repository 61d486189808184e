"""The client of ComfyUI's API: what it makes of answers, messages and silence."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.client
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosedError

from cvs.profiles import client
from cvs.profiles.client import Client, Event, Output, explain_refusal, outputs
from cvs.store.errors import InputError, RunError

DATA = Path(__file__).parent / "data" / "comfyui-0.3.64-a125cd84b054"
GRAPH: dict[str, Any] = {
    "1": {"class_type": "Paint", "inputs": {}, "_meta": {"title": "Wall"}},
    "2": {"class_type": "Save", "inputs": {}, "_meta": {"title": "Save"}},
}


# Outputs


def test_outputs() -> None:
    """Every file, under whatever key a node reports it; all else is passed over."""
    reported = {
        "1": {
            "images": [{"filename": "a.png", "subfolder": "s", "type": "output"}],
            "animated": [False],
            "text": ["x"],
        },
        "2": {"gifs": [{"filename": "b.mp4", "format": "video"}], "audio": "none", "x": None},
        "3": None,
        "4": {"files": [{"filename": 7}, None, []]},
    }

    expected = [
        Output("1", "images", "a.png", "s", "output"),
        Output("2", "gifs", "b.mp4", "", "output"),
    ]
    assert expected == list(outputs(reported))


# Refusals


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("invalid-unknown-node", "node NoSuchNode does not exist"),
        ("invalid-empty", "Prompt has no outputs"),
        ("invalid-missing-model", "Value not in list"),
    ],
)
def test_recorded_refusals(name: str, expected: str) -> None:
    """What real ComfyUI was recorded to answer becomes one sentence."""
    exchanges = json.loads((DATA / f"{name}.json").read_text())["exchanges"]
    answers = [one["answer"] for one in exchanges if (one.get("answer") or {}).get("status") == 400]
    text = explain_refusal(json.dumps(answers[0]["json"]).encode(), {})

    assert text.startswith("ComfyUI refuses the workflow: ")
    assert expected in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"<html>", "<html>"),
        (b"", ""),
        (b"[]", "[]"),
        (b"\xff", "\ufffd"),
        (b"{}", "None"),
        (b'{"error": "no"}', "no"),
        (b'{"error": {"message": "m", "details": "d"}}', "m (d)"),
        (b'{"error": {}, "node_errors": []}', "no reason given"),
        (
            b'{"node_errors": {"1": {"errors": [{"message": "m", "details": "d"},'
            b' {"message": "n"}]}, "9": {"errors": []}}}',
            "node 1 (Wall, Paint): m (d); n; node 9: ",
        ),
    ],
)
def test_refusals(body: bytes, expected: str) -> None:
    """Whatever comes with an error is told as far as it can be."""
    assert f"ComfyUI refuses the workflow: {expected}" == explain_refusal(body, GRAPH)


# Messages


def handled(message: Any) -> tuple[bool, list[Event]]:
    events: list[Event] = []
    text = message if isinstance(message, str) else json.dumps(message)
    return client._handle(text, "p", GRAPH, events.append), events


def message(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": {"prompt_id": "p", **data}}


@pytest.mark.parametrize(
    ("given", "ended", "events"),
    [
        (message("executing", node="1"), False, [Event("node", node="1")]),
        (message("executing", node=None), True, []),
        (message("execution_success"), True, []),
        (
            message("progress", node="1", value=2, max=4.0),
            False,
            [Event("progress", "1", "", 2, 4)],
        ),
        (message("progress", node="1", value="x"), False, [Event("progress", "1")]),
        (message("execution_cached", nodes=["1"]), False, [Event("cached", node="1")]),
        (message("execution_cached", nodes=None), False, []),
        (message("execution_success", prompt_id="other"), False, []),
        ({"type": "status", "data": {}}, False, []),
        ({"type": "executing"}, False, []),
        ({"type": "executing", "data": [1]}, False, []),
        ([], False, []),
        ("no JSON", False, []),
    ],
)
def test_messages(given: Any, ended: bool, events: list[Event]) -> None:
    """Those of the own prompt count; all others, and what custom nodes send, do not."""
    assert (ended, events) == handled(given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            message("execution_error", node_id="1", exception_type="E", exception_message="m\n"),
            "node 1 (Wall, Paint) failed: E: m",
        ),
        (message("execution_error", node_id="2"), "node 2 (Save) failed: "),
        (message("execution_error"), "node None failed: "),
        (message("execution_interrupted"), "the workflow was interrupted"),
    ],
)
def test_failures(given: Any, expected: str) -> None:
    """A failure names the node as people call it."""
    with pytest.raises(RunError) as caught:
        handled(given)

    assert expected == caught.value.message


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
FIELDS = ("node", "value", "max", "nodes", "node_id", "exception_type", "exception_message")


@given(
    st.sampled_from(["executing", "progress", "execution_cached", "execution_success", "x"]),
    st.dictionaries(st.sampled_from(FIELDS), anything),
)
def test_no_message_is_a_crash(kind: str, data: dict[str, Any]) -> None:
    """Whatever a custom node sends in ComfyUI's name, reading it does not fail."""
    handled(message(kind, **data))


# A run, with a server that says what a test wants


class Scripted(Client):
    """A client whose websocket and history are lists of what comes next."""

    def __init__(self, messages: list[Any], history: list[Any]) -> None:
        super().__init__("http://127.0.0.1:9")
        self.messages, self.history = messages, history
        self.interrupted = False

    def submit(self, graph: dict[str, Any], client_id: str) -> tuple[str, dict[str, str]]:
        return "p", {}

    def get(self, path: str) -> Any:
        assert path == "/history/p"
        found = self.history.pop(0) if len(self.history) > 1 else self.history[0]
        if isinstance(found, Exception):
            raise found
        return found

    def interrupt(self) -> None:
        self.interrupted = True

    def recv(self, timeout: float) -> Any:
        found = self.messages.pop(0) if len(self.messages) > 1 else self.messages[0]
        if isinstance(found, Exception):
            raise found
        return found

    def __enter__(self) -> "Scripted":
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "POLL", 0.01)


def run(
    monkeypatch: pytest.MonkeyPatch, scripted: Scripted, timeout: float | None = None, die: int = 0
) -> list[Output]:
    looks = 0

    def alive() -> None:
        nonlocal looks
        looks += 1
        if looks == die:
            raise RunError("it died")

    monkeypatch.setattr(websockets.sync.client, "connect", lambda *_, **__: scripted)
    return scripted.run(GRAPH, timeout=timeout, alive=alive, on_event=lambda _: None)


DONE = {
    "p": {
        "outputs": {"2": {"images": [{"filename": "a.png"}]}},
        "status": {"status_str": "success", "messages": []},
    }
}
FAILED = {
    "p": {
        "outputs": {},
        "status": {
            "status_str": "error",
            "messages": [
                ["execution_start", {}],
                ["execution_error", {"node_id": "2", "exception_message": "gone"}],
            ],
        },
    }
}
RESULT = [Output("2", "images", "a.png", "", "output")]
SUCCESS = json.dumps(message("execution_success"))
LOST = ConnectionClosedError(None, None)


def test_history_that_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last message may come before the history has the result."""
    assert run(monkeypatch, Scripted([b"preview", SUCCESS], [{}, {}, DONE])) == RESULT


def test_silent_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any message the history tells the end."""
    assert run(monkeypatch, Scripted([TimeoutError()], [{}, {}, DONE])) == RESULT


def test_lost_websocket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A websocket that breaks does not lose the work."""
    assert run(monkeypatch, Scripted([LOST], [{}, {}, DONE])) == RESULT


def test_failure_of_the_history(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure that only the history knows is told all the same."""
    with pytest.raises(RunError, match=r"node 2 \(Save\) failed: gone"):
        run(monkeypatch, Scripted([LOST], [FAILED]))
    interrupted = {"p": {"status": {"status_str": "error", "messages": []}}}
    with pytest.raises(RunError, match="the workflow was interrupted"):
        run(monkeypatch, Scripted([LOST], [interrupted]))


def test_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """That ComfyUI died is told rather than that it does not answer."""
    silent = client.NoAnswer("no answer")
    with pytest.raises(RunError, match="it died"):
        run(monkeypatch, Scripted([LOST], [silent]), die=4)
    with pytest.raises(RunError, match="no answer"):
        run(monkeypatch, Scripted([LOST], [silent]))


def test_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the time the workflow is interrupted."""
    scripted = Scripted([TimeoutError()], [{}])
    with pytest.raises(RunError, match="the workflow did not end within 0 s"):
        run(monkeypatch, scripted, timeout=0.05)

    assert scripted.interrupted


# Plain HTTP


class Answering(BaseHTTPRequestHandler):
    answer: tuple[int, bytes] = (200, b"")

    def do_GET(self) -> None:
        status, body = self.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) + (100 if status == 299 else 0)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[Client, type[Answering]]]:
    """A server that gives one answer to everything, and its client."""
    kind = type("Kind", (Answering,), {})
    with ThreadingHTTPServer(("127.0.0.1", 0), kind) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        yield Client(f"http://127.0.0.1:{http.server_address[1]}"), kind
        http.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((500, b"oh"), "ComfyUI answered 500 to /x"),
        ((404, b""), "ComfyUI answered 404 to /x"),
        ((200, b"no JSON"), "ComfyUI did not answer /x: "),
        ((299, b"{}"), "ComfyUI did not answer /x: "),
    ],
)
def test_get(
    server: tuple[Client, type[Answering]], answer: tuple[int, bytes], expected: str
) -> None:
    """An answer that is none is a RunError that names the path."""
    server[1].answer = answer
    with pytest.raises(RunError) as caught:
        server[0].get("/x?secret=1")

    assert caught.value.message.startswith(expected)


def test_proxies_are_not_for_this_host(
    server: tuple[Client, type[Answering]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy of the environment is passed by."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    server[1].answer = (200, b"{}")
    there = Client(server[0].url)

    assert there.get("/x") == {}
    assert there.answers()


def test_submit(server: tuple[Client, type[Answering]]) -> None:
    """A graph that is taken has an id and the nodes that are not run; one that is not is an
    InputError."""
    there, kind = server
    refused = {"2": {"errors": [{"message": "m"}]}}
    kind.answer = (200, json.dumps({"prompt_id": "p", "node_errors": refused}).encode())
    assert there.submit(GRAPH, "c") == ("p", {"2": "m"})
    kind.answer = (400, b'{"error": "no"}')
    with pytest.raises(InputError, match="ComfyUI refuses the workflow: no"):
        there.submit(GRAPH, "c")


@pytest.mark.parametrize("body", [b"[]", b"{}", b"null", b"7"])
def test_submit_with_a_strange_answer(server: tuple[Client, type[Answering]], body: bytes) -> None:
    """An answer without an id is no crash."""
    server[1].answer = (200, body)
    with pytest.raises(RunError, match="ComfyUI did not take the workflow"):
        server[0].submit(GRAPH, "c")


def test_download(server: tuple[Client, type[Answering]]) -> None:
    """An output is read in pieces; one that is cut off or gone is a sentence."""
    there, kind = server
    output = Output("1", "images", "a&b.png", "s", "output")
    kind.answer = (200, b"x" * 3_000_000)
    assert b"".join(there.download(output)) == b"x" * 3_000_000
    for answer in ((404, b""), (299, b"half")):
        kind.answer = answer
        with pytest.raises(RunError, match=r"the output a&b\.png cannot be read: "):
            b"".join(there.download(output))


def test_nobody_there() -> None:
    """Without a server: not ready, no answer, and an interrupt that does not matter."""
    there = Client("http://127.0.0.1:9")

    assert not there.answers()
    there.interrupt()
    with pytest.raises(client.NoAnswer):
        there.get("/x")
    with pytest.raises(client.NoAnswer, match="websocket cannot be opened"):
        there.run(GRAPH, timeout=None, alive=lambda: None, on_event=lambda _: None)
