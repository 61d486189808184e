"""Realizing an update that is killed, interrupted or refused by the file system at any call.

The update changes a node, adds a model, makes the environment anew and takes a new COMFY_HOME: it
goes through every step of a realize. The generation in use is sound whatever happens, and the next
realize goes on from what was stored.
"""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash_runner import CHANGED, GROWING
from faults import assert_whole
from world import PATIENCE, Material, World

pytest_plugins = ["world_fixtures"]

RUNNER = Path(__file__).with_name("crash_runner.py")

#: Into how many tests the calls of one kind of failure are parted.
PARTS = 3

#: Removing what is unfinished may be what fails or is interrupted: then something is left.
CLEANING = ("unlink", "rmdir")

#: How an error is told: of the volume, and of this host's own disk.
MEANINGS = {
    errno.EIO: ("the file system does not answer", os.strerror(errno.EIO)),
    errno.EDQUOT: ("the quota is used up", os.strerror(errno.EDQUOT)),
    errno.ENOSPC: ("no space is left", os.strerror(errno.ENOSPC)),
}


@pytest.fixture
def world(memory: Path, the_material: Material) -> World:
    """A world in memory whose `demo` is realized, and the spec of its update."""
    folder = memory / "world"
    folder.mkdir()
    made = World(folder, the_material)
    made.spec()
    made.realize()
    (folder / "sources" / "other").write_bytes(b"another model")
    demo = {
        "source": str(made.model),
        "target_path": "checkpoints/demo.safetensors",
        "checksum": f"sha256:{made.material.sha256}",
    }
    other = {"source": str(folder / "sources" / "other"), "target_path": "vae/other"}
    made.spec(custom_nodes=[made.node(made.material.v2)], models=[demo, other])
    shutil.rmtree(made.local_root)
    made.home = folder / "twin"
    made.environment["TMPDIR"] = str(folder / "temporary")
    (folder / "temporary").mkdir()
    template = memory / "template"
    template.mkdir()
    for name in CHANGED:
        source = folder / name
        if source.is_symlink():
            (template / name).symlink_to(os.readlink(source))
        elif source.is_dir():
            shutil.copytree(source, template / name, symlinks=True)
    return made


class Runs:
    """The runs of one kind of failure."""

    def __init__(self, world: World, what: str, part: int, of: int = PARTS) -> None:
        order = {
            "template": str(world.folder.parent / "template"),
            "folder": str(world.folder),
            "log": str(world.folder.parent / "log"),
            "environment": world.environment | {"COMFY_HOME": str(world.home)},
            "arguments": ["realize", "demo", *world.local],
            "what": what,
            "part": part,
            "of": of,
        }
        self.process = subprocess.Popen(
            [sys.executable, str(RUNNER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=world.environment,
        )
        self._say(json.dumps(order))
        first = self._hear()
        assert first["status"] == 0, first
        self.calls: list[str] = first["calls"]

    def _say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def _hear(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        return json.loads(line) if line else None

    def __iter__(self) -> Iterator[tuple[str, int, str]]:
        """Every run that went wrong: the call, the status and what was said."""
        count = 0
        while (found := self._hear()) is not None:
            count += 1
            yield self.calls[found["number"] - 1], found["status"], found["text"]
            self._say("next")
        assert self.process.wait(PATIENCE) == 0
        assert count > 10

    def again(self) -> tuple[int, str]:
        """Lets the next realize run; its status and what was said."""
        self._say("again")
        found = self._hear()
        return found["status"], found["text"]

    def __enter__(self) -> "Runs":
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()


def inodes(world: World) -> dict[str, int]:
    return {entry: os.stat(world.store.path(entry)).st_ino for entry in world.store.ids()}


def version_of(view: Path) -> str:
    text = (view / "custom_nodes" / "demo-node" / "__init__.py").read_text()
    return next(line for line in text.splitlines() if line.startswith("VERSION"))


def assert_old_is_sound(world: World) -> None:
    """Whatever is current is whole; generation 1 is there; no entry is damaged."""
    profile = world.profile()
    assert_whole(world.store)
    current = profile.current()
    assert current in (1, 2)
    for number in profile.numbers():
        for entry in profile.record(number).entries:
            assert world.store.has(entry)
    for number in {1, current}:
        view = Path(profile.view(number))
        assert (view / "main.py").stat().st_size > 0
        assert version_of(view) == f'VERSION = "{number}"'
        assert (view / "models" / "checkpoints" / "demo.safetensors").is_file()
        assert (view / "user").is_dir()
    assert world.lock()["version_id"] == "demo"


def assert_done(world: World, before: dict[str, int]) -> None:
    """The update is there; what was stored before it was not stored again."""
    profile = world.profile()
    assert profile.current() == profile.numbers()[-1]
    assert version_of(world.home) == 'VERSION = "2"'
    assert (world.home / "models" / "vae" / "other").read_bytes() == b"another model"
    assert (world.home / "main.py").is_file()
    after = inodes(world)
    assert before.items() <= after.items()
    assert len(after) == 7


def unfinished(world: World) -> list[str]:
    """What is left of work that did not end."""
    made = world.local_root / "environments"
    folders = [world.cache / "tmp", world.cache / "leases", made, world.folder]
    folders += [world.cache / "resolved", Path(world.profile().folder)]
    found = [name for folder in folders if folder.is_dir() for name in os.listdir(folder)]
    known = {"current", "demo.lock.json", *os.listdir(world.folder.parent / "template")}
    known |= {"temporary", "repos", "wheels", "sources", "local", world.home.name}
    if made.is_dir():
        known |= {name for name in os.listdir(made) if not name.startswith(".new-")}
    generations = {f"{n}{end}" for n in (1, 2) for end in ("", ".json", ".link")}
    return sorted(set(found) - known - generations)


def go_on(runs: Runs, world: World) -> None:
    """The next realize ends well and stores nothing again."""
    before = inodes(world)
    assert runs.again()[0] == 0
    assert_done(world, before)


@pytest.mark.parametrize("part", range(PARTS))
def test_killed(world: World, part: int) -> None:
    """Killed at any call: the old generation is sound and the next realize succeeds."""
    with Runs(world, "SIGKILL", part) as runs:
        for count, (call, status, text) in enumerate(runs):
            assert (status, text) == (9, ""), call
            assert_old_is_sound(world)
            if count % 2 == 0:
                go_on(runs, world)


@pytest.mark.parametrize(
    ("what", "part", "of"),
    [("EIO", 0, 4), ("EIO", 2, 4), ("EDQUOT", 1, 4), ("FULL", 3, 4)],
)
def test_refused(world: World, what: str, part: int, of: int) -> None:
    """An error of the file system at any call, or space that is used up from there on, is one
    sentence; the next realize goes on from what was stored."""
    code = errno.ENOSPC if what == "FULL" else getattr(errno, what)
    with Runs(world, what, part, of) as runs:
        for count, (call, status, text) in enumerate(runs):
            if os.waitstatus_to_exitcode(status) == 0:
                # A scrap that could not be removed, or advice that could not be noted.
                assert_done(world, {})
            elif what == "EIO" or call in GROWING:
                assert_refused(world, call, status, text, code)
            if count % 5 == 0:
                go_on(runs, world)


def assert_refused(world: World, call: str, status: int, text: str, code: int) -> None:
    """One sentence, exit 2, nothing unfinished left, the old generation sound."""
    assert os.waitstatus_to_exitcode(status) == 2, (call, text)
    said = [line for line in text.splitlines() if not line.startswith("hint: ")]
    assert len(said) == 1, text
    assert said[0].startswith("error: ")
    assert str(world.folder) in said[0], text
    assert any(words in said[0] for words in MEANINGS[code]), (call, text)
    assert_old_is_sound(world)
    if call not in CLEANING:
        assert unfinished(world) == [], call


@pytest.mark.parametrize("part", range(2))
def test_interrupted(world: World, part: int) -> None:
    """Ctrl-C at any call: one sentence, exit 130, nothing unfinished left."""
    message = "interrupted: nothing is broken, run it again to go on\n"
    with Runs(world, "SIGINT", part, 5) as runs:
        for count, (call, status, text) in enumerate(runs):
            assert (os.waitstatus_to_exitcode(status), text) == (130, message), call
            assert_old_is_sound(world)
            if call not in CLEANING:
                assert unfinished(world) == [], call
            if count % 5 == 0:
                go_on(runs, world)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a file system")
def test_full_volume(tmp_path: Path, the_material: Material) -> None:
    """On a volume that is really full the error is clear, nothing is half written, and what needs
    no space still works: rolling back, and the version in use."""
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(mounted)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a file system is not permitted here")
    try:
        full_volume(World(tmp_path, the_material), mounted)
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)


def full_volume(world: World, mounted: Path) -> None:
    world.cache = mounted / "cache"
    world.environment["COMFY_CACHE_ROOT"] = str(world.cache)
    world.spec()
    world.realize()
    world.spec(custom_nodes=[world.node(world.material.v2)])
    world.realize()
    big = world.folder / "sources" / "big"
    big.write_bytes(os.urandom(8 << 20))
    world.spec(models=[{"source": str(big), "target_path": "vae/big"}])
    before = {path: found[:2] for path, found in world.listing().items()}
    done = world.cvs("realize", "demo", *world.local)

    assert done[:2] == (2, "")
    assert done.err.startswith(f"error: no space is left: {world.cache}")
    assert "hint: free some space and run it again: what was stored is kept" in done.err
    after = {path: found[:2] for path, found in world.listing().items()}
    lock = "mounted/cache/resolved/demo.lock.json"
    assert {**before, lock: after[lock]} == after, "the lock alone was resolved"
    assert_whole(world.store)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        (mounted / "filler").write_bytes(bytes(8 << 20))
    world.ok("rollback", "demo")
    assert version_of(world.home) == 'VERSION = "1"'
    assert world.process("exec", "demo", "--", "python", "-c", "import cvs_demo_palette").code == 0
    (mounted / "filler").unlink()
    big.write_bytes(b"small")
    world.spec(models=[{"source": str(big), "target_path": "vae/small"}])
    world.realize()
    assert (world.home / "models" / "vae" / "small").read_bytes() == b"small"
