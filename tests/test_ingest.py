"""Taking local files and folders into the store."""

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from faults import assert_whole, kill_at, leftovers

from cvs.store import fs, ingest, tree, workers
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError
from cvs.store.ingest import add_path
from cvs.store.manifest import FileManifest, TreeManifest
from cvs.store.verify import verify
from cvs.store.volume import Volume


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder outside the volume, with one file."""
    made = tmp_path / "node"
    made.mkdir()
    (made / "file").write_bytes(b"hello\n")
    return made


def nodes_of(store: Store, path: Path) -> list[tree.Node]:
    """Adds a folder and returns the nodes of its manifest."""
    entry = add_path(store, str(path))
    assert list(verify(store, entry)) == []
    document = store.manifest(entry)
    assert isinstance(document, TreeManifest)
    return list(document.nodes)


def refused(store: Store, path: Path | str, match: str) -> None:
    """Adding is refused with an InputError, and nothing is left of it."""
    with pytest.raises(InputError, match=match):
        add_path(store, os.fspath(path))
    assert list(store.ids()) == []
    assert leftovers(store.volume) == []


def test_a_file(store: Store, tmp_path: Path) -> None:
    """A file's entry keeps where it came from, without the path to it."""
    (tmp_path / "model.safetensors").write_bytes(b"hello\n")
    document = store.manifest(add_path(store, str(tmp_path / "model.safetensors")))
    assert isinstance(document, FileManifest)

    assert document.origin == "model.safetensors"
    assert document.content == "content.safetensors"


def test_a_link_on_the_command_line_is_followed(store: Store, tmp_path: Path, folder: Path) -> None:
    """The user names a link and means what it leads to; the entry is called as the link is."""
    (tmp_path / "latest").symlink_to("node")
    document = store.manifest(add_path(store, str(tmp_path / "latest") + "/"))
    assert isinstance(document, TreeManifest)

    assert document.name == "latest"


def test_another_name(store: Store, folder: Path) -> None:
    """The name of a tree may be given, and is part of its id."""
    ids = {
        add_path(store, str(folder)),
        add_path(store, str(folder), name="node"),
        add_path(store, str(folder), name="other"),
    }

    assert len(ids) == 2


def test_nothing(store: Store, tmp_path: Path) -> None:
    """A path that leads nowhere is refused by name."""
    refused(store, tmp_path / "nothing", "nothing is not there")


@pytest.mark.parametrize("name", ["fifo", "dangling"])
def test_neither_file_nor_folder(store: Store, tmp_path: Path, name: str) -> None:
    """What is not there, or nothing that has bytes, is refused."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dangling").symlink_to("nowhere")

    refused(store, tmp_path / name, "neither a file nor a folder")


def test_sockets_and_fifos_inside(store: Store, folder: Path, monkeypatch: Any) -> None:
    """A folder with anything but files, links and folders is refused; nobody waits for a FIFO."""
    (folder / "deep").mkdir()
    os.mkfifo(folder / "deep/fifo")
    refused(store, folder, "deep/fifo is not a file")
    os.unlink(folder / "deep/fifo")
    monkeypatch.chdir(folder / "deep")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        refused(store, folder, "deep/socket is not a file")


@pytest.mark.parametrize(("one", "other"), [("a", "A"), ("é", "e\u0301"), ("straße", "STRASSE")])
def test_names_that_meet(store: Store, folder: Path, one: str, other: str) -> None:
    """Names that are one where case or normal form do not count are refused."""
    (folder / one).write_bytes(b"1")
    (folder / other).write_bytes(b"2")

    refused(store, folder, "case or normal form")


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "..", "file/../../x", ""])
def test_links_that_leave(store: Store, folder: Path, target: str) -> None:
    """Links out of the folder are refused and not followed."""
    if not target:
        target = str(folder / "file")
    (folder / "link").symlink_to(target)

    refused(store, folder, "link")


def test_links_that_stay(store: Store, folder: Path) -> None:
    """Links inside are kept as links, also to folders, to nothing and to themselves."""
    (folder / "deep").mkdir()
    targets = {"a": "file", "b": "deep", "c": "nowhere", "deep/d": "../file", "deep/e": "e"}
    for name, target in targets.items():
        (folder / name).symlink_to(target)
    nodes = nodes_of(store, folder)

    assert targets == {node.path: node.target for node in nodes if isinstance(node, tree.Link)}


def test_strange_names(store: Store, folder: Path) -> None:
    """Names with newlines, percent signs and bytes beyond UTF-8 are kept to the byte."""
    raw = [b"two\nlines", b"\xff\xfe", b"50%", b"-rf", b" ", "é".encode()]
    for name in raw:
        (Path(os.fsdecode(os.fsencode(folder) + b"/" + name))).write_bytes(name)
    os.symlink(b"\xff\xfe", os.fsencode(folder) + b"/link")
    nodes = nodes_of(store, folder)

    assert {tree.quote(name) for name in raw} | {"file", "link"} == {node.path for node in nodes}
    assert tree.Link("link", "%FF%FE") in nodes


def test_a_file_with_a_strange_name(store: Store, tmp_path: Path) -> None:
    """A file's own name is advice; any name may have it, and none keeps its bytes out."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n.safetensors")
    Path(path).write_bytes(b"hello\n")
    document = store.manifest(add_path(store, path))

    assert document.origin == "%FF%0A.safetensors"


def test_a_folder_with_a_strange_name(store: Store, tmp_path: Path) -> None:
    """The name of a tree is text: a folder whose name is not needs another one."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    os.mkdir(path)

    refused(store, path, "not UTF-8")
    assert store.has(add_path(store, path, name="node"))


def test_the_root_has_no_name(store: Store) -> None:
    """`/` is refused for its name before anything of it is read."""
    refused(store, "/", "cannot be the name")


def test_executable_is_what_the_owner_may_execute(store: Store, folder: Path) -> None:
    """Other bits do not count."""
    for mode in (0o400, 0o700, 0o644, 0o611, 0o755, 0o4755):
        path = folder / f"{mode:o}"
        path.write_bytes(b"")
        path.chmod(mode)
    nodes = nodes_of(store, folder)

    assert {node.path for node in nodes if isinstance(node, tree.File) and node.executable} == {
        *("700", "755", "4755"),
    }


def test_times_and_hard_links_do_not_count(store: Store, folder: Path, tmp_path: Path) -> None:
    """Two folders with the same files are one entry, whenever and however they were made."""
    other = tmp_path / "other/node"
    other.mkdir(parents=True)
    os.link(folder / "file", other / "file")
    (other / "file").touch()
    os.utime(other, (0, 0))

    assert add_path(store, str(folder)) == add_path(store, str(other))


def test_what_is_added_is_not_changed(store: Store, folder: Path) -> None:
    """The source stays as it is and shares nothing with the entry."""
    before = os.lstat(folder / "file")
    entry = add_path(store, str(folder))
    after = os.lstat(folder / "file")
    (folder / "file").write_bytes(b"other")

    assert (before.st_ino, before.st_mtime_ns, 1) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_nlink,
    )
    assert list(verify(store, entry)) == []


def test_a_file_that_cannot_be_read(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of reading is not a shorter file: nothing is added."""
    real = os.read

    def read(descriptor: int, count: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith("node/file"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(descriptor, count)

    monkeypatch.setattr(os, "read", read)
    with pytest.raises(OSError, match="Input/output"):
        add_path(store, str(folder))
    assert list(store.ids()) == []
    assert leftovers(store.volume) == []


def test_chunks_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All bytes come, in pieces of bounded size, also where the kernel reads less than asked."""
    data = os.urandom(10_001)
    (tmp_path / "f").write_bytes(data)
    monkeypatch.setattr(ingest, "CHUNK", 4096)

    pieces = [bytes(piece) for piece in ingest.chunks(str(tmp_path / "f"))]
    assert [len(piece) for piece in pieces] == [4096, 4096, 1809]
    assert data == b"".join(pieces)

    real = os.readv
    monkeypatch.setattr(os, "readv", lambda at, buffers: real(at, [memoryview(buffers[0])[:7]]))
    assert data == b"".join(bytes(piece) for piece in ingest.chunks(str(tmp_path / "f")))


def test_short_writes_lose_nothing(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that takes one byte at a time gets the same entry."""
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda at, data: real(at, bytes(data)[:1]))
        entry = add_path(store, str(folder))

    assert list(verify(store, entry)) == []
    assert entry == add_path(store, str(folder))


def test_folders_as_deep_as_a_path_may_be(store: Store, folder: Path) -> None:
    """Depth is limited by the length of a path, with a sentence instead of a crash."""
    deep = folder
    for _ in range(511):
        deep = deep / "d"
    fs.makedirs(str(deep))
    assert len(nodes_of(store, folder)) == 512

    fs.makedirs(str(deep / "d/d"))
    with pytest.raises(tree.TreeError, match="longer"):
        add_path(store, str(folder))
    assert leftovers(store.volume) == []


# Adopting.


@pytest.fixture
def beside(store: Store) -> Path:
    """A folder on the file system of the store."""
    path = Path(store.volume.root).parent / "beside"
    path.mkdir(exist_ok=True)
    return path


def moved(store: Store, path: Path) -> Path:
    """Adopts a path; where its content lies now."""
    entry = store.add(str(path), move=True)
    assert list(verify(store, entry)) == []
    assert leftovers(store.volume) == []
    return Path(store.volume.store, store.content(entry))


@pytest.mark.parametrize("move", [False, True])
def test_a_folder_without_files(store: Store, beside: Path, move: bool) -> None:
    """It is a tree of folders and links."""
    (beside / "node" / "empty").mkdir(parents=True)
    (beside / "node" / "link").symlink_to("empty")
    entry = store.add(str(beside / "node"), move=move)

    assert list(verify(store, entry)) == []
    stored = Path(store.volume.store, store.content(entry))
    assert sorted(os.listdir(stored)) == ["empty", "link"]


def test_a_file_is_adopted(store: Store, beside: Path) -> None:
    """No byte is copied: the entry has the file itself, which is gone from its old place."""
    path = beside / "model"
    path.write_bytes(b"weights")
    inode = path.stat().st_ino
    stored = moved(store, path)

    assert (stored.stat().st_ino, stored.stat().st_nlink) == (inode, 1)
    assert stat.S_IMODE(stored.stat().st_mode) == 0o444
    assert not path.exists()


def test_a_link_to_a_file_is_adopted(store: Store, beside: Path) -> None:
    """What a link leads to is meant; both are gone after."""
    (beside / "real").write_bytes(b"weights")
    (beside / "link").symlink_to("real")
    stored = moved(store, beside / "link")

    assert stored.read_bytes() == b"weights"
    assert os.listdir(beside) == []


def test_a_tree_is_adopted(store: Store, beside: Path) -> None:
    """Every file, with its executable bit; links and empty folders too; nothing is left."""
    root = beside / "node"
    (root / "deep" / "empty").mkdir(parents=True)
    (root / "file").write_bytes(b"1")
    (root / "deep" / "run").write_bytes(b"2")
    (root / "deep" / "run").chmod(0o755)
    (root / "link").symlink_to("deep/run")
    inodes = {(root / name).stat().st_ino for name in ("file", "deep/run")}
    stored = moved(store, root)

    assert {(stored / name).stat().st_ino for name in ("file", "deep/run")} == inodes
    assert os.readlink(stored / "link") == "deep/run"
    assert (stored / "deep" / "empty").is_dir()
    assert os.listdir(beside) == []


def test_many_files_are_adopted(store: Store, beside: Path) -> None:
    """Also where work is shared among processes."""
    root = beside / "node"
    for number in range(workers.SMALL + 50):
        (root / str(number % 7)).mkdir(parents=True, exist_ok=True)
        (root / str(number % 7) / str(number)).write_text(str(number))
    stored = moved(store, root)

    assert (stored / "3" / "10").read_text() == "10"
    assert os.listdir(beside) == []


def test_a_file_with_another_name_is_copied(store: Store, beside: Path) -> None:
    """It could be changed through that name."""
    (beside / "model").write_bytes(b"weights")
    os.link(beside / "model", beside / "other")
    stored = moved(store, beside / "model")

    assert stored.stat().st_ino != (beside / "other").stat().st_ino
    assert os.listdir(beside) == ["other"]


def test_a_file_that_is_being_written_is_copied(store: Store, beside: Path) -> None:
    """Whoever has it open for writing cannot change the entry with it."""
    path = beside / "model"
    path.write_bytes(b"weights")
    with open(path, "r+b") as writer:
        stored = moved(store, path)
        writer.write(b"CHANGED")

    assert stored.read_bytes() == b"weights"


def test_where_no_link_can_be(store: Store, beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another file system, or one without hard links, the file is copied and then removed."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    (beside / "model").write_bytes(b"weights")
    stored = moved(store, beside / "model")

    assert stored.read_bytes() == b"weights"
    assert os.listdir(beside) == []


def test_what_was_changed_meanwhile_stays(
    store: Store, beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what was stored is removed: not a file that came later, not one that was replaced."""
    monkeypatch.setattr(fs, "has_mounts", lambda _: True)
    root = beside / "node"
    root.mkdir()
    for name in ("a", "b"):
        (root / name).write_text(name)
    publish = store.publish

    def late(*staged: Any) -> Any:
        (root / "late").write_text("late")
        (root / "b").unlink()
        (root / "b").write_text("another b")
        return publish(*staged)

    monkeypatch.setattr(store, "publish", late)
    store.add(str(root), move=True)

    assert sorted(os.listdir(root)) == ["b", "late"]
    assert (root / "b").read_text() == "another b"


def test_nothing_is_lost_to_a_damaged_twin(store: Store, beside: Path) -> None:
    """The entry is there and damaged: the good file at its old place is not removed."""
    (beside / "model").write_bytes(b"weights")
    entry = store.add(str(beside / "model"))
    twin = Path(store.volume.store, store.content(entry))
    twin.chmod(0o644)
    twin.write_bytes(b"weighty")
    with pytest.raises(IntegrityError, match="is damaged"):
        store.add(str(beside / "model"), move=True)

    assert (beside / "model").read_bytes() == b"weights"


@pytest.mark.parametrize("whole", [True, False])
def test_a_killed_move_goes_on(
    store: Store, beside: Path, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at any change: the files are outside or stored, and the next move ends it."""
    monkeypatch.setattr(fs, "has_mounts", lambda _: not whole)
    root = beside / "node"
    number, killed = 1, True
    while killed:
        root.mkdir()
        (root / "file").write_bytes(b"1")
        (root / "deep").mkdir()
        (root / "deep" / "run").write_bytes(b"2")
        child = os.fork()
        if not child:
            kill_at(number)
            try:
                store.add(str(root), move=True)
            finally:
                os._exit(0)
        killed = os.waitpid(child, 0)[1] != 0
        number += 1
        store.volume.prepare()
        assert_whole(store)
        assert leftovers(store.volume) == []
        outside = {path.name for path in beside.rglob("*") if path.is_file()}
        assert list(store.ids()) or outside - {"manifest.json"} == {"file", "run"}
        if os.listdir(beside):
            moved(store, root)
        assert_whole(store)
        assert len(list(store.ids())) == 1
        assert os.listdir(beside) == []
        fs.remove_tree(store.volume.store)
        store.volume.prepare()
    assert number > 10


def test_a_folder_of_too_many_files(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that no tree can be is refused before anything is copied."""
    monkeypatch.setattr("cvs.store.tree.NODE_LIMIT", 3)
    (tmp_path / "x/y").mkdir(parents=True)
    for name in ("a", "b", "y/c"):
        (tmp_path / "x" / name).write_bytes(b"")
    with pytest.raises(tree.TreeError, match=r"/x has more than 3 files$"):
        add_path(store, str(tmp_path / "x"))
    assert os.listdir(store.volume.tmp) == []
