"""What the benchmarks share: ways that run interleaved, and the table of their medians."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping

Way = Callable[[], object]


def interleaved(
    ways: Mapping[str, Way], rounds: int, before: Callable[[], object] = lambda: None
) -> dict[str, list[float]]:
    """Seconds of each way in each round; `before` runs before each, outside the time."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            before()
            started = time.perf_counter()
            way()
            found[name].append(time.perf_counter() - started)
    return found


def table(title: str, found: Mapping[str, list[float]], against: str) -> None:
    """Prints medians, their ratio to one of the ways, and the best of each."""
    base = statistics.median(found[against])
    print(f"\n{title:40} {'median':>9} {'ratio':>7} {'min':>9}")
    for name, seconds in found.items():
        median = statistics.median(seconds)
        print(f"{name:40} {median:8.3f}s {median / base:6.2f}x {min(seconds):8.3f}s")


def command(*words: str, environment: Mapping[str, str] | None = None) -> Way:
    """A way that runs a command in silence."""
    variables = {**os.environ, **(environment or {})}
    return lambda: subprocess.run(words, check=True, env=variables, stdout=subprocess.DEVNULL)


def shell(script: str, environment: Mapping[str, str] | None = None) -> Way:
    """A way that runs a shell script in silence."""
    return command("sh", "-ec", script, environment=environment)


#: The command line, and the same without waiting for the disk.
_CVS = "from cvs.main import main; raise SystemExit(main())"
_UNSYNCED = (
    "from cvs.store import fs\n"
    "fs.sync_all = lambda descriptor, where: None\n"
    "fs.sync_folder = lambda path: None\n"
    "fs.write_back = lambda descriptor: None\n"
)


def cvs(root: str, *words: str, synced: bool = True) -> Way:
    """A way that runs cvs, start-up included, on the volume at `root`."""
    code = _CVS if synced else _UNSYNCED + _CVS
    return command(sys.executable, "-c", code, *words, environment={"COMFY_CACHE_ROOT": root})


def peers(*names: str) -> set[str]:
    """Which of some tools are there; says which are not. Nothing is installed."""
    there = {name for name in names if shutil.which(name)}
    if missing := sorted(set(names) - there):
        print(f"not found, so not measured: {', '.join(missing)}")
    return there
