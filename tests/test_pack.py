"""Packs: the format as others read it, single files, and what damage and hostile bytes come to."""

import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from faults import assert_whole, fail_at, leftovers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import broken

from cvs.store import damage, fs, manifest, pack
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError, StoreError
from cvs.store.glance import glance
from cvs.store.manifest import TreeManifest
from cvs.store.repair import repair
from cvs.store.source import Copy, Maker, OtherStore
from cvs.store.stage import Stage, Staged
from cvs.store.verify import verify
from cvs.store.volume import Volume

#: More than one frame, and nothing that compresses well.
LARGE = b"".join(struct.pack("<I", n * 2654435761 % (1 << 32)) for n in range(700_000))

FILES = {
    b"a/large.bin": LARGE,
    b"a/empty": b"",
    b"b.py": b"print('hello')\n" * 100,
    b"a!": b"sorted before a/",
    b"two\nlines/\xff": b"x",
}
ORDER = [b"a!", b"a/empty", b"a/large.bin", b"b.py", b"two\nlines/\xff"]


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


def packed(store: Store, files: dict[bytes, bytes], name: str = "node") -> EntryId:
    """Publishes a packed tree, with a link and an empty folder."""
    with store.stage() as stage, Stage(store.volume.tmp, synced=False) as local:
        writer = local.tree(name)
        for path, data in files.items():
            writer.write(path, data, executable=path.endswith(b".py"))
        writer.folder(b"nothing")
        writer.link(b"link", b"b.py")
        return store.publish(pack.stage(writer.finish(origin="a test"), stage))[0]


@pytest.fixture
def entry(store: Store) -> EntryId:
    """A packed tree."""
    return packed(store, FILES)


def document_of(store: Store, entry: EntryId) -> TreeManifest:
    """The manifest of a tree."""
    found = store.manifest(entry)
    assert isinstance(found, TreeManifest)
    return found


def path_of(store: Store, entry: EntryId) -> Path:
    """The file of a pack."""
    return Path(store.path(entry), pack.NAME)


@contextlib.contextmanager
def opened(store: Store, entry: EntryId) -> Iterator[pack.Pack]:
    """An entry's pack."""
    with pack.Pack(str(path_of(store, entry)), document_of(store, entry)) as found:
        yield found


def rewrite(path: Path, data: bytes) -> None:
    """Changes a pack."""
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def told(store: Store, entry: EntryId) -> list[tuple[str, str]]:
    """Place and kind of all damage."""
    return [(one.path, one.what) for one in verify(store, entry)]


# The format


def test_one_file_beside_the_manifest(store: Store, entry: EntryId) -> None:
    """That is all there is of a packed tree, and its id is that of the tree unpacked."""
    assert sorted(os.listdir(store.path(entry))) == [pack.NAME, manifest.NAME]
    with store.stage() as stage:
        writer = stage.tree("node")
        for path, data in FILES.items():
            writer.write(path, data, executable=path.endswith(b".py"))
        writer.folder(b"nothing")
        writer.link(b"link", b"b.py")
        assert writer.finish().id == entry
    assert_whole(store)
    assert leftovers(store.volume) == []


def test_what_it_unpacks_to(store: Store, entry: EntryId) -> None:
    """The files' bytes, in the order of their paths; any reader of zstd has them."""
    path = path_of(store, entry)
    whole = b"".join(FILES[name] for name in ORDER)
    assert [extent.path for extent in pack.layout(document_of(store, entry))] == ORDER
    with open(path, "rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        assert reader.read() == whole
    if zstd := shutil.which("zstd"):
        done = subprocess.run([zstd, "-dc", path], capture_output=True, check=True)
        assert done.stdout == whole


def test_the_table(store: Store, entry: EntryId) -> None:
    """As the format of seekable files says, byte for byte."""
    data = path_of(store, entry).read_bytes()
    frames, descriptor, magic = struct.unpack("<IBI", data[-9:])
    assert (descriptor, magic) == (0, 0x8F92EAB1)
    table = data[-9 - 8 * frames : -9]
    assert struct.unpack("<II", data[-9 - 8 * frames - 8 : -9 - 8 * frames]) == (
        0x184D2A5E,
        len(table) + 9,
    )
    sizes = list(struct.iter_unpack("<II", table))
    assert sum(compressed for compressed, _ in sizes) == len(data) - len(table) - 9 - 8
    # The two small ones before the large one have a frame of their own.
    assert [size for _, size in sizes] == [
        len(FILES[b"a!"]),
        *(pack.FRAME, pack.FRAME, len(LARGE) - 2 * pack.FRAME + len(FILES[b"b.py"]) + 1),
    ]
    at = 0
    for compressed, size in sizes:
        frame = zstandard.ZstdDecompressor().decompress(data[at : at + compressed])
        assert len(frame) == size
        at += compressed


def test_an_empty_tree(store: Store) -> None:
    """A pack without a frame."""
    entry = packed(store, {b"b.py": b""})
    assert path_of(store, entry).stat().st_size == 17
    assert told(store, entry) == []


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.sampled_from([0, 1, 100, 5000, 99_999, 300_000]), max_size=30),
    frame=st.sampled_from([1000, 70_000, pack.FRAME, pack.FRAME_LIMIT]),
)
def test_any_sizes(memory: Path, sizes: list[int], frame: int) -> None:
    """Whatever the sizes and wherever frames end, each file is found, alone and with others."""
    store = Store(Volume(str(memory / "any")))
    store.volume.prepare()
    files = {b"%03d" % n: LARGE[n : n + size] for n, size in enumerate(sizes)} | {b"b.py": b"1"}
    before = pack.FRAME
    pack.FRAME = frame
    try:
        entry = packed(store, files)
    finally:
        pack.FRAME = before
    extents = pack.layout(document_of(store, entry))
    with opened(store, entry) as found:
        for extent in reversed(extents):
            assert b"".join(found.read(extent)) == files[extent.path]
        runs = found.runs(extents)
        assert [at for run in runs for at in run] == list(range(len(extents)))
    fs.remove_tree(store.path(entry))


def test_frames_of_other_writers(store: Store, entry: EntryId) -> None:
    """Frames that end anywhere, do not say their size, and have checksums in the table."""
    whole = b"".join(FILES[name] for name in ORDER)
    writer = zstandard.ZstdCompressor(write_content_size=False, write_checksum=True)
    data, table = b"", b""
    for at in range(0, len(whole), 333_333):
        frame = writer.compress(whole[at : at + 333_333])
        data += frame
        table += struct.pack("<III", len(frame), len(whole[at : at + 333_333]), 7)
    head = struct.pack("<II", 0x184D2A5E, len(table) + 9)
    foot = struct.pack("<IBI", len(table) // 12, 0x80, 0x8F92EAB1)
    rewrite(path_of(store, entry), data + head + table + foot)

    assert told(store, entry) == []
    with opened(store, entry) as found:
        for extent in pack.layout(document_of(store, entry)):
            assert b"".join(found.read(extent)) == FILES[extent.path]


def test_one_file_is_read_alone(
    store: Store, entry: EntryId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the frames only those that have something of it."""
    read: list[int] = []
    pread = os.pread

    def counted(descriptor: int, count: int, at: int) -> bytes:
        read.append(count)
        return pread(descriptor, count, at)

    with opened(store, entry) as found:
        monkeypatch.setattr(os, "pread", counted)
        extent = next(e for e in pack.layout(document_of(store, entry)) if e.path == b"a!")
        assert b"".join(found.read(extent)) == FILES[b"a!"]
    assert len(read) == 1
    assert read[0] < 100


# Damage


def test_damage_is_named(store: Store, entry: EntryId) -> None:
    """By the file that it hit; the pack itself where no file can be told."""
    path = path_of(store, entry)
    data = bytearray(path.read_bytes())
    data[-9 - 8 * 4 - 8 - 2] ^= 1  # The end of the last frame.
    rewrite(path, data)
    assert {name for name, _ in told(store, entry)} <= {
        "node/a/large.bin",
        "node/b.py",
        "node/two%0Alines/%FF",
    }
    assert len(told(store, entry)) >= 1

    for harm, what in (
        (data[:-1], "has no table at its end"),
        (b"", "has no table at its end"),
        (data[5:], "has other bytes than its table says"),
    ):
        rewrite(path, bytes(harm))
        assert told(store, entry) == [(pack.NAME, what)]
        seen = glance(store, entry)
        assert seen is not None
        assert (seen.path, seen.what) == (pack.NAME, what)


def test_what_else_lies_there(store: Store, entry: EntryId) -> None:
    """Is told as of any entry; a pack beside the tree is too much, without both the tree lacks."""
    folder = Path(store.path(entry))
    (folder / "extra").touch()
    assert told(store, entry) == [("extra", "is not part of the entry")]
    (folder / "extra").unlink()

    path_of(store, entry).chmod(0o666)
    assert told(store, entry) == [(pack.NAME, "has mode 666 instead of 444")]
    path_of(store, entry).unlink()
    assert ("node", "is missing or not a folder") in told(store, entry)


def test_a_link_is_no_pack(store: Store, entry: EntryId, tmp_path: Path) -> None:
    """What lies elsewhere may change."""
    path = path_of(store, entry)
    shutil.move(path, tmp_path / "pack")
    path.symlink_to(tmp_path / "pack")
    (found,) = told(store, entry)
    assert found[0] == pack.NAME


def test_a_sample(store: Store, entry: EntryId) -> None:
    """Of no file nothing is read but the table."""
    path = path_of(store, entry)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    rewrite(path, data)
    assert list(verify(store, entry, sample=0.0)) == []
    assert told(store, entry) != []


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_broken_packs(memory: Path, data: st.DataObject) -> None:
    """Whatever bytes a pack has: it is damaged, or as good as it was; nothing else is raised."""
    store = Store(Volume(str(memory / "broken")))
    store.volume.prepare()
    files = {b"b.py": b"print()\n" * 50, b"c": LARGE[:3000]}
    entry = packed(store, files)
    path = path_of(store, entry)
    whole = path.read_bytes()
    try:
        rewrite(path, data.draw(broken(whole)))
        assert (told(store, entry) == []) == (
            contents(store, entry) == [files[name] for name in sorted(files)]
        )
    finally:
        rewrite(path, whole)


def contents(store: Store, entry: EntryId) -> list[bytes] | None:
    """What the files of a pack are, if they can be read."""
    try:
        with opened(store, entry) as found:
            extents = pack.layout(document_of(store, entry))
            return [b"".join(found.read(extent)) for extent in extents]
    except IntegrityError:
        return None


@pytest.mark.parametrize("said", [None, 1 << 40])
def test_a_bomb(store: Store, entry: EntryId, said: int | None) -> None:
    """A frame that unpacks to more than the table says is refused before it is."""
    bomb = zstandard.ZstdCompressor(write_content_size=said is not None).compress(bytes(100 << 20))
    if said is not None:
        # A header that says eight bytes of size follow, and a size that no memory has.
        bomb = bomb[:4] + bytes([0xE0]) + struct.pack("<Q", said) + bomb[9:]
    size = document_of(store, entry).size
    table = struct.pack("<II", len(bomb), size)
    head = struct.pack("<II", 0x184D2A5E, len(table) + 9)
    rewrite(path_of(store, entry), bomb + head + table + struct.pack("<IBI", 1, 0, 0x8F92EAB1))
    found = told(store, entry)
    assert {name for name, _ in found} >= {"node/b.py", "node/a/large.bin"}
    assert all("cannot be read" in what for _, what in found)


# Repairs


@pytest.fixture
def other(memory: Path) -> Store:
    """Another volume's store."""
    made = Store(Volume(str(memory / "other")))
    made.volume.prepare()
    return made


def hit(store: Store, entry: EntryId, name: bytes) -> None:
    """Damages one frame of a file."""
    path = path_of(store, entry)
    extent = next(e for e in pack.layout(document_of(store, entry)) if e.path == name)
    with opened(store, entry) as found:
        frames = [n for n, start in enumerate(found._starts) if start <= extent.start]
        start, end = found._places[frames[-1] : frames[-1] + 2]
    data = bytearray(path.read_bytes())
    data[start:end] = bytes(end - start)
    rewrite(path, data)


@pytest.mark.parametrize("kind", ["pack", "tree", "copy"])
def test_repair(store: Store, other: Store, entry: EntryId, tmp_path: Path, kind: str) -> None:
    """What one frame lost comes from the source, all else from the pack; the old one is kept."""
    if kind == "pack":
        assert packed(other, FILES) == entry
        source: OtherStore | Copy = OtherStore(other.volume.root)
    else:
        folder = tmp_path / "node"
        for path, data in FILES.items():
            place = Path(os.fsdecode(os.fsencode(folder) + b"/" + path))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        (folder / "b.py").chmod(0o755)
        (folder / "nothing").mkdir()
        (folder / "link").symlink_to("b.py")
        source = Copy(str(folder))
        if kind == "tree":
            assert other.add(str(folder)) == entry
            source = OtherStore(other.volume.root)
    hit(store, entry, b"a!")
    damage.examine(store, entry)
    assert damage.marked(store.volume) == {entry}
    damaged = path_of(store, entry).read_bytes()
    if kind == "copy":
        # Only what is lacking is asked of a source.
        (folder / "b.py").write_bytes(b"other")
    done = repair(store, entry, [source])

    assert done.lost == ()
    assert done.restored == ("node/a!",)
    assert done.kept_aside is not None
    assert Path(store.volume.root, done.kept_aside, pack.NAME).read_bytes() == damaged
    assert told(store, entry) == []
    assert damage.marked(store.volume) == set()
    assert sorted(os.listdir(store.path(entry))) == [pack.NAME, manifest.NAME]
    assert leftovers(store.volume) == []


@pytest.mark.parametrize("harm", ["one file", "all"])
def test_repair_from_where_it_is_made(store: Store, entry: EntryId, harm: str) -> None:
    """A wheel is written anew on this host's own disk, which is another than the volume's."""
    if harm == "all":
        rewrite(path_of(store, entry), b"nothing")
    else:
        hit(store, entry, b"a!")
    done = repair(store, entry, [Maker("where it is made", wheel)])
    assert done.lost == ()
    assert told(store, entry) == []
    assert leftovers(store.volume) == []


def test_repair_without_a_source(store: Store, entry: EntryId) -> None:
    """What is lost is named; the pack stays as it is, and is not served."""
    hit(store, entry, b"a!")
    before = path_of(store, entry).read_bytes()
    done = repair(store, entry)
    assert [one.path for one in done.lost] == ["node/a!"]
    assert path_of(store, entry).read_bytes() == before
    assert damage.marked(store.volume) == {entry}


@pytest.mark.parametrize("harm", ["cut", "mode", "extra", "empty"])
def test_repair_of_the_pack(store: Store, other: Store, entry: EntryId, harm: str) -> None:
    """Whatever is wrong with it as a whole."""
    packed(other, FILES)
    path = path_of(store, entry)
    if harm == "cut":
        rewrite(path, path.read_bytes()[:-1])
    elif harm == "mode":
        path.chmod(0o755)
    elif harm == "extra":
        (path.parent / "node.txt").touch()
    else:
        rewrite(path, b"")
    assert damage.examine(store, entry) != []
    done = repair(store, entry, [OtherStore(other.volume.root)])
    assert done.lost == ()
    assert told(store, entry) == []


@pytest.fixture
def packing(memory: Path) -> Store:
    """The store of a volume that keeps wheels as packs."""
    volume = Volume(str(memory / "packing"), wheels="pack")
    volume.prepare()
    return Store(volume)


def vanish(store: Store, entry: EntryId, harm: str) -> None:
    """Takes a pack out of its entry, the entry away, or puts a file in its place."""
    path_of(store, entry).unlink()
    if harm != "pack":
        Path(store.path(entry), manifest.NAME).unlink()
        os.rmdir(store.path(entry))
    if harm == "file":
        Path(store.path(entry)).touch()
    if harm == "gone":
        damage.mark(store.volume, entry)


def wheel(stage: Stage) -> Staged:
    """Writes what `packed` publishes, unpacked."""
    writer = stage.tree("node")
    for path, data in FILES.items():
        writer.write(path, data, executable=path.endswith(b".py"))
    writer.folder(b"nothing")
    writer.link(b"link", b"b.py")
    return writer.finish(origin="a test")


@pytest.mark.parametrize("harm", ["pack", "gone", "file"])
@pytest.mark.parametrize("kind", ["maker", "store"])
def test_a_pack_comes_back_as_a_pack(
    packing: Store, other: Store, entry: EntryId, harm: str, kind: str
) -> None:
    """Where nothing of it is left, a source knows that the entry was one."""
    assert packed(packing, FILES) == packed(other, FILES) == entry
    whole = path_of(packing, entry).read_bytes()
    vanish(packing, entry, harm)
    source = (
        Maker("a wheel", wheel, packs=True) if kind == "maker" else OtherStore(other.volume.root)
    )
    done = repair(packing, entry, [source])

    assert done.lost == ()
    assert sorted(os.listdir(packing.path(entry))) == [pack.NAME, manifest.NAME]
    assert path_of(packing, entry).read_bytes() == whole
    assert told(packing, entry) == []
    assert damage.marked(packing.volume) == set()
    assert leftovers(packing.volume) == []


@pytest.mark.parametrize("harm", ["pack", "gone"])
def test_what_was_no_pack_comes_back_as_a_tree(
    packing: Store, store: Store, entry: EntryId, harm: str
) -> None:
    """So a commit on a volume with packs, and a wheel on one without."""
    for one, source in (
        (packing, Maker("a commit", wheel)),
        (store, Maker("a wheel", wheel, packs=True)),
    ):
        with contextlib.suppress(FileExistsError):
            assert packed(one, FILES) == entry
        vanish(one, entry, harm)
        assert repair(one, entry, [source]).lost == ()
        assert sorted(os.listdir(one.path(entry))) == [manifest.NAME, "node"]
        assert told(one, entry) == []


@pytest.mark.parametrize("harm", ["pack", "gone"])
def test_a_vanished_pack_without_all_of_its_files(
    packing: Store, entry: EntryId, harm: str
) -> None:
    """What a source lacks is told of the whole; nothing half comes back."""

    def write(stage: Stage) -> Staged:
        writer = stage.tree("node")
        writer.write(b"b.py", FILES[b"b.py"], executable=True)
        return writer.finish(origin="a test")

    assert packed(packing, FILES) == entry
    vanish(packing, entry, harm)
    before = os.path.exists(packing.path(entry))
    done = repair(packing, entry, [Maker("a wheel", write, packs=True)])

    (lost,) = done.lost
    assert lost.path == ("node" if harm == "pack" else ".")
    assert lost.why.startswith("a wheel: it ")
    assert before == os.path.exists(packing.path(entry))
    assert not path_of(packing, entry).exists()
    assert damage.marked(packing.volume) == {entry}
    assert leftovers(packing.volume) == []


def test_repair_may_fail_at_any_change(store: Store, other: Store, entry: EntryId) -> None:
    """Then the entry is whole or marked as damaged, and the next repair ends it."""
    packed(other, FILES)
    source = OtherStore(other.volume.root)
    for number in range(1, 200):
        hit(store, entry, b"a!")
        damage.examine(store, entry)
        with fail_at(number) as failed, contextlib.suppress(OSError, StoreError):
            repair(store, entry, [source])
        if not failed:
            break
        assert told(store, entry) == [] or damage.marked(store.volume) == {entry}
        assert repair(store, entry, [source]).lost == ()
        assert told(store, entry) == []
    assert number > 20
    store.volume.prepare()
    assert leftovers(store.volume) == []


def test_get_refuses(store: Store, entry: EntryId) -> None:
    """A file in a pack has no path."""
    with pytest.raises(InputError, match="is packed"):
        store.get(entry)
