"""The nginx of the tests does what they count on."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from nginx import Nginx, Request, unavailable

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

DATA = bytes(range(256)) * 1000


def get(url: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers of an answer."""
    asked = urllib.request.Request(
        url, headers={k.replace("_", "-"): v for k, v in headers.items()}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


def test_ranges_and_the_log(tmp_path: Path) -> None:
    """Files, their parts and versions; every request is in the log with the bytes that it cost."""
    with Nginx(tmp_path) as nginx:
        (nginx.files / "model").write_bytes(DATA)
        status, data, headers = get(nginx.url + "model")
        assert (status, data) == (200, DATA)
        assert headers.keys() >= {"ETag", "Last-Modified", "Accept-Ranges"}
        status, data, headers = get(nginx.url + "model", Range="bytes=10-19")
        assert (status, data) == (206, DATA[10:20])
        assert get(nginx.url + "none")[0] == 404
        found = nginx.requests(3)

    assert found[:2] == [
        Request("GET", "/model", 200, len(DATA), "", ""),
        Request("GET", "/model", 206, 10, "bytes=10-19", ""),
    ]
    assert (found[2].path, found[2].status) == ("/none", 404)


def test_no_ranges_and_no_version(tmp_path: Path) -> None:
    """A server that gives files as a whole and does not tell which version they are."""
    with Nginx(tmp_path, ranges=False, etag=False, dated=False) as nginx:
        (nginx.files / "model").write_bytes(DATA)
        status, data, headers = get(nginx.url + "model", Range="bytes=10-19")

    assert (status, data) == (200, DATA)
    assert not headers.keys() & {"ETag", "Last-Modified", "Accept-Ranges"}


@pytest.mark.parametrize(
    ("options", "header"),
    [({"user": "me:secret"}, "Basic bWU6c2VjcmV0"), ({"token": "secret"}, "Bearer secret")],
)
def test_who_may_read(tmp_path: Path, options: dict[str, str], header: str) -> None:
    """Only who bears the password or the token."""
    with Nginx(tmp_path, **options) as nginx:  # type: ignore[arg-type]
        (nginx.files / "model").write_bytes(DATA)
        assert get(nginx.url + "model")[0] == 401
        assert get(nginx.url + "model", Authorization=header + "x")[0] == 401
        assert get(nginx.url + "model", Authorization=header)[:2] == (200, DATA)
        assert [one.authorization for one in nginx.requests(3)] == ["", header + "x", header]


def test_limits(tmp_path: Path) -> None:
    """A slow connection keeps its place; another one at once is refused."""
    with Nginx(tmp_path, rate=len(DATA), connections=1) as nginx:
        (nginx.files / "model").write_bytes(DATA * 100)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(nginx.url + "model") as answer:
            answer.read(1)
            assert get(nginx.url + "model")[0] == 429
        sent = nginx.requests(2)[-1].sent

    # It was a second's worth, and not the file.
    assert sent < 50 * len(DATA)


def test_it_ends_with_who_started_it(tmp_path: Path) -> None:
    """Also when that one is killed."""
    code = (
        "import os, signal, sys; from pathlib import Path; from nginx import Nginx\n"
        "with Nginx(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=os.path.dirname(__file__), check=False
    )

    assert done.returncode == -signal.SIGKILL
    pid = int((tmp_path / "nginx.pid").read_text())
    while Path(f"/proc/{pid}").exists() and "nginx" in Path(f"/proc/{pid}/cmdline").read_text():
        time.sleep(0.01)
