"""Repairing: what is damaged comes back exactly, what is sound is not touched, nothing is lost."""

import concurrent.futures
import contextlib
import errno
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import fail_at, kill_at, leftovers

from cvs.store import damage, fs, manifest
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, SourceError, StoreError
from cvs.store.repair import Lost, Repaired, plan, repair, shown
from cvs.store.source import Copy, Maker, OtherStore, at
from cvs.store.stage import Stage, Staged
from cvs.store.verify import verify
from cvs.store.volume import Volume

Harm = Callable[[Path], Any]

LINES = b"print('hello')\n"


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


def write_tree(stage: Stage) -> Staged:
    """Writes a tree with a bit of everything, two files of it alike."""
    writer = stage.tree("node")
    writer.write(b"main.py", LINES)
    writer.write(b"bin/run", b"#!/bin/sh\n", executable=True)
    writer.write(b"bin/again", b"#!/bin/sh\n")
    writer.write(b"two\nlines/\xff", b"x")
    writer.folder(b"empty")
    writer.link(b"link", b"main.py")
    writer.link(b"bin/up", b"../main.py")
    return writer.finish(origin="https://host.example/node@" + "1" * 40)


def write_file(stage: Stage) -> Staged:
    """Writes a file of more than one chunk."""
    return stage.file([b"GGUF" + b"x" * (1 << 20), b"y" * 1000], origin="model.gguf")


WRITE = {"tree": write_tree, "file": write_file}


def add(store: Store, write: Callable[[Stage], Staged]) -> EntryId:
    """Publishes what is written."""
    with store.stage() as stage:
        return store.publish(write(stage))[0]


@pytest.fixture
def tree(store: Store) -> EntryId:
    """A tree in the store."""
    return add(store, write_tree)


@pytest.fixture
def file(store: Store) -> EntryId:
    """A file in the store."""
    return add(store, write_file)


@pytest.fixture
def other(memory: Path) -> Store:
    """Another volume's store with the same tree and file."""
    made = Volume(str(memory / "other"))
    made.prepare()
    found = Store(made)
    for write in WRITE.values():
        add(found, write)
    return found


@pytest.fixture
def source(other: Store) -> OtherStore:
    """The other store as a source."""
    return OtherStore(other.volume.root)


def maker(kind: str, shown: str = "the source") -> Maker:
    """A source that writes an entry anew."""
    return Maker(shown, WRITE[kind])


class Asked(Maker):
    """A source that nobody should have asked."""

    def __init__(self) -> None:
        super().__init__("nobody", self._refuse)

    @staticmethod
    def _refuse(_: Stage) -> Staged:
        raise AssertionError("a source was asked for nothing")


def inodes(folder: str) -> dict[str, tuple[int, int]]:
    """Inode and time of change of everything below a folder."""
    return {
        os.path.join(parent, name): (status.st_ino, status.st_ctime_ns)
        for parent, folders, names in os.walk(folder)
        for name in [*folders, *names]
        for status in [os.lstat(os.path.join(parent, name))]
    }


def assert_whole(store: Store, entry: EntryId) -> None:
    """The entry verifies, is not marked, and nothing is left in tmp/."""
    assert list(verify(store, entry)) == []
    assert damage.marked(store.volume) == set()
    assert leftovers(store.volume) == []


def flip(path: Path, at: int = 0) -> None:
    """Changes one bit."""
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    path.chmod(0o444)


def resize(path: Path, by: int) -> None:
    """Truncates or extends a file."""
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size + by)


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


def full_folder(path: Path) -> None:
    """Makes a folder with something in it."""
    path.mkdir()
    (path / "inside").write_bytes(b"inside")


HARMS: dict[str, tuple[str, Harm]] = {
    "bit": ("main.py", flip),
    "bit of an executable": ("bin/run", flip),
    "truncated": ("main.py", lambda path: resize(path, -1)),
    "emptied": ("main.py", lambda path: resize(path, -len(LINES))),
    "extended": ("main.py", lambda path: resize(path, 1)),
    "removed": ("bin/run", Path.unlink),
    "renamed": ("main.py", lambda path: path.rename(path.with_name("niam.py"))),
    "odd name": ("two\nlines/\udcff", flip),
    "file is a folder": ("main.py", lambda path: replace(path, full_folder)),
    "file is a pipe": ("main.py", lambda path: replace(path, os.mkfifo)),
    "file is a link": ("main.py", lambda path: relink(path, "bin/run")),
    "link elsewhere": ("link", lambda path: relink(path, "bin/run")),
    "link out": ("bin/up", lambda path: relink(path, "/etc/passwd")),
    "link removed": ("link", Path.unlink),
    "link is a file": ("link", lambda path: replace(path, Path.touch)),
    "link is a folder": ("link", lambda path: replace(path, full_folder)),
    "folder removed": ("empty", Path.rmdir),
    "full folder removed": ("bin", shutil.rmtree),
    "folder is a file": ("bin", lambda path: replace(path, Path.touch)),
    "folder is a link": ("bin", lambda path: replace(path, lambda at: at.symlink_to("empty"))),
    "root removed": ("", shutil.rmtree),
    "root is a file": ("", lambda path: replace(path, Path.touch)),
    "extra file": ("extra", Path.touch),
    "extra folder": ("bin/extra", full_folder),
    "extra link": ("empty/extra", lambda path: path.symlink_to("../main.py")),
    "extra beside": ("../extra", full_folder),
    "mode of a file": ("main.py", lambda path: path.chmod(0o644)),
    "executable": ("main.py", lambda path: path.chmod(0o555)),
    "not executable": ("bin/run", lambda path: path.chmod(0o444)),
    "setuid": ("bin/run", lambda path: path.chmod(0o4555)),
    "mode of a folder": ("bin", lambda path: path.chmod(0o777)),
    "closed folder": ("bin", lambda path: path.chmod(0o000)),
    "mode of the root": ("", lambda path: path.chmod(0o775)),
    "mode of the entry": ("..", lambda path: path.chmod(0o777)),
    "mode of the manifest": ("../manifest.json", lambda path: path.chmod(0o644)),
    "manifest removed": ("../manifest.json", Path.unlink),
    "manifest garbage": ("../manifest.json", lambda path: replace(path, Path.touch)),
    "manifest bit": ("../manifest.json", lambda path: flip(path, 1)),
    "manifest advice": ("../manifest.json", lambda path: flip(path, -120)),
    "manifest check": ("../manifest.json", lambda path: flip(path, -10)),
    "manifest is a link": (
        "../manifest.json",
        lambda path: (path.rename(path.with_name("m")), path.symlink_to("m")),
    ),
    "manifest is a folder": ("../manifest.json", lambda path: replace(path, full_folder)),
    "entry is a file": ("..", lambda path: replace(path, Path.touch)),
    "entry is a link": (
        "..",
        lambda path: (path.rename(path.with_name("m")), path.symlink_to(path.with_name("m"))),
    ),
    "entry is gone": ("..", shutil.rmtree),
}

#: Harm that a manifest alone, or the content alone, tells the cure of.
NEEDS_NO_SOURCE = {
    *("link elsewhere", "link out", "link removed", "link is a file", "link is a folder"),
    *("folder removed", "extra file", "extra folder", "extra link", "extra beside"),
    *("mode of a file", "executable", "not executable", "setuid"),
    *("mode of a folder", "closed folder", "mode of the root", "mode of the entry"),
    *("mode of the manifest", "manifest removed", "manifest garbage", "manifest bit"),
    *("manifest advice", "manifest check", "manifest is a folder", "manifest is a link"),
}


def harmed(store: Store, tree: EntryId, name: str) -> None:
    """Does one of HARMS to the tree."""
    path, harm = HARMS[name]
    harm(Path(os.path.normpath(os.path.join(store.path(tree), "node", path))))
    if name != "entry is gone":
        assert list(verify(store, tree)), "no harm was done"


@pytest.mark.parametrize("kind", ["another store", "a maker"])
@pytest.mark.parametrize("name", HARMS)
def test_every_damage_of_a_tree(
    store: Store, tree: EntryId, source: OtherStore, name: str, kind: str
) -> None:
    """Whatever is done to a tree, it is whole afterwards, and what was damaged is kept."""
    harmed(store, tree, name)
    before = inodes(store.path(tree))
    damaged = {one.path for one in store.verify(tree)} if before else set()
    sources = {"another store": source, "a maker": maker("tree")}
    done = repair(store, tree, [Asked() if name in NEEDS_NO_SOURCE else sources[kind]])

    assert done.lost == ()
    assert_whole(store, tree)
    assert damaged - {"node/bin/"} <= set(done.restored) or done.restored == (".",)
    assert done.entry == tree
    if done.kept_aside:
        assert done.kept_aside.startswith(f"damaged/{tree}.")
        assert os.path.lexists(os.path.join(store.volume.root, done.kept_aside))


@pytest.mark.parametrize("name", [name for name in HARMS if not name.startswith("entry")])
def test_what_is_sound_is_not_touched(
    store: Store, tree: EntryId, source: OtherStore, name: str
) -> None:
    """A repair changes no file that has not been damaged: not its inode, not its times."""
    before = inodes(store.path(tree))
    path, _ = HARMS[name]
    harmed(store, tree, name)
    repair(store, tree, [source])
    after = inodes(store.path(tree))

    assert before.keys() == after.keys()
    place = os.path.normpath(os.path.join(store.path(tree), "node", path))
    others = {
        one for one in before if os.path.isfile(one) and not (one + "/").startswith(place + "/")
    }
    if name not in ("mode of the entry", "root removed", "root is a file"):
        assert others
    assert {one: before[one] for one in others} == {one: after[one] for one in others}


@pytest.mark.parametrize(
    ("harm", "needs_source"),
    [
        (flip, True),
        (lambda path: flip(path, -1), True),
        (lambda path: resize(path, -1), True),
        (lambda path: resize(path, 1), True),
        (Path.unlink, True),
        (lambda path: path.rename(path.with_name("content")), True),
        (lambda path: replace(path, full_folder), True),
        (lambda path: relink(path, "manifest.json"), True),
        (lambda path: path.chmod(0o755), False),
        (lambda path: full_folder(path.with_name("more")), False),
        (lambda path: path.with_name("manifest.json").unlink(), False),
        (lambda path: flip(path.with_name("manifest.json"), 20), False),
        (lambda path: (flip(path), path.with_name("manifest.json").unlink()), True),
    ],
)
@pytest.mark.parametrize("kind", ["another store", "a maker"])
def test_every_damage_of_a_file(
    store: Store, file: EntryId, source: OtherStore, harm: Harm, needs_source: bool, kind: str
) -> None:
    """The same for a file, whose manifest follows from its bytes and from nothing else."""
    harm(Path(store.path(file), "content.gguf"))
    sources = {"another store": source, "a maker": maker("file")}
    done = repair(store, file, [sources[kind] if needs_source else Asked()])

    assert done.lost == ()
    assert_whole(store, file)
    document = store.manifest(file)
    assert isinstance(document, manifest.FileManifest)
    assert document.sha256


def test_a_sound_entry_is_left_alone(store: Store, tree: EntryId) -> None:
    """A whole entry loses its mark, is asked for nowhere, and nothing of it changes."""
    before = inodes(store.path(tree))
    damage.mark(store.volume, tree)

    assert repair(store, tree, [Asked()]) == Repaired(tree, (), None, ())
    assert_whole(store, tree)
    assert inodes(store.path(tree)) == before


def test_without_a_source(store: Store, tree: EntryId) -> None:
    """What needs bytes stays damaged and marked; the rest is put right all the same."""
    node = Path(store.path(tree), "node")
    flip(node / "main.py")
    (node / "link").unlink()
    (node / "extra").touch()
    done = repair(store, tree)

    why = "has other bytes, and no source of it is known"
    assert done.lost == (Lost("node/main.py", why),)
    assert done.restored == ("node/extra", "node/link")
    assert damage.marked(store.volume) == {tree}
    assert [one.path for one in verify(store, tree)] == ["node/main.py"]


def test_each_source_has_its_say(store: Store, tree: EntryId, other: Store) -> None:
    """Each source that does not give a file is named with its reason."""
    flip(Path(store.path(tree), "node/main.py"))
    flip(Path(other.path(tree), "node/main.py"))
    with other.stage() as stage:
        writer = stage.tree("node")
        writer.write(b"main.py", b"print('other')\n")
        another = writer.finish()

        def refuse(_: Stage) -> Staged:
            raise SourceError("the server is asleep", hint="wake it")

        sources = [
            Maker("https://host.example/x.git at 123", refuse),
            OtherStore(other.volume.root),
            OtherStore(store.volume.root),
            Maker("the last", lambda _: another),
        ]
        done = repair(store, tree, sources)

    assert done.lost == (
        Lost(
            "node/main.py",
            "https://host.example/x.git at 123: the server is asleep; "
            f"{store.volume.root}: it is the same store; "
            f"{other.volume.root}: it has other bytes there; "
            "the last: it has other bytes there",
        ),
    )
    assert damage.marked(store.volume) == {tree}


def test_a_file_from_here_and_one_from_there(
    store: Store, tree: EntryId, source: OtherStore, other: Store
) -> None:
    """What one source does not give the next one does; one that is not needed is not asked."""
    for name in ("main.py", "bin/run"):
        flip(Path(store.path(tree), "node", name))
    flip(Path(other.path(tree), "node/main.py"))
    done = repair(store, tree, [source, maker("tree"), Asked()])

    assert done.restored == ("node/bin/run", "node/main.py")
    assert_whole(store, tree)


def test_another_entry_with_the_same_file(store: Store, tree: EntryId) -> None:
    """A source need not give the same entry: a file with the right digest serves, with the mode
    that it must have here."""
    flip(Path(store.path(tree), "node/bin/run"))
    flip(Path(store.path(tree), "node/main.py"))

    def write(stage: Stage) -> Staged:
        writer = stage.tree("other")
        writer.write(b"moved/main", LINES, executable=True)
        writer.write(b"run", b"#!/bin/sh\n")
        return writer.finish()

    done = repair(store, tree, [Maker("another", write)])

    assert done.restored == ("node/bin/run", "node/main.py")
    assert_whole(store, tree)


def test_a_source_with_a_damaged_manifest(store: Store, tree: EntryId, other: Store) -> None:
    """Of another store whose manifest is damaged the files serve, the manifest does not."""
    source = OtherStore(other.volume.root)
    Path(other.path(tree), manifest.NAME).unlink()
    flip(Path(store.path(tree), "node/main.py"))
    assert repair(store, tree, [source]).lost == ()
    flip(Path(store.path(tree), "node/main.py"))
    Path(store.path(tree), manifest.NAME).unlink()
    done = repair(store, tree, [source])

    why = f"{other.volume.root}: it has no manifest that could serve"
    assert done.lost == (Lost(manifest.NAME, why),)


def test_a_source_is_believed_in_nothing(store: Store, tree: EntryId, other: Store) -> None:
    """Of another store only a file of the right size and digest is taken, and never a pipe or
    what a link leads to."""
    outside = Path(other.volume.root, "outside")
    outside.write_bytes(LINES)
    harms: list[Harm] = [
        flip,
        Path.unlink,
        lambda path: resize(path, 1),
        lambda path: replace(path, os.mkfifo),
        lambda path: relink(path, str(outside)),
        lambda path: replace(path, full_folder),
    ]
    flip(Path(store.path(tree), "node/main.py"))
    for harm in harms:
        theirs = Path(other.path(tree), "node/main.py")
        harm(theirs)
        done = repair(store, tree, [OtherStore(other.volume.root)])
        assert [one.path for one in done.lost] == ["node/main.py"]
        repair(other, tree, [maker("tree")])

    assert repair(store, tree, [OtherStore(other.volume.root)]).lost == ()


def test_a_source_that_gives_another_manifest(store: Store, tree: EntryId) -> None:
    """Where the manifest is lost and its content too, only the same entry serves."""
    shutil.rmtree(store.path(tree))
    done = repair(store, tree, [maker("file", "the wrong one")])

    assert [one.path for one in done.lost] == ["."]
    assert "the wrong one: it gives another entry, " in done.lost[0].why
    assert not os.path.lexists(store.path(tree))
    assert leftovers(store.volume) == []


def test_an_entry_that_is_gone_comes_whole_or_not_at_all(
    store: Store, tree: EntryId, other: Store
) -> None:
    """Of a source that lacks a file nothing is published; the first file is named."""
    shutil.rmtree(store.path(tree))
    flip(Path(other.path(tree), "node/main.py"))
    done = repair(store, tree, [OtherStore(other.volume.root)])

    why = f"{other.volume.root}: node/main.py: it has other bytes there"
    assert done.lost == (Lost(".", why),)
    assert not os.path.lexists(store.path(tree))
    assert repair(store, tree, [OtherStore(other.volume.root), maker("tree")]).restored == (".",)
    assert_whole(store, tree)


def test_what_was_damaged_is_kept(store: Store, tree: EntryId, source: OtherStore) -> None:
    """What a repair takes out lies aside under its path, with the bytes and links that it had."""
    entry = Path(store.path(tree))
    flip(entry / "node/main.py")
    broken = (entry / "node/main.py").read_bytes()
    relink(entry / "node/link", "elsewhere")
    replace(entry / "node/bin/run", full_folder)
    full_folder(entry / "beside")
    done = repair(store, tree, [source])
    assert done.kept_aside is not None
    aside = Path(store.volume.root, done.kept_aside)

    assert (aside / "node/main.py").read_bytes() == broken
    assert os.readlink(aside / "node/link") == "elsewhere"
    assert (aside / "node/bin/run/inside").read_bytes() == b"inside"
    assert (aside / "beside/inside").read_bytes() == b"inside"
    assert_whole(store, tree)


def test_a_reader_sees_the_old_or_the_new(
    store: Store, tree: EntryId, source: OtherStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken file or link is there until the rename that replaces it."""
    node = Path(store.path(tree), "node")
    flip(node / "main.py")
    relink(node / "link", "bin/run")

    def observe(*_: object) -> None:
        assert (node / "main.py").read_bytes() in (b"q" + LINES[1:], LINES)
        assert os.readlink(node / "link") in ("bin/run", "main.py")

    monkeypatch.setattr(fs, "observer", observe)

    assert repair(store, tree, [source]).lost == ()


@pytest.mark.parametrize("code", [errno.EPERM, errno.EDQUOT, errno.EMLINK])
def test_a_file_system_without_hard_links(
    store: Store, tree: EntryId, source: OtherStore, code: int
) -> None:
    """Where no second name can be had the broken file is moved aside before."""
    flip(Path(store.path(tree), "node/main.py"))
    with fail_at(1, code=code, calls=("link",)):
        done = repair(store, tree, [source])

    assert done.lost == ()
    assert done.kept_aside is not None
    assert os.listdir(os.path.join(store.volume.root, done.kept_aside, "node")) == ["main.py"]
    assert_whole(store, tree)


@pytest.mark.parametrize("kind", ["another store", "a maker"])
def test_everything_is_synced_before_it_is_seen(
    store: Store,
    tree: EntryId,
    source: OtherStore,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a network file system each file is synced by itself before the rename into its place,
    and the folder after it; on a local disk there is one sync before and one after."""
    flip(Path(store.path(tree), "node/main.py"))
    calls: list[tuple[str, object]] = []
    monkeypatch.setattr(fs, "observer", lambda call, where: calls.append((call, where)))
    sources = {"another store": source, "a maker": maker("tree")}
    repair(store, tree, [sources[kind]])
    names = [call for call, _ in calls]
    place = os.fsencode(os.path.join(store.path(tree), "node/main.py"))
    put = calls.index(("rename", place))
    assert "syncfs" in names[:put]
    assert "syncfs" in names[put:]

    store.volume._filesystem = "fuse.mfs"
    flip(Path(store.path(tree), "node/main.py"))
    calls.clear()
    repair(store, tree, [sources[kind]])
    names = [call for call, _ in calls]
    put = calls.index(("rename", place))
    created = max(at for at, call in enumerate(names[:put]) if call == "create")
    assert "fsync" in names[created:put]
    assert "fsync" in names[put:]
    assert "syncfs" not in names
    assert_whole(store, tree)


@pytest.mark.parametrize("name", ["bit", "folder is a file", "manifest bit", "entry is a file"])
def test_an_error_at_any_call(store: Store, tree: EntryId, source: OtherStore, name: str) -> None:
    """Whatever call fails, what is still damaged stays marked, and the next repair goes on."""
    calls: list[str] = []
    fs.observer = lambda call, _: calls.append(call)
    harmed(store, tree, name)
    repair(store, tree, [source])
    fs.observer = None
    assert len(calls) > 5
    for number in range(1, len(calls) + 1):
        harmed(store, tree, name)
        with contextlib.suppress(OSError), fail_at(number):
            repair(store, tree, [source])
        if store.has(tree) and list(verify(store, tree)):
            # The first of all make a scratch folder and the mark itself.
            assert damage.marked(store.volume) == {tree} or calls[number - 1] == "mkdir"
        assert repair(store, tree, [source]).lost == ()
        assert_whole(store, tree)


def in_a_child(work: Callable[[], object]) -> int:
    """Does something in a forked process and returns how that ended."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("filesystem", ["tmpfs", "fuse.mfs"])
@pytest.mark.parametrize("name", ["bit", "folder is a file", "manifest bit", "entry is a file"])
def test_killed_before_any_call(
    store: Store, tree: EntryId, source: OtherStore, name: str, filesystem: str
) -> None:
    """Killed at whatever moment: what is still damaged is marked, and the next repair goes on."""
    store.volume._filesystem = filesystem
    for number in range(1, 1000):
        harmed(store, tree, name)

        def work(number: int = number) -> None:
            kill_at(number)
            repair(store, tree, [source])

        ended = in_a_child(work)
        if store.has(tree) and list(verify(store, tree)):
            # The first calls make a scratch folder and the mark.
            assert damage.marked(store.volume) == {tree} or number <= 3
        assert repair(store, tree, [source]).lost == ()
        assert list(verify(store, tree)) == []
        assert damage.marked(store.volume) == set()
        if ended == 0:
            break
    assert number > 5


def test_two_processes_at_once(store: Store, tree: EntryId, source: OtherStore) -> None:
    """Repairs that really run at once leave the entry whole, each as far as it sees."""

    for _ in range(25):
        flip(Path(store.path(tree), "node/main.py"))
        replace(Path(store.path(tree), "node/bin"), Path.touch)
        (Path(store.path(tree)) / manifest.NAME).unlink()
        with concurrent.futures.ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as pool:
            done = [pool.submit(repair, store, tree, [source]) for _ in range(3)]
            assert [one.result().lost for one in done] == [(), (), ()]
        assert_whole(store, tree)


def test_two_at_once(store: Store, tree: EntryId, source: OtherStore) -> None:
    """A repair that comes into the middle of another one makes the entry whole; so does that."""
    node = Path(store.path(tree), "node")
    started = False

    def observe(call: str, _: object) -> None:
        nonlocal started, number
        number -= 1
        if number == 0:
            started = True
            fs.observer = None
            assert repair(store, tree, [source]).lost == ()
            assert list(verify(store, tree)) == []

    for start in range(1, 60):
        flip(node / "main.py")
        replace(node / "bin", Path.touch)
        (node / "extra").touch()
        number = start
        fs.observer = observe
        done = repair(store, tree, [source])
        fs.observer = None
        assert done.lost == ()
        assert_whole(store, tree)
        if not started:
            break
        started = False
    else:
        raise AssertionError("the first never ended before the second")


def test_a_running_program_keeps_its_file(store: Store, file: EntryId, source: OtherStore) -> None:
    """Who has a broken file open goes on reading that one."""
    flip(Path(store.path(file), "content.gguf"))
    with open(os.path.join(store.path(file), "content.gguf"), "rb") as opened:
        repair(store, file, [source])
        assert opened.read(4) == b"FGUF"

    assert_whole(store, file)


def test_a_volume_without_modes(store: Store, tree: EntryId, source: OtherStore) -> None:
    """Where modes are not kept none is taken for damage, and a manifest that is lost is made again
    from the bytes and what can be read of the old one."""
    store.volume._filesystem = "fuse.mfs"
    for folder, _, names in os.walk(store.path(tree)):
        for name in names:
            if not os.path.islink(os.path.join(folder, name)):
                os.chmod(os.path.join(folder, name), 0o666)
    path = Path(store.path(tree), manifest.NAME)
    data = path.read_bytes()
    assert data.count(b"main.py") == 3
    path.write_bytes(data.replace(b"main.py", b"niam.py", 1))
    assert repair(store, tree, [Asked()]).restored == (manifest.NAME,)
    assert list(verify(store, tree)) == []

    path.unlink()
    assert repair(store, tree).lost[0].path == manifest.NAME
    assert repair(store, tree, [source]).lost == ()
    assert_whole(store, tree)


def test_a_set(store: Store, other: Store) -> None:
    """A set is its manifest: advice that was damaged is dropped, members come from a source."""
    members = [EntryId("1" * 64), EntryId("2" * 64)]

    def write(stage: Stage) -> Staged:
        return stage.set(members, origin="somewhere")

    entry = add(store, write)
    path = Path(store.path(entry), manifest.NAME)
    at = path.read_bytes().index(b"somewhere")
    flip(path, at)
    assert repair(store, entry, [Asked()]).lost == ()
    assert store.manifest(entry).origin == ""
    flip(path, path.read_bytes().index(b"11111"))
    assert repair(store, entry).lost[0].path == manifest.NAME
    assert repair(store, entry, [Maker("members", write)]).lost == ()
    assert_whole(store, entry)


def test_the_origin_of_a_manifest_that_is_made_again(store: Store, tree: EntryId) -> None:
    """A manifest that is made again says what a source knows of the entry's origin."""
    Path(store.path(tree), manifest.NAME).unlink()
    known = Asked()
    known.origin = "https://host.example/node@1"
    repair(store, tree, [known])

    assert store.manifest(tree).origin == "https://host.example/node@1"
    assert_whole(store, tree)


@pytest.fixture
def unprivileged(memory: Path, store: Store, other: Store) -> Iterator[None]:
    """Somebody who may not read and write everything, and whose the stores are."""
    if os.geteuid() != 0:
        yield
        return
    nobody = 65534
    for folder, _, names in os.walk(memory):
        for place in (folder, *(os.path.join(folder, name) for name in names)):
            os.chown(place, nobody, nobody, follow_symlinks=False)
    # What root may do beside the modes goes with the user id.
    os.setegid(nobody)
    os.seteuid(nobody)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.usefixtures("unprivileged")
def test_folders_in_closed_folders(store: Store, other: Store) -> None:
    """Folders that nobody may look into are opened one after the other, and what is damaged in
    the last is found."""

    def write(stage: Stage) -> Staged:
        writer = stage.tree("deep")
        writer.write(b"a/b/c/file", b"deep")
        return writer.finish()

    entry = add(store, write)
    folder = Path(store.path(entry), "deep/a/b/c")
    flip(folder / "file")
    for closed in (folder, folder.parent, folder.parent.parent):
        closed.chmod(0)
    done = repair(store, entry, [Maker("deep", write)])

    assert done.lost == ()
    assert done.restored == ("deep/a", "deep/a/b", "deep/a/b/c", "deep/a/b/c/file")
    assert_whole(store, entry)


def test_nothing_is_kept_through_a_link(
    store: Store, tree: EntryId, source: OtherStore, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that was kept aside is not followed when something else of its folder is kept."""
    outside = memory / "outside"
    outside.mkdir()
    bin = Path(store.path(tree), "node/bin")
    replace(bin, lambda path: path.symlink_to(outside))
    once = [True]

    def observe(call: str, where: object) -> None:
        # Between two rounds somebody damages what the first has just made.
        if call == "syncfs" and (bin / "run").exists() and not bin.is_symlink() and once:
            once.clear()
            flip(bin / "run")

    monkeypatch.setattr(fs, "observer", observe)
    done = repair(store, tree, [source])

    assert not once
    assert done.lost == ()
    assert os.listdir(outside) == []
    assert_whole(store, tree)


def test_a_link_in_the_place_of_a_folder_lends_nothing(
    store: Store, tree: EntryId, source: OtherStore, memory: Path
) -> None:
    """Files that lie where a link leads that should be a folder are neither used nor changed."""
    outside = memory / "outside"
    bin = Path(store.path(tree), "node/bin")
    bin.rename(outside)
    bin.symlink_to(outside)
    (outside / "run").chmod(0o755)
    before = inodes(str(outside))

    assert repair(store, tree, [source]).lost == ()
    assert inodes(str(outside)) == before
    assert_whole(store, tree)


def test_plan(store: Store, tree: EntryId) -> None:
    """The plan says what is put right and what needs a source, and changes nothing."""
    node = Path(store.path(tree), "node")
    flip(node / "main.py")
    (node / "link").unlink()
    replace(node / "bin", full_folder)
    (node / "empty").chmod(0o777)
    before = inodes(store.path(tree))
    steps = plan(store, tree, verify(store, tree))

    assert [(shown(step.path), step.needs_bytes) for step in steps] == [
        ("node/empty", False),
        ("node/bin/inside", False),
        ("node/bin/again", True),
        ("node/bin/run", True),
        ("node/bin/up", False),
        ("node/link", False),
        ("node/main.py", True),
    ]
    assert inodes(store.path(tree)) == before
    assert damage.marked(store.volume) == set()
    (Path(store.path(tree)) / manifest.NAME).unlink()
    steps = plan(store, tree, verify(store, tree))
    assert [(shown(step.path), step.needs_bytes) for step in steps] == [(manifest.NAME, True)]
    shutil.rmtree(store.path(tree))
    assert [(shown(step.path), step.needs_bytes) for step in plan(store, tree, [])] == [(".", True)]


def test_a_copy(store: Store, tree: EntryId, file: EntryId, memory: Path) -> None:
    """A folder or file of the user's serves where its bytes are right, by its place alone; a
    manifest it has none of."""
    folder = memory / "mine"
    shutil.copytree(Path(store.path(tree), "node"), folder, symlinks=True)
    model = memory / "model"
    shutil.copyfile(Path(store.path(file), "content.gguf"), model)
    (memory / "link").symlink_to(model)
    flip(Path(store.path(tree), "node/main.py"))
    flip(Path(store.path(tree), "node/bin/run"))
    flip(Path(store.path(file), "content.gguf"))
    (folder / "bin/run").unlink()

    done = repair(store, tree, [Copy(str(model)), Copy(str(folder))])
    assert done.restored == ("node/main.py",)
    assert done.lost[0].path == "node/bin/run"
    assert (
        done.lost[0].why
        == f"{model}: it cannot be read there: Not a directory; {folder}: it is not there"
    )
    assert repair(store, file, [Copy(str(folder)), Copy(str(memory / "link"))]).lost == ()
    shutil.rmtree(store.path(file))
    why = f"{model}: it has no manifest that could serve"
    assert repair(store, file, [Copy(str(model))]).lost == (Lost(".", why),)


def test_what_a_path_is(store: Store, memory: Path) -> None:
    """A path is another store where a volume begins, a copy elsewhere, and an error where nothing
    is."""
    assert isinstance(at(store.volume.root), OtherStore)
    assert isinstance(at(str(memory)), Copy)
    with pytest.raises(InputError, match="/nothing is not there"):
        at(str(memory / "nothing"))
    Path(store.volume.root, "format").write_text("cvs-layout 99\n")
    with pytest.raises(StoreError, match="has layout 99"):
        at(store.volume.root)


def test_nothing_is_lost_to_a_stale_cache(store: Store, tree: EntryId, other: Store) -> None:
    """What is said to be gone and is there is kept aside as well, by the next repair then."""
    flip(Path(store.path(tree), "node", "main.py"))
    broken = Path(store.path(tree), "node", "main.py").read_bytes()
    sources = [OtherStore(other.volume.root)]
    with (
        fail_at(1, code=errno.ENOENT, calls=("link",)),
        pytest.raises(FileNotFoundError),
    ):
        repair(store, tree, sources)
    done = repair(store, tree, sources)

    assert done.kept_aside is not None
    kept = [path for path in Path(store.volume.root, done.kept_aside).rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in kept] == [broken]
    assert_whole(store, tree)
