"""A fetch that is killed again and again: what came is not fetched twice, and what is stored is
right."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from nginx import Nginx, unavailable

from cvs.store import history

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(unavailable() is not None, reason=str(unavailable())),
    pytest.mark.timeout(1800),
]

Record = Callable[[str, object], None]

#: Seconds to wait for what must happen at all.
PATIENCE = 120


class Amount(NamedTuple):
    """How often a file of how many bytes is killed, at how many bytes per second a connection."""

    kills: int
    size: int
    rate: int


USUAL = Amount(10, 64 << 20, 8 << 20)
NIGHTLY = Amount(100, 1 << 30, 20 << 20)

#: What a connection holds ahead.
_BUFFER = 32 << 10

#: Of all bytes so many may be fetched twice.
TWICE = 0.05


def make(path: Path, size: int) -> str:
    """Writes a file of random bytes; returns its SHA-256."""
    digest = hashlib.sha256()
    generator = random.Random(size)
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            piece = generator.randbytes(1 << 20)
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


class Fetcher:
    """Starts `cvs models add` of an address, over and over."""

    def __init__(self, folder: Path, nginx: Nginx) -> None:
        self.cache = folder / "cache"
        self.nginx = nginx
        self.lost = 0
        """Bytes that were on their way to those that were killed."""
        self.environment = {
            **os.environ,
            "COMFY_CACHE_ROOT": str(self.cache),
            "CVS_LOCAL_ROOT": str(folder / "local"),
            "NO_PROXY": "127.0.0.1",
        }
        self._command = [sys.executable, "-m", "cvs", "models", "add", f"{nginx.url}model.bin"]

    def start(self) -> subprocess.Popen[str]:
        """Starts one."""
        return subprocess.Popen(
            [*self._command, "--json"],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def there(self) -> int:
        """Bytes that the log says are there."""
        found = 0
        for path in self.cache.glob("partial/*/log"):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            eras = [line for line in data.split(b"\n") if line.startswith(b"era ")]
            era = eras[-1].removeprefix(b"era ").decode() if eras else ""
            found = max(found, history.parse(data, era).there.total())
        return found

    def kill_at(self, count: int) -> bool:
        """Starts one and kills it when so many bytes are there; False if it ended before."""
        process = self.start()
        end = time.monotonic() + PATIENCE
        with process:
            while self.there() < count and process.poll() is None:
                assert time.monotonic() < end
                time.sleep(0.001)
            with self.nginx.frozen():
                process.send_signal(signal.SIGSTOP)
                self.lost += self.nginx.underway()
                process.kill()
                _, err = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), err
        return process.returncode != 0


def test_killed_at_random_points(memory: Path, nightly: bool, record_property: Record) -> None:
    """The result verifies, and at most one byte in twenty came twice."""
    amount = NIGHTLY if nightly else USUAL
    chance = random.Random(amount.kills)
    points = sorted(chance.randrange(amount.size * 19 // 20) for _ in range(amount.kills))
    with Nginx(memory / "nginx", rate=amount.rate, buffer=_BUFFER) as nginx:
        sha256 = make(nginx.files / "model.bin", amount.size)
        fetcher = Fetcher(memory, nginx)
        kills = sum(fetcher.kill_at(point) for point in points)
        last = fetcher.start()
        out, err = last.communicate(timeout=PATIENCE)
        assert last.returncode == 0, err
        twice = sum(one.sent for one in nginx.requests()) - fetcher.lost - amount.size

    assert kills == amount.kills
    (found,) = json.loads(out)
    assert found["size"] == amount.size
    assert found["spec"]["checksum"] == f"sha256:{sha256}"
    content = next((fetcher.cache / "store" / found["id"]).glob("content*"))
    with open(content, "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == sha256
    assert os.listdir(fetcher.cache / "partial") == []
    assert twice <= TWICE * amount.size, f"{twice} bytes of {amount.size} came twice"
    record_property("kills", kills)


def test_interrupted(memory: Path) -> None:
    """Ctrl-C keeps what came, says so in one line, and the next run goes on."""
    size = 32 << 20
    with Nginx(memory / "nginx", rate=4 << 20) as nginx:
        sha256 = make(nginx.files / "model.bin", size)
        fetcher = Fetcher(memory, nginx)
        with fetcher.start() as process:
            while fetcher.there() < size // 2:
                assert process.poll() is None
                time.sleep(0.001)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert err.endswith("interrupted: nothing is broken, run it again to go on\n")
        before = fetcher.there()
        with fetcher.start() as process:
            out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err

    assert before >= size // 2
    (found,) = json.loads(out)
    assert found["spec"]["checksum"] == f"sha256:{sha256}"
    # What was there is no part of what was done.
    ends = [json.loads(line) for line in err.splitlines()]
    (done,) = [one for one in ends if one["event"] == "done" and one["unit"] == "bytes"]
    assert done["done"] == size
    assert done["rate"] * done["seconds"] <= 1.01 * (size - before)
