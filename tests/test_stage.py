"""Writing entries in tmp/."""

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from faults import assert_whole, leftovers
from hypothesis import given
from hypothesis import strategies as st

from cvs.store import manifest
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.store.stage import Stage, TreeWriter, now
from cvs.store.tree import TreeError
from cvs.store.volume import Volume

#: The beginning of a safetensors file: the length of its header, then the header.
SAFETENSORS = (2).to_bytes(8, "little") + b"{}"


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


def test_a_stage_is_a_folder_of_its_own(store: Store) -> None:
    """Two stages do not meet, and both are gone after."""
    with store.stage() as one, store.stage() as two:
        assert sorted(leftovers(store.volume)) == sorted(
            os.path.basename(stage.folder) for stage in (one, two)
        )
    assert leftovers(store.volume) == []


def test_leaving_takes_nothing_else(store: Store) -> None:
    """Links in a stage are removed, not what they lead to."""
    outside = Path(store.volume.root, "models/kept")
    outside.write_bytes(b"kept")
    with store.stage() as stage:
        os.symlink(store.volume.models, os.path.join(stage.folder, "out"))

    assert outside.read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (SAFETENSORS, "", "content.safetensors"),
        (b"GGUF\x03\0\0\0", "", "content.gguf"),
        (b"GGUF", "download?id=7", "content.gguf"),
        (b"hello\n", "", "content"),
        (b"hello\n", "v1.ckpt", "content"),
        (b"hello\n", "Model.SafeTensors", "content.safetensors"),
        (b"", "", "content"),
        (b"{" * 9, "", "content"),
        (b"GGU", "", "content"),
    ],
)
def test_suffix_that_loaders_look_at(store: Store, data: bytes, name: str, expected: str) -> None:
    """The file has the suffix of its name or its bytes, because loaders resolve links first."""
    with store.stage() as stage:
        staged = stage.file([data], name=name)
        document = staged.manifest
        assert isinstance(document, manifest.FileManifest)
        assert document.content == expected
        assert os.listdir(stage.folder) == [expected]
        assert staged.id == manifest.identity(document)


def test_a_file_counts_its_bytes(store: Store) -> None:
    """Size and both digests are those of all chunks together."""
    with store.stage() as stage:
        document = stage.file([b"hel", b"", b"lo\n"], origin="here").manifest
    assert isinstance(document, manifest.FileManifest)

    assert document.size == 6
    assert document.origin == "here"
    assert document.sha256 == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"


def test_the_members_of_a_set_are_sorted(store: Store) -> None:
    """A set may be made of members in any order, also twice."""
    one, two = EntryId("0" * 64), EntryId("1" * 64)
    with store.stage() as stage:
        document = stage.set([two, one, two]).manifest
    assert isinstance(document, manifest.SetManifest)

    assert document.members == (one, two)
    assert manifest.decode(manifest.encode(document), "here") == document


def test_parents_are_made_as_needed(store: Store) -> None:
    """A file, link or folder brings its folders, each listed once."""
    with store.stage() as stage:
        writer = stage.tree("node")
        writer.write(b"a/b/f", b"x")
        writer.folder(b"a/b")
        writer.folder(b"a/c/d")
        writer.link(b"e/l", b"../a")
        document = writer.finish().manifest
        assert isinstance(document, manifest.TreeManifest)
        assert os.readlink(os.path.join(stage.folder, "node/e/l")) == "../a"

    assert [node.path for node in document.nodes] == [
        *("a", "a/b", "a/b/f", "a/c", "a/c/d", "e", "e/l"),
    ]


@pytest.mark.parametrize(
    "path",
    [
        *(b"", b"/etc/x", b"/x", b"../x", b"a/../x", b"a//b", b"a/", b"./a", b"a\0b", b"x" * 256),
        *(b"d/" * 512 + b"x", b"d/" * 2000 + b"x"),
    ],
)
@pytest.mark.parametrize("call", ["write", "folder", "link", "write_chunks"])
def test_paths_that_leave_or_are_none(store: Store, path: bytes, call: str) -> None:
    """A path from an archive that is absolute, climbs or is no path is refused at once."""
    with store.stage() as stage:
        writer = stage.tree("node")
        calls = {
            "write": lambda: writer.write(path, b"x"),
            "write_chunks": lambda: writer.write_chunks(path, [b"x"]),
            "link": lambda: writer.link(path, b"x"),
            "folder": lambda: writer.folder(path),
        }
        if call == "folder" and path == b"":
            return  # The root is there.
        with pytest.raises(TreeError):
            calls[call]()
        assert sorted(os.listdir(stage.folder)) == ["node"]


def _twice(writer: TreeWriter, first: str, second: str, path: bytes) -> None:
    for kind in (first, second):
        if kind == "file":
            writer.write(path, b"x")
        elif kind == "link":
            writer.link(path, b"x")
        elif kind == "below":
            writer.write(path + b"/x", b"x")
        else:
            writer.folder(path)
    writer.finish()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *(("file", "file"), ("file", "link"), ("file", "folder"), ("file", "below")),
        *(("link", "file"), ("link", "link"), ("link", "folder"), ("link", "below")),
        *(("folder", "file"), ("folder", "link"), ("below", "file"), ("below", "link")),
    ],
)
def test_one_path_is_one_thing(store: Store, first: str, second: str) -> None:
    """A path given as two things is refused, in either order."""
    with store.stage() as stage, pytest.raises(TreeError, match="twice"):
        _twice(stage.tree("node"), first, second, b"a")


@pytest.mark.parametrize("call", ["mkdir", "open", "symlink"])
def test_a_name_whose_answer_was_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """What was made, and asked for once more by a network client, is not in the tree twice."""
    real = getattr(os, call)
    seen: set[bytes] = set()

    def twice(*arguments: Any, **options: Any) -> Any:
        made = real(*arguments, **options)
        place = os.fsencode(arguments[1] if call == "symlink" else arguments[0])
        if store.volume.tmp.encode() in place and place.count(b"/tree") and place not in seen:
            seen.add(place)
            if call == "open":
                os.close(made)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place)
        return made

    with store.stage() as stage:
        monkeypatch.setattr(os, call, twice)
        writer = stage.tree("tree")
        writer.write(b"folder/file", b"hello\n", executable=True)
        writer.link(b"link", b"folder/file")
        (entry,) = store.publish(writer.finish())
        monkeypatch.undo()

    assert len(seen) == {"mkdir": 2, "open": 1, "symlink": 1}[call]
    assert_whole(store)
    assert Path(store.path(entry), "tree", "link").read_bytes() == b"hello\n"


def test_nothing_is_written_through_a_link(store: Store) -> None:
    """An archive with a link and then a file below it writes nothing where the link leads."""
    with store.stage() as stage:
        writer = stage.tree("node")
        writer.folder(b"real")
        writer.link(b"link", b"real")
        with pytest.raises(TreeError, match="twice"):
            writer.write(b"link/file", b"x")
        assert os.listdir(os.path.join(stage.folder, "node/real")) == []


def test_names_that_meet_are_refused(store: Store) -> None:
    """Two names that are one without case are refused although this file system keeps both."""
    with store.stage() as stage:
        writer = stage.tree("node")
        writer.write(b"README", b"")
        writer.write(b"readme", b"")
        with pytest.raises(TreeError, match="case"):
            writer.finish()


@pytest.mark.parametrize("name", ["", "..", "a/b", "manifest.json", "\udcff", "a\0"])
def test_names_of_trees(tmp_path: Path, name: str) -> None:
    """A bad name is refused before anything is made."""
    with Stage(str(tmp_path), synced=False) as stage:
        with pytest.raises(TreeError):
            stage.tree(name)
        assert os.listdir(stage.folder) == []


def test_a_refused_tree_is_an_input_error() -> None:
    """What a source may not contain is told as an error of the input, not as a crash."""
    assert issubclass(TreeError, InputError)


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_chunks_make_no_difference(chunks: list[bytes]) -> None:
    """A file from memory and the same file in chunks are one."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Stage(folder, synced=False) as one,
        Stage(folder, synced=True) as two,
    ):
        first, second = one.tree("node"), two.tree("node")
        first.write(b"f", b"".join(chunks), executable=True)
        second.write_chunks(b"f", chunks, executable=True)

        assert first.finish().id == second.finish().id


def test_now_is_utc_to_the_second() -> None:
    """Times in documents have one form."""
    assert len(now()) == len("2026-01-02T03:04:05Z")
    assert now().endswith("Z")
