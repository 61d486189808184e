"""`cvs store add`."""

import errno
import os
from pathlib import Path

import pytest
from blake3 import blake3
from faults import fail_at
from world import World

from cvs.store import fs, manifest

pytest_plugins = ["world_fixtures"]


def test_a_file(world: World, tmp_path: Path) -> None:
    """Its hash is printed, which is its BLAKE3; it is there, whole, under its name."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    done = world.ok("store", "add", str(path))

    assert done.out == f"{blake3(b'weights').hexdigest()}  {path}\n"
    entry = done.out.split()[0]
    assert world.ok("store", "path", entry[:8]).out.endswith("/content.safetensors\n")
    assert world.ok("store", "verify", entry[:8]).out == "1 entries, all well\n"
    assert path.exists()


def test_several(world: World, tmp_path: Path) -> None:
    """Each gets a line, or an object with --json."""
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_bytes(b"b")
    done = world.ok("store", "add", "--json", str(tmp_path / "a"), str(tmp_path / "b"))

    assert [(one["kind"], one["size"], one["name"]) for one in done.json] == [
        ("file", 1, "a"),
        ("tree", 1, "b"),
    ]


def test_a_name(world: World, tmp_path: Path) -> None:
    """A tree may be called otherwise than its folder; two cannot be called alike."""
    (tmp_path / "b").mkdir()
    entry = world.ok("store", "add", "--name", "My-Node", str(tmp_path / "b")).out.split()[0]
    assert world.ok("store", "path", entry).out.endswith("/My-Node\n")

    done = world.cvs("store", "add", "--name", "x", str(tmp_path / "b"), str(tmp_path / "b"))
    assert done.code == 2
    assert done.err.startswith("error: --name is for one path\n")


def test_moving(world: World, tmp_path: Path) -> None:
    """The file itself becomes that of the entry, and is not at its old place any more."""
    path = world.cache.parent / "model.gguf"
    path.write_bytes(b"weights")
    inode = path.stat().st_ino
    entry = world.ok("store", "add", "--move", str(path)).out.split()[0]

    stored = Path(world.ok("store", "path", entry).out.strip())
    assert stored.stat().st_ino == inode
    assert not path.exists()


@pytest.mark.parametrize("whole", [True, False])
def test_moving_goes_on(
    world: World, tmp_path: Path, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder whose move was ended is no more at its place; the next run goes on all the same."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / name).write_text(name)
    world.volume.prepare()
    if whole:
        aside = Path(f"{folder}.moving-to-cvs-{'0' * 16}")
        aside.mkdir()
        folder.rename(aside / "folder")
    else:
        monkeypatch.setattr(fs, "has_mounts", lambda _: True)
        with fail_at(2, code=errno.EIO, calls=("unlink",)):
            assert world.cvs("store", "add", "--move", str(folder)).code == 2
    assert not folder.exists()
    done = world.ok("store", "add", "--move", str(folder))

    assert [done.out.split()[0]] == list(world.store.ids())
    assert list(tmp_path.glob("folder*")) == []
    assert "is not there" in world.cvs("store", "add", "--move", str(folder)).err


def test_without_sha256(world: World, tmp_path: Path) -> None:
    """What takes the most time can be left out."""
    (tmp_path / "a").write_bytes(b"a")
    entry = world.ok("store", "add", "--no-sha256", str(tmp_path / "a")).out.split()[0]
    document = world.store.manifest(world.store.find(entry))

    assert isinstance(document, manifest.FileManifest)
    assert document.sha256 == ""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "is not there"),
        (os.mkfifo, "is neither a file nor a folder"),
        (lambda path: os.symlink("nowhere", path), "is neither a file nor a folder"),
    ],
)
def test_what_cannot_be_added(world: World, tmp_path: Path, make: object, said: str) -> None:
    """One sentence, and nothing is added, not even what stands before it."""
    assert callable(make)
    (tmp_path / "good").write_bytes(b"good")
    make(tmp_path / "bad")
    done = world.cvs("store", "add", str(tmp_path / "bad"))

    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: {tmp_path / 'bad'} {said}\n"
    assert list(world.store.ids()) == []


def test_nothing_is_added_when_a_path_is_wrong(world: World, tmp_path: Path) -> None:
    """A word that is wrong is known before the first is taken."""
    (tmp_path / "good").write_bytes(b"good")
    done = world.cvs("store", "add", str(tmp_path / "good"), str(tmp_path / "bad"))

    assert done.code == 2
    assert list(world.store.ids()) == []


def test_the_store_itself(world: World) -> None:
    """A folder that holds the store, or lies in it, is refused."""
    world.volume.prepare()
    for path in (world.cache, world.cache / "store"):
        done = world.cvs("store", "add", str(path))
        assert (done.code, "lie in each other" in done.err) == (2, True), done
