"""A real nginx on loopback for tests and benchmarks: ranges, rate limits, logins, an access log.

    with Nginx(folder, rate=20 << 20) as nginx:
        (nginx.files / "model").write_bytes(data)
        fetch(nginx.url + "model")
        nginx.requests()

It runs as who starts it, with one worker, and ends with the block or with who started it.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

#: Where to look for nginx besides PATH: a folder in which `scripts/nginx` unpacked it.
VARIABLE = "CVS_NGINX"

#: Seconds for one step of starting or ending.
PATIENCE = 30

#: Ends with the process that started it, whatever that one dies of, and becomes the command.
_TIED = (
    "import ctypes, os, signal, sys\n"
    "ctypes.CDLL(None).prctl(1, signal.SIGTERM)\n"
    "if os.getppid() == int(sys.argv[1]): os.execv(sys.argv[2], sys.argv[2:])\n"
)

_CONFIGURATION = """\
daemon off;
{user}
pid nginx.pid;
error_log error.log;
events {{ worker_connections 512; }}
http {{
    client_body_temp_path temporary/body;
    proxy_temp_path temporary/proxy;
    fastcgi_temp_path temporary/fastcgi;
    uwsgi_temp_path temporary/uwsgi;
    scgi_temp_path temporary/scgi;
    log_format lines escape=json '{{"method":"$request_method","path":"$uri","status":$status,'
        '"sent":$body_bytes_sent,"range":"$http_range","authorization":"$http_authorization"}}';
    map $request_uri $is_told {{ /.ready 0; default 1; }}
    access_log access.log lines if=$is_told;
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    limit_conn_zone $binary_remote_addr zone=clients:1m;
    server {{
        listen 127.0.0.1:{port}{buffer};
        root files;
        {lines}
    }}
}}
"""


class Request(NamedTuple):
    """A request that ended, as the access log has it."""

    method: str
    path: str
    status: int
    sent: int
    """Bytes of the body that nginx gave to the system; the client may have got fewer."""
    range: str
    authorization: str


class Nginx:
    """A running nginx that serves the folder `files`; use as a context manager.

    Args:
        folder: for the files, the configuration and the logs.
        rate: bytes per second and connection.
        connections: how many at once; more are answered by 429.
        user: `name:password` that every request must bear.
        token: the bearer token that every request must bear.
        ranges: whether parts are given.
        etag: whether files have an ETag.
        dated: whether files have a Last-Modified.
        buffer: bytes that the system takes ahead of what a client has got, about; by default
            several MB on loopback, more than most lines hold.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rate: int | None = None,
        connections: int | None = None,
        user: str | None = None,
        token: str | None = None,
        ranges: bool = True,
        etag: bool = True,
        dated: bool = True,
        buffer: int | None = None,
    ) -> None:
        self.folder = folder
        self.files = folder / "files"
        self.files.mkdir(parents=True, exist_ok=True)
        (folder / "temporary").mkdir(exist_ok=True)
        self._buffer = "" if buffer is None else f" sndbuf={buffer}"
        self._lines = []
        if rate is not None:
            self._lines.append(f"limit_rate {rate};")
        if connections is not None:
            self._lines += [f"limit_conn clients {connections};", "limit_conn_status 429;"]
        if user is not None:
            name, _, password = user.partition(":")
            (folder / "users").write_text(f"{name}:{{PLAIN}}{password}\n")
            self._lines += ['auth_basic "models";', f"auth_basic_user_file {folder}/users;"]
        if token is not None:
            self._lines.append(f'if ($http_authorization != "Bearer {token}") {{ return 401; }}')
        if not ranges:
            self._lines.append("max_ranges 0;")
        if not etag:
            self._lines.append("etag off;")
        if not dated:
            self._lines.append('add_header Last-Modified "";')

    def __enter__(self) -> Self:
        program = find()
        assert program is not None
        # nginx cannot choose a port itself, but takes over a socket that listens already.
        with socket.create_server(("127.0.0.1", 0), backlog=511) as listening:
            port = self._port = listening.getsockname()[1]
            self.host = f"127.0.0.1:{port}"
            self.url = f"http://{self.host}/"
            text = _CONFIGURATION.format(
                port=port,
                buffer=self._buffer,
                # Started by root it would serve as another one, who cannot read the files.
                user="" if os.geteuid() else "user root;",
                lines="\n        ".join(self._lines),
            )
            (self.folder / "nginx.conf").write_text(text)
            with open(self.folder / "output", "wb") as output:
                self._process = subprocess.Popen(
                    [
                        *(sys.executable, "-c", _TIED, str(os.getpid()), program),
                        *("-p", f"{self.folder}/", "-c", "nginx.conf", "-e", "error.log"),
                    ],
                    env={**_libraries(), "NGINX": f"{listening.fileno()};"},
                    pass_fds=[listening.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    # Ctrl-C in a terminal is for the tests.
                    start_new_session=True,
                )
        self._until_it_serves()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise

    def requests(self, least: int = 0) -> list[Request]:
        """The requests that ended, oldest first, once there are so many.

        One ends when all is sent, or when nginx sees that the client is gone.
        """
        log = self.folder / "access.log"
        end = time.monotonic() + PATIENCE
        while True:
            lines = log.read_text().splitlines(keepends=True)
            if len(lines) >= least and all(line.endswith("\n") for line in lines):
                return [Request(**json.loads(line)) for line in lines]
            if time.monotonic() > end:
                raise RuntimeError(f"only {len(lines)} of {least} requests ended")
            time.sleep(0.005)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing is sent meanwhile."""
        pid = self._process.pid
        workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for worker in workers:
            os.kill(int(worker), signal.SIGSTOP)
        try:
            yield
        finally:
            for worker in workers:
                os.kill(int(worker), signal.SIGCONT)

    def underway(self) -> int:
        """Bytes that were sent and that no client has read yet."""
        found = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, ours, theirs, _, queues, *_ = line.split()
            sent, received = (int(queue, 16) for queue in queues.split(":"))
            if ours.endswith(f":{self._port:04X}"):
                found += sent
            elif theirs.endswith(f":{self._port:04X}"):
                found += received
        return found

    def _until_it_serves(self) -> None:
        """The socket listens before nginx does: only an answer tells that it is there."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as connection:
                connection.settimeout(PATIENCE)
                connection.sendall(b"GET /.ready HTTP/1.0\r\n\r\n")
                if connection.recv(4).startswith(b"HTTP"):
                    return
        except OSError:
            pass
        self._process.kill()
        self._process.wait()
        said = [(self.folder / name).read_text() for name in ("output", "error.log")]
        raise RuntimeError(f"nginx does not start: {' '.join(said)}")


def unavailable() -> str | None:
    """Why there can be no nginx here, or None."""
    if find() is None:
        return f"nginx not found; scripts/nginx DIR and {VARIABLE}=DIR help"
    return None


def find() -> str | None:
    """The program: from the folder of CVS_NGINX, or PATH, or where root alone has it on PATH."""
    root = os.environ.get(VARIABLE)
    folders = [os.path.join(root, "usr/sbin")] if root else []
    folders += [os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"]
    return shutil.which("nginx", path=":".join(folders))


def _libraries() -> dict[str, str]:
    """The environment in which the libraries of CVS_NGINX are found too."""
    found = {name: value for name, value in os.environ.items() if name != "LD_LIBRARY_PATH"}
    if root := os.environ.get(VARIABLE):
        folders = {str(path.parent) for path in Path(root).rglob("lib*.so.*")}
        found["LD_LIBRARY_PATH"] = ":".join(sorted(folders))
    return found
