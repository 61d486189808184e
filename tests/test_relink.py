"""Files of a user's that become links to entries, whoever reads them meanwhile."""

import contextlib
import errno
import functools
import os
import shutil
import stat
from contextlib import ExitStack
from pathlib import Path

import pytest
from blake3 import blake3
from faults import assert_whole, fail_at, leftovers
from test_full_volume import mount

from cvs.profiles.state import link_target
from cvs.store import fs, refs, relink, roots
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, StoreError
from cvs.store.record import Record
from cvs.store.relink import Outcome, Relinking
from cvs.store.volume import Volume

DATA = b"weights of a model"
ENTRY = EntryId(blake3(DATA).hexdigest())


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """In memory: each file is synced."""
    return memory_volume


@pytest.fixture
def folder(store: Store) -> Path:
    """A folder on the volume."""
    made = Path(store.volume.root) / "models" / "loras"
    made.mkdir()
    return made


def write(path: Path, data: bytes = DATA) -> Path:
    """A file with these bytes."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


def take(store: Store, *paths: Path, copy: bool = False) -> list[Outcome]:
    """Takes files in, in this order."""
    target = functools.partial(link_target, volume=store.volume)
    relinking = Relinking(store, copy=copy, link_target=target)
    groups = relink.groups(map(str, paths))
    relinking.check(groups)
    return [relinking.take(one, relink.digest(one, lambda _: None)) for one in groups]


def test_a_file_becomes_a_link(store: Store, folder: Path) -> None:
    """The entry is the file itself; the link is relative, pinned, and known by its SHA-256."""
    path = write(folder / "a.safetensors")
    inode = path.stat().st_ino
    assert take(store, path) == [Outcome((str(path),), "adopted", len(DATA), 0, ENTRY)]

    assert os.readlink(path) == f"../../store/{ENTRY}/content.safetensors"
    assert path.read_bytes() == DATA
    assert path.stat().st_ino == inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert path.stat().st_nlink == 1
    assert os.listdir(folder) == ["a.safetensors"]
    (pin,) = [one for one in store.roots() if one.kind == "pin"]
    assert isinstance(pin.record, Record)
    assert (pin.name, pin.entries, pin.record.version) == (ENTRY, (ENTRY,), "(adopted)")
    document = store.manifest(ENTRY)
    assert getattr(document, "origin", None) == "a.safetensors"
    assert refs.get(store.volume, "sha256", getattr(document, "sha256", "")) == ENTRY
    assert_whole(store)
    assert leftovers(store.volume) == []


def test_what_is_there_twice_is_kept_once(store: Store, folder: Path) -> None:
    """Whatever it is called; the room of the second is won."""
    first, second = write(folder / "a.ckpt"), write(folder / "b.ckpt")
    outcomes = take(store, first, second)
    assert [(one.state, one.won) for one in outcomes] == [
        ("adopted", 0),
        ("duplicate", len(DATA)),
    ]
    assert first.read_bytes() == second.read_bytes() == DATA
    assert os.path.samefile(first, second)
    assert first.is_symlink() and second.is_symlink()


def test_what_the_store_has_is_compared_first(store: Store, folder: Path) -> None:
    """Nothing goes for an entry that is damaged, nor for one that is not there whole."""
    entry = store.add(str(write(folder / "first")))
    content = Path(store.get(entry))
    path = write(folder / "second")
    content.chmod(0o644)
    content.write_bytes(DATA.upper())
    (outcome,) = take(store, path)
    assert (outcome.state, outcome.won) == ("left", 0)
    assert "is damaged" in outcome.why and "store repair" in outcome.why
    content.unlink()
    assert take(store, path)[0].state == "left"
    assert path.read_bytes() == DATA
    assert not path.is_symlink()


def test_two_names_of_one_file(store: Store, folder: Path) -> None:
    """Hard links are one file, which is digested once and not called a duplicate."""
    first = write(folder / "a")
    os.link(first, folder / "b")
    (outcome,) = take(store, first, folder / "b")
    assert (outcome.state, outcome.won) == ("adopted", 0)
    assert outcome.paths == (str(first), str(folder / "b"))
    assert first.is_symlink() and (folder / "b").is_symlink()
    assert first.stat().st_nlink == 1


def test_a_name_elsewhere(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that could be changed through a name elsewhere is shared or copied, else left."""
    path = write(folder / "a")
    os.link(path, folder / "other")
    monkeypatch.setattr(fs, "clone", lambda source, target: False)
    (outcome,) = take(store, path)
    assert outcome.state == "left"
    assert outcome.why.endswith("--copy copies it")
    assert list(store.ids()) == []

    (outcome,) = take(store, path, copy=True)
    assert outcome.state == "adopted"
    assert not os.path.samefile(path, folder / "other")
    (folder / "other").write_bytes(b"others")
    assert path.read_bytes() == DATA
    assert_whole(store)


def test_blocks_are_shared(store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system can, a file that has other names is not copied but shares blocks."""

    def clone(source: int, target: int) -> bool:
        fs.write(target, os.pread(source, 100, 0))
        return True

    monkeypatch.setattr(fs, "clone", clone)
    path = write(folder / "a")
    os.link(path, folder / "other")
    assert take(store, path)[0].state == "adopted"
    assert_whole(store)


def test_a_real_clone(folder: Path) -> None:
    """The call shares blocks, or says that it cannot."""
    path = write(folder / "a")
    with open(path, "rb") as source, open(folder / "b", "wb") as target:
        done = fs.clone(source.fileno(), target.fileno())
    assert (folder / "b").read_bytes() == (DATA if done else b"")


@pytest.mark.nightly
def test_a_file_system_that_shares_blocks(tmp_path: Path) -> None:
    """On XFS a file that has another name is taken in without its room being taken twice."""
    size = 32 << 20
    with ExitStack() as stack:
        mount(stack, tmp_path / "xfs", "xfs")
        volume = Volume(str(tmp_path / "xfs" / "cache"))
        volume.prepare()
        path = write(Path(volume.models) / "a.ckpt", os.urandom(size))
        os.link(path, tmp_path / "xfs" / "other")
        os.sync()
        before = shutil.disk_usage(tmp_path / "xfs").used
        (outcome,) = take(Store(volume), path)
        os.sync()
        assert outcome.state == "adopted"
        assert shutil.disk_usage(tmp_path / "xfs").used - before < size / 4
        assert not os.path.samefile(path, tmp_path / "xfs" / "other")
        assert_whole(Store(volume))


def test_what_is_written_is_left(store: Store, folder: Path) -> None:
    """A file that somebody has open for writing stays as it is."""
    path = write(folder / "a")
    with open(path, "ab"):
        (outcome,) = take(store, path)
    assert (outcome.state, outcome.why) == ("left", "somebody has it open for writing")
    assert not path.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) & stat.S_IWUSR


@pytest.mark.parametrize("call", ["link", "chmod", "mkdir"])
def test_what_is_changed_meanwhile_is_left(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Another file under the name is never replaced, whenever it comes."""
    path = write(folder / "a")
    changed = False

    def change(name: str, _: object) -> None:
        nonlocal changed
        if name == call and not changed:
            changed = True
            (folder / "new").write_bytes(b"other bytes")
            os.rename(folder / "new", path)

    monkeypatch.setattr(fs, "observer", change)
    (outcome,) = take(store, path)
    monkeypatch.setattr(fs, "observer", None)
    assert (outcome.state, outcome.why) == ("left", "it was changed meanwhile")
    assert path.read_bytes() == b"other bytes"
    assert_whole(store)


def test_what_was_written_after_it_was_digested(store: Store, folder: Path) -> None:
    """So it is of one that was written in place."""
    path = write(folder / "a")
    target = functools.partial(link_target, volume=store.volume)
    (group,) = relink.groups([str(path)])
    digested = relink.digest(group, lambda _: None)
    path.write_bytes(DATA[::-1])
    os.utime(path, ns=(0, group.status.st_mtime_ns + 1))
    outcome = Relinking(store, copy=False, link_target=target).take(group, digested)
    assert outcome.state == "left"
    assert list(store.ids()) == []


def test_it_goes_on_where_it_was_ended(store: Store, folder: Path) -> None:
    """Ended before any of its calls, the next run makes of the file what one run would have."""
    path = write(folder / "a.gguf", b"GGUF" + DATA)
    number = 0
    while True:
        number += 1
        with fail_at(number, code=errno.EIO) as failed:
            with contextlib.suppress(OSError):
                take(store, path)
        assert path.read_bytes() == b"GGUF" + DATA
        assert_whole(store)
        if not failed:
            break
        assert all(outcome.state == "adopted" for outcome in take(store, path))
        assert path.is_symlink()
        # And from the beginning.
        path.unlink()
        write(path, b"GGUF" + DATA)
        for entry in list(store.ids()):
            fs.remove_tree(store.path(entry))
            os.unlink(os.path.join(store.volume.pins, f"{entry}.json"))
    assert number > 8


def test_a_stage_that_was_left(store: Store, folder: Path) -> None:
    """A name in the stage of a run that was killed is no name elsewhere."""
    path = write(folder / "a")
    left = Path(store.volume.tmp) / ("0" * 32)
    left.mkdir()
    os.link(path, left / "content")
    assert take(store, path)[0].state == "adopted"


def test_a_quota_that_allows_no_second_name(store: Store, folder: Path) -> None:
    """It is said what counts there; the file is as it was."""
    path = write(folder / "a")
    with (
        fail_at(1, code=errno.EDQUOT, calls=("link",)),
        pytest.raises(StoreError, match="hard link counts as much") as caught,
    ):
        take(store, path)
    assert str(path) in caught.value.message
    assert path.read_bytes() == DATA
    assert leftovers(store.volume) == []


def test_another_file_system(store: Store, folder: Path, tmp_path: Path) -> None:
    """What can only be copied is refused before anything is done; a copy's link is absolute."""
    path = write(tmp_path / "models" / "a.safetensors")
    if path.stat().st_dev == os.stat(store.volume.store).st_dev:
        pytest.skip("there is one file system alone")
    with pytest.raises(InputError, match="lies on another file system") as caught:
        take(store, write(folder / "b", b"b"), path)
    assert caught.value.hint is not None and caught.value.hint.startswith("--copy")
    assert list(store.ids()) == []
    assert take(store, path, copy=True)[0].state == "adopted"
    assert os.readlink(path) == f"{store.volume.store}/{ENTRY}/content.safetensors"
    assert os.listdir(path.parent) == ["a.safetensors"]


def test_groups(folder: Path) -> None:
    """Links and what is gone are no files."""
    path = write(folder / "a")
    (folder / "link").symlink_to("a")
    found = relink.groups([str(folder / name) for name in ("link", "a", "gone")])
    assert [one.paths for one in found] == [(str(path),)]


def test_a_pin_is_a_root(store: Store, folder: Path) -> None:
    """Two runs make one, and every reader of roots takes it."""
    take(store, write(folder / "a"))
    take(store, write(folder / "b"))
    found = list(roots.roots(store.volume))
    assert [(one.kind, one.entries) for one in found] == [("pin", (ENTRY,))]
