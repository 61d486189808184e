"""A world in which commands run with file-system calls that go wrong, and what must hold after.

The operations are prepared once; every run begins with a copy of what one was prepared to be.
"""

import contextlib
import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from crash_runner import meets
from world import PATIENCE, Material, World

from cvs.profiles.generations import Profile
from cvs.store.digest import EntryId, is_id
from cvs.store.entries import Store
from cvs.store.verify import verify
from cvs.store.volume import FOLDERS

RUNNER = Path(__file__).with_name("crash_runner.py")

#: What of a world's folder no command changes.
MATERIAL = ("repos", "wheels", "sources")

#: And what the operations make in it.
_PLACES = ("cache", "local", "versions", "temporary", "loose", "other")
_PLACES += ("ComfyUI", "twin", "fresh")

#: How an error is told.
MEANINGS = {
    "EIO": "the file system does not answer",
    "ENOSPC": "no space is left",
    "EDQUOT": "the quota is used up",
    "EMFILE": "too many files are open",
}

#: As MooseFS: every file is synced by itself, and who holds a scratch folder cannot be told.
NETWORK = "fuse.mfs"


class Run(NamedTuple):
    """A run that ended."""

    status: int
    """Its exit code, or the negative number of the signal that ended it."""
    text: str
    """What it said on standard error."""
    call: str | None
    """The call that went wrong, if it came to that."""


class Crashes:
    """A world, and a process that runs commands in it; use as a context manager."""

    def __init__(self, folder: Path, material: Material) -> None:
        self.folder = folder
        (folder / "world").mkdir()
        self.world = World(folder / "world", material)
        self._mirror = Mirror(self.world.folder)
        self.world.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder / "world" / "temporary"),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "COMFY_CACHE_ROOT": str(self.world.cache),
            "COMFY_HOME": str(self.world.home),
            "COMFY_OFFLINE": "true",
            "CVS_VERSIONS_DIR": str(self.world.versions),
            "CVS_LOCAL_ROOT": str(self.world.local_root),
        }
        (folder / "world" / "temporary").mkdir()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(RUNNER)],
            cwd=self.world.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.world.environment,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        with self._process:
            self._process.wait(PATIENCE)

    def run(
        self,
        arguments: list[str],
        fault: str = "",
        number: int = 0,
        *,
        filesystem: str = "",
        calls: str = "",
    ) -> Run:
        """Runs a command with a fault at one of the calls that it can meet, counted from 1."""
        order: dict[str, Any] = {"arguments": arguments, "fault": fault, "number": number}
        order |= {"filesystem": filesystem, "calls": calls, "log": str(self.folder / "log")}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        code = os.waitstatus_to_exitcode(found["status"])
        return Run(code, found["text"], found["hit"][0] if found["hit"] else None)

    def ok(self, *arguments: str) -> None:
        """Runs a command that has to succeed."""
        done = self.run(list(arguments))
        assert done.status == 0, done

    def calls(self, arguments: list[str], filesystem: str) -> list[str]:
        """The names of all calls of a command, which has to succeed."""
        log = self.folder / "calls"
        done = self.run(arguments, filesystem=filesystem, calls=str(log))
        assert done.status == 0, done
        try:
            return log.read_text().split()
        finally:
            log.unlink()

    def restore(self, operation: "Operation") -> None:
        """Brings the world where an operation begins."""
        prepared = self.folder / operation.prepare.__name__
        if not prepared.is_dir():
            (self.folder / "nothing").mkdir(exist_ok=True)
            self._mirror.take(self.folder / "nothing")
            for name in ("versions", "temporary"):
                (self.world.folder / name).mkdir()
            operation.prepare(self)
            Mirror(prepared).take(self.world.folder)
        self._mirror.take(prepared)


class Mirror:
    """A folder that is made what another one is, again and again: what is as it was made is kept.

    Names of material are no part of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._made: dict[str, tuple[str | int, ...]] = {}
        """What each path was made from, and what it was like then."""
        self._first: dict[int, str] = {}

    def take(self, source: Path) -> None:
        """Makes it what `source` is, with links, also hard ones: `current` is one."""
        self._first = {}
        os.makedirs(self._folder, exist_ok=True)
        self._folders(str(source), self._folder, set(MATERIAL))

    def _folders(self, source: str, target: str, left: set[str]) -> None:
        with os.scandir(source) as items:
            wanted = {item.name: item for item in items if item.name not in left}
        for name in os.listdir(target):
            if name not in wanted and name not in left:
                remove(Path(target, name))
        # A hard link is made to the first of its names.
        for name, item in sorted(wanted.items()):
            path = f"{target}/{name}"
            if item.is_dir(follow_symlinks=False):
                if not os.path.isdir(path) or os.path.islink(path):
                    remove(Path(path))
                    os.mkdir(path)
                self._folders(item.path, path, set())
            else:
                self._file(item, path)

    def _file(self, item: "os.DirEntry[str]", path: str) -> None:
        status = item.stat(follow_symlinks=False)
        first = self._first.setdefault(status.st_ino, path) if status.st_nlink > 1 else path
        is_linked = first == path or _mark(first)[:1] == _mark(path)[:1]
        if is_linked and self._made.get(path) == (item.path, *_mark(path)):
            return
        remove(Path(path))
        if first != path:
            os.link(first, path, follow_symlinks=False)
            # A further name changed its time.
            self._made[first] = (self._made[first][0], *_mark(first))
        elif item.is_symlink():
            os.symlink(os.readlink(item.path), path)
        else:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, status.st_mode & 0o777)
            with open(item.path, "rb", buffering=0) as file:
                os.sendfile(descriptor, file.fileno(), 0, status.st_size)
            os.close(descriptor)
        self._made[path] = (item.path, *_mark(path))


def _mark(path: str) -> tuple[int, ...]:
    """What changes when a file or link does, or is another one."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return ()
    return (found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with what is in it, if it is there."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)


class Operation(NamedTuple):
    """A command, what it begins with, and what it makes of that."""

    name: str
    prepare: Callable[[Crashes], None]
    arguments: Callable[[World], list[str]]
    before: dict[str, int | None]
    """The current generation of each version before it."""
    after: dict[str, int | None]
    """And after it."""
    check: Callable[[World], None] = lambda world: None
    """Asserts what it made besides."""
    nothing: str | None = None
    """What it says, with exit code 2, when all is done already; None if it then succeeds."""
    kept: Callable[[World], None] = lambda world: None
    """Asserts of what is the user's that it is there, here or there, whatever happened."""
    damaged: Callable[[World], list[str]] = lambda world: []
    """The entries that are damaged before it, and may be until it is done."""


# What must hold


def assert_sound(world: World, operation: Operation, known: dict[str, int]) -> None:
    """Whatever happened: entries are whole, and each version is what it was or what it becomes.

    Args:
        known: entries that were read before, and their inodes.
    """
    _assert_whole(world.store, known, set(operation.damaged(world)))
    for version, before in operation.before.items():
        profile = world.profile(version)
        current = profile.current()
        assert current in (before, operation.after[version]), version
        for number in profile.numbers():
            for entry in profile.record(number).entries:
                assert world.store.has(entry)
        if current is not None:
            assert_usable(profile, current)
    for home in (world.home, world.folder / "twin", world.folder / "fresh"):
        assert not home.is_symlink() or (home / "main.py").is_file(), home
    operation.kept(world)


def _assert_whole(store: Store, known: dict[str, int], damaged: set[str]) -> None:
    for name in os.listdir(store.volume.store) if os.path.isdir(store.volume.store) else ():
        assert is_id(name)
    for entry, inode in _inodes(store).items():
        if entry not in damaged and known.get(entry) != inode:
            assert_verified(store, entry)


def assert_verified(store: Store, entry: str) -> None:
    """Every byte of an entry is as its id promises."""
    found = list(verify(store, EntryId(entry)))
    assert found == [], found


def assert_usable(profile: Profile, number: int) -> None:
    """Every file and link of a view leads somewhere, and its node is that of its record."""
    view = Path(profile.view(number))
    assert (view / "main.py").stat().st_size > 0
    for folder, folders, names in os.walk(view):
        for name in (*folders, *names):
            assert os.path.exists(os.path.join(folder, name)), name
    for place in profile.record(number).links:
        if place.path and not place.private:
            shown = os.path.realpath(view / place.path)
            assert shown == os.path.realpath(os.path.join(profile.volume.store, place.target))


def assert_done(world: World, operation: Operation, known: dict[str, int]) -> None:
    """The operation did all that it should."""
    assert_sound(world, operation, known)
    for version, number in operation.after.items():
        assert world.profile(version).current() == number
    for entry in operation.damaged(world):
        assert_verified(world.store, entry)
    operation.check(world)


def scraps(world: World) -> list[str]:
    """What is left of work that did not end."""
    known = {
        world.folder: "|".join((*MATERIAL, *_PLACES)) + r"|ComfyUI\.before-cvs-[0-9-]+",
        world.folder / "temporary": rf"cvs-{os.geteuid()}",
        world.folder / "temporary" / f"cvs-{os.geteuid()}": "",
        world.versions: r"[a-z]+\.json",
        world.local_root: r"caches|environments|realized|run",
        world.local_root / "run": "",
        world.local_root / "environments": r"[0-9a-f]{32}|wheels",
        world.local_root / "environments" / "wheels": r"[0-9a-f]{64}",
        world.cache: "|".join((*FOLDERS, "format", "damaged")),
        world.cache / "tmp": "",
        world.cache / "partial": "",
        world.cache / "pins": r"[0-9a-f]{64}\.json",
        world.cache / "models": "checkpoints|loras",
        world.cache / "models" / "checkpoints": r"a\.safetensors",
        world.cache / "models" / "loras": r"deep|(again|stored|notes)\.[a-z]+",
        world.cache / "store": r"[0-9a-f]{64}",
        world.cache / "damaged": r"[0-9a-f]{64}(\.[0-9a-f]{32})?",
        world.cache / "resolved": r"[a-z]+\.lock\.json",
    }
    for folder in (world.cache / "refs").glob("*"):
        known[folder] = r"[0-9a-f]{64}"
    for folder in (world.cache / "profiles").glob("*"):
        known[folder] = r"current|[1-9]|[1-9]\.(json|link)"
    for folder in (world.cache / "state").glob("*"):
        known[folder] = "input|output|temp|user|web|custom_nodes|private|models"
        known[folder / "private"] = ".+-[0-9a-f]{16}"
    return [
        os.path.join(folder, name)
        for folder, pattern in known.items()
        if folder.is_dir()
        for name in os.listdir(folder)
        if not re.fullmatch(pattern, name)
    ]


def _unwanted(world: World) -> list[str]:
    """What a run leaves that ended early, and nobody goes on with."""
    return [path for path in scraps(world) if not path.startswith(f"{world.volume.partial}/")]


#: What a repair tells of entries that it was done with before it ended.
_DONE = re.compile(r"[0-9a-f]{16}/.* is restored|what was there is kept in .*")


def _end(run: Run) -> list[str]:
    """What a run said of its end, line by line."""
    return [line for line in run.text.splitlines() if not _DONE.fullmatch(line)]


def assert_told(world: World, fault: str, run: Run) -> None:
    """An error is one sentence that says what happened and where."""
    assert run.status == 2, run
    said = [line for line in _end(run) if not line.startswith("hint: ")]
    assert len(said) == 1, run
    assert said[0].startswith("error: ")
    assert str(world.folder) in said[0], run
    what = fault.split()[-1]
    if what not in ("ENOENT", "EEXIST"):
        # Of those two it may be told what follows, since neither was true.
        meant = (MEANINGS.get(what, "-"), os.strerror(getattr(errno, what)))
        assert any(words in said[0] for words in meant), run


# Runs that go wrong


def count_calls(crashes: Crashes, operation: Operation, filesystem: str) -> Callable[[str], int]:
    """Lets an operation succeed; how many calls of it a fault can meet."""
    crashes.restore(operation)
    names = crashes.calls(operation.arguments(crashes.world), filesystem)
    assert_done(crashes.world, operation, {})
    return lambda fault: sum(meets(fault, name) for name in names)


def go_wrong(
    crashes: Crashes, operation: Operation, fault: str, number: int, filesystem: str
) -> bool:
    """Lets one run go wrong and the next one go on; whether the fault was met."""
    world = crashes.world
    crashes.restore(operation)
    arguments = operation.arguments(world)
    run = crashes.run(arguments, fault, number, filesystem=filesystem)
    if run.call is None:
        # Threads came to do less than before.
        assert run.status == 0, run
        return False
    with _explained(operation.name, fault, number, filesystem, run):
        _judge(world, operation, fault, run)
        before = _inodes(world.store)
        leases = set(world.leases()) if (world.cache / "leases").is_dir() else set()
        if filesystem:
            _age(world)
        again = crashes.run(arguments, filesystem=filesystem)
        if again.status:
            assert operation.nothing is not None, again
            assert operation.nothing in again.text, again
        assert_done(world, operation, before)
        assert before.items() <= _inodes(world.store).items()
        assert scraps(world) == [], scraps(world)
        # Those of a process that was killed stay: only a collection may expire them.
        assert set(world.leases()) <= (leases if "SIGKILL" in fault else set())
    return True


def _judge(world: World, operation: Operation, fault: str, run: Run) -> None:
    assert_sound(world, operation, {})
    if "SIGKILL" in fault:
        ends = [(-9, "")]
        if fault.startswith("alone"):
            ends.append((2, "error: a worker of cvs was ended by SIGKILL\n"))
        assert run[:2] in ends
    elif fault == "SIGINT":
        assert run.status == 130
        assert _end(run) == ["interrupted: nothing is broken, run it again to go on"]
        assert _unwanted(world) == [], _unwanted(world)
    elif run.status == 0:
        assert_done(world, operation, _inodes(world.store))
    else:
        assert fault not in ("half", "EINTR"), run
        assert_told(world, fault, run)
        if run.call not in ("unlink", "rmdir"):
            assert _unwanted(world) == [], _unwanted(world)


@contextlib.contextmanager
def _explained(*what: object) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        error.add_note(" ".join(map(str, what)))
        raise


def _age(world: World) -> None:
    """Lets what was left on the volume lie for longer than any work takes."""
    for folder, folders, names in os.walk(world.cache / "tmp"):
        for name in (*folders, *names):
            os.utime(os.path.join(folder, name), (0, 0), follow_symlinks=False)


def _inodes(store: Store) -> dict[str, int]:
    return {entry: os.stat(store.path(entry)).st_ino for entry in store.ids()}
