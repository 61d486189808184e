"""Verifying: every kind of damage is found and its place named."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvs.store import manifest
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import EntryMissing
from cvs.store.verify import Damage, verify
from cvs.store.volume import Volume

Harm = Callable[[Path], Any]


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def tree(store: Store) -> EntryId:
    """A tree with a bit of everything."""
    with store.stage() as stage:
        writer = stage.tree("node")
        writer.write(b"main.py", b"print('hello')\n")
        writer.write(b"bin/run", b"#!/bin/sh\n", executable=True)
        writer.write(b"two\nlines/\xff", b"x")
        writer.folder(b"empty")
        writer.link(b"link", b"main.py")
        return store.publish(writer.finish())[0]


@pytest.fixture
def file(store: Store) -> EntryId:
    """A file of more than one chunk."""
    with store.stage() as stage:
        return store.publish(stage.file([b"x" * (1 << 20), b"y" * 1000]))[0]


def damage(store: Store, entry: EntryId) -> list[tuple[str, str]]:
    """Place and kind of every damage of an entry."""
    found = list(verify(store, entry))
    assert all(isinstance(one, Damage) and one.entry == entry for one in found)
    return [(one.path, one.what) for one in found]


def flip(path: Path, at: int = 0) -> None:
    """Changes one bit."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def relink(path: Path, target: str) -> None:
    """Points a link elsewhere."""
    path.unlink()
    path.symlink_to(target)


def replace(path: Path, harm: Harm) -> None:
    """Puts something else in the place of a file, link or folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    harm(path)


def resize(path: Path, by: int) -> None:
    """Truncates or extends a file."""
    os.truncate(path, path.stat().st_size + by)


def test_sound_entries(store: Store, tree: EntryId, file: EntryId) -> None:
    """What was published has no damage; nor has a set, whose members may be gone."""
    with store.stage() as stage:
        (members,) = store.publish(stage.set([EntryId("0" * 64)]))

    assert [damage(store, entry) for entry in (tree, file, members)] == [[], [], []]


@pytest.mark.parametrize(
    ("path", "harm", "what"),
    [
        ("main.py", flip, "has other bytes"),
        ("main.py", lambda path: flip(path, -1), "has other bytes"),
        ("main.py", lambda path: resize(path, -1), "has 14 bytes instead of 15"),
        ("main.py", lambda path: os.truncate(path, 0), "has 0 bytes instead of 15"),
        ("main.py", lambda path: resize(path, 1), "has 16 bytes instead of 15"),
        ("main.py", Path.unlink, "is missing"),
        ("main.py", lambda path: replace(path, Path.mkdir), "is not a file"),
        ("main.py", lambda path: replace(path, os.mkfifo), "is not a file"),
        ("main.py", lambda path: relink(path, "bin/run"), "is not a file"),
        ("main.py", lambda path: path.chmod(0o755), "lost or gained its executable bit"),
        ("bin/run", lambda path: path.chmod(0o644), "lost or gained its executable bit"),
        ("two%0Alines/%FF", Path.unlink, "is missing"),
        ("two%0Alines/%FF", flip, "has other bytes"),
        ("empty", Path.rmdir, "is missing"),
        ("empty", lambda path: replace(path, Path.touch), "is not a folder"),
        ("empty", lambda path: replace(path, lambda at: at.symlink_to("bin")), "is not a folder"),
        ("link", Path.unlink, "is missing"),
        ("link", lambda path: relink(path, "bin/run"), "leads elsewhere"),
        ("link", lambda path: relink(path, "/etc/passwd"), "leads elsewhere"),
        ("link", lambda path: replace(path, Path.touch), "is not a link"),
        ("link", lambda path: replace(path, Path.mkdir), "is not a link"),
        ("extra", Path.touch, "is not part of the entry"),
        ("extra", Path.mkdir, "is not part of the entry"),
        ("extra", lambda path: path.symlink_to("main.py"), "is not part of the entry"),
        ("extra", os.mkfifo, "is not part of the entry"),
        ("empty/__pycache__", Path.mkdir, "is not part of the entry"),
        ("more%FF%0A", Path.touch, "is not part of the entry"),
    ],
)
def test_damage_of_a_tree(store: Store, tree: EntryId, path: str, harm: Harm, what: str) -> None:
    """Each change of one thing is found once, under its own name and no other."""
    raw = path.replace("%FF", "\udcff").replace("%0A", "\n")
    harm(Path(store.path(tree), "node", raw))

    assert damage(store, tree) == [(f"node/{path}", what)]


def test_a_folder_replaced_by_a_link(store: Store, tree: EntryId) -> None:
    """A folder that is now a link to the same files is damage: nobody looks through it."""
    node = Path(store.path(tree), "node")
    (node / "bin").rename(Path(store.volume.models, "bin"))
    (node / "bin").symlink_to(Path(store.volume.models, "bin"))

    assert damage(store, tree) == [
        ("node/bin", "is not a folder"),
        ("node/bin/run", "is missing"),
    ]


def test_all_damage_is_found(store: Store, tree: EntryId) -> None:
    """One damage does not hide the others."""
    node = Path(store.path(tree), "node")
    flip(node / "main.py")
    (node / "bin/run").unlink()
    (node / "extra").touch()
    Path(store.path(tree), "beside").touch()

    assert damage(store, tree) == [
        ("beside", "is not part of the entry"),
        ("node/extra", "is not part of the entry"),
        ("node/bin/run", "is missing"),
        ("node/main.py", "has other bytes"),
    ]


@pytest.mark.parametrize("harm", [shutil.rmtree, lambda path: replace(path, Path.touch)])
def test_the_folder_of_a_tree(store: Store, tree: EntryId, harm: Harm) -> None:
    """A tree without its folder is told in one line, not once per file."""
    harm(Path(store.path(tree), "node"))

    assert damage(store, tree) == [("node", "is missing or not a folder")]


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (flip, "has other bytes"),
        (lambda path: flip(path, -1), "has other bytes"),
        (lambda path: resize(path, -1), "has 1049575 bytes instead of 1049576"),
        (lambda path: resize(path, 1), "has 1049577 bytes instead of 1049576"),
        (Path.unlink, "is missing"),
        (lambda path: replace(path, Path.mkdir), "is not a file"),
        (lambda path: relink(path, "manifest.json"), "is not a file"),
    ],
)
def test_damage_of_a_file(store: Store, file: EntryId, harm: Harm, what: str) -> None:
    """Each change of the one file is found."""
    harm(Path(store.path(file), "content"))

    assert damage(store, file) == [("content", what)]


def test_extra_things_beside_the_content(store: Store, tree: EntryId, file: EntryId) -> None:
    """An entry holds its manifest and its content, and nothing else."""
    for entry in (tree, file):
        Path(store.path(entry), "a\nb").mkdir()

        assert damage(store, entry) == [("a%0Ab", "is not part of the entry")]


@pytest.mark.parametrize("kind", ["tree", "file"])
@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (Path.unlink, "is missing"),
        (lambda path: path.write_bytes(b""), "is not a manifest"),
        (lambda path: path.write_bytes(b"\xff\0"), "is not a manifest"),
        (lambda path: resize(path, -3), "is not a manifest"),
        (lambda path: replace(path, Path.mkdir), "is not a file"),
        (lambda path: replace(path, os.mkfifo), "is not a file"),
        (lambda path: (path.rename(path.with_name("m")), path.symlink_to("m")), "is not a file"),
    ],
)
def test_damage_of_the_manifest(
    store: Store, request: pytest.FixtureRequest, kind: str, harm: Harm, what: str
) -> None:
    """A manifest that is gone, garbage or no file is damage of the manifest."""
    entry: EntryId = request.getfixturevalue(kind)
    harm(Path(store.path(entry), manifest.NAME))
    found = damage(store, entry)

    assert [path for path, _ in found] == [manifest.NAME]
    assert what in found[0][1]


def changed_manifest(store: Store, entry: EntryId, old: bytes, new: bytes) -> None:
    """Writes a manifest with some of its bytes replaced."""
    path = Path(store.path(entry), manifest.NAME)
    data = path.read_bytes()
    assert old in data
    path.unlink()
    path.write_bytes(data.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"main.py"', b'"main.pz"'),
        (b'"node"', b'"nodf"'),
        (b",true]", b",false]"),
        (b'"empty"', b'"emptx"'),
        (b'"link","main.py"', b'"link","bin/run"'),
        (b'"bin/run"', b'"../run"'),
        (b'"link","main.py"', b'"link","../main.py"'),
        (b'"empty"', b'"MAIN.py"'),
        (b'["d","bin"],', b""),
        (b'"size":26', b'"size":27'),
        (b'"main.py",15', b'"main.py",16'),
        (b'"format":1', b'"format":2'),
        (b'"kind":"tree"', b'"kind":"set"'),
    ],
)
def test_a_changed_manifest_of_a_tree(store: Store, tree: EntryId, old: bytes, new: bytes) -> None:
    """Whatever a changed manifest says, it is damage; nothing it names is looked at."""
    changed_manifest(store, tree, old, new)

    assert [path for path, _ in damage(store, tree)] == [manifest.NAME]


def test_advice_may_differ(store: Store, tree: EntryId) -> None:
    """Where an entry came from is advice."""
    changed_manifest(store, tree, b'"origin":""', b'"origin":"elsewhere"')

    assert damage(store, tree) == []


def test_a_changed_manifest_of_a_file(store: Store, file: EntryId) -> None:
    """Size, SHA-256 and name of a file are compared although the id does not cover them."""
    document = store.manifest(file)
    assert isinstance(document, manifest.FileManifest)
    sha256 = document.sha256.encode()
    other = b"0" * 64

    changed_manifest(store, file, sha256, other)
    assert damage(store, file) == [(manifest.NAME, "has another SHA-256 than the file")]
    changed_manifest(store, file, other, sha256)
    changed_manifest(store, file, b'"size":1049576', b'"size":1')
    assert damage(store, file) == [("content", "has 1049576 bytes instead of 1")]
    changed_manifest(store, file, b'"size":1,', b'"size":1049576,')
    changed_manifest(store, file, b'"content"', b'"content.gguf"')
    assert [path for path, _ in damage(store, file)] == [manifest.NAME]


def test_an_entry_under_another_name(store: Store, tree: EntryId) -> None:
    """A whole entry under a name that is not its own is damage."""
    other = EntryId("0" * 64)
    os.rename(store.path(tree), store.path(other))

    assert damage(store, other) == [(manifest.NAME, "does not belong to an entry of this name")]


def test_a_missing_entry(store: Store) -> None:
    """An entry that is not there is missing, not damaged."""
    with pytest.raises(EntryMissing):
        list(verify(store, EntryId("0" * 64)))


def test_a_file_in_the_place_of_an_entry(store: Store, tree: EntryId) -> None:
    """A file under an entry's name is damage."""
    shutil.rmtree(store.path(tree))
    Path(store.path(tree)).touch()

    assert [path for path, _ in damage(store, tree)] == [manifest.NAME]


@pytest.mark.parametrize("mode", [0o666, 0o777])
def test_a_volume_without_modes(store: Store, tree: EntryId, mode: int) -> None:
    """Where the file system shows all files alike, their modes are no damage."""
    store.volume._filesystem = "fuse.mfs"
    for folder, _, files in os.walk(store.path(tree)):
        for name in files:
            if not os.path.islink(os.path.join(folder, name)):
                os.chmod(os.path.join(folder, name), mode)

    assert damage(store, tree) == []


@pytest.mark.parametrize("mode", [0o666, 0o777])
def test_a_volume_without_modes_and_nothing_executable(
    store: Store, small: Callable[..., EntryId], mode: int
) -> None:
    """The same for a tree in which no file is executable."""
    store.volume._filesystem = "fuse.mfs"
    entry = small()
    os.chmod(os.path.join(store.path(entry), "small/file.txt"), mode)

    assert damage(store, entry) == []


def test_a_local_disk_keeps_modes(store: Store, small: Callable[..., EntryId]) -> None:
    """Where modes are kept, a bit that all files gained is damage all the same."""
    store.volume._filesystem = "ext4"
    entry = small()
    os.chmod(os.path.join(store.path(entry), "small/file.txt"), 0o777)

    assert damage(store, entry) == [("small/file.txt", "lost or gained its executable bit")]


def test_what_cannot_be_read(store: Store, tree: EntryId, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and folders that cannot be read are named; what may lie below is not called missing."""
    opened, scanned = os.open, os.scandir

    def refuse(path: Any, names: tuple[str, ...]) -> None:
        if isinstance(path, bytes) and os.fsdecode(path).rstrip("/").endswith(names):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def open_(path: Any, *arguments: Any, **options: Any) -> int:
        refuse(path, ("node/main.py",))
        return opened(path, *arguments, **options)

    def scandir(path: Any) -> Any:
        refuse(path, ("node/bin",))
        return scanned(path)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "scandir", scandir)

    assert damage(store, tree) == [
        ("node/bin/", "cannot be read: Input/output error"),
        ("node/main.py", "cannot be read: Input/output error"),
    ]
