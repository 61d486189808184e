"""One request over http: where secrets go, what redirects may do, what an answer must be."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cvs.store.errors import SourceError
from cvs.versions import http, retry
from cvs.versions.http import Client, HttpRemote
from cvs.versions.remote import Changed, Passing
from cvs.versions.tokens import NO_TOKENS, Token, Tokens

DATA = bytes(range(256)) * 8
SECRET = "hf_canary_0123456789"

Step = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers by path; `asked` has every request with its headers."""

    def __init__(self) -> None:
        self.pages: dict[str, Step] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                """Keeps silent."""

            def do_GET(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.asked.append((self.path, headers))
                server.pages[self.path.partition("?")[0]](self)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._http.server_address[1]}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"

    def headers(self, path: str) -> list[dict[str, str]]:
        return [headers for asked, headers in self.asked if asked.partition("?")[0] == path]

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """Two hosts: they differ by their ports."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(retry, "pause", lambda seconds, stop: None)
    made = Server(), Server()
    yield made
    for server in made:
        server.close()


def answer(status: int = 200, data: bytes = DATA, **headers: str) -> Step:
    def step(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return step


def part(start: int, end: int, size: int | str = len(DATA), **headers: str) -> Step:
    return answer(206, DATA[start:end], Content_Range=f"bytes {start}-{end - 1}/{size}", **headers)


def read(remote: HttpRemote, start: int = 0, end: int | None = None, validator: str = "") -> bytes:
    reply = remote.open(start, end, validator)
    data = b""
    while piece := reply.body.read(100):
        data += piece
    reply.body.close()
    return data


def tokens(server: Server) -> Tokens:
    return Tokens([Token(server.host, SECRET, "HF_TOKEN")])


def test_a_token_goes_to_its_host_and_to_no_other(servers: tuple[Server, Server]) -> None:
    first, other = servers
    first.pages["/a"] = answer(302, b"", Location=other.url("/b"))
    other.pages["/b"] = answer()
    remote = HttpRemote(first.url("/a"), tokens=tokens(first), headers={"X-Mine": "1"})

    assert read(remote) == read(remote) == DATA
    (sent,) = first.headers("/a")
    assert (sent["authorization"], sent["x-mine"]) == (f"Bearer {SECRET}", "1")
    for got in other.headers("/b"):
        assert SECRET not in str(got)
        assert "x-mine" not in got


def test_a_redirect_brings_no_token_along(servers: tuple[Server, Server]) -> None:
    """Nor does one to the token's own host: who asks there is not who has it."""
    first, other = servers
    first.pages["/a"] = answer(302, b"", Location=other.url("/b").replace("//", "//u:p@"))
    other.pages["/b"] = answer()

    assert read(HttpRemote(first.url("/a"), tokens=tokens(other))) == DATA
    assert "authorization" not in other.headers("/b")[0]


def test_what_netrc_says_is_for_its_host_and_comes_after_a_token(
    servers: tuple[Server, Server], tmp_path: Path
) -> None:
    first, other = servers
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password word\n")
    netrc.chmod(0o600)
    first.pages["/a"] = answer(302, b"", Location=other.url("/b"))
    other.pages["/b"] = answer()

    read(HttpRemote(first.url("/a"), tokens=tokens(first)))
    read(HttpRemote(first.url("/a")))

    by_token, by_netrc = first.headers("/a")
    assert by_token["authorization"] == f"Bearer {SECRET}"
    assert by_netrc["authorization"].startswith("Basic ")
    assert all("authorization" not in headers for headers in other.headers("/b"))


def test_a_user_in_the_address_is_for_its_host(servers: tuple[Server, Server]) -> None:
    first, other = servers
    first.pages["/a"] = answer(307, b"", Location="/here")
    first.pages["/here"] = answer(308, b"", Location=other.url("/b"))
    other.pages["/b"] = answer()

    read(HttpRemote(first.url("/a").replace("//", "//me:word@")))

    assert "Basic" in first.headers("/a")[0]["authorization"]
    assert "Basic" in first.headers("/here")[0]["authorization"]
    assert "authorization" not in other.headers("/b")[0]


def test_no_cookie_is_kept(servers: tuple[Server, Server]) -> None:
    first, _ = servers
    first.pages["/a"] = answer(Set_Cookie="who=you")
    remote = HttpRemote(first.url("/a"))

    read(remote)
    read(remote)

    assert "cookie" not in first.headers("/a")[1]


def test_the_first_host_is_asked_once(servers: tuple[Server, Server]) -> None:
    first, other = servers
    first.pages["/a"] = answer(302, b"", Location=other.url("/b?sig=1"))
    other.pages["/b"] = part(5, 10)
    remote = HttpRemote(first.url("/a"))

    assert read(remote, 5, 10) == read(remote, 5, 10) == DATA[5:10]
    assert len(first.asked) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_address_that_expired_is_asked_for_anew(
    servers: tuple[Server, Server], status: int
) -> None:
    first, other = servers
    first.pages["/a"] = answer(302, b"", Location=other.url("/b"))
    other.pages["/b"] = part(5, 10)
    remote = HttpRemote(first.url("/a"))
    read(remote, 5, 10)
    other.pages["/b"] = answer(status)
    first.pages["/a"] = answer(302, b"", Location=other.url("/c"))
    other.pages["/c"] = part(7, 9)

    assert read(remote, 7, 9) == DATA[7:9]


@pytest.mark.parametrize(
    ("location", "problem"),
    [
        ("/round", "leads to no file"),
        ("ftp://127.0.0.1/x", "leads to no file"),
        ("file:///etc/passwd", "leads to no file"),
        ("http://[::1", "is not an address that can be fetched"),
    ],
)
def test_redirects_that_lead_nowhere(
    servers: tuple[Server, Server], location: str, problem: str
) -> None:
    first, _ = servers
    first.pages["/round"] = answer(302, b"", Location=location)
    with pytest.raises(SourceError, match=f"^{first.url('/round')} {problem}$"):
        read(HttpRemote(first.url("/round") + "?token=secret"))


def test_what_was_encrypted_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        status_code = 302

        def __init__(self) -> None:
            self.headers = {"Location": "http://127.0.0.1:9/x"}

        def close(self) -> None:
            """Has nothing to close."""

    monkeypatch.setattr(Client, "_send", lambda *_: Answer())
    with pytest.raises(SourceError, match="leads to an address that is not encrypted"):
        HttpRemote("https://example.org/a").open(0, None, "")


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (answer(204, b""), "answered 204"),
        (part(5, 11), "another range"),
        (part(4, 10), "another range"),
        (answer(206, DATA[5:10]), "another range"),
        (answer(206, DATA[5:9], Content_Range=f"bytes 5-9/{len(DATA)}"), "another range"),
        (answer(206, DATA[5:10], Content_Range="bytes */2048"), "another range"),
        (answer(206, b"--x", Content_Type="multipart/byteranges; boundary=x"), "another range"),
        (part(5, 10, Content_Encoding="gzip"), "compressed, which was not asked for"),
        (part(5, 10, Content_Type="text/html"), "a web page instead of the file"),
        (answer(403, b""), r"was refused \(answer 403\)"),
        (answer(404, b""), r"does not exist \(answer 404\)"),
        (answer(416, b""), "changed while it was fetched: it is shorter now"),
        (part(5, 10, ETag='"2"'), "changed while it was fetched"),
        (answer(200, DATA, ETag='"2"'), "changed while it was fetched"),
    ],
)
def test_answers_to_a_range_that_are_none(
    servers: tuple[Server, Server], step: Step, problem: str
) -> None:
    first, _ = servers
    first.pages["/a"] = step
    with pytest.raises(SourceError, match=problem) as caught:
        HttpRemote(first.url("/a") + "?token=secret").open(5, 10, '"1"')
    assert "secret" not in caught.value.message
    assert isinstance(caught.value, Changed) == ("changed" in problem)


def test_a_range_is_asked_for_by_the_name_of_the_version(servers: tuple[Server, Server]) -> None:
    first, _ = servers
    first.pages["/a"] = part(5, 10, ETag='"1"')
    remote = HttpRemote(first.url("/a"))

    reply = remote.open(5, 10, '"1"')
    reply.body.close()

    assert (reply.start, reply.size, reply.validator, reply.ranges) == (5, len(DATA), '"1"', True)
    sent = first.headers("/a")[0]
    assert (sent["range"], sent["if-range"]) == ("bytes=5-9", '"1"')
    assert sent["accept-encoding"] == "identity"


def test_a_weak_name_is_compared_here(servers: tuple[Server, Server]) -> None:
    """Servers answer `If-Range` with one by the whole file."""
    first, _ = servers
    first.pages["/a"] = part(5, 10, ETag='W/"1"')
    assert read(HttpRemote(first.url("/a")), 5, 10, 'W/"1"') == DATA[5:10]
    assert "if-range" not in first.headers("/a")[0]
    with pytest.raises(Changed):
        HttpRemote(first.url("/a")).open(5, 10, 'W/"0"')


def test_a_server_without_ranges_says_so(servers: tuple[Server, Server]) -> None:
    first, _ = servers
    first.pages["/a"] = answer(ETag='"1"')
    reply = HttpRemote(first.url("/a")).open(5, 10, '"1"')
    reply.body.close()

    assert (reply.start, reply.size, reply.ranges) == (0, len(DATA), False)


def test_an_empty_file_has_no_range(servers: tuple[Server, Server]) -> None:
    first, _ = servers
    first.pages["/a"] = answer(416, b"", Content_Range="bytes */0")
    reply = HttpRemote(first.url("/a")).open(0, 10, "")

    assert (reply.size, reply.body.read(10)) == (0, b"")


def test_a_part_of_a_part_is_what_was_asked_for(servers: tuple[Server, Server]) -> None:
    """A server may give less than it was asked for."""
    first, _ = servers
    first.pages["/a"] = part(5, 8)

    assert read(HttpRemote(first.url("/a")), 5, 10) == DATA[5:8]


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_passes_is_for_another_try(servers: tuple[Server, Server], status: int) -> None:
    first, _ = servers
    first.pages["/a"] = answer(status, b"", Retry_After="7")
    with pytest.raises(Passing, match=f"answered {status}") as caught:
        HttpRemote(first.url("/a")).open(0, None, "")
    assert caught.value.wait == 7


def test_a_read_that_waits_can_be_ended(servers: tuple[Server, Server]) -> None:
    first, _ = servers
    stopped = threading.Event()

    def hang(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        stopped.wait(30)

    first.pages["/a"] = hang
    reply = HttpRemote(first.url("/a")).open(0, None, "")
    threading.Timer(0.05, reply.body.end).start()
    with pytest.raises(Passing):
        reply.body.read(10)
    stopped.set()
    reply.body.close()
    reply.body.end()


def test_a_small_answer(servers: tuple[Server, Server], monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = servers
    tries = iter([answer(503), answer(404, b"no", X_Error_Code="E")])
    first.pages["/a"] = lambda handler: next(tries)(handler)
    first.pages["/b"] = answer(302, b"", Location=other.url("/c"))
    client = Client(NO_TOKENS)

    found = client.ask(first.url("/a"))
    stayed = client.ask(first.url("/b"), follows=lambda url: other.host not in url)

    assert (found.status, found.data, found.headers["x-error-code"]) == (404, b"no", "E")
    assert (stayed.status, stayed.headers["location"]) == (302, other.url("/c"))
    monkeypatch.setattr(http, "SMALL", 1)
    first.pages["/a"] = answer()
    with pytest.raises(SourceError, match="answers more than"):
        client.ask(first.url("/a"))


def test_show_hides_what_may_be_secret() -> None:
    assert http.show("https://u:p@h:8/a/b?token=t#f") == "https://h:8/a/b"
