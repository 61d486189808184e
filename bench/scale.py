"""What one file and one entry cost as there are more of them, and how much memory it takes.

    python bench/scale.py [--dir FOLDER] [--files N ...] [--entries N ...] [--rounds N]

Each number is measured in a process of its own, start-up taken off; the best of some rounds counts.
Memory is the largest resident set of any of its processes, as the kernel counts it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

#: Runs an operation on a volume; prints its seconds and the peak of memory in KiB.
_RUN = """
import resource, sys, time
from cvs import store
import cvs.store.ingest, cvs.store.verify
what, root, path = sys.argv[1:4]
mine = store.open(root)
started = time.perf_counter()
if what == "add":
    mine.add(path, name="tree")
elif what == "verify":
    for entry in list(mine.ids()):
        assert mine.verify(entry) == []
elif what == "ls":
    for entry in mine.ids():
        mine.manifest(entry)
elif what == "find":
    for entry in list(mine.ids())[:100]:
        mine.find(entry[:16])
elif what == "publish":
    for number in range(int(path)):
        with mine.stage() as stage:
            tree = stage.tree("entry")
            tree.write(b"file", str(number).encode())
            mine.publish(tree.finish())
seconds = time.perf_counter() - started
peak = max(resource.getrusage(who).ru_maxrss for who in
           (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(seconds, peak)
"""


def run(what: str, root: str, path: str = "") -> tuple[float, int]:
    """Seconds and KiB of one operation."""
    command = [sys.executable, "-c", _RUN, what, root, path]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, peak = done.stdout.split()
    return float(seconds), int(peak)


def make_tree(path: str, files: int) -> None:
    """Files of a kilobyte, a hundred in a folder."""
    for start in range(0, files, 100):
        folder = os.path.join(path, f"{start // 10_000}", f"{start}")
        os.makedirs(folder)
        for number in range(start, min(start + 100, files)):
            with open(os.path.join(folder, f"{number}.py"), "wb") as file:
                file.write(f"{number}\n".encode() * 120)


def files(folder: str, counts: list[int], rounds: int) -> None:
    """Adding and verifying one tree of so many files."""
    print(f"\n{'files':>9} {'add':>9} {'a file':>9} {'verify':>9} {'a file':>9} {'memory':>9}")
    for count in counts:
        tree, root = os.path.join(folder, "tree"), os.path.join(folder, "volume")
        make_tree(tree, count)
        added, verified, peaks = [], [], []
        for _ in range(rounds):
            shutil.rmtree(root, ignore_errors=True)
            os.sync()
            seconds, peak = run("add", root, tree)
            added.append(seconds)
            peaks.append(peak)
            seconds, peak = run("verify", root)
            verified.append(seconds)
            peaks.append(peak)
        print(
            f"{count:9} {min(added):8.3f}s {min(added) / count * 1e6:7.1f}us "
            f"{min(verified):8.3f}s {min(verified) / count * 1e6:7.1f}us {max(peaks) >> 10:6} MiB"
        )
        shutil.rmtree(tree)
        shutil.rmtree(root)


def entries(folder: str, counts: list[int]) -> None:
    """A store of so many entries."""
    heads = ("entries", "publish", "ls", "find", "verify")
    print(f"\n{heads[0]:>9}" + "".join(f"{head:>9}" for head in heads[1:]) + "   us an entry")
    for count in counts:
        root = os.path.join(folder, "volume")
        cost = [run("publish", root, str(count))[0] / count]
        cost += [run("ls", root)[0] / count, run("find", root)[0] / min(count, 100) / count]
        cost.append(run("verify", root)[0] / count)
        print(f"{count:9}" + "".join(f"{seconds * 1e6:9.2f}" for seconds in cost))
        shutil.rmtree(root)


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", default=None, help="where to write; decides the file system")
    parser.add_argument("--files", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--entries", type=int, nargs="+", default=[100, 5_000, 50_000])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="cvs-bench-", dir=options.dir) as folder:
        files(folder, options.files, options.rounds)
        entries(folder, options.entries)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
