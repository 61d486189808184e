"""Readers of what others made: sound input with parts changed is taken or refused in one sentence.

Whatever comes, no reader raises anything but a CvsError, what it takes is read again as the same,
and nothing is written but an entry that was published.
"""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hostile_documents
import locks
import msgspec
import mutations
import pytest
import wheelmaker
import zipmaker
from gitserver import Source, lfs_pointer, modules
from gitserver import link as git_link
from hostile import assert_sentence, nothing_else_touched
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import names

from cvs.store import document, fs, manifest, pack, record, tree
from cvs.store.entries import Store
from cvs.store.errors import CvsError
from cvs.store.stage import Stage, TreeWriter
from cvs.store.volume import Volume
from cvs.versions import git, interpreter, lfs, lock, requirements, spec, submodules, wheel
from cvs.versions.repository import parse

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(7200)]

PROBE = interpreter.probe(interpreter.find(None))

#: Examples that start processes take a hundred times as long as others.
_SLOWLY = settings(
    max_examples=max(20, settings().max_examples // 10),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_IN_A_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


def taken(call: Callable[[], Any]) -> Any:
    """What a reader makes of its input; None if it says what is wrong with it."""
    try:
        return call()
    except CvsError as error:
        assert_sentence(error)
        return None


@contextlib.contextmanager
def untouched(store: Store) -> Iterator[Path]:
    """Holds for one example that nothing but an entry was written, and clears the store."""
    try:
        with nothing_else_touched(store) as ground:
            yield ground
    finally:
        fs.remove_tree(os.path.join(os.path.dirname(store.volume.root), "ground"))
        for folder in (store.volume.store, store.volume.refs):
            for name in os.listdir(folder):
                fs.remove_tree(os.path.join(folder, name))


def documents(whole: Any) -> st.SearchStrategy[bytes]:
    """A document with values changed, or bytes."""
    return mutations.changed(whole).map(lambda value: json.dumps(value).encode()) | (
        mutations.broken(json.dumps(whole).encode())
    )


# Documents.

TREE = {
    **hostile_documents.TREE,
    "size": 3,
    "nodes": [
        ["d", "a"],
        ["f", "a/b", 1, "0" * 64, True],
        ["f", "a/%FF", 2, "1" * 64],
        ["l", "a/c", "../x/y"],
        ["l", "é", "."],
        ["d", "x"],
    ],
}
SET = {**hostile_documents.SET, "members": ["0" * 64, "1" * 64]}


@given(documents(TREE) | documents(SET) | documents(hostile_documents.FILE))
def test_manifests(data: bytes) -> None:
    """A manifest that is taken has one identity, however often it is written."""

    def read() -> manifest.Manifest:
        found = manifest.decode(data, "manifest.json")
        manifest.identity(found)
        return found

    found = taken(read)
    if found is not None:
        again = manifest.decode(manifest.encode(found), "manifest.json")
        assert (again, manifest.identity(again)) == (found, manifest.identity(found))


#: A sound pack of two files, the larger of which is in more than one frame.
_PACKED = {b"a": b"x = 1\n" * 30, b"b/c": bytes(range(256)) * 9000}


@given(st.data())
@_IN_A_FOLDER
def test_packs(memory: Path, data: st.DataObject) -> None:
    """A pack gives the bytes of the tree's files, or says which it has not."""
    document, whole = packed(memory)
    path = memory / "changed.pack"
    path.write_bytes(data.draw(mutations.broken(whole)))
    opened = taken(lambda: pack.Pack(str(path), document))
    if opened is None:
        return
    with opened:
        for extent in pack.layout(document):
            found = taken(functools.partial(read_whole, opened, extent))
            assert (found == _PACKED[extent.path]) == (list(opened.faults([extent])) == [])


def read_whole(opened: pack.Pack, extent: pack.Extent) -> bytes:
    """The bytes of a file of a pack."""
    return b"".join(opened.read(extent))


@functools.cache
def packed(folder: Path) -> tuple[manifest.TreeManifest, bytes]:
    """A manifest and its pack."""
    with Stage(str(folder), synced=False) as stage:
        writer = stage.tree("t")
        for path, content in _PACKED.items():
            writer.write(path, content)
        staged = writer.finish()
        assert isinstance(staged.manifest, manifest.TreeManifest)
        whole = folder / "whole.pack"
        pack.write(staged.manifest, f"{staged.folder}/t", str(whole), synced=False)
    return staged.manifest, whole.read_bytes()


_RECORD = {
    **msgspec.to_builtins(locks.record()),
    "links": [["", f"{'1' * 64}/a"], ["models/b/c", f"{'2' * 64}/content.gguf", True]],
}


@given(documents(_RECORD))
@_IN_A_FOLDER
def test_records(memory: Path, data: bytes) -> None:
    """No version and no link of a record that is taken leads elsewhere."""
    path = memory / "1.json"
    path.write_bytes(data)
    found = taken(lambda: record.read(str(path)))
    if found is not None:
        path.write_bytes(record.encode(found))
        assert record.read(str(path)) == found
        for place in (found.version, *(place.path or "a" for place in found.links)):
            assert os.path.normpath(f"/base/{place}") == f"/base/{place}"


_LOCK = json.loads(lock.encode(locks.lock()))
_LOCK["nodes"][0]["installed"] = {
    "entry": locks.entry(7),
    "size": 9,
    "python": "a" * 64,
    "wrote": ["a", "b/"],
    "removed": ["c"],
}
_LOCK["core"]["submodules"] = [{"path": "a/b", "repo": "https://example.org/b", "commit": "d" * 40}]
_LOCK["core"]["lfs"] = ["a/c"]
_LOCK["models"].append({**_LOCK["models"][0], "path": "vae/b", "entry": None, "sha256": None})


@given(documents(_LOCK))
@_IN_A_FOLDER
def test_locks(memory: Path, data: bytes) -> None:
    """A lock that is taken is written and read as the same."""
    path = memory / "x.lock.json"
    path.write_bytes(data)
    found = taken(lambda: lock.read(str(path)))
    if found is not None:
        assert lock.decode(lock.encode(found), "x") == found


_SPEC: dict[str, Any] = {
    **hostile_documents.SPEC,
    "comfy": {"repo": "https://example.org/ComfyUI", "ref": "v1", "commit": "c" * 40},
    "custom_nodes": [
        {"repo": "git@example.org:a/b", "name": "b", "writable": True, "run_install": True},
        {"repo": "ssh://git@example.org:22/c@main"},
    ],
    "models": [
        {"source": "https://e.org/m", "target_subdir": "vae", "checksum": "sha256:" + "0" * 64},
        {"source": "/m/n.gguf", "target_path": "$MODELS_DIR/a/n.gguf", "name": "n"},
    ],
    "python_packages": ["numpy>=2", "a @ https://e.org/a-1-py3-none-any.whl"],
    "env": {"A": "1", "B": 2},
    "options": {"offline": True},
    "python": {
        "version": "3.11",
        "exclude_newer": "2024-05-06",
        "index_url": "https://e.org/simple",
        "extra_index_urls": ["https://e.org"],
        "find_links": ["wheels"],
        "overrides": ["a==1"],
        "torch_backend": "cpu",
        "no_build": True,
        "provided": ["torch>=2.7"],
        "overlaps": ["bin/*"],
    },
}


@given(documents(_SPEC))
@_IN_A_FOLDER
def test_specs(memory: Path, data: bytes) -> None:
    """A spec that is taken has checked fields: digests of its parts can be made of it."""
    path = memory / "x.json"
    path.write_bytes(data)
    found = taken(lambda: spec.load(str(path)))
    if found is not None:
        assert spec.load(str(path)) == found
        for part in (found.core, *found.nodes, *found.models):
            assert len(part.request) == 64
        for model in found.models:
            assert os.path.normpath(f"/base/{model.path}") == f"/base/{model.path}"


_YAML = b"""\
schema_version: 2
version_id: x  # which
comfy: {repo: "https://example.org/\\u00e9", ref: 'v1'}
models:
  - source: &a https://e.org/m
    name: |
      two
      lines
    size: 0x1F
  - [1, 2.5, ~, yes, "", 2024-01-01, 1:30]
? key
: >-
  folded

  text
"""


@given(mutations.broken(_YAML))
def test_yaml(data: bytes) -> None:
    """What is taken is plain data."""
    found = taken(lambda: document.load_yaml(data, "x.yaml"))
    if found is not None:
        assert document.load_json(document.pretty(found), "x.json") == found


@given(mutations.broken(json.dumps(_SPEC).encode()))
def test_json(data: bytes) -> None:
    """What is taken is written and read as the same."""
    found = taken(lambda: document.load_json(data, "x.json"))
    if found is not None:
        assert document.load_json(document.pretty(found), "x.json") == found


_REQUIREMENTS = b"""\
# packages
numpy>=2,<3 ; python_version >= "3.11" and (os_name == 'posix' or extra == "a")
a[b,c]==1.0 --hash=sha256:00 \\
  --hash=sha256:11
https://u:p@e.org/d/a_b-1.0-py3-none-any.whl#sha256=0
x @ https://e.org/x-1-py3-none-any.whl
-e git+https://token@e.org/a/b@main
-r more.txt
--extra-index-url https://u:p@e.org/simple
./local
"""


@given(mutations.broken(_REQUIREMENTS))
def test_requirements(data: bytes) -> None:
    """What is noted of lines that are not followed is fit for a lock."""
    files = {"more.txt": b"a\n", "a/more.txt": b"-r ../more.txt"}
    found = taken(lambda: requirements.parse(data, requirer="N", read=files.get))
    for line in found.ignored if found is not None else ():
        assert line.isprintable()


# Archives.


def _members() -> st.SearchStrategy[zipmaker.Member]:
    """Members that lie about themselves."""
    lies: dict[str, st.SearchStrategy[Any]] = {
        "name": names() | mutations.texts().map(lambda text: text.encode("utf-8", "surrogatepass")),
        "data": st.binary(max_size=20),
        "packed": st.binary(max_size=20),
        "method": st.sampled_from([0, 8, 12, 93, 99]),
        "flags": st.sampled_from([0, 1, 8, 0x20, 0x40, 0x800, 0xFFFF]),
        "mode": st.integers(0, 0xFFFF),
        "system": st.integers(0, 255),
        "version": st.integers(0, 255),
        "crc": st.integers(0, 0xFFFFFFFF),
        "line_size": st.sampled_from([0, 1, 0xFFFFFFFF]) | st.integers(0, 200),
        "line_packed": st.sampled_from([0, 1, 0xFFFFFFFF]) | st.integers(0, 200),
        "line_extra": st.binary(max_size=30) | st.just(b"\1\0\x18\0" + b"\xff" * 24),
        "local_extra": st.binary(max_size=30),
        "local_name": st.binary(max_size=10),
        "local_flags": st.integers(0, 0xFFFF),
        "offset": st.integers(0, 2000) | st.just(0xFFFFFFFF),
        "after": st.binary(max_size=20),
    }
    some = st.lists(st.sampled_from(sorted(lies)), max_size=3, unique=True)
    return some.flatmap(
        lambda fields: st.builds(
            lambda **said: zipmaker.Member(b"x", b"x")._replace(**said),
            **{field: lies[field] for field in fields},
        )
    )


_ENDS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(0, 20),
        "size": st.integers(0, 1000) | st.just((1 << 64) - 1),
        "start": st.integers(0, 2000) | st.just((1 << 64) - 1),
        "comment": st.binary(max_size=30),
        "zip64": st.booleans(),
        "place": st.integers(0, 2000),
        "tail": st.binary(max_size=4),
    },
)


def _bent(
    more: list[zipmaker.Member], ends: dict[str, Any], wheel_text: bytes, points: bytes
) -> bytes:
    extra = {b"WHEEL": wheel_text, b"entry_points.txt": points}
    return zipmaker.wheel(more=more, extra=extra, **ends)


_POINTS = b"[console_scripts]\na = b:c\nd.e = f.g:h.i [j]\n[gui_scripts]\nk=l:m\n"
_WHEEL = b"Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_PLAIN = zipmaker.wheel({b"a.txt": b"A\n", b"b/c.txt": b"C" * 100}, zip64=True)


@given(
    mutations.broken(_PLAIN)
    | st.builds(_bent, st.lists(_members(), max_size=3), _ENDS, st.just(_WHEEL), st.just(_POINTS))
    | st.builds(
        _bent, st.just([]), st.just({}), mutations.broken(_WHEEL), mutations.broken(_POINTS)
    )
    | mutations.broken(zipmaker.row(b"a.txt", b"A\n")).map(
        lambda line: zipmaker.wheel(record=lambda text: line + text.split(b"\n", 1)[1])
    )
)
@_IN_A_FOLDER
def test_wheels(store: Store, data: bytes) -> None:
    """A wheel is stored whole or not at all."""
    with untouched(store) as ground:
        path = ground / zipmaker.FILE
        path.write_bytes(data)
        digest = wheelmaker.sha256(str(path))
        entry = taken(lambda: wheel.add_wheel(store, str(path), sha256=digest, probe=PROBE))
        path.unlink()
        assert list(store.ids()) == ([] if entry is None else [entry])


# Trees.


def _paths() -> st.SearchStrategy[bytes]:
    odd = mutations.texts().map(lambda text: text.encode("utf-8", "surrogatepass"))
    return st.lists(names(), min_size=1, max_size=3).map(b"/".join) | odd | st.binary(max_size=6)


_CALLS: st.SearchStrategy[Callable[[TreeWriter], None]] = st.one_of(
    st.builds(lambda path, data: lambda to: to.write(path, data), _paths(), st.binary(max_size=4)),
    st.builds(lambda path: lambda to: to.write_chunks(path, [b"x", b""], True), _paths()),
    st.builds(lambda path: lambda to: to.folder(path), _paths()),
    st.builds(lambda path, target: lambda to: to.link(path, target), _paths(), _paths()),
)


@given(mutations.texts() | st.just("tree"), st.lists(_CALLS, max_size=6))
@_IN_A_FOLDER
def test_writers(store: Store, name: str, calls: list[Callable[[TreeWriter], None]]) -> None:
    """Whatever a writer is asked for, it writes inside its tree, or publishes nothing."""

    def write() -> str:
        with store.stage() as stage:
            writer = stage.tree(name)
            for call in calls:
                call(writer)
            return store.publish(writer.finish())[0]

    with untouched(store):
        entry = taken(write)
        assert list(store.ids()) == ([] if entry is None else [entry])


@given(
    st.text(max_size=12) | mutations.texts() | st.text(alphabet="%0123456789ABCDEFé", max_size=9)
)
def test_quoted_paths(text: str) -> None:
    """A text is the quoted form of one path, or of none."""
    found = taken(lambda: tree.unquote(text))
    if found is not None:
        assert tree.quote(found) == text


_TREE_OBJECT = b"40000 a\0%s100644 b\0%s120000 c\0%s100755 d\0%s" % ((b"TREE",) + (b"BLOB",) * 3)
_COMMIT_OBJECT = (
    b"tree TREE\nauthor T <t> 1 +0000\ncommitter T <t> 1700000000 +0000\nencoding x\n\nwords\n"
)
_MODULES = modules({"s": "../other", "t/u": "https://example.org/x.git"}) + b"[other]\n\tk = v\n"


@given(
    mutations.broken(_TREE_OBJECT),
    mutations.broken(_COMMIT_OBJECT) | st.just(_COMMIT_OBJECT),
)
@_SLOWLY
def test_commits(store: Store, memory: Path, raw: bytes, head: bytes) -> None:
    """Objects that git would never write are read as they are, or refused."""
    with untouched(store) as ground:
        source = Source(memory / "source.git")
        blob = bytes.fromhex(source.put("blob", b"x"))
        inner = bytes.fromhex(source.files({b"e": b"", b"f": git_link(b"e")}))
        root = source.put("tree", raw.replace(b"BLOB", blob).replace(b"TREE", inner))
        commit = source.put("commit", head.replace(b"TREE", root.encode()))
        repository = parse(str(source.folder), "test", allow_local=True)
        found = taken(
            lambda: git.fetch_commit(
                store, repository, commit, "node", where="test", allow_local=True, offline=True
            )
        )
        fs.remove_tree(str(source.folder))
        assert ground.exists()
        assert list(store.ids()) == ([] if found is None else [found.entry])


@given(mutations.broken(_MODULES))
def test_submodules(data: bytes) -> None:
    """Whatever git makes of a .gitmodules, a submodule is fetched from where one may be."""
    listing = b"\0".join(
        b"submodule." + line.strip().replace(b" = ", b"\n", 1) for line in data.split(b"\n")
    )
    parent = parse("https://example.org/a/b", "test")
    for path, url in submodules.read(listing).items():
        found = taken(lambda url=url, path=path: submodules.locate(url, parent, path))
        assert found is None or (found.url.startswith(("https://", "ssh://")) or found.is_ssh)


@given(mutations.broken(lfs_pointer(b"content")))
def test_pointers(data: bytes) -> None:
    """What is no pointer to the letter is a file."""
    found = taken(lambda: lfs.pointer(b"a", data))
    if found is not None:
        assert f"oid sha256:{found.oid}".encode() in data
        assert 0 <= found.size < 10**18
