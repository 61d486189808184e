"""A fresh pod beside a network volume: how long until its environment is ready, next to uv.

    CVS_MOOSEFS=FOLDER python bench/network.py [--rounds N] [--dir FOLDER]

A real MooseFS is mounted twice, as two pods see it (CONTRIBUTING.md has what that takes). One pod
stored the wheels; on the other the lock is in place and the local disk empty. uv, with all wheels
in its cache, installs into a virtual environment on the volume. FOLDER decides the local disk.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from environment import IMPORTS, Case

from cvs.profiles import environment
from cvs.store.entries import Store
from cvs.store.volume import Volume

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from moosefs import MooseFS, unavailable


def files_in(folder: Path) -> int:
    """How many files and folders are charged to the volume; links cost nothing there."""
    return sum(
        len(names) + 1 - sum((Path(at) / name).is_symlink() for name in names)
        for at, _, names in os.walk(folder)
    )


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default=None, help="where to write; decides the local disk")
    options = parser.parse_args()
    if why := unavailable():
        print(f"not measured: {why}")
        return
    with tempfile.TemporaryDirectory(prefix="cvs-bench-", dir=options.dir) as folder:
        case = Case(folder)
        servers = Path(folder, "moosefs")
        servers.mkdir()
        with MooseFS(servers) as moosefs:
            one, other = moosefs.mounts
            shutil.copytree(case.packed.volume.root, one / "cache", symlinks=True)
            store = Store(Volume(str(other / "cache")))
            found: dict[str, list[float]] = {"cvs": [], "uv": []}
            for number in range(options.rounds):
                moosefs.crash(1)
                begun = time.perf_counter()
                made = environment.ensure(
                    store, case.set, case.locked.interpreter, case.python, f"{folder}/local"
                )
                found["cvs"].append(time.perf_counter() - begun)
                subprocess.run([made.python, "-c", f"import {IMPORTS}"], env={}, check=True)
                shutil.rmtree(f"{folder}/local")
                place = one / f"venv-{number}"
                begun = time.perf_counter()
                runs = case.uv(str(place), mode="copy")
                found["uv"].append(time.perf_counter() - begun)
                subprocess.run([runs, "-c", f"import {IMPORTS}"], env={}, check=True)
            charged = {"cvs": files_in(one / "cache" / "store"), "uv": files_in(one / "venv-0")}
    base = statistics.median(found["cvs"])
    print(f"{'':8} {'ready':>10} {'min':>10} {'files on the volume':>20}")
    for name, seconds in found.items():
        median = statistics.median(seconds)
        print(f"{name:8} {median:9.1f}s {min(seconds):9.1f}s {charged[name]:20}")
    print(f"uv takes {statistics.median(found['uv']) / base:.1f} times as long")


if __name__ == "__main__":
    main()
