"""Unpacked trees: whole, shared, verified, and gone with the start of the machine."""

import os
import shutil
import threading
from pathlib import Path

import pytest
from faults import fail_at
from test_pack import FILES, document_of, hit, packed, path_of, rewrite

from cvs.store import damage, unpacked
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import IntegrityError
from cvs.store.manifest import TreeManifest
from cvs.store.progress import SILENT
from cvs.store.volume import Volume


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@pytest.fixture
def folder(memory: Path) -> str:
    """Where trees are unpacked."""
    return str(memory / "wheels")


def documents(store: Store, *entries: EntryId) -> dict[EntryId, TreeManifest]:
    """Their manifests."""
    return {entry: document_of(store, entry) for entry in entries}


def assert_as_packed(root: str, files: dict[bytes, bytes]) -> None:
    """All files, links and folders are there, with their modes, and nothing else."""
    found = {}
    for at, folders, names in os.walk(os.fsencode(root)):
        for name in [*folders, *names]:
            path = os.path.join(at, name)
            inside = path[len(os.fsencode(root)) + 1 :]
            if os.path.islink(path):
                found[inside] = b"-> " + os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as file:
                    found[inside] = file.read()
                mode = 0o555 if inside.endswith(b".py") else 0o444
                assert os.stat(path).st_mode & 0o777 == mode
    assert found == files | {b"link": b"-> b.py"}
    assert os.path.isdir(os.path.join(root, "nothing"))


def test_trees_are_unpacked(store: Store, folder: str) -> None:
    """Packs alone; once, whoever asks again."""
    many = {b"m/%03d.txt" % n: b"%d" % n * n for n in range(600)} | {b"b.py": b"1\n"}
    one, other = packed(store, FILES), packed(store, many, "many")
    with store.stage() as stage:
        writer = stage.tree("plain")
        writer.write(b"x", b"1")
        plain = store.publish(writer.finish())[0]
    trees = documents(store, one, other, plain)
    found = unpacked.ensure(store, trees, folder)

    assert found == {one: f"{folder}/{one}/node", other: f"{folder}/{other}/many"}
    assert_as_packed(found[one], FILES)
    assert_as_packed(found[other], many)
    assert sorted(os.listdir(folder)) == sorted([one, other])
    before = os.stat(found[one]).st_ino
    with fail_at(1) as failed:
        assert unpacked.ensure(store, trees, folder) == found
    assert not failed
    assert os.stat(found[one]).st_ino == before


def test_in_threads(store: Store, folder: str) -> None:
    """Where this process must not fork, threads share the work."""
    many = {b"m/%03d.bin" % n: os.urandom(40_000) for n in range(200)} | {b"b.py": b"1\n"}
    entry = packed(store, many)
    ready = threading.Event()
    other = threading.Thread(target=ready.wait)
    other.start()
    try:
        found = unpacked.ensure(store, documents(store, entry), folder)
    finally:
        ready.set()
        other.join()
    assert_as_packed(found[entry], many)


def test_after_a_start(store: Store, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not synced may be lost then: it is made again."""
    entry = packed(store, FILES)
    found = unpacked.ensure(store, documents(store, entry), folder)
    assert unpacked.is_made(folder, entry)
    (Path(found[entry]) / "b.py").unlink()

    monkeypatch.setattr(unpacked, "_started", lambda: "another\n")
    assert not unpacked.is_made(folder, entry)
    assert unpacked.ensure(store, documents(store, entry), folder) == found
    assert unpacked.is_made(folder, entry)
    assert_as_packed(found[entry], FILES)
    assert os.listdir(folder) == [entry]


def test_a_part_is_gone(store: Store, folder: str) -> None:
    """Deleting may be broken off: without its marker it counts for nothing."""
    entry = packed(store, FILES)
    found = unpacked.ensure(store, documents(store, entry), folder)
    Path(folder, entry, unpacked.MARKER).unlink()
    shutil.rmtree(Path(found[entry]) / "a")
    assert unpacked.ensure(store, documents(store, entry), folder) == found
    assert_as_packed(found[entry], FILES)


@pytest.mark.parametrize("harm", ["frame", "table"])
def test_damage(store: Store, folder: str, harm: str) -> None:
    """It is told, the entry is marked, and nothing of it stays."""
    sound, entry = packed(store, FILES), packed(store, FILES, "other")
    if harm == "frame":
        hit(store, entry, b"a/large.bin")
    else:
        rewrite(path_of(store, entry), b"nothing")
    with pytest.raises(IntegrityError, match=f"entry {entry[:16]} is damaged") as caught:
        unpacked.ensure(store, documents(store, sound, entry), folder)
    assert caught.value.hint == f"cvs store repair {entry[:16]}"
    assert damage.marked(store.volume) == {entry}
    assert os.listdir(folder) == []


def test_it_may_fail_at_any_change(store: Store, folder: str) -> None:
    """Then nothing is there that counts, and the next run makes it."""
    entry = packed(store, {b"b.py": b"1", b"x/y": b"2"})
    for number in range(1, 100):
        shutil.rmtree(folder, ignore_errors=True)
        with fail_at(number) as failed:
            try:
                unpacked.ensure(store, documents(store, entry), folder)
            except OSError:
                assert failed
                assert not unpacked.is_made(folder, entry)
        if not failed:
            break
        found = unpacked.ensure(store, documents(store, entry), folder)
        assert_as_packed(found[entry], {b"b.py": b"1", b"x/y": b"2"})
        assert os.listdir(folder) == [entry]
    assert number > 8


def test_two_at_once(store: Store, folder: str) -> None:
    """Both have it."""
    entry = packed(store, {b"%03d" % n: b"x" * n for n in range(300)} | {b"b.py": b""})
    trees = documents(store, entry)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            unpacked.ensure(store, trees, folder, SILENT)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert os.listdir(folder) == [entry]
    assert unpacked.is_made(folder, entry)
