"""System calls of the real command line that fail, or in which it is killed, one after another.

`strace` injects them, so nothing is left out that does not go through `store/fs.py`. A point is the
n-th call of a kind, as strace counts them: of every thread and process by itself.
"""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from faults import assert_whole, leftovers
from world import PATIENCE, Done, Material, World

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(7200)]
pytest_plugins = ["world_fixtures"]

#: The calls that change a file system; of `openat` only what creates counts, of `close` only what
#: was written.
CALLS = (
    *("openat", "write", "pwrite64", "writev", "ftruncate", "copy_file_range", "sendfile"),
    *("fsync", "fdatasync", "syncfs", "close", "rename", "renameat", "renameat2"),
    *("mkdir", "mkdirat", "symlink", "symlinkat", "link", "linkat", "unlink", "unlinkat", "rmdir"),
    *("chmod", "fchmod", "fchmodat", "utimensat"),
)

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EINTR")

#: What fails in these is swept later, and the work goes on.
CLEANING = ("unlink", "unlinkat", "rmdir")

#: What these should have made may be there all the same, and then it is taken.
MAKING = ("mkdir", "mkdirat", "symlink", "symlinkat", "link", "linkat")

#: What is lost when these fail cannot be had by calling again.
KEEPING = ("fsync", "fdatasync", "syncfs", "close")

_CALL = re.compile(r"(\w+)\(")
_CREATED = re.compile(r'openat\(.*?, "(.*?)", [A-Z_|]*O_CREAT')
_CLOSED = re.compile(r"close\(\d+<(.*)>\)")


class Point(NamedTuple):
    """Where something goes wrong: the n-th call of a kind, from 1."""

    call: str
    number: int


class Run(NamedTuple):
    """A command that was traced."""

    done: Done
    threads: list[list[str]]
    """Of every thread and process, its calls in their order."""


class Command(NamedTuple):
    """A command of which something goes wrong."""

    arguments: Callable[[World], list[str]]
    """What is run."""
    template: str
    """What it begins with: `before` or `after` the update."""
    has_worked: Callable[[World], bool]
    """Whether what it does is done."""
    has_reserve: bool = False
    """Whether it makes room for itself where there is none."""
    forgiving: tuple[str, ...] = ()
    """Calls without which it can do as well."""


COMMANDS = {
    "add": Command(
        lambda world: ["store", "add", str(weights(world)), str(node(world))],
        "after",
        lambda world: entries(world) == 9,
    ),
    "move": Command(
        lambda world: ["store", "add", "--move", str(node(world))],
        "after",
        lambda world: entries(world) == 8 and not node(world).exists(),
        # A folder that cannot be renamed before it is removed is removed where it is.
        forgiving=("rename",),
    ),
    "realize": Command(
        lambda world: ["realize", "demo", *world.local],
        "before",
        lambda world: world.profile().current() == 2 and version_of(world.home) == 2,
    ),
    "rollback": Command(
        lambda world: ["rollback", "demo", "1"],
        "after",
        lambda world: world.profile().current() == 1,
        has_reserve=True,
    ),
    "delete": Command(
        lambda world: ["delete", "demo"],
        "after",
        lambda world: not world.profile().exists() and not world.home.is_symlink(),
        has_reserve=True,
    ),
}

#: What a command says that has done all of it before.
DONE = ("there is nothing of 'demo' to delete", "node is not there")


def weights(world: World) -> Path:
    """A file that is added."""
    return world.folder / "sources" / "weights"


def node(world: World) -> Path:
    """A folder that is added."""
    return world.folder / "sources" / "node"


def entries(world: World) -> int:
    """How many entries there are."""
    return len(list(world.store.ids()))


def version_of(view: Path) -> int:
    """Which of its two versions the node of a view is."""
    text = (view / "custom_nodes" / "demo-node" / "__init__.py").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VERSION"))[-2])


class Bench:
    """A world that is put back as it was before every run."""

    def __init__(self, folder: Path, material: Material, known: dict[str, list[Point]]) -> None:
        self._known = known
        (folder / "world").mkdir()
        self.world = world = World(folder / "world", material)
        # What Python writes for itself would be counted as well, at the first run only.
        world.environment |= {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
        self._folder = folder
        self._make_sources()
        world.spec()
        world.realize()
        world.spec(
            custom_nodes=[world.node(material.v2, writable=True)],
            models=[
                {"source": str(world.model), "target_path": "checkpoints/demo.safetensors"},
                {"source": str(world.model.with_name("other")), "target_path": "vae/other"},
            ],
        )
        # An environment is made anew, as on a new machine.
        shutil.rmtree(world.local_root)
        self._save("before")
        world.realize()
        self._save("after")

    def _make_sources(self) -> None:
        folder = node(self.world)
        (folder / "lib" / "empty").mkdir(parents=True)
        (folder / "lib" / "data").write_bytes(os.urandom(5_000))
        (folder / "run").write_bytes(b"#!/bin/sh\n")
        (folder / "run").chmod(0o755)
        (folder / "lib" / "up").symlink_to("../run")
        # Large enough to be copied inside the kernel.
        weights(self.world).write_bytes(os.urandom(9 << 20))
        self.world.model.with_name("other").write_bytes(b"another model")

    def _save(self, template: str) -> None:
        subprocess.run(["cp", "-a", self.world.folder, self._folder / template], check=True)

    def restore(self, command: Command) -> None:
        """Puts everything back as it is before a command."""
        shutil.rmtree(self.world.folder)
        source = self._folder / command.template
        subprocess.run(["cp", "-a", source, self.world.folder], check=True)

    def _process(self, command: Command) -> list[str]:
        return [sys.executable, "-m", "cvs", *command.arguments(self.world)]

    def trace(self, command: Command, *options: str) -> Run:
        """Runs a command under strace."""
        world = self.world
        logs = self._folder / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        logs.mkdir()
        strace = ["strace", "-ff", "-qq", "-y", "-s", "4096"]
        if not any(":signal=" in option for option in options):
            # Much quicker, but then strace sends no signals.
            strace.append("--seccomp-bpf")
        with subprocess.Popen(
            [*strace, "-o", str(logs / "log"), *options, *self._process(command)],
            cwd=world.folder,
            env=world.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                # strace ends when all has that the command started.
                out, err = process.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise
        paths = sorted(logs.iterdir(), key=lambda path: int(path.suffix[1:]))
        threads = [path.read_text(errors="replace").splitlines() for path in paths]
        return Run(Done(process.returncode, out, err), threads)

    def points(self, name: str) -> list[Point]:
        """The points of a command, which are the same in every world."""
        if name not in self._known:
            self._known[name] = self._points(COMMANDS[name])
        return self._known[name]

    def _points(self, command: Command) -> list[Point]:
        """The points at which a command changes the world, whichever thread gets there.

        Every thread that comes to its n-th call of a kind meets its fate there: only points count
        at which all of them change the world.
        """
        self.restore(command)
        # Leaves the bytecode of every module: reading it takes other calls than compiling it.
        written = {**self.world.environment, "PYTHONDONTWRITEBYTECODE": ""}
        process = self._process(command)
        subprocess.run(process, check=True, env=written, stdout=subprocess.DEVNULL)
        self.restore(command)
        run = self.trace(command, "-e", f"trace={','.join(CALLS)}")
        assert run.done.code == 0, run.done
        assert command.has_worked(self.world)
        changes: dict[Point, bool] = {}
        for thread in run.threads:
            count: dict[str, int] = defaultdict(int)
            created: set[str] = set()
            for line in thread:
                if not (found := _CALL.match(line)):
                    continue
                call = found[1]
                count[call] += 1
                point = Point(call, count[call])
                changes[point] = changes.get(point, True) and self.is_change(line, created)
        return [point for point, is_change in changes.items() if is_change]

    def is_change(self, line: str, created: set[str]) -> bool:
        """Whether a call changes the world; takes note of what it creates."""
        if f"{self.world.folder}/" not in line:
            return False
        if made := _CREATED.match(line):
            created.add(made[1])
        if line.startswith("close"):
            closed = _CLOSED.match(line)
            return closed is not None and closed[1] in created
        return made is not None or not line.startswith("openat")

    def was_hit(self, run: Run) -> bool:
        """Whether every error was one of a change of the world, and there was one: counts differ
        by a few from run to run."""
        hits = []
        for thread in run.threads:
            created: set[str] = set()
            for line in thread:
                is_change = self.is_change(line, created)
                if line.endswith("(INJECTED)"):
                    hits.append(is_change)
        return bool(hits) and all(hits)

    def check(self, command: Command) -> None:
        """No half entry has a name, and what is in use works."""
        world, profile = self.world, self.world.profile()
        assert_whole(world.store)
        current = profile.current()
        if current is None:
            assert command is COMMANDS["delete"]
            return
        for number in profile.numbers():
            assert all(map(world.store.has, profile.record(number).entries))
        view = Path(profile.view(current))
        assert (view / "main.py").stat().st_size > 0
        assert version_of(view) == current
        assert (view / "models" / "checkpoints" / "demo.safetensors").is_file()
        assert (view / "input" / "example.png").stat().st_size > 0

    def go_on(self, command: Command) -> None:
        """The next run ends well and leaves nothing in tmp/."""
        done = self.world.cvs(*command.arguments(self.world))
        assert done.code == 0 or any(text in done.err for text in DONE), done
        assert command.has_worked(self.world)
        self.check(command)
        assert leftovers(self.world.volume) == []


@pytest.fixture(scope="module")
def known() -> dict[str, list[Point]]:
    """The points that were found already, by command."""
    return {}


@pytest.fixture
def bench(memory: Path, the_material: Material, known: dict[str, list[Point]]) -> Bench:
    """A bench in memory."""
    if shutil.which("strace") is None:
        pytest.skip("strace not found")
    probe = ["strace", "-f", "-o", os.devnull, "-e", "trace=none", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("tracing is not permitted here")
    return Bench(memory, the_material, known)


def some(points: list[Point], count: int | None) -> list[Point]:
    """So many of the points, spread over all of them; without a count all."""
    if count is None or count >= len(points):
        return points
    return [points[index * len(points) // count] for index in range(count)]


#: How many points of a command are tried where not all are.
FEW = {"add": 4, "move": 3, "realize": 3, "rollback": 4, "delete": 4}


def test_killed(bench: Bench, nightly: bool) -> None:
    """Killed in any call: no half entry has a name, what is in use works, the next run succeeds."""
    missed = tried = 0
    for name, command in COMMANDS.items():
        for point in some(bench.points(name), None if nightly else FEW[name]):
            bench.restore(command)
            inject = f"inject={point.call}:signal=KILL:when={point.number}"
            run = bench.trace(command, "-e", f"trace={point.call}", "-e", inject)
            assert run.done.code in (0, -signal.SIGKILL), (point, run.done)
            tried += 1
            missed += run.done.code == 0
            bench.check(command)
            if nightly or tried % 2:
                bench.go_on(command)
    assert missed <= tried // 4


def test_refused(bench: Bench, nightly: bool) -> None:
    """An error in any call is one sentence and exit code 2, unless what the command is for is done
    all the same; the next run succeeds."""
    missed = tried = 0
    errors = itertools.cycle(ERRORS)
    for name, command in COMMANDS.items():
        for point in some(bench.points(name), None if nightly else FEW[name]):
            # A realize takes a second, and has more points than all others.
            for error in itertools.islice(errors, 4 if nightly and name != "realize" else 1):
                bench.restore(command)
                inject = f"inject={point.call}:error={error}:when={point.number}"
                run = bench.trace(command, "-e", f"trace=openat,{point.call}", "-e", inject)
                tried += 1
                if bench.was_hit(run):
                    judge(bench, command, point, error, run.done)
                else:
                    missed += 1
                bench.check(command)
                if nightly or tried % 2:
                    bench.go_on(command)
    assert missed <= tried // 4


def judge(bench: Bench, command: Command, point: Point, error: str, done: Done) -> None:
    """What a command may say after an error in its own files."""
    what = (point, error, done)
    if done.code == 0:
        full = command.has_reserve and error in ("ENOSPC", "EDQUOT") and point.call not in KEEPING
        forgiven = CLEANING + MAKING + command.forgiving
        assert error == "EINTR" or full or point.call in forgiven, what
        assert command.has_worked(bench.world), what
        return
    assert done.code == 2, what
    said = [line for line in done.err.splitlines() if not line.startswith("hint: ")]
    assert len(said) == 1, what
    assert said[0].startswith("error: "), what
    if point.call not in CLEANING:
        assert leftovers(bench.world.volume) == [], what
        assert bench.world.leases() == [], what
