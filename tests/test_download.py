"""The downloader against servers that break off, refuse, change their mind and lie."""

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cvs.store.errors import SourceError
from cvs.versions import download, retry

DATA = bytes(range(256)) * 12000  # Three pieces: 2.9 MiB.


class _Server:
    """Answers each request by the next of `steps`, and the last one ever after."""

    def __init__(self) -> None:
        self.steps: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.asked: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Keeps silent."""

            def do_GET(self) -> None:
                server.asked.append({k.lower(): v for k, v in self.headers.items()})
                self.close_connection = True
                steps = server.steps
                (steps.pop(0) if len(steps) > 1 else steps[0])(self)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.host = f"127.0.0.1:{self.http.server_address[1]}"
        self.url = f"http://{self.host}/file.bin"


@pytest.fixture
def server() -> Iterator[_Server]:
    made = _Server()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.02,))
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between tries, which take no time."""
    found: list[float] = []
    monkeypatch.setattr(retry, "pause", lambda seconds, stop: found.append(seconds))
    return found


def _send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, length: int | None, **headers: str
) -> None:
    handler.send_response(status)
    handler.send_header("Connection", "close")
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(body)


def _whole(
    data: bytes = DATA, *, upto: int | None = None, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    """Announces all of `data` and sends it, or only its beginning."""
    return lambda handler: _send(handler, 200, data[:upto], len(data), **headers)


def _rest(
    *, upto: int | None = None, shift: int = 0, **headers: str
) -> Callable[[BaseHTTPRequestHandler], None]:
    """Answers a range up to the end, or up to `upto`."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        first = int(handler.headers["Range"][len("bytes=") : -1]) + shift
        span = f"bytes {first}-{len(DATA) - 1}/{len(DATA)}"
        _send(handler, 206, DATA[first:upto], len(DATA) - first, Content_Range=span, **headers)

    return answer


def _status(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: _send(handler, status, b"", 0, **headers)


def _fetch(url: str, **options: object) -> bytes:
    pieces = []
    for piece in download.chunks(url, **options):  # type: ignore[arg-type]
        assert len(piece) <= download.CHUNK
        pieces.append(bytes(piece))
    return b"".join(pieces)


def test_a_file_comes_whole_and_in_pieces(server: _Server) -> None:
    server.steps = [_whole(ETag='"1"')]

    data = _fetch(server.url, size=len(DATA), headers={"X-A": "1"})

    assert data == DATA
    assert server.asked[0]["x-a"] == "1"
    assert server.asked[0]["accept-encoding"] == "identity"


def test_an_empty_file_is_a_file(server: _Server) -> None:
    server.steps = [_whole(b"")]

    assert _fetch(server.url) == b""


def test_a_broken_connection_is_resumed_where_it_stopped(server: _Server) -> None:
    server.steps = [
        _whole(upto=1_500_000, ETag='"1"'),
        _rest(upto=2_000_000, ETag='"1"'),
        _status(503),
        _rest(ETag='"1"'),
    ]

    assert _fetch(server.url, size=len(DATA)) == DATA
    ranges = [asked.get("range") for asked in server.asked]
    assert ranges == [None, "bytes=1500000-", "bytes=2000000-", "bytes=2000000-"]
    assert {asked.get("if-range") for asked in server.asked[1:]} == {'"1"'}


def test_a_server_that_does_not_resume_is_read_again_from_the_start(server: _Server) -> None:
    when = "Mon, 01 Jan 2024 00:00:00 GMT"
    server.steps = [_whole(upto=1_500_000, Last_Modified=when), _whole(Last_Modified=when)]

    assert _fetch(server.url) == DATA
    assert server.asked[1]["if-range"] == when


@pytest.mark.parametrize(
    ("first", "then", "problem"),
    [
        ({"ETag": '"1"'}, _whole(ETag='"2"'), "changed while it was fetched"),
        ({"ETag": '"1"'}, _rest(ETag='"2"'), "changed while it was fetched"),
        ({"ETag": '"1"'}, _rest(shift=-1), "another range than was asked for"),
        ({"ETag": '"1"'}, _status(416), "changed while it was fetched"),
        ({"ETag": 'W/"1"'}, _whole(), "broke off .*and cannot be resumed"),
        ({}, _whole(), "broke off .*and cannot be resumed"),
    ],
)
def test_halves_of_two_files_are_never_joined(
    server: _Server,
    first: dict[str, str],
    then: Callable[[BaseHTTPRequestHandler], None],
    problem: str,
) -> None:
    server.steps = [_whole(upto=1_500_000, **first), then]

    with pytest.raises(SourceError, match=problem):
        _fetch(server.url)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_overload_is_waited_out(server: _Server, status: int, waits: list[float]) -> None:
    server.steps = [_status(status), _status(status), _whole()]

    assert _fetch(server.url) == DATA
    assert len(waits) == 2
    assert 0 < waits[0] <= retry.FIRST_WAIT
    assert waits[1] <= 2 * retry.FIRST_WAIT


def test_a_server_may_say_how_long_to_wait(server: _Server, waits: list[float]) -> None:
    server.steps = [_status(503, Retry_After="7"), _status(503, Retry_After="9999"), _whole()]

    assert _fetch(server.url) == DATA
    assert waits == [7, retry.LONGEST_WAIT]


def test_patience_ends(server: _Server, waits: list[float]) -> None:
    server.steps = [_status(500)]

    with pytest.raises(SourceError) as caught:
        _fetch(server.url)

    assert caught.value.message == f"{server.url} answered 500, 5 times in a row"
    assert len(server.asked) == retry.ATTEMPTS
    assert len(waits) == retry.ATTEMPTS - 1


def test_a_slow_but_steady_connection_is_not_given_up(server: _Server) -> None:
    """Tries count from the last progress on."""
    cuts = [(n + 1) * 1_050_000 for n in range(2)]
    server.steps = [
        _whole(upto=cuts[0], ETag='"1"'),
        *[_status(500)] * 3,
        _rest(upto=cuts[1], ETag='"1"'),
        *[_status(500)] * 3,
        _rest(ETag='"1"'),
    ]

    assert _fetch(server.url) == DATA


def test_nobody_answers() -> None:
    with pytest.raises(SourceError, match=r"^http://127\.0\.0\.1:9/a cannot be reached, 5 times"):
        _fetch("http://u:secret@127.0.0.1:9/a?token=secret")


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (_status(401), r"was refused \(answer 401\)$"),
        (_status(403), r"was refused \(answer 403\)$"),
        (_status(404), r"does not exist \(answer 404\)$"),
        (_status(204), "answered 204$"),
        (_whole(b"<!DOCTYPE html>", Content_Type="text/html; charset=utf-8"), "gives a web page"),
        (_whole(Content_Encoding="gzip"), "gives the file compressed"),
        (_whole(DATA[:-1]), f"has {len(DATA) - 1} bytes instead of {len(DATA)}$"),
        (
            lambda handler: _send(handler, 200, DATA[:-1], None),
            f"has {len(DATA) - 1} bytes instead of {len(DATA)}$",
        ),
        (_status(302, Location="ftp://127.0.0.1/x"), "leads to no file$"),
        (_status(302, Location="/round"), "leads to no file$"),
    ],
)
def test_answers_that_are_not_the_file_are_refused_at_once(
    server: _Server, step: Callable[[BaseHTTPRequestHandler], None], problem: str
) -> None:
    server.steps = [step]
    address = server.url.replace("//", "//u:secret@") + "?token=secret"

    with pytest.raises(SourceError, match=problem) as caught:
        _fetch(address, size=len(DATA))

    assert caught.value.message.startswith(server.url)
    assert "secret" not in caught.value.message


def test_a_redirect_is_followed_without_the_authorization(server: _Server) -> None:
    """Hosts of large files are other ones than those that know the user."""
    other = server.url.replace("127.0.0.1", "localhost")
    server.steps = [_status(302, Location=other), _whole()]

    assert _fetch(server.url, headers={"Authorization": "Bearer secret"}) == DATA
    assert server.asked[0]["authorization"] == "Bearer secret"
    assert "authorization" not in server.asked[1]


def test_what_is_no_address_is_said() -> None:
    for address in ("http://", "file:///etc/passwd", "nonsense"):
        with pytest.raises(SourceError):
            _fetch(address)


def test_credentials_are_lent_to_their_own_host_alone() -> None:
    lenders = ["https://a.org/simple", "https://u:p@b.org/simple", "https://x:y@b.org:8080/"]

    lent = [
        download.lend_credentials(url, lenders)
        for url in ("https://b.org/w.whl", "https://a.org/w", "http://b.org/w", "https://z@b.org/w")
    ]

    assert lent == [
        "https://u:p@b.org/w.whl",
        "https://a.org/w",
        "http://b.org/w",
        "https://z@b.org/w",
    ]
