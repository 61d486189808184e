"""Taking in and verifying a large file and a large tree, next to the tools that do such things.

    python bench/store.py [--rounds N] [--dir FOLDER] [--size MB] [--tree FOLDER]

The ways run interleaved; medians are printed. The file is random; the tree is by default a copy of
this Python's site-packages without bytecode, three times if it is small. cvs is measured as the
command line is used, start-up included. `--dir` decides the file system: a journaled ext4 or xfs
of its own is best. The page cache is warm for all.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Callable

from measure import Way, command, cvs, interleaved, peers, shell, table

from cvs.store import fs


class Case:
    """A folder with what is measured, and a volume."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.root = os.path.join(folder, "volume")
        self.copy = os.path.join(folder, "copy")
        self.moved = os.path.join(folder, "moved")

    def clean(self) -> None:
        """Removes what a way made, and lets the disk come to rest."""
        for path in (self.root, self.copy, self.moved, *self.peers()):
            shutil.rmtree(path, ignore_errors=True)
            if os.path.lexists(path):
                os.unlink(path)
        os.sync()

    def peers(self) -> list[str]:
        """Where the other tools write."""
        return [os.path.join(self.folder, name) for name in ("nix", "ostree", "restic", "borg")]

    def nix(self, words: str) -> Way:
        """nix-store with a store of its own."""
        root = os.path.join(self.folder, "nix")
        places = {"STORE_DIR": "store", "STATE_DIR": "state", "LOG_DIR": "log", "CONF_DIR": "conf"}
        variables = {f"NIX_{name}": os.path.join(root, place) for name, place in places.items()}
        return shell(f"nix-store {words}", {**variables, "NIX_LOCALSTATE_DIR": root})


def ingest_file(case: Case, file: str, rounds: int, there: set[str]) -> None:
    """Taking in one file."""
    ways: dict[str, Way] = {
        "cp": command("cp", file, case.copy),
        "cvs store add --no-sha256, unsynced": cvs(
            case.root, "store", "add", "-q", "--no-sha256", file, synced=False
        ),
        "cvs store add, unsynced": cvs(case.root, "store", "add", "-q", file, synced=False),
        "cp; sync -f": shell(f"cp {file} {case.copy}; sync -f {case.copy}"),
        "cvs store add --no-sha256": cvs(case.root, "store", "add", "-q", "--no-sha256", file),
        "cvs store add": cvs(case.root, "store", "add", "-q", file),
    }
    if "b3sum" in there:
        ways["cp; b3sum"] = shell(f"cp {file} {case.copy}; b3sum {case.copy}")
    size = os.path.getsize(file) >> 20
    table(f"ingest a file, {size} MB", interleaved(ways, rounds, case.clean), "cp")


def ingest_tree(case: Case, tree: str, rounds: int, there: set[str]) -> None:
    """Taking in one tree."""
    copy = case.copy
    ways: dict[str, Way] = {
        "cp -a": command("cp", "-a", tree, copy),
        "cvs store add, unsynced": cvs(case.root, "store", "add", "-q", tree, synced=False),
        "cp -a; sync -f": shell(f"cp -a {tree} {copy}; sync -f {copy}"),
        "cvs store add": cvs(case.root, "store", "add", "-q", tree),
    }
    if "nix-store" in there:
        ways["nix-store --add"] = case.nix(f"--add {tree}")
    repository = os.path.join(case.folder, "ostree")
    if "ostree" in there:
        make = f"ostree init --repo={repository} --mode=bare-user"
        ways["ostree commit"] = shell(f"{make}; ostree commit --repo={repository} -b x {tree}")
    if "restic" in there:
        store = os.path.join(case.folder, "restic")
        ways["restic backup"] = shell(
            f"restic init -q -r {store}; restic backup -q -r {store} {tree}",
            {"RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": os.path.join(case.folder, "restic")},
        )
    if "borg" in there:
        store = os.path.join(case.folder, "borg")
        ways["borg create"] = shell(
            f"borg init -e none {store}; borg create {store}::x {tree}",
            {"BORG_BASE_DIR": os.path.join(case.folder, "borg")},
        )
    count = sum(len(files) for _, _, files in os.walk(tree))
    table(f"ingest a tree, {count} files", interleaved(ways, rounds, case.clean), "cp -a")


def adopt_tree(case: Case, tree: str, rounds: int) -> None:
    """Taking in one tree without a copy."""

    def before() -> None:
        case.clean()
        subprocess.run(["cp", "-a", tree, case.moved], check=True)
        os.sync()

    adopt = ["store", "add", "-q", "--move", case.moved]
    ways: dict[str, Way] = {
        "cp -al": command("cp", "-al", case.moved, case.copy),
        "cp -al; rm -rf of the source": shell(
            f"cp -al {case.moved} {case.copy}; rm -rf {case.moved}"
        ),
        "cvs store add --move, unsynced": cvs(case.root, *adopt, synced=False),
    }
    table("adopt the tree", interleaved(ways, rounds, before), "cp -al")


def verify(case: Case, file: str, tree: str, rounds: int, there: set[str]) -> None:
    """Verifying both."""
    case.clean()
    for path in (file, tree):
        cvs(case.root, "store", "add", "-q", path)()
    entries = {
        "file" if name.startswith("content") else "tree": str(entry)
        for entry in pathlib.Path(case.root, "store").iterdir()
        for name in os.listdir(entry)
        if name != "manifest.json"
    }

    def verified(entry: str) -> Way:
        return cvs(case.root, "store", "verify", "-q", entry)

    content = next(pathlib.Path(entries["file"]).glob("content*"))
    ways: dict[str, Way] = {
        "cvs store verify": cvs(
            case.root, "store", "verify", "-q", os.path.basename(entries["file"])
        )
    }
    if "b3sum" in there:
        ways["b3sum"] = command("b3sum", str(content))
    table("verify the file", interleaved(ways, rounds), list(ways)[-1])
    ways = {
        "cvs store verify": cvs(
            case.root, "store", "verify", "-q", os.path.basename(entries["tree"])
        )
    }
    if "nix-hash" in there:
        ways["nix-hash"] = command("nix-hash", "--type", "sha256", entries["tree"])
    if "b3sum" in there:
        ways["find | xargs -P2 b3sum"] = shell(
            f"find {entries['tree']} -type f -print0 | xargs -0 -P2 b3sum"
        )
    table("verify the tree", interleaved(ways, rounds), list(ways)[-1])


def make_file(path: str, megabytes: int) -> None:
    """Random bytes."""
    with open(path, "wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1 << 20))


def make_tree(path: str, source: str | None) -> None:
    """A real tree."""
    ignore: Callable[[str, list[str]], set[str]] = shutil.ignore_patterns("__pycache__")
    if source:
        shutil.copytree(source, path, symlinks=True)
        return
    packages = sysconfig.get_path("purelib")
    for part in "abc":
        shutil.copytree(packages, os.path.join(path, part), symlinks=True, ignore=ignore)


def main() -> None:
    """Measures and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", default=None, help="where to write; decides the file system")
    parser.add_argument("--size", type=int, default=2048, metavar="MB", help="of the file")
    parser.add_argument("--tree", default=None, help="a folder to take in")
    options = parser.parse_args()
    there = peers("b3sum", "nix-store", "nix-hash", "ostree", "restic", "borg")
    with tempfile.TemporaryDirectory(prefix="cvs-bench-", dir=options.dir) as folder:
        case = Case(folder)
        print(f"{fs.filesystem_of(folder)}, {len(os.sched_getaffinity(0))} processors")
        file, tree = os.path.join(folder, "file"), os.path.join(folder, "tree")
        make_file(file, options.size)
        make_tree(tree, options.tree)
        case.clean()
        ingest_file(case, file, options.rounds, there)
        ingest_tree(case, tree, options.rounds, there)
        adopt_tree(case, tree, options.rounds)
        verify(case, file, tree, options.rounds, there)


if __name__ == "__main__":
    main()
