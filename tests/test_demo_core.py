"""The small core: graphs, the HTTP API and the websocket.

That its answers are those of the real ComfyUI is test_standin.py's part.
"""

import contextlib
import json
import re
import shutil
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from demo_core import CORE, DEMO, Core, checkpoint, load, node, sampled
from websockets.sync.client import connect

png = load("comfy/png.py")

PACK = '''\
"""Nodes that use what a node can do."""

import asyncio

from comfy_execution.graph_utils import ExecutionBlocker
from server import PromptServer


@PromptServer.instance.routes.get("/pack/{name}")
async def hello(request):
    from app.http import json_response
    return json_response({"name": request.match_info["name"], "query": request.query.get("q")})


class Numbers:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"count": ("INT", {"default": 3})}})
    RETURN_TYPES, OUTPUT_IS_LIST, FUNCTION = ("INT",), (True,), "run"

    def run(self, count):
        return (list(range(count)),)


class Add:
    INPUT_TYPES = classmethod(
        lambda cls: {"required": {"a": ("INT",)}, "optional": {"b": ("INT", {"default": 10})}}
    )
    RETURN_TYPES, FUNCTION = ("INT",), "run"

    async def run(self, a, b=10):
        await asyncio.sleep(0)
        return (a + b,)


class Gather:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"values": ("INT",)}})
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, INPUT_IS_LIST = (), "run", True, True

    def run(self, values):
        return {"ui": {"values": values}}


class Choose:
    """Computes only the branch that it takes."""

    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {
                "first": ("BOOLEAN",),
                "a": ("INT", {"lazy": True}),
                "b": ("INT", {"lazy": True}),
            }
        }
    )
    RETURN_TYPES, FUNCTION = ("INT",), "run"

    def check_lazy_status(self, first, a, b):
        return ["a"] if first else ["b"]

    def run(self, first, a, b):
        return (a if first else b,)


class Block:
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES, FUNCTION = ("INT",), "run"

    def run(self):
        return (ExecutionBlocker(None),)


class Fail:
    INPUT_TYPES = classmethod(lambda cls: {"required": {"text": ("STRING",)}})
    RETURN_TYPES, FUNCTION = ("INT",), "run"

    def run(self, text):
        raise RuntimeError(text)


class Strict:
    INPUT_TYPES = classmethod(
        lambda cls: {
            "required": {
                "size": ("INT", {"min": 1, "max": 5}),
                "mode": (["x", "y"],),
                "name": ("STRING",),
            }
        }
    )
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "run", True

    @classmethod
    def VALIDATE_INPUTS(cls, name):
        return True if name else "no name"

    def run(self, size, mode, name):
        return {}


class Changing:
    """A node with a result that is never used twice."""

    INPUT_TYPES = classmethod(lambda cls: {"required": {}, "hidden": {"me": "UNIQUE_ID"}})
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "run", True
    runs = 0

    @classmethod
    def IS_CHANGED(cls, me):
        return float("nan")

    def run(self, me):
        Changing.runs += 1
        return {"ui": {"runs": [Changing.runs], "me": [me]}}


NODE_CLASS_MAPPINGS = {
    node.__name__: node
    for node in (Numbers, Add, Gather, Choose, Block, Fail, Strict, Changing)
}
'''


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Core, Path]]:
    """A running core on a base directory of its own, with the nodes of PACK."""
    base = tmp_path_factory.mktemp("core") / "base"
    pack = base / "custom_nodes" / "pack"
    pack.mkdir(parents=True)
    (pack / "__init__.py").write_text(PACK)
    models = base / "models" / "checkpoints"
    models.mkdir(parents=True)
    (models / "whole.safetensors").write_bytes(checkpoint())
    (models / "other.safetensors").write_bytes(checkpoint(b"other"))
    (models / "cut.safetensors").write_bytes(checkpoint(cut=3))
    with Core(CORE, base, "--database-url", "sqlite:///:memory:") as running:
        yield running, base


# Graphs -----------------------------------------------------------------------------------------


def test_lists_and_coroutines(core: tuple[Core, Path]) -> None:
    """A node runs once for every item of a list; a node that takes lists gets it whole."""
    graph = {
        "1": node("Numbers", count=3),
        "2": node("Add", a=["1", 0]),
        "3": node("Gather", values=["2", 0]),
    }

    assert core[0].run(graph)["outputs"] == {"3": {"values": [10, 11, 12]}}


def test_lazy_inputs(core: tuple[Core, Path]) -> None:
    """A branch that is not taken does not run."""
    graph = {
        "1": node("Add", a=1, b=1),
        "2": node("Fail", text="must not run"),
        "3": node("Choose", first=True, a=["1", 0], b=["2", 0]),
        "4": node("Gather", values=["3", 0]),
    }

    assert core[0].run(graph)["outputs"] == {"4": {"values": [2]}}


def test_blocked_node(core: tuple[Core, Path]) -> None:
    """A node whose input is blocked is left out without an error."""
    entry = core[0].run({"1": node("Block"), "2": node("Gather", values=["1", 0])})

    assert entry["status"]["status_str"] == "success"
    assert entry["outputs"] == {}


def test_failing_node(core: tuple[Core, Path]) -> None:
    """The message tells which node failed, how, and with which inputs."""
    entry = core[0].run({"1": node("Fail", text="no good"), "2": node("Gather", values=["1", 0])})

    event, details = entry["status"]["messages"][-1]
    assert event == "execution_error"
    assert details["node_id"] == "1"
    assert details["node_type"] == "Fail"
    assert details["exception_type"] == "RuntimeError"
    assert details["exception_message"] == "no good\n"
    assert details["current_inputs"] == {"text": ["no good"]}
    assert any("raise RuntimeError(text)" in line for line in details["traceback"])
    assert not entry["status"]["completed"]


def test_refused_values(core: tuple[Core, Path]) -> None:
    """Every kind of wrong value is told by node."""
    running = core[0]
    assert running.problems({"1": node("Strict", size=0, mode="z", name="")}) == {
        "1": ["value_smaller_than_min", "value_not_in_list", "custom_validation_failed"]
    }
    assert running.problems({"1": node("Strict", size="a", name="n")}) == {
        "1": ["invalid_input_type", "required_input_missing"]
    }
    wrong = {"1": node("EmptyImage", width=8, height=8), "2": node("Gather", values=["1", 0])}
    assert running.problems(wrong) == {"2": ["return_type_mismatch"]}
    assert running.problems({"1": node("Gather", values=["1"])}) == {"1": ["bad_linked_input"]}


def test_cycle_is_refused(core: tuple[Core, Path]) -> None:
    """Nodes that wait for one another do not run, and nothing hangs."""
    graph = {
        "1": node("Add", a=["2", 0]),
        "2": node("Add", a=["1", 0]),
        "3": node("Gather", values=["1", 0]),
    }

    assert core[0].problems(graph) == {}


def test_never_cached_node(core: tuple[Core, Path]) -> None:
    """A NaN from IS_CHANGED is like nothing else: the node runs each time."""
    runs = [core[0].run({"9": node("Changing")})["outputs"]["9"] for _ in range(2)]

    assert runs == [{"runs": [1], "me": ["9"]}, {"runs": [2], "me": ["9"]}]


def test_wanted_outputs_alone(core: tuple[Core, Path]) -> None:
    """`partial_execution_targets` leaves the other outputs out."""
    graph = {"1": node("Gather", values=4), "2": node("Gather", values=5)}

    assert core[0].run(graph, partial_execution_targets=["2"])["outputs"] == {"2": {"values": [5]}}


def test_checkpoint_decides_pixels(core: tuple[Core, Path]) -> None:
    """The same settings give the same pixels, another model or seed others."""
    running, _ = core
    names = ("whole.safetensors", "whole.safetensors", "other.safetensors")
    runs = [(running.run(sampled(name)), name) for name in names]
    runs.append((running.run(sampled("whole.safetensors", seed=2)), "seed"))
    pixels = [running.picture(entry, "7") for entry, _ in runs]

    assert (pixels[0].width, pixels[0].height) == (64, 32)
    assert pixels[0].samples == pixels[1].samples
    assert len({picture.samples for picture in pixels}) == 3
    path = "/view_metadata/checkpoints?filename=whole.safetensors"
    assert running.json(path) == {"made": "here"}


def test_cut_checkpoint(core: tuple[Core, Path]) -> None:
    """A model that is not whole fails when it is loaded, with a reason."""
    entry = core[0].run(sampled("cut.safetensors"))

    assert "incomplete" in entry["status"]["messages"][-1][1]["exception_message"]


def test_progress_and_interrupt(core: tuple[Core, Path]) -> None:
    """A sampler reports its steps, and an interrupt ends it between two."""
    running, _ = core
    with connect(running.url.replace("http", "ws") + "/ws?clientId=me", proxy=None) as listener:
        data = {"prompt": sampled("whole.safetensors", 1000, seed=3), "client_id": "me"}
        prompt_id = running.json("/prompt", data)["prompt_id"]
        seen: list[Any] = []
        while not seen or seen[-1]["type"] != "progress":
            seen.append(json.loads(listener.recv(timeout=20)))
        assert seen[-1]["data"] == {"value": 1, "max": 1000, "prompt_id": prompt_id, "node": "5"}
        running.http("/interrupt", {"prompt_id": "another"})
        running.http("/interrupt", {"prompt_id": prompt_id})
        while seen[-1]["type"] != "execution_interrupted":
            seen.append(json.loads(listener.recv(timeout=20)))
    assert seen[-1]["data"]["node_id"] == "5"


def test_websocket_image(tmp_path: Path) -> None:
    """An image can come over the websocket: kind, format, the bytes of a PNG."""
    base = tmp_path / "base"
    shutil.copytree(CORE / "custom_nodes", base / "custom_nodes")
    graph = {
        "1": node("EmptyImage", width=4, height=2, batch_size=1, color=0x102030),
        "2": node("SaveImageWebsocket", images=["1", 0]),
    }
    with (
        Core(CORE, base) as running,
        connect(running.url.replace("http", "ws") + "/ws?clientId=me", proxy=None) as listener,
    ):
        running.json("/prompt", {"prompt": graph, "client_id": "me"})
        while not isinstance(message := listener.recv(timeout=20), bytes):
            pass
    assert struct.unpack(">II", message[:8]) == (1, 2)
    assert png.decode(message[8:]).samples == bytes.fromhex("102030") * 8


@pytest.mark.parametrize("flags", [["--cache-none"], ["--cache-lru", "10"], []])
def test_caches(tmp_path: Path, flags: list[str]) -> None:
    """What an identical prompt gives, and one that was run before another."""
    first = {
        "1": node("EmptyImage", width=8, height=8, batch_size=1, color=1),
        "2": node("SaveImage", images=["1", 0], filename_prefix="a"),
    }
    other = {**first, "1": node("EmptyImage", width=9, height=8, batch_size=1, color=1)}
    names = []
    with Core(CORE, tmp_path / "base", "--disable-metadata", *flags) as running:
        for graph in (first, first, other, first):
            entry = running.run(graph)
            names.append(entry["outputs"]["2"]["images"][0]["filename"])
        assert running.picture(entry, "2").text == {}, "--disable-metadata"

    numbers = [int(name.split("_")[1]) for name in names]
    expected = {"--cache-none": [1, 2, 3, 4], "--cache-lru": [1, 1, 2, 1]}
    assert numbers == expected.get(flags[0] if flags else "", [1, 1, 2, 3])


def test_ui_lost_without_cache(tmp_path: Path) -> None:
    """With --cache-none a ui in the middle of a graph is gone, as with the real one."""
    graph = json.loads((DEMO / "workflow.json").read_text())
    outputs = []
    for number, flags in enumerate([["--cache-none"], []]):
        base = tmp_path / str(number)
        shutil.copytree(DEMO / "node" / "v1", base / "custom_nodes" / "demo")
        with Core(CORE, base, *flags) as running:
            outputs.append(sorted(running.run(graph)["outputs"]))

    assert outputs == [["4"], ["3", "4"]]


def test_builtin_workflow(core: tuple[Core, Path]) -> None:
    """The graph without custom nodes saves the inverted colour."""
    graph = json.loads((DEMO / "workflow_builtin.json").read_text())
    picture = core[0].picture(core[0].run(graph), "3")

    assert (picture.width, picture.height) == (256, 128)
    assert set(zip(*[iter(picture.samples)] * 3, strict=True)) == {(226, 220, 216)}


# HTTP -------------------------------------------------------------------------------------------


def test_page(core: tuple[Core, Path]) -> None:
    """There is something to look at, and it may not be cached."""
    status, page = core[0].http("/")
    assert (status, b"<h1>cvs demo core</h1>" in page) == (200, True)
    assert core[0].http("/index.html") == (200, page)


def test_headers_hold_no_lines(core: tuple[Core, Path]) -> None:
    """The name of a file can not add a header."""
    running, base = core
    (base / "output").mkdir(exist_ok=True)
    (base / "output" / "a\r\nX-Evil: 1").touch()
    path = "/view?filename=a%0d%0aX-Evil:%201"
    answer = raw(running.port, f"GET {path} HTTP/1.0\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"\nX-Evil" not in answer


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /\r\n\r\n",
    ],
)
def test_broken_requests(core: tuple[Core, Path], head: bytes) -> None:
    """What is no request is refused."""
    assert raw(core[0].port, head).startswith(b"HTTP/1.1 400 ")


def test_routes_of_a_pack(core: tuple[Core, Path]) -> None:
    """A custom node can add addresses; they are under /api too."""
    for prefix in ("", "/api"):
        assert core[0].json(prefix + "/pack/a%20b?q=1") == {"name": "a b", "query": "1"}


def test_foreign_page_is_refused(core: tuple[Core, Path]) -> None:
    """A page of another site cannot talk to a server on the visitor's own machine."""
    running = core[0]
    assert running.http("/queue", Origin="http://example.org")[0] == 403
    assert running.http("/queue", Origin=running.url)[0] == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/extensions/pack/../../../secret.js", 404),
        ("/%2e%2e/%2e%2e/main.py", 404),
        ("/../main.py", 404),
        ("/view?filename=../secret", 400),
        ("/view?filename=/etc/passwd", 400),
        ("/view?filename=x&subfolder=../../", 403),
        ("/view?filename=x&type=elsewhere", 400),
        ("/models/nothing", 404),
    ],
)
def test_nothing_outside_is_served(core: tuple[Core, Path], path: str, status: int) -> None:
    """No address leads out of the folders that are served."""
    assert core[0].http(path)[0] == status


def test_methods(core: tuple[Core, Path]) -> None:
    """A known address under another method is 405, and OPTIONS is always answered."""
    port = core[0].port
    answers = {}
    for method, path in (("DELETE", "/queue"), ("POST", "/nowhere"), ("OPTIONS", "/prompt")):
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answers[path] = raw(port, head.encode()).split(b"\r\n")[0]

    assert answers == {
        "/queue": b"HTTP/1.1 405 Method Not Allowed",
        "/nowhere": b"HTTP/1.1 405 Method Not Allowed",
        "/prompt": b"HTTP/1.1 200 OK",
    }


def raw(port: int, data: bytes) -> bytes:
    """Everything that comes back for some bytes."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(data)
        received = b""
        while block := connection.recv(65536):
            received += block
    return received


def test_chunks_ranges_and_pipelining(core: tuple[Core, Path]) -> None:
    """Bodies in chunks are read, parts of files are given, one connection serves many requests."""
    running, base = core
    (base / "output").mkdir(exist_ok=True)
    (base / "output" / "file.txt").write_bytes(b"0123456789")
    data = (
        b"POST /history HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'8\r\n{"delete\r\n6;x=y\r\n": []}\r\n0\r\n\r\n'
        b"GET /view?filename=file.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=2-4\r\n\r\n"
        b"HEAD /view?filename=file.txt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )

    answer = raw(running.port, data)

    assert re.findall(rb"HTTP/1.1 (\d+) ", answer) == [b"200", b"206", b"200"]
    assert b"\r\n\r\n234HTTP/1.1" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_large_body_is_refused(tmp_path: Path) -> None:
    """A body over --max-upload-size is not read."""
    with Core(CORE, tmp_path / "base", "--max-upload-size", "0.001") as running:
        head = b"POST /prompt HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n\r\n"
        assert raw(running.port, head).startswith(b"HTTP/1.1 413 ")


def test_upload(core: tuple[Core, Path]) -> None:
    """The same file twice is one file, another of its name gets a number, none leaves input/."""
    running, base = core

    def upload(name: str, content: bytes, **fields: str) -> tuple[int, Any]:
        parts = [
            f'--b\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
            for key, value in fields.items()
        ]
        file = f'--b\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'
        body = b"".join([*parts, file.encode(), content, b"\r\n--b--\r\n"])
        kind = "multipart/form-data; boundary=b"
        status, answer = running.http("/upload/image", body, **{"Content-Type": kind})
        return status, json.loads(answer) if answer else None

    assert upload("u.png", b"1\r\n--")[1]["name"] == "u.png"
    assert upload("u.png", b"1\r\n--")[1]["name"] == "u.png"
    assert upload("u.png", b"2")[1]["name"] == "u (1).png"
    assert upload("u.png", b"3", overwrite="true")[1]["name"] == "u.png"
    where = {"name": "v.png", "subfolder": "s", "type": "temp"}
    assert upload("v.png", b"4", subfolder="s", type="temp") == (200, where)
    assert upload("../w.png", b"5")[0] == 400
    assert upload("w.png", b"5", subfolder="../..")[0] == 400
    assert (base / "input" / "u.png").read_bytes() == b"3"
    assert (base / "temp" / "s" / "v.png").read_bytes() == b"4"


# The websocket ----------------------------------------------------------------------------------


def frame(opcode: int, data: bytes, final: bool = True) -> bytes:
    """A masked frame of a client."""
    mask = b"\x01\x02\x03\x04"
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
    return bytes([opcode | (0x80 if final else 0), 0x80 | len(data)]) + mask + body


@contextlib.contextmanager
def handshake(port: int) -> Iterator[tuple[socket.socket, Any]]:
    """A websocket connection by hand, after the server's first message."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(
            b"GET /ws?clientId=raw HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        with connection.makefile("rb") as stream:
            head = b"".join(iter(stream.readline, b"\r\n"))
            assert b"101 Switching Protocols" in head
            assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # the example of RFC 6455
            assert read_frame(stream)[0] == 0x1
            yield connection, stream


def read_frame(stream: Any) -> tuple[int, bytes]:
    first, size = stream.read(2)
    if size == 126:
        size = struct.unpack(">H", stream.read(2))[0]
    return first & 0x0F, stream.read(size)


def test_fragments_ping_and_close(core: tuple[Core, Path]) -> None:
    """A message in fragments, with a ping between them, is one message; close is answered."""
    with handshake(core[0].port) as (connection, stream):
        message = json.dumps({"type": "feature_flags", "data": {}}).encode()
        connection.sendall(
            frame(0x1, message[:9], final=False)
            + frame(0x9, b"ping")
            + frame(0x0, message[9:12], final=False)
            + frame(0x0, message[12:])
        )
        assert read_frame(stream) == (0xA, b"ping")
        opcode, data = read_frame(stream)
        assert opcode == 0x1
        assert json.loads(data)["data"]["supports_preview_metadata"] is True
        connection.sendall(frame(0x8, struct.pack(">H", 1000)))
        assert read_frame(stream) == (0x8, struct.pack(">H", 1000))
        assert stream.read() == b""


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (frame(0x0, b"x"), 1002),  # a fragment of nothing
        (frame(0x3, b"x"), 1002),  # no such opcode
        (frame(0x1, b"\xff"), 1007),  # not UTF-8
        (b"\x81\xff" + struct.pack(">Q", 1 << 40) + b"mask", 1009),
    ],
)
def test_broken_frames(core: tuple[Core, Path], data: bytes, code: int) -> None:
    """A client that breaks the protocol is told so and let go; the server goes on."""
    with handshake(core[0].port) as (connection, stream):
        connection.sendall(data)
        opcode, reason = read_frame(stream)
        assert (opcode, struct.unpack(">H", reason[:2])[0]) == (0x8, code)
    assert core[0].http("/queue")[0] == 200
