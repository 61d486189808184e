"""A glance: names, kinds and sizes are seen, bytes are not."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults import fail_at

from cvs.store import damage, manifest
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import EntryMissing, IntegrityError
from cvs.store.glance import glance
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
    """A file."""
    with store.stage() as stage:
        return store.publish(stage.file([b"hello\n"]))[0]


def instead(path: Path, harm: Harm) -> None:
    """Puts something else in the place of a file, link or folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    harm(path)


def seen(store: Store, entry: EntryId) -> tuple[str, str] | None:
    """Place and kind of what a glance shows."""
    found = glance(store, entry)
    assert found is None or found.entry == entry
    return found and (found.path, found.what)


def test_sound_entries(store: Store, tree: EntryId, file: EntryId) -> None:
    """Of what is whole nothing is seen, nor of a set, whose members are entries of their own."""
    with store.stage() as stage:
        (members,) = store.publish(stage.set([EntryId("0" * 64)]))

    assert [seen(store, entry) for entry in (tree, file, members)] == [None, None, None]


@pytest.mark.parametrize(
    ("path", "harm", "what"),
    [
        ("main.py", lambda path: os.truncate(path, 3), "has 3 bytes instead of 15"),
        ("main.py", Path.unlink, "is missing"),
        ("main.py", lambda path: instead(path, Path.mkdir), "is a folder"),
        ("main.py", lambda path: instead(path, os.mkfifo), "is not a file"),
        ("main.py", lambda path: instead(path, lambda at: at.symlink_to("bin/run")), "is a link"),
        ("two%0Alines/%FF", Path.unlink, "is missing"),
        ("empty", Path.rmdir, "is missing"),
        ("empty", lambda path: instead(path, Path.touch), "is not a folder"),
        ("empty", lambda path: instead(path, lambda at: at.symlink_to("bin")), "is a link"),
        ("link", lambda path: instead(path, Path.touch), "is not a link"),
        ("link", lambda path: instead(path, Path.mkdir), "is a folder"),
        ("link", Path.unlink, "is missing"),
        ("bin/extra", Path.touch, "is not part of the entry"),
    ],
)
def test_a_tree(store: Store, tree: EntryId, path: str, harm: Harm, what: str) -> None:
    """Whatever is missing, too much, of another size or of another kind is seen."""
    harm(Path(store.path(tree), "node", path.replace("%FF", "\udcff").replace("%0A", "\n")))

    assert seen(store, tree) == (f"node/{path}", what)


@pytest.mark.parametrize("harm", [shutil.rmtree, lambda path: instead(path, Path.touch)])
def test_the_folder_of_a_tree(store: Store, tree: EntryId, harm: Harm) -> None:
    """A tree without its folder is seen, on a network file system too."""
    harm(Path(store.path(tree), "node"))
    for filesystem in ("ext4", "fuse.mfs"):
        store.volume._filesystem = filesystem
        found = seen(store, tree)
        assert found is not None
        assert found[0] == "node"


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (lambda path: os.truncate(path, 3), "has 3 bytes instead of 6"),
        (Path.unlink, "is missing"),
        (lambda path: instead(path, Path.mkdir), "is not a file"),
        (lambda path: instead(path, lambda at: at.symlink_to("manifest.json")), "is not a file"),
    ],
)
@pytest.mark.parametrize("filesystem", ["ext4", "fuse.mfs"])
def test_a_file(store: Store, file: EntryId, filesystem: str, harm: Harm, what: str) -> None:
    """A model that is cut, gone or no file is seen, on a network file system too."""
    store.volume._filesystem = filesystem
    harm(Path(store.path(file), "content"))

    assert seen(store, file) == ("content", what)


def test_a_manifest(store: Store, tree: EntryId) -> None:
    """A manifest that cannot be read is seen; one that is not there is a missing entry."""
    path = Path(store.path(tree), manifest.NAME)
    instead(path, Path.touch)
    found = seen(store, tree)
    assert found is not None
    assert found[0] == manifest.NAME
    path.unlink()
    with pytest.raises(EntryMissing):
        glance(store, tree)


def test_what_a_glance_does_not_see(store: Store, tree: EntryId) -> None:
    """Bytes are not read; on a network file system the files of a tree are not asked for."""
    path = Path(store.path(tree), "node/main.py")
    instead(path, lambda at: at.write_bytes(b"print('olleh')\n"))
    assert seen(store, tree) is None
    path.unlink()
    store.volume._filesystem = "fuse.mfs"
    assert seen(store, tree) is None


def test_what_is_seen_is_marked_and_refused(store: Store, tree: EntryId, file: EntryId) -> None:
    """Looking at entries refuses marked ones unseen, and marks all that it sees damaged."""
    damage.look(store, [tree, file])
    os.truncate(Path(store.path(file), "content"), 3)
    sentence = f"entry {file[:16]} is damaged: content has 3 bytes instead of 6"
    with pytest.raises(IntegrityError, match=f"^{sentence}$") as caught:
        damage.look(store, [tree, file])
    assert caught.value.hint == f"cvs store repair {file[:16]}"
    assert damage.marked(store.volume) == {file}
    with pytest.raises(IntegrityError, match=f"^entry {file[:16]} is damaged$"):
        damage.look(store, [tree, file])
    damage.clear(store.volume, file)
    Path(store.path(tree), "node/main.py").unlink()
    with pytest.raises(IntegrityError, match=f"^{sentence}, and 1 more$") as caught:
        damage.look(store, [file, tree])
    assert damage.marked(store.volume) == {file, tree}


def test_a_mark_that_cannot_be_made(store: Store, file: EntryId) -> None:
    """On a volume that takes no mark what is seen is refused all the same."""
    os.truncate(Path(store.path(file), "content"), 3)
    with fail_at(1, code=errno.EROFS), pytest.raises(IntegrityError, match="has 3 bytes"):
        damage.look(store, [file])
    with fail_at(1, code=errno.EROFS):
        assert [one.path for one in damage.examine(store, file)] == ["content"]
    assert damage.marked(store.volume) == set()
