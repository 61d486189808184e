"""The volume: set up once, by anyone, and left alone where it is newer."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from faults import fail_at

from cvs.store import fs
from cvs.store.errors import StoreError
from cvs.store.volume import STALE_LOCAL, STALE_NETWORK, Volume


@pytest.fixture
def root(memory: Path) -> Path:
    """Where a volume will be."""
    return memory / "cache"


def snapshot(root: Path) -> dict[str, tuple[int, int]]:
    """Every path below a folder with its inode and time of change."""
    found: dict[str, tuple[int, int]] = {}
    for folder, folders, files in os.walk(root):
        for name in (".", *folders, *files):
            path = os.path.join(folder, name)
            status = os.lstat(path)
            found[path] = status.st_ino, status.st_mtime_ns
    return found


def test_constructing_touches_nothing(root: Path) -> None:
    """A volume that is only named is not made."""
    volume = Volume(str(root))
    volume.check()

    assert not volume.exists()
    assert not root.exists()


def test_prepare_makes_the_layout(root: Path) -> None:
    """The folders of the layout and the format file, and nothing else."""
    volume = Volume(str(root))
    volume.prepare()

    assert volume.exists()
    assert (root / "format").read_text() == "cvs-layout 1\n"
    assert set(os.listdir(root)) == {
        *("store", "tmp", "leases", "profiles", "state", "models", "pins", "refs", "resolved"),
        *("partial", "reserve", "format"),
    }
    assert os.listdir(root / "tmp") == []


@pytest.mark.parametrize(
    ("wheels", "kind", "packs"),
    [
        (None, "ext4", False),
        (None, "fuse.mfs", True),
        (None, "nfs4", True),
        ("pack", "ext4", True),
        ("tree", "fuse.mfs", False),
    ],
)
def test_how_wheels_are_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch, wheels: str | None, kind: str, packs: bool
) -> None:
    """By what suits the file system, or as asked; once set up it stays, whoever asks otherwise."""
    monkeypatch.setattr(fs, "filesystem_of", lambda _: kind)
    volume = Volume(str(root), wheels=wheels)
    assert volume.packs_wheels == packs
    volume.prepare()

    assert (root / "format").read_text() == f"cvs-layout {2 if packs else 1}\n"
    monkeypatch.setattr(fs, "filesystem_of", lambda _: "nfs" if not packs else "ext4")
    for again in (Volume(str(root)), Volume(str(root), wheels="tree" if packs else "pack")):
        again.prepare()
        assert again.packs_wheels == packs


def test_prepare_is_idempotent(root: Path) -> None:
    """Setting up again changes nothing, to the inode."""
    Volume(str(root)).prepare()
    before = snapshot(root)
    Volume(str(root)).prepare()

    assert before == snapshot(root)


def test_prepare_repairs_a_lost_folder(root: Path) -> None:
    """A folder that somebody removed comes back, what is there stays."""
    Volume(str(root)).prepare()
    (root / "models/mine").touch()
    (root / "tmp").rmdir()
    Volume(str(root)).prepare()

    assert (root / "tmp").is_dir()
    assert (root / "models/mine").exists()


def _prepare(start: "multiprocessing.synchronize.Barrier", root: str) -> None:
    for number in range(10):
        start.wait()
        Volume(f"{root}-{number}").prepare()


def test_many_processes_prepare_one_volume(root: Path) -> None:
    """Whoever comes first, all find a whole volume after."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [context.Process(target=_prepare, args=(start, str(root))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    for number in range(10):
        made = Path(f"{root}-{number}")
        assert (made / "format").read_text() == "cvs-layout 1\n"
        assert os.listdir(made / "tmp") == []


def test_preparing_may_fail_at_any_change(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever change fails, there is no format file before all else, and no rest in tmp/ but
    what could not be removed; the next one sweeps that. Only the reserve may be wanting."""
    calls: list[str] = []
    places: list[str] = []

    def observe(call: str, where: object) -> None:
        calls.append(call)
        places.append(str(where))

    monkeypatch.setattr(fs, "observer", observe)
    Volume(str(root)).prepare()
    renamed = calls.index("rename") + 1
    needed = places.index(str(root / "reserve" / "inode-00"))
    for number, call in enumerate(calls, 1):
        shutil.rmtree(root)
        try:
            with fail_at(number):
                Volume(str(root)).prepare()
            failed = False
        except OSError:
            failed = True
        assert failed == (call != "rmdir" and number <= needed)
        assert (number > renamed) == (root / "format").exists()
        if failed and (root / "tmp").exists():
            assert os.listdir(root / "tmp") == []
        Volume(str(root)).prepare()
        assert Volume(str(root)).exists()
        assert os.listdir(root / "tmp") == []

    assert len(calls) > 10


@pytest.mark.parametrize("number", [3, 10, 999])
def test_a_newer_layout_is_left_alone(root: Path, number: int) -> None:
    """A volume of a newer cvs is refused with a hint, and nothing in it is changed."""
    Volume(str(root)).prepare()
    (root / "format").write_text(f"cvs-layout {number}\n")
    (root / "tmp").rmdir()
    before = snapshot(root)

    for call in (Volume(str(root)).check, Volume(str(root)).prepare):
        with pytest.raises(StoreError, match=f"layout {number}.*nothing was changed") as caught:
            call()
        assert caught.value.hint == "update cvs"
    assert before == snapshot(root)


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"cvs-layout", b"cvs-layout one\n", b"git 1\n", b"\xff\xfe", b"\0" * 200]
)
def test_a_damaged_format_file_is_refused(root: Path, data: bytes) -> None:
    """A format file that is not one names no layout: nothing is changed."""
    Volume(str(root)).prepare()
    (root / "format").write_bytes(data)
    (root / "tmp").rmdir()
    before = snapshot(root)

    with pytest.raises(StoreError, match="not the format file"):
        Volume(str(root)).prepare()
    assert before == snapshot(root)


def test_a_relative_root_is_fixed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changing the folder one works in later does not move the volume."""
    monkeypatch.chdir(tmp_path)
    volume = Volume("cache")
    monkeypatch.chdir("/")

    assert volume.root == str(tmp_path / "cache")


@pytest.mark.parametrize(
    ("filesystem", "expected"),
    [
        *(("ext4", STALE_LOCAL), ("overlay", STALE_LOCAL), ("tmpfs", STALE_LOCAL)),
        *(("fuse.mfs", STALE_NETWORK), ("nfs4", STALE_NETWORK), ("", STALE_NETWORK)),
    ],
)
def test_staleness(root: Path, filesystem: str, expected: float) -> None:
    """Only a disk of this host shows every change at once; what is unknown counts as remote."""
    volume = Volume(str(root))
    volume._filesystem = filesystem

    assert expected == volume.staleness


def test_filesystem_is_asked_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The type is that of the root, also before the root is there."""
    asked: list[str] = []

    def filesystem_of(path: str) -> str:
        asked.append(path)
        return "xfs"

    monkeypatch.setattr(fs, "filesystem_of", filesystem_of)
    volume = Volume(str(root))

    assert [volume.filesystem, volume.filesystem] == ["xfs", "xfs"]
    assert asked == [str(root)]


def test_a_volume_shows_its_root() -> None:
    """A volume in a message is its path."""
    assert repr(Volume("/a/../b")) == "Volume('/b')"


def test_importing_the_store_is_free_of_side_effects(tmp_path: Path) -> None:
    """Importing makes no file and reads no setting."""
    code = "import cvs.store.entries, cvs.store.ingest, cvs.store.verify, cvs.store.refs"
    environment = {"HOME": str(tmp_path / "home"), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)

    assert os.listdir(tmp_path) == []
