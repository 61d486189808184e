"""Hostile inputs: a reader takes them or says in one sentence why not, and touches nothing else."""

import os
import subprocess
from pathlib import Path

import gitserver
import hostile_documents as documents
import hostile_trees as trees
import hostile_wheels as wheels
import pytest
import wheelmaker
import zipmaker
from hostile import Case, each, judge, nothing_else_touched

from cvs.store import document, ingest, manifest, record, refs
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.volume import Volume
from cvs.versions import facts, git, interpreter, lock, spec, wheel
from cvs.versions.repository import parse

PROBE = interpreter.probe(interpreter.find(None))


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


@each(documents.JSON)
def test_json(case: Case) -> None:
    """Bombs, halves and what other readers let pass; what is taken can be written again."""
    value = judge(case, lambda: document.load_json(case.data, "x.json"))
    if case.said is None:
        assert document.load_json(document.pretty(value), "x.json") == value


@each(documents.YAML)
def test_yaml(case: Case) -> None:
    """Laughs, tags, merges and lookalikes; what is taken is plain data."""
    value = judge(case, lambda: document.load_yaml(case.data, "x.yaml"))
    if case.said is None:
        assert document.load_json(document.pretty(value), "x.json") == value


@each(documents.MANIFESTS)
def test_manifests(case: Case) -> None:
    """Lies, climbers and doubles; what is taken is written and read as the same entry."""

    def read() -> manifest.Manifest:
        found = manifest.decode(case.data, "manifest.json")
        manifest.identity(found)
        return found

    found = judge(case, read)
    if case.said is None:
        again = manifest.decode(manifest.encode(found), "manifest.json")
        assert (again, manifest.identity(again)) == (found, manifest.identity(found))


@each(documents.RECORDS)
def test_records(case: Case, memory: Path) -> None:
    """Versions and links become paths: none of them leaves its folder."""
    path = memory / "1.json"
    path.write_bytes(case.data)
    found = judge(case, lambda: record.read(str(path)))
    if case.said is None:
        path.write_bytes(record.encode(found))
        assert record.read(str(path)) == found


@each(documents.LOCKS)
def test_locks(case: Case, memory: Path) -> None:
    """Names become files, texts are shown, sizes are added up."""
    path = memory / "x.lock.json"
    path.write_bytes(case.data)
    found = judge(case, lambda: lock.read(str(path)))
    if case.said is None:
        assert lock.decode(lock.encode(found), "x") == found


@each(documents.SPECS)
def test_specs(case: Case, memory: Path) -> None:
    """Whatever a field holds, it is no option, command, path elsewhere or endless text."""
    path = memory / "x.json"
    path.write_bytes(case.data)
    judge(case, lambda: spec.load(str(path)))


@each(wheels.WHEELS)
def test_wheels(case: Case, store: Store) -> None:
    """An archive is believed in nothing: what is stored is whole, what is refused is gone."""
    with nothing_else_touched(store) as ground:
        path = ground / zipmaker.FILE
        path.write_bytes(case.data)
        digest = wheelmaker.sha256(str(path))
        judge(case, lambda: wheel.add_wheel(store, str(path), sha256=digest, probe=PROBE))
        path.unlink()
        assert len(list(store.ids())) == (case.said is None)


@each(wheels.FILES)
def test_names_of_wheels(case: Case, store: Store) -> None:
    """The name of a file is no more believed than what is in it."""
    with nothing_else_touched(store) as ground:
        path = ground / case.data
        path.write_bytes(zipmaker.wheel())
        digest = wheelmaker.sha256(str(path))
        judge(case, lambda: wheel.add_wheel(store, str(path), sha256=digest, probe=PROBE))
        path.unlink()
        assert len(list(store.ids())) == (case.said is None)


@each(trees.FOLDERS)
def test_folders(case: Case, store: Store) -> None:
    """A folder of this machine is taken as it is, and nothing behind its links."""
    with nothing_else_touched(store) as ground:
        folder = ground / "tree"
        folder.mkdir()
        case.made(os.fsencode(folder))
        entry = judge(case, lambda: ingest.add_path(store, str(folder)))
        # Deeper than Python's own removing can go.
        subprocess.run(["rm", "-r", str(folder)], check=True)
        assert list(store.ids()) == ([entry] if case.said is None else [])


@each(trees.WRITES)
def test_writes(case: Case, store: Store) -> None:
    """Whatever a writer is asked for, it writes inside its tree, and through no link."""

    def write() -> EntryId:
        with store.stage() as stage:
            writer = stage.tree("tree")
            case.made(writer)
            return store.publish(writer.finish())[0]

    with nothing_else_touched(store):
        entry = judge(case, write)
        assert list(store.ids()) == ([entry] if case.said is None else [])


@each(trees.TREE_NAMES)
def test_names_of_trees(case: Case, store: Store) -> None:
    """The name of a tree is one folder beside its manifest."""

    def write() -> EntryId:
        with store.stage() as stage:
            return store.publish(stage.tree(case.data).finish())[0]

    with nothing_else_touched(store):
        entry = judge(case, write)
        assert list(store.ids()) == ([entry] if case.said is None else [])


@each(trees.COMMITS)
def test_commits(case: Case, store: Store, tmp_path: Path) -> None:
    """A commit is what its objects are, or is refused; nothing of it is followed or run."""
    source = gitserver.Source(tmp_path / "source.git")
    commit = case.made(source)
    repository = parse(str(source.folder), "test", allow_local=True)

    def fetch() -> EntryId:
        fetched = git.fetch_commit(
            store, repository, commit, "node", where="test", allow_local=True, offline=True
        )
        return fetched.entry

    with nothing_else_touched(store):
        entry = judge(case, fetch)
        assert list(store.ids()) == ([entry] if case.said is None else [])


@pytest.mark.parametrize(
    "target",
    [
        *(b"\xff", b'{"date":"\xff"}', b'{"date":"\\ud800"}', b"[" * 4000, b"null", b"../../x"),
        *(b'{"date":"x","submodules":' + b"[" * 3900, b'{"date":"x","more":' + b"[" * 3900),
    ],
)
def test_refs_and_facts(target: bytes, volume: Volume) -> None:
    """A cache that was made by others, or damaged, is as good as lost."""
    for kind in ("commit", "commit-facts"):
        os.makedirs(os.path.join(volume.refs, kind))
        os.symlink(target, os.fsencode(os.path.join(volume.refs, kind, "key")))

    assert refs.get(volume, "commit", "key") is None
    assert facts.get(volume, "commit-facts", "key", facts.Facts) is None
