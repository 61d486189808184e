"""The power of a disk fails while the store is written: what was acknowledged is there after it.

Real file systems in images are shut down so that nothing reaches the disk any more, neither data
nor journal, and are mounted again as after a crash. The power fails at moments by chance, or
before one chosen change of the file system.
"""

import filecmp
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import pytest
from faults import assert_whole, leftovers
from power_cut_runner import cut_power
from world import Material, World, until

from cvs.profiles.generations import Profile
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.record import Record
from cvs.store.volume import Volume

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]
pytest_plugins = ["world_fixtures"]

RUNNER = Path(__file__).with_name("power_cut_runner.py")

#: What makes a file system in an image.
MAKERS = {
    "ext4": ["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0"],
    "xfs": ["mkfs.xfs", "-q", "-f"],
}

#: The least that XFS takes.
SIZE = 320 << 20

KINDS = pytest.mark.parametrize("kind", MAKERS)


class Disk:
    """An image with a file system, mounted in a folder; use as a context manager."""

    def __init__(self, folder: Path, kind: str, template: Path | None = None) -> None:
        self.folder = folder
        self.image = folder.with_suffix(".image")
        self.folder.mkdir(exist_ok=True)
        if template is not None:
            subprocess.run(["cp", "--sparse=always", template, self.image], check=True)
            return
        self.image.unlink(missing_ok=True)
        with open(self.image, "wb") as file:
            file.truncate(SIZE)
        subprocess.run([*MAKERS[kind], str(self.image)], check=True)

    def _mount(self) -> None:
        subprocess.run(["mount", "-o", "loop", str(self.image), str(self.folder)], check=True)

    def _unmount(self) -> None:
        def ended() -> bool:
            # A process that was killed may yet have to let go of it.
            done = subprocess.run(["umount", self.folder], capture_output=True, check=False)
            return done.returncode == 0

        until(ended)

    def reboot(self) -> None:
        """Mounts it anew; what was not on the disk is gone."""
        self._unmount()
        self._mount()

    def __enter__(self) -> Self:
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        if os.path.ismount(self.folder):
            subprocess.run(["umount", "-l", self.folder], check=True)


@pytest.fixture(scope="module", autouse=True)
def possible(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where file systems cannot be made, mounted and shut down."""
    missing = [command[0] for command in MAKERS.values() if shutil.which(command[0]) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not found")
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    disk = Disk(tmp_path_factory.mktemp("possible") / "disk", "ext4")
    command = ["mount", "-o", "loop", str(disk.image), str(disk.folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("images cannot be mounted here")
    subprocess.run(["umount", "-l", disk.folder], check=True)


class Process:
    """A process that works on disks, in a group of its own with all that it starts."""

    def __init__(
        self, *disks: Disk, environment: dict[str, str] | None = None, **order: Any
    ) -> None:
        folders = [str(disk.folder) for disk in disks]
        whole = {"disks": folders, "cut": None, "neighbour": False, "arguments": None} | order
        self._process = subprocess.Popen(
            [sys.executable, str(RUNNER), json.dumps(whole)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        )
        self.said: list[Any] = []

    def hear(self) -> bool:
        """Waits for the next thing that is acknowledged; False if there is no more."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            self.said.append(json.loads(line))
        return bool(line)

    def last(self, seconds: float) -> None:
        """Lets it work on for some time, unless it ends before."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self) -> None:
        """Kills it, unless it has ended, with all that it started; hears what it had said."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self.end()

    def end(self) -> tuple[int, str]:
        """Waits for its end; its exit status and what it said of errors."""
        while self.hear():
            pass
        assert self._process.stderr is not None
        text = self._process.stderr.read().decode()
        # Before its number is free for others: what it started is in the group of that number.
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        os.killpg(self._process.pid, signal.SIGKILL)
        with self._process:
            return self._process.wait(), text


class Promises:
    """What was acknowledged on one disk: from then on it must be there."""

    def __init__(self, disk: Disk, scratch: Path) -> None:
        self.disk = disk
        self.volume = Volume(str(disk.folder / "cache"))
        self._scratch = scratch
        self._seeds = itertools.count()
        self._entries: set[EntryId] = set()
        self._generations: dict[str, int] = {}
        self.processes: list[Process] = []

    def start(self, **order: Any) -> Process:
        """A process that adds to the volume: without end, or so many `deeds`."""
        seed = next(self._seeds)
        source = self._scratch / f"{self.disk.folder.name}-{seed}"
        work = {"deeds": None, "seed": seed, "source": str(source)} | order
        process = Process(self.disk, volume=self.volume.root, **work)
        self.processes.append(process)
        return process

    def keep(self, process: Process) -> None:
        """Takes note of what a process has said."""
        for said in process.said:
            self._entries.update(said.get("entries", ()))
            if "generation" in said:
                self._generations[said["version"]] = said["generation"]

    def check(self) -> None:
        """All of it is there, and whatever else has a name is whole as well."""
        if not self.volume.exists():
            assert self._entries == set()
            return
        store = Store(self.volume)
        assert self._entries <= set(store.ids())
        assert_whole(store)
        for version, number in self._generations.items():
            current = Profile(self.volume, version).current()
            assert current is not None
            assert current >= number
        for version in os.listdir(self.volume.profiles):
            profile = Profile(self.volume, version)
            assert {profile.current()} <= {None, *profile.numbers()}
            for number in profile.numbers():
                assert all(map(store.has, profile.record(number).entries))

    def go_on(self) -> None:
        """The next process finds nothing in its way, and sweeps what is left of the others."""
        process = self.start(deeds=5)
        assert process.end() == (0, "")
        assert leftovers(self.volume) == []
        self.keep(process)
        self.check()


@contextmanager
def promises(folder: Path, kind: str) -> Iterator[Promises]:
    """A new disk, on which nothing is promised yet."""
    with Disk(folder / "disk", kind) as disk:
        made = Promises(disk, Path(tempfile.mkdtemp(dir=folder)))
        try:
            yield made
        finally:
            for process in made.processes:
                process.kill()


@KINDS
def test_cut_by_chance(memory: Path, kind: str, nightly: bool) -> None:
    """The power fails at any moment, while two processes write: nothing acknowledged is lost,
    nothing is half there, and the next process goes on."""
    chance = random.Random(kind)
    for _ in range(10 if nightly else 1):
        with promises(memory, kind) as made:
            for _ in range(4 if nightly else 1):
                processes = [made.start(), made.start()]
                for _ in range(chance.randrange(1, 12)):
                    assert processes[0].hear()
                processes[1].last(chance.random() / 20)
                cut_power([str(made.disk.folder)], neighbour=chance.random() < 0.5)
                for process in processes:
                    process.kill()
                    made.keep(process)
                made.disk.reboot()
                made.check()
                made.go_on()


@KINDS
def test_cut_before_a_change(memory: Path, kind: str, nightly: bool) -> None:
    """The same before one change of the file system after another."""
    numbers = iter(range(1, 400, 10) if nightly else [150])
    while batch := list(itertools.islice(numbers, 10)):
        with promises(memory, kind) as made:
            for number in batch:
                process = made.start(cut=number, neighbour=number % 4 == 1)
                assert process.end() == (-signal.SIGKILL, "")
                made.keep(process)
                made.disk.reboot()
                made.check()
                made.go_on()


class Realizing:
    """A volume and a host's own disk, on which a realize of an update is cut short."""

    def __init__(self, folder: Path, kind: str, material: Material) -> None:
        self._kind = kind
        self._folders = [folder / "volume", folder / "host"]
        with ExitStack() as stack:
            disks = [stack.enter_context(Disk(path, kind)) for path in self._folders]
            (disks[1].folder / "world").mkdir()
            self.world = World(disks[1].folder / "world", material)
            self.world.cache = disks[0].folder / "cache"
            self.world.environment["COMFY_CACHE_ROOT"] = str(self.world.cache)
            self._prepare()
        self._templates = [disk.image.rename(disk.image.with_suffix(".template")) for disk in disks]

    def _prepare(self) -> None:
        """Realizes generation 1; the update changes a node, which is a private copy then, adds a
        model, and finds neither an environment nor a COMFY_HOME."""
        world = self.world
        world.spec()
        world.realize()
        other = world.folder / "sources" / "other"
        other.write_bytes(b"another model")
        (model,) = json.loads((world.versions / "demo.json").read_text())["models"]
        world.spec(
            custom_nodes=[world.node(world.material.v2, writable=True)],
            models=[model, {"source": str(other), "target_path": "vae/other"}],
        )
        shutil.rmtree(world.local_root)
        world.home.unlink()

    @contextmanager
    def disks(self) -> Iterator[list[Disk]]:
        """The disks as they were before the update."""
        with ExitStack() as stack:
            yield [
                stack.enter_context(Disk(folder, self._kind, template))
                for folder, template in zip(self._folders, self._templates, strict=True)
            ]

    def run(self, disks: list[Disk], command: str, cut: int | None, neighbour: bool) -> Process:
        """Cuts a command before the change with a number, or as soon as it has said that it is
        done, and starts the machine again."""
        process = Process(
            *disks,
            environment=self.world.environment,
            cut=cut,
            neighbour=neighbour,
            arguments=[command, "demo", *self.world.local],
        )
        assert process.end() == (-signal.SIGKILL if cut else 0, "")
        assert bool(process.said) == (cut is None)
        for disk in disks:
            disk.reboot()
        return process

    def cut(self, number: int | None, *, neighbour: bool) -> Process:
        """Cuts a realize, looks at what is there, and realizes again."""
        with self.disks() as disks:
            process = self.run(disks, "realize", number, neighbour)
            self._check(done=number is None)
            self.world.realize()
            self._check(done=True)
            assert leftovers(self.world.volume) == []
        return process

    def _check(self, done: bool) -> None:
        world, profile = self.world, self.world.profile()
        assert_whole(world.store)
        current = profile.current()
        assert current is not None
        assert current in ((2,) if done else (1, 2))
        assert os.path.isdir(profile.view(current))
        for number in profile.numbers():
            record = profile.record(number)
            assert all(map(world.store.has, record.entries))
            if os.path.isdir(profile.view(number)):
                self._check_view(Path(profile.view(number)), record)
        if done:
            assert (world.home / "main.py").is_file()
            told = world.process("exec", "demo", "--", "python", "-c", USES)
            assert told.code == 0
            assert "include-system-site-packages = false" in told.out

    def _check_view(self, view: Path, record: Record) -> None:
        """A view, and the copies in the state that it leads to, have every byte of the entries."""
        store = self.world.cache / "store"
        core = store / next(place.target for place in record.links if not place.path)
        for path in core.glob("*.py"):
            assert filecmp.cmp(path, view / path.name, shallow=False), path
        assert (view / "extra_model_paths.yaml").stat().st_size > 0
        same(core / "input", view / "input")
        same(core / "web", view / "web")
        for place in record.links:
            if place.private:
                same(store / place.target, view / place.path)


#: A program that works in the environment, and shows the file by which that is one.
USES = "import cvs_demo_palette, sys; print(open(f'{sys.prefix}/pyvenv.cfg').read())"


def same(one: Path, other: Path) -> None:
    """Asserts that all files of one folder are in another one."""
    for path in one.rglob("*"):
        if path.is_file():
            assert filecmp.cmp(path, other / path.relative_to(one), shallow=False), path


@KINDS
def test_cut_realizing(memory: Path, the_material: Material, kind: str, nightly: bool) -> None:
    """The power fails while an update is realized: the generation in use is whole, and so is what
    there is of the new one, also right after cvs has said that it is current."""
    made = Realizing(memory, kind, the_material)
    changes = made.cut(None, neighbour=True).said[0]["changes"]
    assert changes > 100
    if nightly:
        made.cut(None, neighbour=False)
        for number in range(1, changes + 1, changes // 40):
            made.cut(number, neighbour=number % 3 > 0)


@KINDS
def test_cut_resolving(memory: Path, the_material: Material, kind: str, nightly: bool) -> None:
    """The power fails when a lock is written: then the new one is there, before it one of both."""
    made = Realizing(memory, kind, the_material)
    for neighbour in (False, True) if nightly else (False,):
        with made.disks() as disks:
            changes = made.run(disks, "resolve", None, neighbour).said[0]["changes"]
            assert made.world.lock()["nodes"][0]["commit"] == the_material.v2
    for number in range(1, changes + 1, 10) if nightly else []:
        with made.disks() as disks:
            made.run(disks, "resolve", number, neighbour=True)
            commit = made.world.lock()["nodes"][0]["commit"]
            assert commit in (the_material.v1, the_material.v2)
