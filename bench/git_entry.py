"""How long a commit takes to become an entry, next to other ways to write its tree.

    python bench/git_entry.py [--repo PATH] [--commit REF] [--rounds N] [--dir FOLDER]

The objects are local and packed, so no network is in it. Without --repo a repository of 1,500
files and 40 MB is made. The ways run interleaved; medians are printed. An entry is hashed twice
(each object's id, each file's BLAKE3), synced to the disk and published; the others do none of
that, so the last line measures `git archive | tar x` with a sync of the file system behind it.
"""

import argparse
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cvs.store import fs
from cvs.store.entries import Store
from cvs.store.volume import Volume
from cvs.versions import git
from cvs.versions.repository import Repository, parse

FILES, BYTES = 1500, 40_000_000

ENTRY, UNSYNCED = "cvs: published entry", "cvs: the same without sync"
ARCHIVE, ARCHIVE_SYNC = "git archive | tar x", "git archive | tar x, synced"
WALK = "GitPython, tree.traverse()"
GOALS = {ENTRY: f"1.5x {ARCHIVE}, 0.5x {WALK}"}


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repo")
    parser.add_argument("--commit")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--dir", default=None, help="where to write; decides the file system")
    options = parser.parse_args()
    # cvs reads a repository whoever owns it, the other ways have to be told.
    os.environ |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": "*",
    }
    with tempfile.TemporaryDirectory(prefix="cvs-bench-", dir=options.dir) as folder:
        path = options.repo or generate(os.path.join(folder, "repo"))
        repository = parse(path, "--repo", allow_local=True)
        commit = git.resolve(repository, options.commit, where="--commit").commit
        filesystem = fs.filesystem_of(folder)
        times = measure(repository, commit, folder, options.rounds)
        listing = subprocess.check_output(
            ["git", "-C", repository.url, "ls-tree", "-r", "-l", commit], text=True
        ).splitlines()
    size = sum(int(line.split()[3]) for line in listing if line.split()[3] != "-")
    what = f"{len(listing)} files, {size / 1e6:.1f} MB, {options.rounds} rounds"
    print(f"{repository.name} at {commit[:12]}: {what}, {filesystem}")
    medians = {name: statistics.median(found) for name, found in times.items()}
    print(f"{'':30} {'median':>10} {'min':>10} {'/ archive':>10} {'/ GitPython':>12}")
    for name, median in medians.items():
        print(
            f"{name:30} {median * 1000:8.1f}ms {min(times[name]) * 1000:8.1f}ms "
            f"{median / medians[ARCHIVE]:10.2f} {median / medians[WALK]:12.2f}"
        )
    for name, goal in GOALS.items():
        print(f"goal of {name!r}: at most {goal}")


def measure(
    repository: Repository, commit: str, folder: str, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each way in each round, after one round to warm up."""
    ways: dict[str, Callable[[str], None]] = {
        ENTRY: lambda place: entry(repository, commit, place),
        UNSYNCED: lambda place: unsynced(repository, commit, place),
        ARCHIVE: lambda place: archive(repository.url, commit, place),
        ARCHIVE_SYNC: lambda place: archive_synced(repository.url, commit, place),
        WALK: lambda place: walk(repository.url, commit, place),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            place = os.path.join(folder, "place")
            Volume(place).prepare()
            # What earlier ways left to be written is not this one's to wait for.
            os.sync()
            started = time.perf_counter()
            way(place)
            if turn:
                times[name].append(time.perf_counter() - started)
            shutil.rmtree(place)
    return times


def entry(repository: Repository, commit: str, place: str) -> None:
    """What cvs does."""
    git.fetch_commit(
        Store(Volume(place)), repository, commit, "tree", where="bench", allow_local=True
    )


def unsynced(repository: Repository, commit: str, place: str) -> None:
    """What cvs does, with a disk that is always fast."""
    real = fs.sync_tree, fs.sync
    fs.sync_tree, fs.sync = (lambda *_: None), (lambda *_: None)
    try:
        entry(repository, commit, place)
    finally:
        fs.sync_tree, fs.sync = real


def archive(path: str, commit: str, place: str) -> None:
    """The fastest that git has; obeys attributes, checks nothing."""
    with subprocess.Popen(["git", "-C", path, "archive", commit], stdout=subprocess.PIPE) as git_:
        subprocess.run(["tar", "-x", "-C", place], stdin=git_.stdout, check=True)
    assert git_.returncode == 0


def archive_synced(path: str, commit: str, place: str) -> None:
    """The same, kept on the disk."""
    archive(path, commit, place)
    subprocess.run(["sync", "-f", place], check=True)


def walk(path: str, commit: str, place: str) -> None:
    """What one writes with GitPython at first; makes files of links."""
    import git as gitpython

    with gitpython.Repo(path) as repo:
        # A bare repository that does not call itself so is taken for the `.git` of its parent.
        repo.git.update_environment(GIT_DIR=repo.git_dir)
        for item in repo.commit(commit).tree.traverse():
            target = os.path.join(place, item.path)  # type: ignore[union-attr, arg-type]
            if item.type == "tree":  # type: ignore[union-attr]
                os.makedirs(target, exist_ok=True)
            elif item.type == "blob":  # type: ignore[union-attr]
                with open(target, "wb") as file:
                    file.write(item.data_stream.read())  # type: ignore[union-attr]


def generate(path: str) -> str:
    """Makes a packed repository of the default size, the same each time."""
    source = random.Random(1)
    words = [source.randbytes(source.randint(2, 9)).hex() for _ in range(3000)]
    shares = [source.lognormvariate(0, 1.6) for _ in range(FILES)]
    lines = [b"commit refs/heads/main\ncommitter T <t@example.org> 1700000000 +0000\ndata 1\nx\n"]
    for index, share in enumerate(shares):
        size = int(BYTES * share / sum(shares))
        if index % 10:
            data = " ".join(source.choices(words, k=size // 12 + 1)).encode()[:size]
        else:
            data = source.randbytes(size)
        name = f"part{index % 7}/section{index % 61}/file{index}.py"
        lines.append(f"M 100644 inline {name}\ndata {len(data)}\n".encode() + data + b"\n")
    subprocess.run(["git", "init", "--quiet", "--bare", "-b", "main", path], check=True)
    subprocess.run(["git", "-C", path, "fast-import", "--quiet"], input=b"".join(lines), check=True)
    subprocess.run(["git", "-C", path, "repack", "-adq"], check=True)
    return str(Path(path))


if __name__ == "__main__":
    main()
