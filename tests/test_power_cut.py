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
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

import pytest
from faults import assert_whole, leftovers
from promises import Process, Promises
from promises_runner import cut_power
from world import Material, World

from cvs.store import damage
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.record import Record
from cvs.store.verify import verify
from cvs.store.volume import Volume

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]
pytest_plugins = ["world_fixtures"]

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
        # Two disks with one file system are what a disk is before and after its power failed.
        self._options = "loop,nouuid" if kind == "xfs" else "loop"
        self.folder.mkdir(exist_ok=True)
        self.image.unlink(missing_ok=True)
        if template is not None:
            copy(template, self.image)
            return
        with open(self.image, "wb") as file:
            file.truncate(SIZE)
        subprocess.run([*MAKERS[kind], str(self.image)], check=True)

    def _mount(self) -> None:
        command = ["mount", "-o", self._options, str(self.image), str(self.folder)]
        subprocess.run(command, check=True)

    def reboot(self) -> None:
        """Mounts what is on the disk anew; what was not on it is gone.

        It is another disk with the same bytes: processes elsewhere on the machine may have the
        mount of the old one in a namespace of their own, and keep it as it is.
        """
        subprocess.run(["umount", "-l", str(self.folder)], check=True)
        old = self.image.rename(self.image.with_suffix(".old"))
        copy(old, self.image)
        old.unlink()
        self._mount()

    def __enter__(self) -> Self:
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        # Lazily: a process that was killed may yet have to let go of it.
        subprocess.run(["umount", "-l", str(self.folder)], check=True)


def copy(image: Path, to: Path) -> None:
    """Copies an image, of which most is empty."""
    subprocess.run(["cp", "--sparse=always", str(image), str(to)], check=True)


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
    subprocess.run(["umount", "-l", str(disk.folder)], check=True)


@contextmanager
def promises(folder: Path, kind: str) -> Iterator[tuple[Disk, Promises]]:
    """A new disk, on which nothing is promised yet."""
    with Disk(folder / "disk", kind) as disk, tempfile.TemporaryDirectory(dir=folder) as scratch:
        volume = Volume(str(disk.folder / "cache"))
        with Promises(volume, Path(scratch), [str(disk.folder)]) as made:
            yield disk, made


@KINDS
def test_cut_by_chance(memory: Path, kind: str, nightly: bool) -> None:
    """The power fails at any moment, while two processes write: nothing acknowledged is lost,
    nothing is half there, and the next process goes on."""
    chance = random.Random(kind)
    for _ in range(10 if nightly else 1):
        with promises(memory, kind) as (disk, made):
            for _ in range(4 if nightly else 1):
                processes = [made.start(), made.start()]
                for _ in range(chance.randrange(1, 12)):
                    assert processes[0].hear()
                processes[1].last(chance.random() / 20)
                cut = cut_power([str(disk.folder)], neighbour=chance.random() < 0.5)
                for process in processes:
                    process.kill()
                    made.keep(process, cut)
                disk.reboot()
                made.check()
                made.go_on()
                assert leftovers(made.volume) == []


@KINDS
def test_cut_before_a_change(memory: Path, kind: str, nightly: bool) -> None:
    """The same before one change of the file system after another."""
    numbers = iter(range(1, 400, 10) if nightly else [150])
    while batch := list(itertools.islice(numbers, 10)):
        with promises(memory, kind) as (disk, made):
            for number in batch:
                process = made.start(cut=number, neighbour=number % 4 == 1)
                assert process.end() == (-signal.SIGKILL, "")
                made.keep(process)
                disk.reboot()
                made.check()
                made.go_on()
                assert leftovers(made.volume) == []


def damage_some(store: Store, chance: random.Random) -> set[EntryId]:
    """Damages entries as disks do, and has them marked; returns which."""
    chosen = chance.sample(sorted(store.ids()), 3)
    for entry in chosen:
        files = [path for path in sorted(Path(store.path(entry)).rglob("*")) if path.is_file()]
        for path in chance.sample(files, min(3, len(files))):
            path.chmod(0o644)
            path.write_bytes(b"damaged" + path.read_bytes())
        assert damage.examine(store, entry)
    return set(chosen)


@KINDS
def test_cut_repairing(memory: Path, kind: str, nightly: bool) -> None:
    """The power fails while entries are repaired: what is not marked as damaged any more is whole,
    and the next repair ends it."""
    chance = random.Random(kind)
    with promises(memory, kind) as (disk, made):
        assert made.start(deeds=12).end() == (0, "")
        sound = str(memory / "sound")
        shutil.copytree(made.volume.root, sound, symlinks=True)
        for number in range(1, 81, 2) if nightly else [30]:
            store = Store(made.volume)
            damaged = damage_some(store, chance)
            subprocess.run(["sync", "--file-system", str(disk.folder)], check=True)
            process = made.start(repair=sound, cut=number, neighbour=number % 2 == 1)
            # There are some sixty changes, and then the power fails when all are made.
            ended = process.end()
            assert ended == (-signal.SIGKILL, "") or (number > 30 and ended == (0, ""))
            disk.reboot()
            marked = damage.marked(made.volume)
            assert marked <= damaged
            for entry in store.ids():
                assert entry in marked or list(verify(store, entry)) == []
            assert made.start(repair=sound).end() == (0, "")
            assert damage.marked(made.volume) == set()
            assert_whole(store)
            assert leftovers(made.volume) == []


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
            for path in self._folders:
                subprocess.run(["sync", "--file-system", str(path)], check=True)
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
            disks=[str(disk.folder) for disk in disks],
            environment=self.world.environment,
            cut=cut,
            neighbour=neighbour,
            arguments=[command, "demo", *self.world.local],
        )
        # How many changes a command takes differs by a few from run to run.
        ended = process.end()
        assert process.said or cut
        assert ended == (0 if process.said else -signal.SIGKILL, "")
        for disk in disks:
            disk.reboot()
        return process

    def cut(self, number: int | None, *, neighbour: bool) -> Process:
        """Cuts a realize, looks at what is there, and realizes again."""
        with self.disks() as disks:
            process = self.run(disks, "realize", number, neighbour)
            self._check(done=bool(process.said))
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
