"""A fresh pod beside a network volume: how long until its environment is ready, next to uv.

    CVS_MOOSEFS=FOLDER python bench/network.py [--rounds N] [--dir FOLDER]

A real MooseFS is mounted twice, as two pods see it (CONTRIBUTING.md has what that takes). One pod
stored the wheels; on the other the lock is in place and the local disk empty. uv, with all wheels
in its cache, installs into a virtual environment on the volume.

All disks, those of the servers too, lie in a new ext4, and nothing is removed from it: for some
minutes ext4 looks for a new file at every inode that was freed lately, and takes ten times as long,
which no fresh pod has to bear.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from environment import IMPORTS, Case

from cvs.profiles import environment
from cvs.store.entries import Store
from cvs.store.volume import Volume

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from moosefs import MooseFS, unavailable

#: Bytes of the disk: MooseFS takes 64 KiB for each small file.
_DISK = 24 << 30


def files_in(folder: Path) -> int:
    """How many files and folders are charged to the volume; links cost nothing there."""
    return sum(
        len(names) + 1 - sum((Path(at) / name).is_symlink() for name in names)
        for at, _, names in os.walk(folder)
    )


@contextlib.contextmanager
def new_disk(folder: str) -> Iterator[str]:
    """A new ext4 in a file, mounted; takes the space that is used."""
    image, mount = os.path.join(folder, "image"), os.path.join(folder, "mount")
    os.mkdir(mount)
    with open(image, "wb") as file:
        file.truncate(_DISK)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    try:
        yield mount
    finally:
        subprocess.run(["umount", mount], check=True)


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", default=None, help="where the disk's file lies")
    options = parser.parse_args()
    if why := unavailable():
        print(f"not measured: {why}")
        return
    with (
        tempfile.TemporaryDirectory(prefix="cvs-bench-", dir=options.dir) as outside,
        new_disk(outside) as folder,
    ):
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
                local = f"{folder}/local-{number}"
                begun = time.perf_counter()
                made = environment.ensure(
                    store, case.set, case.locked.interpreter, case.python, local
                )
                found["cvs"].append(time.perf_counter() - begun)
                subprocess.run([made.python, "-c", f"import {IMPORTS}"], env={}, check=True)
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
