"""Publishing, finding and reading entries, also when everything goes wrong."""

import errno
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import assert_whole, fail_at, leftovers

from cvs.store import damage, entries, fs, manifest
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import EntryMissing, InputError, IntegrityError
from cvs.store.ingest import add_path
from cvs.store.tree import File, Folder, Link
from cvs.store.verify import verify
from cvs.store.volume import Volume

#: File systems where one syncfs serves, and where every file is synced by itself.
FILESYSTEMS = ("ext4", "fuse.mfs")

Small = Callable[..., EntryId]


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with a bit of everything, outside the volume."""
    source = tmp_path / "node"
    (source / "lib/empty").mkdir(parents=True)
    (source / "main.py").write_bytes(b"print('hello')\n")
    (source / "lib/run").write_bytes(b"#!/bin/sh\n")
    (source / "lib/run").chmod(0o755)
    (source / "lib/up").symlink_to("../main.py")
    return source


def tree_of(volume: Volume) -> dict[str, int]:
    """Every path below a volume's root, and its inode."""
    found: dict[str, int] = {}
    for folder, folders, files in os.walk(volume.root):
        for name in folders + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, volume.root)] = os.lstat(path).st_ino
    return found


# What lies on disk.


def test_a_tree_on_disk(store: Store, source: Path) -> None:
    """A tree is a folder of its name beside its manifest, which lists every node."""
    entry = add_path(store, str(source))
    root = Path(store.path(entry))

    assert {"manifest.json", "node"} == set(os.listdir(root))
    assert store.content(entry) == f"{entry}/node"
    assert (root / "node/lib/up").read_bytes() == b"print('hello')\n"
    assert os.listdir(root / "node/lib/empty") == []
    document = store.manifest(entry)
    assert isinstance(document, manifest.TreeManifest)
    assert [(type(node), node.path) for node in document.nodes] == [
        (Folder, "lib"),
        (Folder, "lib/empty"),
        (File, "lib/run"),
        (Link, "lib/up"),
        (File, "main.py"),
    ]
    assert document.size == manifest.content_size(document) == 25
    assert oct(os.stat(root / "node/lib/run").st_mode & 0o777) == "0o555"
    assert oct(os.stat(root / "node/main.py").st_mode & 0o777) == "0o444"


def test_a_file_on_disk(store: Store) -> None:
    """A file is `content` beside its manifest and named as b3sum would print it."""
    with store.stage() as stage:
        (entry,) = store.publish(stage.file([b"hel", b"lo\n"], origin="hello.txt"))

    assert entry == "8e4c7c1b99dbfd50e7a95185fead5ee1448fa904a2fdd778eaf5f2dbfd629a99"
    assert Path(store.volume.store, store.content(entry)).read_bytes() == b"hello\n"
    assert {"manifest.json", "content"} == set(os.listdir(store.path(entry)))


def test_a_set_on_disk(store: Store, small: Small) -> None:
    """A set has a manifest and no content, and its closure is its members."""
    members = [small("one"), small("two")]
    with store.stage() as stage:
        (inner,) = store.publish(stage.set(reversed(members)))
    with store.stage() as stage:
        (outer,) = store.publish(stage.set([inner]))

    assert os.listdir(store.path(inner)) == ["manifest.json"]
    assert store.closure([outer]) == {outer, inner, *members}
    assert store.closure(members) == set(members)
    with pytest.raises(InputError, match="set of entries"):
        store.content(inner)


def test_a_closure_names_what_is_missing(store: Store) -> None:
    """A set whose member is gone has no closure."""
    gone = EntryId("0" * 64)
    with store.stage() as stage:
        (entry,) = store.publish(stage.set([gone]))

    with pytest.raises(EntryMissing, match=gone):
        store.closure([entry])


# Publishing.


def test_publishing_twice_keeps_the_first(store: Store, source: Path) -> None:
    """Adding is idempotent: the entry of the first time stays, to the inode."""
    entry = add_path(store, str(source))
    before = tree_of(store.volume)

    assert entry == add_path(store, str(source))
    assert before == tree_of(store.volume)


def test_several_entries_at_once(store: Store) -> None:
    """Several staged entries are published together, those that were there before too."""
    with store.stage() as one, store.stage() as two, store.stage() as three:
        staged = [one.file([b"1"]), two.file([b"2"]), three.file([b"1"])]
        ids = store.publish(*staged)

    assert [item.id for item in staged] == ids
    assert ids[0] == ids[2]
    assert set(store.ids()) == set(ids)
    assert_whole(store)
    assert leftovers(store.volume) == []


def _add(start: "multiprocessing.synchronize.Barrier", root: str, source: str) -> None:
    store = Store(Volume(root))
    for number in range(10):
        start.wait()
        add_path(store, source, name=f"node-{number}")


def test_many_processes_publish_one_entry(store: Store, source: Path) -> None:
    """Processes that add the same thing at the same moment all succeed; there is one entry."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [
        context.Process(target=_add, args=(start, store.volume.root, str(source))) for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(store.ids())) == 10
    assert_whole(store)
    assert leftovers(store.volume) == []


def replace_manifest(store: Store, entry: EntryId, data: bytes | None) -> None:
    """Writes another manifest into an entry, or removes it."""
    path = os.path.join(store.path(entry), manifest.NAME)
    os.unlink(path)
    if data is not None:
        Path(path).write_bytes(data)


@pytest.mark.parametrize("harm", ["other", "garbage", "deleted", "no tree"])
def test_another_entry_under_the_name(store: Store, source: Path, small: Small, harm: str) -> None:
    """What lies under the name and is not the entry is neither accepted nor replaced."""
    entry, other = add_path(store, str(source)), small()
    sound = manifest.encode(store.manifest(entry))
    replace_manifest(
        store,
        entry,
        {
            "other": manifest.encode(store.manifest(other)),
            "garbage": b"{",
            "deleted": None,
            "no tree": sound.replace(b'"lib/run"', b'"l//run"'),
        }[harm],
    )
    before = tree_of(store.volume)

    with pytest.raises(IntegrityError) as caught:
        add_path(store, str(source))
    assert caught.value.hint == f"cvs store repair {entry[:16]} --from {source}"
    assert before == tree_of(store.volume)


def test_a_damaged_entry_is_no_winner(store: Store, source: Path) -> None:
    """Where an entry lies that was found damaged, another writer is told so and how to repair it;
    where it was removed the new one takes its place, and its mark off."""
    entry = add_path(store, str(source))
    damage.mark(store.volume, entry)
    with pytest.raises(IntegrityError, match=f"^entry {entry[:16]} is damaged$") as caught:
        add_path(store, str(source))
    assert caught.value.hint == f"cvs store repair {entry[:16]} --from {source}"
    assert leftovers(store.volume) == []
    shutil.rmtree(store.path(entry))
    assert add_path(store, str(source)) == entry
    assert damage.marked(store.volume) == set()


def test_a_name_without_content_is_taken(store: Store, source: Path) -> None:
    """An empty folder under the name is no entry: the rename puts the entry in its place."""
    entry = add_path(store, str(source))
    shutil.rmtree(store.path(entry))
    os.mkdir(store.path(entry))

    assert entry == add_path(store, str(source))
    assert_whole(store)


# Failing at every moment.


@pytest.fixture
def expected(memory: Path, source: Path) -> EntryId:
    """The id that `source` has, from a volume where nothing fails."""
    volume = Volume(str(memory / "reference"))
    volume.prepare()
    return add_path(Store(volume), str(source))


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
@pytest.mark.parametrize("code", [errno.EDQUOT, errno.EIO])
def test_any_change_may_fail(
    store: Store, expected: EntryId, source: Path, filesystem: str, code: int
) -> None:
    """Whichever change fails: nothing half is named, nothing is left, the next add succeeds."""
    store.volume._filesystem = filesystem
    number, failed = 1, True
    while failed:
        try:
            with fail_at(number, code=code):
                add_path(store, str(source))
            failed = False
        except OSError as error:
            assert error.errno == code
        assert_whole(store)
        assert leftovers(store.volume) == []
        assert expected == add_path(store, str(source))
        assert_whole(store)
        if failed:
            shutil.rmtree(store.path(expected))
        number += 1

    assert number > 15


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_any_change_may_fail_where_the_entry_is(
    store: Store, source: Path, filesystem: str
) -> None:
    """Whichever change fails while an entry is added again: it stays as it was."""
    store.volume._filesystem = filesystem
    entry = add_path(store, str(source))
    before = os.lstat(store.path(entry)).st_ino
    number, failed = 1, True
    while failed:
        try:
            with fail_at(number):
                add_path(store, str(source))
            failed = False
        except OSError as error:
            assert error.errno == errno.EDQUOT
        number += 1

        assert before == os.lstat(store.path(entry)).st_ino
        assert_whole(store)


@pytest.mark.parametrize(
    ("filesystem", "call"),
    [
        ("ext4", "write"),
        ("ext4", "close"),
        ("ext4", "syncfs"),
        ("fuse.mfs", "write"),
        ("fuse.mfs", "close"),
        ("fuse.mfs", "fsync"),
    ],
)
def test_a_full_volume(
    store: Store,
    source: Path,
    filesystem: str,
    call: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where every byte is refused, at write, fsync or close, nothing is named and nothing left."""
    store.volume._filesystem = filesystem

    def refuse(happening: str, _: object) -> None:
        if happening == call:
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(fs, "observer", refuse)
    with pytest.raises(OSError, match="quota"):
        add_path(store, str(source))

    assert list(store.ids()) == []
    assert leftovers(store.volume) == []


_DYING = """
import os, shutil, sys
sys.path.insert(0, sys.argv[1])
from faults import assert_whole, kill_at
from cvs.store.entries import Store
from cvs.store.ingest import add_path
from cvs.store.volume import Volume

volume = Volume(sys.argv[2])
volume._filesystem = sys.argv[4]
store = Store(volume)
number = 0
status = 9
while status:
    for entry in store.ids():
        shutil.rmtree(store.path(entry))
    number += 1
    child = os.fork()
    if not child:
        kill_at(number)
        add_path(store, sys.argv[3])
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, 9), status
    assert_whole(store)
print(number)
"""


@pytest.mark.parametrize("filesystem", FILESYSTEMS)
def test_a_process_may_die_at_any_change(
    store: Store, expected: EntryId, source: Path, filesystem: str
) -> None:
    """Whenever the writer is killed: a name under store/ is whole or absent, and adding goes on."""
    here = os.path.dirname(__file__)
    command = [sys.executable, "-c", _DYING, here, store.volume.root, str(source), filesystem]
    done = subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE)

    assert int(done.stdout) > 15
    assert [expected] == list(store.ids())
    assert expected == add_path(store, str(source))


# Leaving a stage.


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_a_stage_is_removed_whatever_happens(store: Store, error: type[BaseException]) -> None:
    """Any way out of a stage but publishing removes it."""

    def chunks() -> Iterator[bytes]:
        yield b"begun"
        raise error

    with pytest.raises(error), store.stage() as stage:
        writer = stage.tree("node")
        writer.write(b"a/b", b"x")
        writer.link(b"l", b"a")
        writer.write_chunks(b"a/c", chunks())

    assert leftovers(store.volume) == []
    assert list(store.ids()) == []


# Finding.


def test_finding_by_prefix(store: Store, small: Small) -> None:
    """A prefix of 8 or more digits finds the one entry that begins so."""
    entry = small()

    for length in (8, 9, 63, 64):
        assert entry == store.find(entry[:length])


@pytest.mark.parametrize("text", ["", "0123456", "0" * 65, "ABCDEF01", "../../etc", "0123456g"])
def test_what_cannot_be_an_entry(store: Store, text: str) -> None:
    """Too short, too long, other characters: refused before anything is looked up."""
    with pytest.raises(InputError, match="8 to 64 digits"):
        store.find(text)


@pytest.mark.parametrize("text", ["0" * 8, "0" * 64])
def test_no_entry_begins_so(store: Store, small: Small, text: str) -> None:
    """A prefix of no entry is missing, which is another error than a wrong one."""
    small()
    with pytest.raises(EntryMissing, match="00000000"):
        store.find(text)


def test_an_ambiguous_prefix(store: Store, small: Small) -> None:
    """Entries that begin alike are named; a longer prefix decides."""
    entry = small()
    twin = EntryId(entry[:12] + ("0" if entry[12] != "0" else "1") + entry[13:])
    os.mkdir(store.path(twin))

    with pytest.raises(InputError, match="ambiguous") as caught:
        store.find(entry[:12])
    assert {entry[:16], twin[:16]} == set(caught.value.message.partition(": ")[2].split(", "))
    assert entry == store.find(entry[:13])


def test_strange_names_are_no_entries(store: Store, small: Small) -> None:
    """What lies in store/ and is not called like an entry is none."""
    entry = small()
    for name in ("x", entry[:63], entry.upper(), entry + "0", ".tmp"):
        os.mkdir(os.path.join(store.volume.store, name))

    assert [entry] == list(store.ids())


def test_a_volume_without_a_store(tmp_path: Path) -> None:
    """On a volume that was never set up there are no entries, and nothing is made."""
    store = Store(Volume(str(tmp_path / "never")))

    assert list(store.ids()) == []
    assert not store.has(EntryId("0" * 64))
    assert not store.condemned(EntryId("0" * 64))
    with pytest.raises(EntryMissing):
        store.manifest(EntryId("0" * 64))
    assert not (tmp_path / "never").exists()


def test_condemned(store: Store, small: Small) -> None:
    """A marker says that a collection is about to take an entry."""
    entry = small()
    os.makedirs(os.path.join(store.volume.condemned, entry))

    assert store.condemned(entry)


def test_moving_the_whole_volume(store: Store, memory: Path, source: Path, small: Small) -> None:
    """Nothing in the volume knows where it is mounted: elsewhere every entry is the same."""
    ids = {add_path(store, str(source)), small()}
    there = str(memory / "workspace/cache")
    os.mkdir(memory / "workspace")
    os.rename(store.volume.root, there)
    moved = Store(Volume(there))
    moved.volume.prepare()

    assert ids == set(moved.ids())
    assert_whole(moved)
    for folder, _, files in os.walk(there):
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                assert str(memory).encode() not in path.read_bytes()


def test_the_order_of_publishing(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content, links, manifest, sync, rename, sync of store/: in this order."""
    seen: list[tuple[str, str]] = []
    store.volume._filesystem = "ext4"
    monkeypatch.setattr(
        fs, "observer", lambda call, where: seen.append((call, os.fsdecode(str(where))))
    )
    add_path(store, str(source))
    calls = [
        "manifest" if where.endswith(manifest.NAME) else call
        for call, where in seen
        if call in ("create", "symlink", "syncfs", "rename", "fsync", "mkdir")
    ]

    assert calls[-5:] == ["symlink", "manifest", "syncfs", "rename", "fsync"]
    assert "symlink" not in calls[:-5]


def test_content_path_of_every_kind() -> None:
    """The path of the content is relative to store/."""
    entry = EntryId("0" * 64)
    file = manifest.FileManifest(1, entry, 0, entry, "content.gguf")
    tree = manifest.TreeManifest(1, "node", 0, ())

    assert entries.content_path(entry, file) == f"{entry}/content.gguf"
    assert entries.content_path(entry, tree) == f"{entry}/node"


def test_verify_is_clean_after_all_this(store: Store, source: Path) -> None:
    """An entry that was just added has no damage."""
    assert list(verify(store, add_path(store, str(source)))) == []


def test_a_manifest_that_is_no_file(store: Store, small: Callable[..., EntryId]) -> None:
    """A pipe or folder in the place of a manifest is damage; nobody waits for what is in it."""
    entry = small()
    path = os.path.join(store.path(entry), "manifest.json")
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(IntegrityError, match="is not a file"):
        store.manifest(entry)
    os.unlink(path)
    os.mkdir(path)
    with pytest.raises(IntegrityError, match="is not a file"):
        store.manifest(entry)


def test_a_batch_is_synced_through_what_was_opened_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of writing back that came before a later stage was opened is told as well."""
    synced: list[int] = []
    monkeypatch.setattr(fs, "sync_all", lambda descriptor, where: synced.append(descriptor))
    with store.stage() as one, store.stage() as two:
        first = one.descriptor
        store.publish(two.tree("b").finish(), one.tree("a").finish())

    assert synced == [first]
