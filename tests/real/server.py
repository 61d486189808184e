"""Start a ComfyUI, real or not, wait until it answers, and end it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path


@dataclass(frozen=True)
class Ending:
    """How a server ended after a signal."""

    exit_code: int
    seconds: float


class Server:
    """A running `main.py`. Leaving the `with` block kills what was not ended before."""

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        self.started = time.monotonic()
        self.ready_after = 0.0
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [*command, "--listen", "127.0.0.1", "--port", str(self.port)],
                cwd=folder,
                env=None if environment is None else dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # A shell's background job ignores SIGINT, and so would all that it starts.
                preexec_fn=_heed_interrupts,
            )

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def wait_until_ready(self, seconds: float = 180.0) -> None:
        """Return when GET /system_stats answers."""
        while True:
            if self.process.poll() is not None:
                raise RuntimeError(f"ended with {self.process.returncode}:\n{self.log_text()}")
            connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
            try:
                connection.request("GET", "/system_stats")
                if connection.getresponse().status == 200:
                    self.ready_after = time.monotonic() - self.started
                    return
            except (OSError, HTTPException):
                pass
            finally:
                connection.close()
            if time.monotonic() - self.started > seconds:
                raise TimeoutError(f"not up after {seconds} s:\n{self.log_text()}")
            time.sleep(0.05)

    def end(self, number: signal.Signals = signal.SIGINT, seconds: float = 30.0) -> Ending:
        """Send a signal and wait for the end."""
        asked = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(seconds)
        return Ending(code, time.monotonic() - asked)

    def log_text(self) -> str:
        """All that was printed so far."""
        return self.log.read_text(errors="replace")


def _heed_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def plain_environment() -> dict[str, str]:
    """This process's environment less what would change how Python starts."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
