"""Thousands of random corruptions of a store: each is found and named, and each is repaired."""

import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import leftovers
from moosefs import MooseFS, unavailable
from world import until

from cvs.store import damage, fs, manifest, tree
from cvs.store.entries import Store
from cvs.store.repair import repair
from cvs.store.source import OtherStore
from cvs.store.volume import Volume

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(3600)]

#: What does one kind of harm to what lies at a path, and returns the path that must be named; None
#: where that cannot be done.
Harm = Callable[[random.Random, Path], Path | None]

#: How many corruptions are tried, and how many in a nightly run, on a file system that syncs at
#: once and keeps modes, and on one that does neither.
AMOUNTS = {"tmpfs": (220, 7000), "fuse.mfs": (80, 3000)}

#: Bytes of the largest file.
LARGE = 70_000


def writable(path: Path) -> None:
    """Lets somebody who is not root change a file or folder."""
    if not path.is_symlink():
        path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o700)


def removed(path: Path) -> None:
    """Removes whatever lies at a path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def data_of(path: Path) -> bytearray | None:
    """The bytes of a regular file that has some."""
    if path.is_symlink() or not path.is_file() or not path.stat().st_size:
        return None
    return bytearray(path.read_bytes())


def rewritten(path: Path, data: bytes) -> Path:
    """Changes the bytes of a file in place and nothing else."""
    mode = stat.S_IMODE(path.stat().st_mode)
    writable(path)
    path.write_bytes(data)
    path.chmod(mode)
    return path


def bit(chance: random.Random, path: Path) -> Path | None:
    """Turns one bit over."""
    data = data_of(path)
    if data is None:
        return None
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return rewritten(path, data)


def byte(chance: random.Random, path: Path) -> Path | None:
    """Gives one byte another value."""
    data = data_of(path)
    if data is None:
        return None
    at = chance.randrange(len(data))
    data[at] = (data[at] + chance.randrange(1, 256)) % 256
    return rewritten(path, data)


def block(chance: random.Random, path: Path) -> Path | None:
    """Makes a stretch zero, as a lost block is."""
    data = data_of(path)
    if data is None:
        return None
    at = chance.randrange(len(data))
    end = min(len(data), at + 4096)
    if not any(data[at:end]):
        return None
    data[at:end] = bytes(end - at)
    return rewritten(path, data)


def swapped(chance: random.Random, path: Path) -> Path | None:
    """Exchanges two bytes: no sum of them changes."""
    data = data_of(path)
    if data is None:
        return None
    one, other = chance.randrange(len(data)), chance.randrange(len(data))
    if data[one] == data[other]:
        return None
    data[one], data[other] = data[other], data[one]
    return rewritten(path, data)


def cut(chance: random.Random, path: Path) -> Path | None:
    """Takes some of the end, or all."""
    data = data_of(path)
    return None if data is None else rewritten(path, data[: chance.randrange(len(data))])


def extended(chance: random.Random, path: Path) -> Path | None:
    """Adds something at the end."""
    if path.is_symlink() or not path.is_file():
        return None
    return rewritten(path, path.read_bytes() + chance.randbytes(chance.randrange(1, 5000)))


def gone(_: random.Random, path: Path) -> Path:
    """Removes a file, a link or a folder with all that is in it."""
    removed(path)
    return path


def renamed(chance: random.Random, path: Path) -> Path | None:
    """Gives a name one letter more."""
    target = path.with_name(path.name + chance.choice("abc"))
    if os.path.lexists(target):
        return None
    path.rename(target)
    return path


def relinked(chance: random.Random, path: Path) -> Path | None:
    """Points a link elsewhere."""
    if not path.is_symlink():
        return None
    target = chance.choice([os.readlink(path) + "x", "/etc/passwd", "..", ".", "x/../../y"])
    if target == os.readlink(path):
        return None
    path.unlink()
    path.symlink_to(target)
    return path


def mode(chance: random.Random, path: Path) -> Path | None:
    """Gives a mode bits that nobody gave it, or takes some."""
    if path.is_symlink():
        return None
    before = stat.S_IMODE(path.stat().st_mode)
    wanted = chance.choice([0o644, 0o666, 0o755, 0o777, 0o555, 0o444, 0o4555, 0o1755, 0o544])
    is_folder = path.is_dir()
    if wanted == before or (is_folder and not wanted & 0o7022 and wanted & 0o700 == 0o700):
        return None
    if not is_folder and not wanted & 0o7222 and wanted & 0o700 == before & 0o700:
        return None
    path.chmod(wanted)
    return path


def extra(chance: random.Random, path: Path) -> Path | None:
    """Puts something into a folder that is no part of it."""
    if path.is_symlink() or not path.is_dir():
        return None
    target = path / chance.choice(["__pycache__", ".nfs0001", "x.pyc", "\udcff", "a\nb"])
    if os.path.lexists(target):
        return None
    made: list[Callable[[Path], object]] = [
        Path.mkdir,
        Path.touch,
        os.mkfifo,
        lambda at: at.symlink_to("nowhere"),
        lambda at: at.write_bytes(b"something"),
    ]
    chance.choice(made)(target)
    return target


def another_kind(chance: random.Random, path: Path) -> Path | None:
    """Puts something of another kind into a place, the same bytes behind a link among them."""
    was = stat.S_IFMT(os.lstat(path).st_mode)
    kinds: dict[int, Callable[[Path], object]] = {
        stat.S_IFREG: Path.touch,
        stat.S_IFDIR: lambda at: (at.mkdir(), (at / "inside").touch()),
        stat.S_IFIFO: os.mkfifo,
        stat.S_IFLNK: lambda at: at.symlink_to(aside.name),
    }
    kind = chance.choice([kind for kind in kinds if kind != was])
    # A link may lead to what was there, which then lies beside it and is too much.
    aside = path.with_name("moved")
    if os.path.lexists(aside) or path.name == aside.name:
        return None
    path.rename(aside)
    if kind != stat.S_IFLNK or chance.random() < 0.5:
        removed(aside)
    kinds[kind](path)
    return path


HARMS: tuple[Harm, ...] = (
    *(bit, byte, block, swapped, cut, extended, gone, renamed, relinked, mode, extra),
    another_kind,
)


def fill(store: Store, chance: random.Random) -> None:
    """Publishes some 30 entries of all kinds: files, trees and sets, large and small, with names
    and links of many forms."""

    def data() -> bytes:
        return chance.randbytes(chance.choice([0, 1, 100, 5000, LARGE]))

    members = []
    for number in range(8):
        with store.stage() as stage:
            head = chance.choice([b"GGUF", b"\x08\0\0\0\0\0\0\0{", b""])
            name = chance.choice(["model.safetensors", "model.gguf", "model"])
            staged = stage.file([head + data()], origin=f"file {number}", name=name)
            members += store.publish(staged)
    names = [
        b"main.py",
        b"a",
        b"50%",
        b"\xff",
        "ü".encode(),
        b"two\nlines",
        b"with space",
        b"Z" * 99,
    ]
    for number in range(18):
        with store.stage() as stage:
            writer = stage.tree(f"tree-{number}")
            folders = [b""]
            for _ in range(chance.randrange(5)):
                folder = chance.choice(folders) + chance.choice(names) + b".d"
                writer.folder(folder)
                folders.append(folder + b"/")
            for folder in dict.fromkeys(folders):
                for name in chance.sample(names, chance.randrange(4)):
                    writer.write(folder + name, data(), executable=chance.random() < 0.3)
                if chance.random() < 0.5:
                    up = b"../" * folder.count(b"/")
                    writer.link(folder + b"link", up + chance.choice(names))
            members += store.publish(writer.finish(origin=f"tree {number}"))
    for number in range(4):
        with store.stage() as stage:
            chosen = chance.sample(members, chance.randrange(8))
            store.publish(stage.set(chosen, origin=f"set {number}"))


def twins(one: Store, other: Store) -> None:
    """Gives two stores the same entries."""
    fill(one, random.Random(2026))
    for entry in one.ids():
        shutil.copytree(one.path(entry), other.path(entry), symlinks=True)
    assert len(list(one.ids())) >= 28


@pytest.fixture
def stores(memory: Path) -> tuple[Store, Store]:
    """Two stores with the same entries; the second is never harmed."""
    volumes = [Volume(str(memory / name)) for name in ("one", "other")]
    for volume in volumes:
        volume.prepare()
    one, other = map(Store, volumes)
    twins(one, other)
    return one, other


def places(entry: Path) -> list[Path]:
    """Everything of an entry: its folder, its manifest, its content."""
    return [entry, *sorted(entry.rglob("*"))]


def state(folder: Path) -> dict[Path, tuple[object, ...]]:
    """All that must come back: kind, mode, bytes or target of everything below a folder."""
    found: dict[Path, tuple[object, ...]] = {}
    for path in places(folder):
        status = os.lstat(path)
        if path.is_symlink():
            found[path] = (os.readlink(path),)
        elif path.is_file():
            found[path] = (status.st_mode, path.read_bytes())
        else:
            found[path] = (status.st_mode,)
    return found


def said(folder: Path, path: Path) -> str:
    """How a path is named: in the entry's folder, as manifests quote it."""
    return tree.quote(os.fsencode(path.relative_to(folder))) if path != folder else "."


@pytest.mark.parametrize("filesystem", AMOUNTS)
def test_random_corruptions(stores: tuple[Store, Store], nightly: bool, filesystem: str) -> None:
    """Every corruption is found and named where it is, and repaired from another store so that
    all is as it was; what was sound keeps its inode."""
    for one in stores:
        one.volume._filesystem = filesystem
    corrupt(*stores, filesystem, AMOUNTS[filesystem][nightly])


def test_on_moosefs(memory: Path, tmp_path: Path, nightly: bool) -> None:
    """So it is on a real MooseFS; what was repaired on one host is whole for another one."""
    if why := unavailable():
        pytest.skip(why)
    with MooseFS(tmp_path) as moosefs:
        store, there = (Store(Volume(str(mount / "cache"))) for mount in moosefs.mounts)
        other = Store(Volume(str(memory / "other")))
        for one in (store, other):
            one.volume.prepare()
        twins(store, other)
        corrupt(store, other, "moosefs", 300 if nightly else 30)
        # Caches of the other host may be some seconds old.
        until(lambda: not [one for entry in there.ids() for one in there.verify(entry)])


def corrupt(store: Store, other: Store, seed: str, amount: int) -> None:
    """Corrupts a store so many times, and repairs it from the other one each time."""
    source = OtherStore(other.volume.root)
    ids = sorted(store.ids())
    chance = random.Random(seed)
    harms = [harm for harm in HARMS if harm is not mode or store.volume.syncs_at_once]
    done = 0
    while done < amount:
        # Each kind as often as another, however seldom it fits.
        harm = harms[done % len(harms)]
        entry = chance.choice(ids)
        folder = Path(store.path(entry))
        before = state(folder)
        inodes = {path: os.lstat(path).st_ino for path in before}
        # The folder of the entry itself is only removed or filled.
        fit = [path for path in before if path != folder or harm in (gone, mode, extra)]
        path = chance.choice([folder / manifest.NAME, *fit])
        named = harm(chance, path)
        if named is None or (os.path.lexists(folder) and state(folder) == before):
            continue
        done += 1
        what = f"{harm.__name__} of {said(folder, path)} of {entry}, the {done}th"
        if os.path.lexists(folder):
            found = [one.path.rstrip("/") for one in damage.examine(store, entry)]
            assert said(folder, named) in found, (what, found)
            assert damage.marked(store.volume) == {entry}, what
        result = repair(store, entry, [source])
        assert result.lost == (), (what, result)
        assert store.verify(entry) == [], what
        assert damage.marked(store.volume) == set(), what
        assert changed_alone(before, state(folder)), what
        touched = {path, *path.parents, *(at for at in before if path in at.parents)}
        moved = {at for at in before if inodes[at] != os.lstat(at).st_ino} - touched
        assert moved == set(), (what, moved)
        if result.kept_aside:
            fs.remove_tree(os.path.join(store.volume.root, result.kept_aside))
    assert leftovers(store.volume) == os.listdir(store.volume.damaged) == []
    assert sorted(store.ids()) == ids
    assert [one for entry in ids for one in store.verify(entry)] == []


def changed_alone(
    before: dict[Path, tuple[object, ...]], after: dict[Path, tuple[object, ...]]
) -> bool:
    """Whether all is as it was, but for the advice of a manifest that was made again."""
    if before.keys() != after.keys():
        return False
    different = [path for path in before if before[path] != after[path]]
    return all(path.name == manifest.NAME for path in different)
