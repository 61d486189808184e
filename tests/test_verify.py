"""Verifying: every kind of damage is found and its place named."""

import errno
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvs.store import follower, manifest
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
        ("node/bin/run", "is missing"),
        ("node/extra", "is not part of the entry"),
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


def test_changed_advice(store: Store, tree: EntryId) -> None:
    """Where an entry came from is not part of its id, and covered all the same."""
    changed_manifest(store, tree, b'"origin":""', b'"origin":"elsewhere"')
    ((path, what),) = damage(store, tree)

    assert path == manifest.NAME
    assert what.endswith("it was changed after it was written")


def test_a_manifest_without_a_check(store: Store, tree: EntryId) -> None:
    """Manifests of older writers have none; what the id covers is compared all the same."""
    path = Path(store.path(tree), manifest.NAME)
    document = json.loads(path.read_bytes())
    del document["check"]
    path.chmod(0o644)
    path.write_text(json.dumps(document | {"origin": "elsewhere"}))
    path.chmod(0o444)
    assert damage(store, tree) == []

    flip(Path(store.path(tree), "node/main.py"))
    assert damage(store, tree) == [("node/main.py", "has other bytes")]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"size":1049576', b'"size":1'),
        (b'"content"', b'"content.gguf"'),
        (b'"sha256":"', b'"sha256":"0'),
    ],
)
def test_a_changed_manifest_of_a_file(store: Store, file: EntryId, old: bytes, new: bytes) -> None:
    """Size, SHA-256 and name of a file are compared although the id does not cover them."""
    changed_manifest(store, file, old, new)

    assert [path for path, _ in damage(store, file)] == [manifest.NAME]


def test_a_manifest_that_says_another_size(store: Store, file: EntryId) -> None:
    """An older writer's size is compared with the file."""
    document = json.loads(Path(store.path(file), manifest.NAME).read_bytes())
    path = Path(store.path(file), manifest.NAME)
    path.chmod(0o644)
    path.write_text(json.dumps({k: v for k, v in document.items() if k != "check"} | {"size": 1}))
    path.chmod(0o444)

    assert damage(store, file) == [("content", "has 1049576 bytes instead of 1")]


@pytest.mark.parametrize(
    ("path", "mode", "what"),
    [
        ("node/main.py", 0o644, "has mode 644 instead of 444"),
        ("node/main.py", 0o4444, "has mode 4444 instead of 444"),
        ("node/main.py", 0o044, "has mode 44 instead of 444"),
        ("node/main.py", 0o555, "lost or gained its executable bit"),
        ("node/bin/run", 0o444, "lost or gained its executable bit"),
        ("node/bin/run", 0o755, "has mode 755 instead of 555"),
        ("node/bin", 0o777, "has mode 777 instead of 755"),
        ("node/bin", 0o1755, "has mode 1755 instead of 755"),
        ("node", 0o775, "has mode 775 instead of 755"),
        (".", 0o757, "has mode 757 instead of 755"),
        ("manifest.json", 0o664, "has mode 664 instead of 444"),
    ],
)
def test_changed_modes(store: Store, tree: EntryId, path: str, mode: int, what: str) -> None:
    """Where modes are kept, whatever lets more be done than a writer granted is damage."""
    Path(store.path(tree), path).chmod(mode)

    assert damage(store, tree) == [(path, what)]


def test_the_mode_of_a_file_entry(store: Store, file: EntryId) -> None:
    """The one file of a file entry is nobody's to write or to execute."""
    content = Path(store.path(file), "content")
    content.chmod(0o555)
    assert damage(store, file) == [("content", "lost or gained its executable bit")]
    content.chmod(0o664)
    assert damage(store, file) == [("content", "has mode 664 instead of 444")]


def test_a_umask_may_take(store: Store, tree: EntryId) -> None:
    """What group and others may not read or enter is no damage."""
    Path(store.path(tree), "node/main.py").chmod(0o400)
    Path(store.path(tree), "node/bin").chmod(0o700)

    assert damage(store, tree) == []


@pytest.mark.parametrize("kind", ["tree", "file"])
def test_a_sample(
    store: Store, tree: EntryId, file: EntryId, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Bytes are compared of a part of the files; everything else of all of them."""
    entry, path = (tree, "node/main.py") if kind == "tree" else (file, "content")
    flip(Path(store.path(entry), path))
    wrong = [Damage(entry, path, "has other bytes")]
    assert list(verify(store, entry, sample=0.0)) == []
    assert list(verify(store, entry, sample=1.0)) == wrong
    for chance, expected in ((0.49, wrong), (0.51, [])):
        monkeypatch.setattr(random, "random", lambda chance=chance: chance)
        assert list(verify(store, entry, sample=0.5)) == expected
    resize(Path(store.path(entry), path), 1)
    assert [found.what for found in verify(store, entry, sample=0.0)] != []


def test_a_large_file_is_read_by_a_process_of_its_own(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage is found there too, and a file that cannot be read to its end is named."""
    monkeypatch.setattr(follower, "LARGE", 1 << 20)
    (tmp_path / "model").write_bytes(os.urandom((33 << 20) + 5))
    entry = store.add(str(tmp_path / "model"))
    assert damage(store, entry) == []
    flip(Path(store.path(entry), "content"), -3)
    assert damage(store, entry) == [("content", "has other bytes")]
    monkeypatch.setattr(follower, "_CHILD", "import os; os.kill(os.getpid(), 7)")
    assert damage(store, entry) == [("content", "cannot be read: Input/output error")]


def test_an_entry_under_another_name(store: Store, tree: EntryId) -> None:
    """A whole entry under a name that is not its own is damage."""
    other = EntryId("0" * 64)
    os.rename(store.path(tree), store.path(other))

    assert damage(store, other) == [(manifest.NAME, "does not belong to an entry of this name")]


def test_a_missing_entry(store: Store) -> None:
    """An entry that is not there is missing, not damaged."""
    with pytest.raises(EntryMissing):
        list(verify(store, EntryId("0" * 64)))


def test_a_link_in_the_place_of_an_entry(store: Store, tree: EntryId) -> None:
    """A link under an entry's name is damage, though it leads to the entry."""
    moved = os.path.join(store.volume.models, "moved")
    os.rename(store.path(tree), moved)
    os.symlink(moved, store.path(tree))

    assert damage(store, tree) == [(".", "is a link")]


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
    opened, scanned, led = os.open, os.scandir, os.readlink

    def refuse(path: Any, names: tuple[str, ...]) -> None:
        if isinstance(path, bytes) and os.fsdecode(path).rstrip("/").endswith(names):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def open_(path: Any, *arguments: Any, **options: Any) -> int:
        refuse(path, ("node/main.py",))
        return opened(path, *arguments, **options)

    def scandir(path: Any) -> Any:
        refuse(path, ("node/bin",))
        return scanned(path)

    def readlink(path: Any) -> Any:
        refuse(path, ("node/link",))
        return led(path)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "readlink", readlink)

    assert damage(store, tree) == [
        ("node/bin/", "cannot be read: Input/output error"),
        ("node/link", "cannot be read: Input/output error"),
        ("node/main.py", "cannot be read: Input/output error"),
    ]
