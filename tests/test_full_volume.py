"""A volume on which no byte or no inode is left, for real: what needs room is one clear error, what
only looks still works, and what frees room or switches works out of the reserve."""

import contextlib
import errno
import multiprocessing
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
from faults import assert_whole, fail_at, kill_at, leftovers
from moosefs import MooseFS, unavailable
from world import DEMO, Done, Material, World, listing

from cvs.profiles import realize
from cvs.store import reserve
from cvs.store.leases import Lease

pytestmark = pytest.mark.nightly
pytest_plugins = ["world_fixtures"]

#: Every piece of a reserve.
RESERVE = sorted((*reserve.INODES, *reserve.BLOCKS))

#: What makes a file system in an image, and its bytes: 16 MB where it takes so little.
MAKERS = {
    "tmpfs": ([], 16 << 20),
    "ext4": (["mkfs.ext4", "-q", "-F", "-m", "0", "-N", "2048"], 16 << 20),
    "xfs": (["mkfs.xfs", "-q", "-f"], 320 << 20),
}


#: What MooseFS charges for a file of up to 64 KiB, and for each of its hard links.
CHARGED = 73728

LOCK = "resolved/demo.lock.json"


class Case(NamedTuple):
    """A kind of file system, and what of it is used up."""

    kind: str
    what: str


CASES = [Case("tmpfs", "bytes"), Case("tmpfs", "inodes"), Case("ext4", "both")]
#: XFS makes inodes for as long as there is room for them.
AT_NIGHT = [
    *(Case("tmpfs", "both"), Case("ext4", "bytes"), Case("ext4", "inodes")),
    Case("xfs", "bytes"),
]


def mount(stack: ExitStack, folder: Path, kind: str) -> None:
    """Mounts a new file system for the time of a stack; skips where that is not permitted."""
    maker, count = MAKERS[kind]
    options = ["-t", "tmpfs", "-o", f"size={count},nr_inodes=2048", "none"]
    if maker:
        if shutil.which(maker[0]) is None:
            pytest.skip(f"{maker[0]} not found")
        image = folder.with_suffix(".image")
        image.touch()
        os.truncate(image, count)
        subprocess.run([*maker, image], check=True)
        options = ["-o", "loop", str(image)]
    folder.mkdir()
    command = ["mount", *options, str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    stack.callback(subprocess.run, ["umount", "-l", folder], check=True)


class Full(NamedTuple):
    """A world whose volume is full: `demo` with two generations, `second` with files of a user."""

    world: World
    case: Case
    mounted: Path

    def use_up(self) -> None:
        """Uses up what is free, to the last byte or inode."""
        filler = self.mounted / "filler"
        filler.mkdir(exist_ok=True)
        with open(filler / "bytes", "ab", buffering=0) as file:
            if self.case.what != "bytes":
                with contextlib.suppress(OSError):
                    for number in range(1 << 20):
                        (filler / f"inode-{number}").touch()
            if self.case.what != "inodes":
                before = -1
                while before < file.tell():
                    before = file.tell()
                    for count in (1 << 20, 1 << 12, 1):
                        with contextlib.suppress(OSError):
                            while file.write(bytes(count)):
                                pass
                    os.fsync(file.fileno())
        found = os.statvfs(self.mounted)
        assert self.case.what == "inodes" or found.f_bavail * found.f_frsize < 50_000
        assert self.case.what == "bytes" or found.f_favail == 0

    def empty(self) -> None:
        """Removes what used it up."""
        shutil.rmtree(self.mounted / "filler")

    def looks(self) -> dict[str, tuple[object, ...]]:
        """Everything on the volume, but for times."""
        found = listing(self.world.cache)
        return {path: (kind, size, target) for path, (kind, size, _, target) in found.items()}

    def pieces(self) -> list[str]:
        """What there is of the reserve, with all its bytes."""
        with os.scandir(self.world.volume.reserve) as items:
            return sorted(
                item.name
                for item in items
                if item.is_symlink() or item.stat().st_size == reserve.BLOCK
            )

    def assert_sound(self) -> None:
        """Nothing half written, no lease, the reserve whole."""
        assert_whole(self.world.store)
        assert leftovers(self.world.volume) == []
        assert self.world.leases() == []
        # Of its last 200 kB XFS gives no new file anything.
        assert self.pieces() == RESERVE or self.case.kind == "xfs"


@pytest.fixture(scope="session")
def the_volume(tmp_path_factory: pytest.TempPathFactory, the_material: Material) -> Path:
    """A volume to copy, which is not full."""
    world = World(tmp_path_factory.mktemp("full"), the_material)
    world.spec()
    world.realize()
    world.spec(custom_nodes=[world.node(world.material.v2)])
    world.realize()
    world.spec("second", models=[])
    world.realize("second", "--target", str(world.folder / "second"))
    results = world.state("second") / "output"
    for number in range(200):
        (results / f"{number}.png").write_bytes(bytes(8000))
    return world.cache


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Runs whatever has a full volume on every kind of one."""
    if "roomy" in metafunc.fixturenames:
        cases = CASES + AT_NIGHT if metafunc.config.getoption("nightly") else CASES
        names = [f"{case.kind}-{case.what}" for case in cases]
        metafunc.parametrize("roomy", cases, ids=names, indirect=True)


@pytest.fixture
def roomy(
    request: pytest.FixtureRequest, memory: Path, the_material: Material, the_volume: Path
) -> Iterator[Full]:
    """The world, while there is room."""
    with ExitStack() as stack:
        mounted = memory / "mounted"
        mount(stack, mounted, request.param.kind)
        folder = memory / "world"
        folder.mkdir()
        world = World(folder, the_material)
        world.cache = mounted / "cache"
        world.environment["COMFY_CACHE_ROOT"] = str(world.cache)
        # A volume holds no path of itself, so a copy is as good.
        subprocess.run(["cp", "-a", the_volume, world.cache], check=True)
        world.spec("second", models=[])
        world.spec(custom_nodes=[world.node(world.material.v2)])
        world.realize()
        # Without options it leaves a note that there is nothing to do.
        world.ok("realize", "demo")
        yield Full(world, request.param, mounted)


@pytest.fixture
def full(roomy: Full) -> Full:
    """The world, when nothing is left."""
    roomy.use_up()
    return roomy


def version_of(world: World) -> str:
    """The demo's node as COMFY_HOME shows it: 1 or 2."""
    text = (world.home / "custom_nodes" / "demo-node" / "__init__.py").read_text()
    return text.partition('VERSION = "')[2][0]


def assert_refused(full: Full, done: Done) -> None:
    """One sentence that says what is full, how much is free of what, and what to do."""
    assert done[:2] == (2, ""), done
    error, hint = [line for line in done.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert error.startswith(f"error: no space is left: {full.mounted}/")
    assert f"inodes are free on the volume {full.world.cache}" in error
    if full.case.what != "bytes":
        assert " 0 of " in error
    if full.case.what != "inodes" and full.case.kind != "xfs":
        assert "now 0 B of " in error
    assert "`cvs delete ID`" in hint
    assert "`cvs store du`" in hint
    assert "Traceback" not in done.err


def test_what_needs_room(full: Full) -> None:
    """What needs room is refused in one sentence; nothing is half written, and it does not live
    on the reserve."""
    world = full.world
    file = world.folder / "sources" / "other"
    file.write_bytes(os.urandom(100_000))
    before = full.looks()
    world.spec("third", models=[{"source": str(file), "target_path": "vae/other"}])
    world.spec(custom_nodes=[])
    versions = full.mounted / "versions"
    for arguments in (
        ["realize", "demo", *world.local],
        ["realize", "third", *world.local],
        ["resolve", "third", *world.local],
        ["store", "add", str(file)],
        ["store", "add", str(DEMO / "node")],
        [
            *("create", "new", "--repo", f"{world.url}/ComfyUI.git@{world.material.core}"),
            *("--versions-dir", str(versions), "--allow-local"),
        ],
    ):
        assert_refused(full, world.cvs(*arguments))
        assert before == full.looks(), arguments
        assert not (versions / "new.json").exists()
    full.assert_sound()


def test_something_too_big(roomy: Full) -> None:
    """What does not fit fills the volume only while it is tried: nothing of it stays but its place
    in the lock, and what is smaller finds room."""
    world = roomy.world
    big = world.folder / "sources" / "big"
    big.touch()
    os.truncate(big, MAKERS[roomy.case.kind][1])
    world.spec(models=[{"source": str(big), "target_path": "vae/big"}])
    before = roomy.looks()
    done = world.cvs("realize", "demo", *world.local)

    error, hint = [line for line in done.err.splitlines() if line.startswith(("error:", "hint:"))]
    assert done[:2] == (2, "")
    assert error.startswith(f"error: no space is left: {world.cache}/tmp/")
    assert hint.endswith("run it again: what was stored is kept, nothing is half written")
    changed = {path for path, look in roomy.looks().items() if before.get(path) != look}
    assert {path for path in changed if not path.startswith("refs/")} == {LOCK}
    assert before.keys() <= roomy.looks().keys()
    roomy.assert_sound()
    big.write_bytes(b"small")
    world.spec(models=[{"source": str(big), "target_path": "vae/small"}])
    world.realize()
    assert (world.home / "models" / "vae" / "small").read_bytes() == b"small"


def test_looking(full: Full) -> None:
    """What only looks needs no room."""
    world = full.world
    core, node = (world.lock()[part]["entry"] for part in ("core",)), world.lock()["nodes"][0]
    before = full.looks()
    for arguments in (
        ["list"],
        ["show", "demo"],
        ["history", "demo"],
        ["realize", "demo"],
        ["store", "ls"],
        ["store", "show", node["entry"]],
        ["store", "path", node["entry"]],
        ["store", "diff", *core, node["entry"]],
        ["store", "du"],
        ["store", "verify"],
    ):
        done = world.cvs(*arguments)
        assert (done.code, done.err) == (1 if "diff" in arguments else 0, ""), arguments
        assert done.out
    assert before == full.looks()


def test_running(full: Full) -> None:
    """The version in use runs where a lease finds room, or says in one sentence that none is
    left; the reserve is not for it."""
    world = full.world
    before = full.looks()
    run = world.process("exec", "demo", "--", "python", "-c", "import cvs_demo_palette")
    workflow = str(DEMO / "workflow.json")
    handled = world.process("run-handler", "demo", "--workflow", workflow)
    if full.case == ("tmpfs", "bytes"):
        # Folders and links are not counted there. The result of the workflow is.
        assert run.code == 0
        assert handled[:2] == (1, "")
        assert handled.err.endswith(f"failed: OSError: [Errno 28] {os.strerror(28)}\n")
        (result,) = (world.state() / "output").iterdir()
        result.unlink()
    else:
        assert_refused(full, run)
        assert_refused(full, handled)
    assert before == full.looks()
    full.assert_sound()


def test_rolling_back(full: Full) -> None:
    """Rolling back works, as often as one likes."""
    world = full.world
    for number in (1, 2) * 10:
        world.ok("rollback", "demo", str(number))
        assert version_of(world) == str(number)
        full.assert_sound()


def test_rolling_back_to_a_lost_view(roomy: Full) -> None:
    """A view that is missing is built out of the reserve."""
    shutil.rmtree(roomy.world.profile().view(1))
    roomy.use_up()
    done = roomy.world.cvs("rollback", "demo")

    assert done.code == 0, done
    assert version_of(roomy.world) == "1"


def test_many_roll_back_at_once(full: Full) -> None:
    """Several processes share the reserve."""
    world = full.world
    running = [world.start("rollback", "demo", str(number)) for number in (1, 2, 1, 2)]
    for process in running:
        out, err = process.communicate()
        assert (process.returncode, err) == (0, ""), out
    world.volume.prepare()

    assert version_of(world) in ("1", "2")
    full.assert_sound()


def test_killed_while_rolling_back(full: Full) -> None:
    """A rollback that dies on the way is no hindrance for the next one."""
    world = full.world
    context = multiprocessing.get_context("fork")

    def rolled_back(number: int, generation: int) -> None:
        kill_at(number)
        realize.rollback(world.store, world.profile(), generation)

    for turn, number in enumerate((1, 2, 3, 5, 7, 9)):
        process = context.Process(target=rolled_back, args=(number, 1 + turn % 2))
        process.start()
        process.join()
        assert process.exitcode == -9
        world.ok("rollback", "demo", str(1 + turn % 2))
        assert version_of(world) == str(1 + turn % 2)
        assert leftovers(world.volume) == []


def test_deleting(full: Full) -> None:
    """Deleting works and frees room; then realizing works, and the reserve is whole."""
    world = full.world
    world.ok("delete", "second", "--purge-state")
    full.assert_sound()
    other = world.folder / "sources" / "other"
    other.write_bytes(b"another model")
    world.spec(models=[{"source": str(other), "target_path": "vae/other"}])
    world.realize()

    assert (world.home / "models" / "vae" / "other").read_bytes() == b"another model"
    full.assert_sound()


def test_deleting_beside_what_runs(roomy: Full) -> None:
    """With leases there, whose ages a delete asks the volume for, one in use is refused and
    another one goes."""
    world = roomy.world
    with Lease.of_generation(world.volume, world.profile().record_path(1)):
        roomy.use_up()
        done = world.cvs("delete", "demo")
        assert done.err.startswith("error: demo is in use by 1 running process(es)\n")
        world.ok("delete", "second")
    roomy.assert_sound()


def test_what_is_missing_is_made_anew(roomy: Full) -> None:
    """A reserve that was used up on a full volume is whole as soon as there is room."""
    world = roomy.world
    while reserve.release(world.volume.reserve):
        pass
    roomy.use_up()
    if roomy.case != ("tmpfs", "bytes"):
        assert_refused(roomy, world.cvs("rollback", "demo"))
    world.cvs("realize", "demo", *world.local)
    assert roomy.pieces() != RESERVE
    roomy.empty()
    world.spec(models=[])
    world.realize()

    roomy.assert_sound()


def test_a_volume_that_cannot_be_written(roomy: Full) -> None:
    """Read-only it is looked at as ever; what changes it is refused, and the reserve stays."""
    world = roomy.world
    subprocess.run(["mount", "-o", "remount,ro", roomy.mounted], check=True)
    before = roomy.looks()
    world.ok("list")
    world.ok("store", "verify")
    world.ok("resolve", "demo")
    for arguments in (["rollback", "demo"], ["delete", "second"]):
        done = world.cvs(*arguments)
        assert done[:2] == (2, "")
        assert done.err.startswith(f"error: the file system is read-only: {world.cache}/")
    assert before == roomy.looks()


def test_another_disk_is_full(realized: World) -> None:
    """The message is about the disk that is full, which is not always the volume's."""
    other = realized.folder / "other"
    with ExitStack() as stack:
        mount(stack, other, "tmpfs")
        Full(realized, Case("tmpfs", "inodes"), other).use_up()
        repo = f"{realized.url}/ComfyUI.git@{realized.material.core}"
        spec = str(other / "new.json")
        done = realized.cvs("create", "new", "--repo", repo, "--output", spec, "--allow-local")

    error, hint = done.err.splitlines()
    assert done[:2] == (2, "")
    assert error.startswith(f"error: no space is left: {other}/")
    assert error.endswith(" and 0 of 2048 inodes are free there")
    assert hint.startswith("hint: delete something there and run it again: what was stored is kept")


def test_a_quota_in_words(realized: World) -> None:
    """Where a quota is used up, what is free on the whole file system is not what is left."""
    file = realized.folder / "sources" / "other"
    file.write_bytes(b"another")
    with fail_at(1, calls=("write",)):
        done = realized.cvs("store", "add", str(file))

    assert done[:2] == (2, "")
    assert "error: the quota is used up: " in done.err
    assert "; `df` knows of no quota and shows " in done.err
    assert f" free on the volume {realized.cache}\n" in done.err


# A quota of a real MooseFS


@pytest.fixture(scope="module")
def moosefs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MooseFS]:
    """A MooseFS that two hosts have mounted."""
    if why := unavailable():
        pytest.skip(why)
    with MooseFS(tmp_path_factory.mktemp("moosefs")) as running:
        yield running


class Quota(NamedTuple):
    """A hard quota of a folder: of bytes as they are accounted."""

    moosefs: MooseFS
    folder: Path

    def used(self) -> int:
        """How many bytes are accounted."""
        told = self.moosefs.run("mfsgetquota", str(self.folder))
        (line,) = [line for line in told.splitlines() if line.lstrip().startswith("size")]
        return int(line.split("|")[1])

    def leave(self, count: int) -> None:
        """Leaves so many bytes; a number below 0 is what is used beyond the quota."""
        limit = str(self.used() + count)
        self.moosefs.run("mfssetquota", "-S", limit, str(self.folder))


@pytest.fixture
def quota(moosefs: MooseFS, request: pytest.FixtureRequest) -> Quota:
    """A folder of its own, as the first host sees it."""
    folder = moosefs.mounts[0] / request.node.name
    folder.mkdir()
    return Quota(moosefs, folder)


def refused(call: Callable[[], object]) -> bool:
    """Whether the quota refuses a call."""
    try:
        call()
    except OSError as error:
        assert error.errno == errno.EDQUOT
        return True
    return False


def test_what_a_quota_refuses(quota: Quota) -> None:
    """Over a quota folders, symbolic links, their hard links and empty files can be made, and all
    be renamed and removed. Bytes cannot be written, and hard links of a file are charged."""
    at = quota.folder
    (at / "record").write_bytes(bytes(3000))
    (at / "spare").write_bytes(bytes(reserve.BLOCK))
    assert quota.used() == 2 * CHARGED
    quota.leave(CHARGED - 1)
    (at / "folder").mkdir()
    (at / "symlink").symlink_to("folder")
    os.link(at / "symlink", at / "hard", follow_symlinks=False)
    (at / "empty").touch()
    os.rename(at / "hard", at / "empty")
    os.rename(at / "folder", at / "renamed")

    assert quota.used() == 2 * CHARGED
    assert refused(lambda: os.link(at / "record", at / "lease"))
    assert refused(lambda: (at / "new").write_bytes(b"x"))
    (at / "spare").unlink()
    os.link(at / "record", at / "lease")
    assert quota.used() == 2 * CHARGED


def test_a_quota_that_is_used_up(
    quota: Quota, tmp_path: Path, the_material: Material, the_volume: Path
) -> None:
    """With nothing left of a quota what needs room is one error; rolling back works as often as
    one likes, deleting also where more is used than the quota, and the reserve is whole as soon as
    there is room."""
    world = World(tmp_path, the_material)
    world.cache = quota.folder / "cache"
    world.environment["COMFY_CACHE_ROOT"] = str(world.cache)
    subprocess.run(["cp", "-a", the_volume, world.cache], check=True)
    world.spec("second", models=[])
    world.spec(custom_nodes=[world.node(world.material.v2)])
    world.realize()
    full = Full(world, Case("moosefs", "quota"), quota.folder)
    full.assert_sound()
    before = full.looks()
    quota.leave(0)

    file = world.folder / "sources" / "other"
    file.write_bytes(b"another")
    for command in (["store", "add", str(file)], ["exec", "demo", "--", "true"]):
        done = world.cvs(*command)
        assert done[:2] == (2, ""), done
        assert "error: the quota is used up: " in done.err
        assert f" free on the volume {world.cache}\n" in done.err
        assert before == full.looks()
    for number in (1, 2) * 5:
        world.ok("rollback", "demo", str(number))
        assert version_of(world) == str(number)
        assert leftovers(world.volume) == world.leases() == []
    # Once: what a block gave up nobody else can use.
    assert len(full.pieces()) == len(RESERVE) - 1
    quota.leave(-(5 << 20))
    done = world.cvs("rollback", "demo")
    assert done[:2] == (2, "")
    assert done.err.startswith(f"error: the quota is used up: {world.cache}/leases/")
    assert full.pieces() == list(reserve.INODES)
    world.ok("delete", "second", "--purge-state")
    assert leftovers(world.volume) == world.leases() == []
    # A new file takes 64 MiB of headroom.
    quota.leave(100 << 20)
    world.ok("store", "add", str(file))
    full.assert_sound()
