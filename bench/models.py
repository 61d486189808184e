"""Fetching a model into the store, with both digests, next to curl and aria2c.

    python bench/models.py [--rounds N] [--size MB] [--dir FOLDER] [--connections N] [--rate MB]

nginx serves a random file on loopback; the ways run interleaved, medians and the most memory of
each are printed. cvs is measured as the command line is used, start-up, both digests and what makes
the entry durable included; curl and aria2c digest nothing and sync nothing. `--dir` decides the
file system that is written to, by default memory. CONTRIBUTING.md says where nginx comes from.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from measure import peers

from cvs.store import fs

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from nginx import Nginx, unavailable

_CVS = "from cvs.main import main; raise SystemExit(main())"


class Run(NamedTuple):
    """What one run took."""

    seconds: float
    memory: int
    """Bytes at most."""


def run(command: Sequence[str], environment: Mapping[str, str]) -> Run:
    """Runs a command in silence."""
    begun = time.perf_counter()
    with open(os.devnull, "r+b") as nothing:
        process = subprocess.Popen(
            command, env={**os.environ, **environment}, stdin=nothing, stdout=nothing
        )
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Run(seconds, usage.ru_maxrss << 10)


def ways(url: str, folder: str, connections: int, there: set[str]) -> dict[str, list[str]]:
    """The commands, by what they are called in the table."""
    copy = os.path.join(folder, "copy")
    add = [sys.executable, "-c", _CVS, "models", "add", "--quiet"]
    found: dict[str, list[str]] = {}
    if "curl" in there:
        found["curl"] = ["curl", "--silent", "--fail", "--noproxy", "*", "--output", copy, url]
    found["cvs, 1 connection"] = [*add, "--connections", "1", url]
    if "aria2c" in there:
        words = ["aria2c", "--quiet", "--no-conf", "--no-proxy=127.0.0.1", "--min-split-size=1M"]
        words += ["--file-allocation=none", "--allow-overwrite=true", f"--dir={folder}"]
        split = [f"--split={connections}", f"--max-connection-per-server={connections}"]
        found[f"aria2c, {connections} connections"] = [*words, *split, "--out=copy", url]
    found[f"cvs, {connections} connections"] = [*add, "--connections", str(connections), url]
    found["cvs, as many as it takes"] = [*add, url]
    return found


def table(title: str, found: Mapping[str, list[Run]], size: int) -> None:
    """Prints medians, their ratio to the first way, what that is a second, and the most memory."""
    medians = {name: statistics.median(one.seconds for one in runs) for name, runs in found.items()}
    base = next(iter(medians.values()))
    print(f"\n{title:34} {'median':>9} {'ratio':>7} {'min':>9} {'MB/s':>7} {'memory':>9}")
    for name, runs in found.items():
        median = medians[name]
        least, memory = min(one.seconds for one in runs), max(one.memory for one in runs)
        print(
            f"{name:34} {median:8.3f}s {median / base:6.2f}x {least:8.3f}s "
            f"{size / median / 1e6:7.0f} {memory / 1e6:6.1f} MB"
        )


def measure(
    title: str, folder: str, nginx: Nginx, size: int, rounds: int, connections: int, there: set[str]
) -> None:
    """Measures all ways and prints their table."""
    root = os.path.join(folder, "volume")
    commands = ways(f"{nginx.url}model.bin", folder, connections, there)
    found: dict[str, list[Run]] = {name: [] for name in commands}
    environment = {"COMFY_CACHE_ROOT": root, "NO_PROXY": "127.0.0.1"}
    for _ in range(rounds):
        for name, command in commands.items():
            shutil.rmtree(root, ignore_errors=True)
            for path in (f"{folder}/copy", f"{folder}/copy.aria2"):
                if os.path.lexists(path):
                    os.unlink(path)
            os.sync()
            found[name].append(run(command, environment))
    table(title, found, size)


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=1024, metavar="MB", help="of the file")
    parser.add_argument("--dir", default=None, help="where to write; by default /dev/shm")
    parser.add_argument("--connections", type=int, default=4, metavar="N")
    parser.add_argument(
        "--rate", type=int, default=20, metavar="MB", help="a second and connection, when limited"
    )
    options = parser.parse_args()
    if why := unavailable():
        print(f"not measured: {why}")
        return
    there = peers("curl", "aria2c")
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    size = options.size << 20
    with (
        tempfile.TemporaryDirectory(prefix="cvs-bench-", dir=options.dir or memory) as folder,
        tempfile.TemporaryDirectory(prefix="cvs-bench-", dir=memory) as served,
    ):
        print(f"{fs.filesystem_of(folder)}, {len(os.sched_getaffinity(0))} processors")
        for name, rate in (
            ("unlimited", None),
            (f"{options.rate} MB/s a connection", options.rate),
        ):
            limit = None if rate is None else rate * 1_000_000
            with Nginx(Path(served, f"nginx-{name[:2]}"), rate=limit) as nginx:
                with open(nginx.files / "model.bin", "wb") as file:
                    for _ in range(options.size):
                        file.write(os.urandom(1 << 20))
                title = f"fetch {options.size} MB, {name}"
                measure(title, folder, nginx, size, options.rounds, options.connections, there)
                os.unlink(nginx.files / "model.bin")


if __name__ == "__main__":
    main()
