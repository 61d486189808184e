"""Commits become entries: through a real git server, and from folders of this machine."""

import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import fail_at, leftovers
from gitserver import DATE, Content, GitServer, Source, link, modules, script, submodule

from cvs.store import refs
from cvs.store.entries import Store
from cvs.store.errors import CvsError, InputError, OfflineError, SourceError
from cvs.store.manifest import TreeManifest
from cvs.store.progress import Progress
from cvs.store.tree import TreeError
from cvs.store.verify import verify
from cvs.store.volume import Volume
from cvs.versions import facts, git, git_fetch, git_objects
from cvs.versions.facts import Facts
from cvs.versions.git import FetchedCommit
from cvs.versions.lock import Submodule
from cvs.versions.repository import Repository, parse

WHERE = "versions/x.json: comfy"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder whose repositories are served."""
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.fixture
def server(root: Path) -> Iterator[GitServer]:
    with GitServer(root) as running:
        yield running


@pytest.fixture
def source(root: Path) -> Source:
    return Source(root / "repo.git")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Temporary files of a test go here; none may be left but the folder that they lie in."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    yield folder
    assert {*folder.rglob("*")} <= {folder / f"cvs-{os.geteuid()}"}


def at(where: GitServer | Source, name: str = "repo") -> Repository:
    """A repository of the server, or of this machine."""
    url = f"{where.url}/{name}.git" if isinstance(where, GitServer) else str(where.folder)
    return parse(url, "test", allow_local=True)


def fetch(store: Store, repository: Repository, commit: str, **options: object) -> FetchedCommit:
    """fetch_commit as the tests want it."""
    given = {"where": WHERE, "allow_local": True, **options}
    return git.fetch_commit(store, repository, commit, "node", **given)  # type: ignore[arg-type]


def content(store: Store, fetched: FetchedCommit) -> dict[str, bytes | str]:
    """The files of an entry: bytes, `-> target` for a link, `/` for a folder; '*' executable."""
    document = store.manifest(fetched.entry)
    assert isinstance(document, TreeManifest)
    folder = Path(store.path(fetched.entry), "node")
    found: dict[str, bytes | str] = {}
    for node in document.nodes:
        path = folder / node.path
        if path.is_symlink():
            found[node.path] = f"-> {os.readlink(path)}"
        elif path.is_dir():
            found[node.path] = "/"
        else:
            found[node.path + "*" * getattr(node, "executable", False)] = path.read_bytes()
    return found


class Warnings(Progress):
    """Keeps what was warned of."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


# Which commit a ref names


@pytest.fixture(params=["http", "local"])
def place(request: pytest.FixtureRequest, server: GitServer, source: Source) -> Repository:
    """One repository, on the server and on this machine."""
    return at(server if request.param == "http" else source)


def test_resolve_names(place: Repository, source: Source) -> None:
    """Branches, tags of both kinds, HEAD, full names, other refs and full commits."""
    first = source.commit({b"a": b"1"})
    second = source.commit({b"a": b"2"}, branch="feature/x", parents=(first,))
    source.tag("v1", first)
    source.ref("refs/tags/light", second)
    source.ref("refs/pull/7/head", second)

    def ask(ref: str | None) -> tuple[str, str]:
        return git.resolve(place, ref, where=WHERE)

    assert (first, "head") == ask(None)
    assert (first, "head") == ask("HEAD")
    assert (first, "branch") == ask("main")
    assert (second, "branch") == ask("feature/x")
    assert (first, "tag") == ask("v1")
    assert (second, "tag") == ask("light")
    assert (first, "tag") == ask("refs/tags/v1")
    assert (second, "branch") == ask("refs/heads/feature/x")
    assert (second, "ref") == ask("refs/pull/7/head")
    assert (second, "ref") == ask("pull/7/head")
    assert ask("a" * 40) == ("a" * 40, "commit")


def test_resolve_short_commits(place: Repository, source: Source) -> None:
    """An abbreviated commit is looked for among the tips, then in the history."""
    first = source.commit({b"a": b"1"})
    second = source.commit({b"a": b"2"}, parents=(first,))
    source.tag("v2", second)

    assert (second, "commit") == git.resolve(place, second[:7], where=WHERE)
    assert (first, "commit") == git.resolve(place, first[:12].upper(), where=WHERE)
    with pytest.raises(InputError, match=f"ref '{'0' * 9}' is not in .*comfy.ref"):
        git.resolve(place, "0" * 9, where=WHERE)


def test_resolve_ambiguous_commit(place: Repository, source: Source) -> None:
    """Two commits that begin alike are not guessed between."""
    # Ids with 28 equal bits are too rare to find: objects under names that are not theirs.
    for last in "01":
        id = source.put("commit", b"not read", "abcdef0" + last * 33)
        source.ref(f"refs/heads/b{last}", id)
    with pytest.raises(InputError, match="'abcdef0' is the beginning of several commits") as raised:
        git.resolve(place, "abcdef0", where=WHERE)
    assert raised.value.hint == "abcdef0000000000, abcdef0111111111"


def test_resolve_unknown_ref(place: Repository, source: Source) -> None:
    """The message names ref, repository and place; the hint the nearest names."""
    source.commit({b"a": b"1"}, branch="master")
    source.commit({b"a": b"1"}, branch="development")
    with pytest.raises(InputError) as raised:
        git.resolve(place, "mater", where=WHERE)
    assert f"ref 'mater' is not in {place.shown} ({WHERE}.ref)" == raised.value.message
    assert raised.value.hint == "did you mean 'master'?"
    with pytest.raises(InputError) as raised:
        git.resolve(place, "zzz", where=WHERE)
    assert raised.value.hint == "it has development, master"


def test_resolve_branch_and_tag(place: Repository, source: Source) -> None:
    """A name that is both is refused where the commits differ."""
    first = source.commit({b"a": b"1"}, branch="same")
    source.ref("refs/tags/same", first)
    assert (first, "tag") == git.resolve(place, "same", where=WHERE)
    source.commit({b"a": b"2"}, branch="same")
    with pytest.raises(InputError, match="is a branch and another tag") as raised:
        git.resolve(place, "same", where=WHERE)
    assert raised.value.hint == "write refs/heads/same or refs/tags/same"


def test_resolve_empty_repository(place: Repository, source: Source) -> None:
    """No commit yet is said so; no HEAD, and which branches there are, too."""
    with pytest.raises(InputError, match=r"has no commit yet \(versions/x.json: comfy\)"):
        git.resolve(place, None, where=WHERE)
    source.commit({b"a": b"1"}, branch="other")
    with pytest.raises(InputError, match="has no HEAD") as raised:
        git.resolve(place, None, where=WHERE)
    assert raised.value.hint == "name one of its branches: other"


def test_resolve_offline(server: GitServer, source: Source) -> None:
    """A full commit needs nobody, a local repository no connection, all else does."""
    commit = source.commit({b"a": b"1"})
    assert commit == git.resolve(at(server), commit, where=WHERE, offline=True).commit
    assert commit == git.resolve(at(source), "main", where=WHERE, offline=True).commit
    with pytest.raises(OfflineError, match=r"which commit 'main' of http://127\.0"):
        git.resolve(at(server), "main", where=WHERE, offline=True)
    assert server.requests == []


@pytest.mark.parametrize("ref", ["--upload-pack=touch x", "-x", "a b", "a..b", "x^", "a:b", "@{1}"])
def test_resolve_bad_ref(server: GitServer, source: Source, ref: str) -> None:
    """What git would not take for a ref never reaches it."""
    source.commit({b"a": b"1"})
    with pytest.raises(InputError, match="cannot be the name"):
        git.resolve(at(server), ref, where=WHERE)
    assert server.requests == []


# What an entry holds

TREE: dict[bytes, Content] = {
    b"README": b"hello\n",
    b"empty": b"",
    b"bin/run": script(b"#!/bin/sh\n"),
    b"bin/link": link(b"../README"),
    b"deep/er/file.txt": b"x\r\ny\n$Id$\n",
    b"caf\xc3\xa9": b"utf-8",
    b"latin-\xe9": b"not utf-8",
    b"with space\tand tab": b"",
    b".gitattributes": b"* text eol=crlf ident\nREADME export-ignore\nempty export-subst\n",
    b"old": ("100664", b"an old mode"),
}


def test_fetch_exact_tree(place: Repository, source: Source, store: Store) -> None:
    """The entry is the tree of the commit, byte for byte, whatever its attributes ask for."""
    commit = source.commit(TREE, seconds=1700000000)
    fetched = fetch(store, place, commit)

    document = store.manifest(fetched.entry)
    assert isinstance(document, TreeManifest)
    folder = os.fsencode(Path(store.path(fetched.entry), "node"))
    for path, given in TREE.items():
        mode, data = given if isinstance(given, tuple) else ("100644", given)
        name = folder + b"/" + path
        if mode == "120000":
            assert data == os.readlink(name)
        else:
            with open(name, "rb") as file:
                assert data == file.read()
    executable = [node.path for node in document.nodes if getattr(node, "executable", False)]
    assert executable == ["bin/run"]
    assert len(TREE) + len(["bin", "deep", "deep/er"]) == len(document.nodes)
    assert list(verify(store, fetched.entry)) == []
    assert (place.public, commit, DATE) == (fetched.repo, fetched.commit, fetched.date)
    assert fetched.size == document.size
    assert (fetched.submodules, fetched.lfs) == ((), ())
    assert str(source.folder) not in Path(store.path(fetched.entry), "manifest.json").read_text()


def test_fetch_one_request(server: GitServer, source: Source, store: Store) -> None:
    """One commit is one fetch of that commit alone: no history, no tags, no other request."""
    first = source.commit({b"a": b"1" * 5000})
    commit = source.commit({b"a": b"2"}, parents=(first,))
    source.tag("v1", first)
    fetch(store, at(server), commit)
    posts = [r for r in server.requests if r.method == "POST"]
    assert sum(b"command=fetch" in r.body for r in posts) == 1
    assert server.count("POST", "git-receive-pack") == 0
    assert not any(first.encode() in r.body for r in posts)


def test_fetch_twice(server: GitServer, source: Source, store: Store) -> None:
    """What is stored is described again without a connection: date, submodules, LFS files."""
    commit = source.commit({b"a": b"1"})
    fetched = fetch(store, at(server), commit)
    server.requests.clear()
    assert fetched == fetch(store, at(server), commit, offline=True)
    assert server.requests == []


def test_fetch_equal_trees(server: GitServer, source: Source, store: Store) -> None:
    """Two commits with one tree share an entry and keep their own dates."""
    first = source.commit({b"a": b"1"}, seconds=1600000000)
    second = source.commit({b"a": b"1"}, seconds=1700000000, parents=(first,))
    one, two = fetch(store, at(server), first), fetch(store, at(server), second)
    assert one.entry == two.entry
    assert (one.date, two.date) == ("2020-09-13T12:26:40Z", DATE)
    assert (
        fetch(store, at(server), first, offline=True).date,
        fetch(store, at(server), second, offline=True).date,
    ) == ("2020-09-13T12:26:40Z", DATE)


def test_fetch_offline(server: GitServer, source: Source, store: Store) -> None:
    """What is not stored is named; a local repository needs no connection."""
    commit = source.commit({b"a": b"1"})
    with pytest.raises(OfflineError) as raised:
        fetch(store, at(server), commit, offline=True)
    assert at(server).public in raised.value.message
    assert commit in raised.value.message
    assert commit == fetch(store, at(source), commit, offline=True).commit
    assert server.requests == []


def test_fetch_lost_ref_or_entry(server: GitServer, source: Source, store: Store) -> None:
    """A ref whose entry was collected is no answer; the entry comes again."""
    commit = source.commit({b"a": b"1"})
    fetched = fetch(store, at(server), commit)
    os.rename(store.path(fetched.entry), store.path(fetched.entry) + ".gone")
    with pytest.raises(OfflineError):
        fetch(store, at(server), commit, offline=True)
    assert fetched == fetch(store, at(server), commit)
    assert store.has(fetched.entry)


def test_fetch_large_file(place: Repository, source: Source, store: Store) -> None:
    """Blobs of any size around the reading size come whole."""
    files = {
        str(n).encode(): os.urandom(n) for n in ((1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5000000)
    }
    fetched = fetch(store, place, source.commit(files))
    assert {str(name, "ascii"): data for name, data in files.items()} == content(store, fetched)


def test_fetch_empty_tree(place: Repository, source: Source, store: Store) -> None:
    """A commit without files is an empty folder."""
    assert content(store, fetch(store, place, source.commit({}))) == {}


def test_fetch_sha256(tmp_path: Path, store: Store, root: Path, server: GitServer) -> None:
    """Repositories whose ids are SHA-256 are read alike."""
    work = tmp_path / "work"
    command = ["git", "init", "--quiet", "--object-format=sha256", str(work)]
    subprocess.run(command, check=True)
    (work / "a").write_bytes(b"1")
    subprocess.run(["git", "-C", work, "add", "a"], check=True)
    subprocess.run(["git", "-C", work, "commit", "--quiet", "-m", "x"], check=True)
    subprocess.run(["git", "clone", "--quiet", "--bare", work, root / "new.git"], check=True)
    for repository in (parse(str(work), "test", allow_local=True), at(server, "new")):
        commit = git.resolve(repository, None, where=WHERE).commit
        assert len(commit) == 64
        assert content(store, fetch(store, repository, commit)) == {"a": b"1"}


def test_fetch_old_server(server: GitServer, source: Source, store: Store) -> None:
    """Where a server gives only what refs name, the commit is found through the ref or all refs."""
    commits = [source.commit({b"a": b"0"})]
    for index in range(1, 4):
        commits.append(source.commit({b"a": b"%d" % index}, parents=(commits[-1],)))
    side = source.commit({b"b": b"1"}, branch="side")
    server.only_refs = True
    assert content(store, fetch(store, at(server), commits[3])) == {"a": b"3"}
    assert content(store, fetch(store, at(server), commits[1], ref="main")) == {"a": b"1"}
    assert content(store, fetch(store, at(server), commits[0])) == {"a": b"0"}
    assert content(store, fetch(store, at(server), side, ref="main")) == {"b": b"1"}
    assert content(store, fetch(store, at(server), side, ref="gone")) == {"b": b"1"}
    with pytest.raises(SourceError, match=f"commit {'a' * 40} is not in http://"):
        fetch(store, at(server), "a" * 40, ref="main")


# What goes wrong


def test_fetch_unknown_commit(place: Repository, source: Source, store: Store) -> None:
    """A commit that is not there is named; so is one that is no commit."""
    source.commit({b"a": b"1"})
    with pytest.raises(SourceError) as raised:
        fetch(store, place, "a" * 40)
    assert f"commit {'a' * 40} is not in {place.shown}" == raised.value.message
    with pytest.raises(SourceError, match="is not in"):
        fetch(store, place, source.put("blob", b"data"))
    tag = source.tag("v1", source.commit({b"a": b"1"}))
    with pytest.raises(SourceError, match=f"{tag} of .* is a tag, not a commit"):
        fetch(store, place, tag)
    with pytest.raises(SourceError, match="is a tree, not a commit"):
        fetch(store, place, source.files({b"a": b"1"}))
    with pytest.raises(InputError, match="'main' is not a full commit"):
        fetch(store, place, "main")
    with pytest.raises(SourceError, match=f"commit {'a' * 64} is not in|git could not read"):
        fetch(store, place, "a" * 64)


def test_unreachable(store: Store, source: Source) -> None:
    """No server, no host, no repository: one sentence each."""
    closed = parse("http://127.0.0.1:1/x.git", "test", allow_local=True)
    with pytest.raises(SourceError) as raised:
        git.resolve(closed, None, where=WHERE)
    assert raised.value.message == "http://127.0.0.1:1/x.git cannot be reached: no connection"
    with pytest.raises(SourceError, match="cannot be reached: no connection"):
        fetch(store, closed, "a" * 40)
    with pytest.raises(SourceError, match="cannot be reached: its host is not known"):
        git.resolve(parse("https://no.such.host.invalid/x", "test"), None, where=WHERE)


def test_no_repository(server: GitServer, source: Source, store: Store, tmp_path: Path) -> None:
    """A path that holds no repository, also below one, is said so."""
    inside = source.folder / "below"
    inside.mkdir()
    for text in (str(tmp_path / "nothing"), str(inside), f"{server.url}/other.git"):
        repository = parse(text, "test", allow_local=True)
        sentence = f"there is no git repository at {repository.shown}"
        with pytest.raises(SourceError) as raised:
            git.resolve(repository, None, where=WHERE)
        assert sentence == raised.value.message
        with pytest.raises(SourceError) as raised:
            fetch(store, repository, "a" * 40)
        assert sentence == raised.value.message


def test_not_allowed(server: GitServer, source: Source, store: Store) -> None:
    """What is on this machine is read only where that was asked for."""
    commit = source.commit({b"a": b"1"})
    for repository in (at(server), at(source)):
        with pytest.raises(InputError, match="is on this machine, which is not allowed"):
            fetch(store, repository, commit, allow_local=False)


@pytest.mark.parametrize("size", [10, 3000000])
def test_missing_blob(place: Repository, source: Source, store: Store, size: int) -> None:
    """A repository that lacks a file fails with its path, and nothing is published."""
    data = os.urandom(size)
    commit = source.commit({b"a": b"1", b"some/model.bin": data})
    source.object(source.put("blob", data)).unlink()
    with pytest.raises(SourceError) as raised:
        fetch(store, place, commit)
    assert raised.value.message == (
        f"{place.shown} is damaged: some/model.bin of commit {commit[:12]} is missing"
    )
    assert list(store.ids()) == []
    assert leftovers(store.volume) == []


def test_missing_tree(source: Source, store: Store) -> None:
    """A missing folder is named as well, also the root."""
    commit = source.commit({b"some/file": b"1"})
    source.object(source.files({b"file": b"1"})).unlink()
    with pytest.raises(SourceError, match=r"some of commit .* is missing"):
        fetch(store, at(source), commit)
    source.object(source.files({b"some/file": b"1"})).unlink()
    with pytest.raises(SourceError, match=f"^commit {commit} is not in "):
        fetch(store, at(source), commit)


@pytest.mark.parametrize("size", [10, 3000000])
def test_forged_blob(source: Source, store: Store, size: int) -> None:
    """Bytes under another's name are noticed, in a file, a link, a folder and the commit."""
    data = b"x" * size
    id = source.put("blob", data)
    commit = source.commit({b"a": data})
    source.put("blob", b"y" * size, id)
    with pytest.raises(SourceError, match=r"a of commit .* is not what its name says"):
        fetch(store, at(source), commit)
    assert list(store.ids()) == []


def test_forged_tree_and_commit(source: Source, store: Store) -> None:
    commit = source.commit({b"d/a": b"1"})
    evil = source.put("blob", b"2")
    tree = source.files({b"a": b"1"})
    source.put("tree", b"100644 a\0" + bytes.fromhex(evil), tree)
    with pytest.raises(SourceError, match=r"d of commit .* is not what its name says"):
        fetch(store, at(source), commit)
    other = source.commit({b"b": b"1"})
    source.put(
        "commit", zlib.decompress(source.object(other).read_bytes()).partition(b"\0")[2], commit
    )
    with pytest.raises(SourceError, match=r"the head of commit .* is not what its name says"):
        fetch(store, at(source), commit)


def test_damaged_object(source: Source, store: Store) -> None:
    """An object file that is no object stops git itself; the path is named."""
    commit = source.commit({b"a": b"1", b"b": b"2"})
    source.object(source.put("blob", b"1")).write_bytes(b"rubbish")
    with pytest.raises(SourceError, match=r"a of commit .* is (missing|not readable)"):
        fetch(store, at(source), commit)


def evil_trees(source: Source) -> dict[str, str]:
    """Trees that no entry may have, by a piece of the message."""
    blob = source.put("blob", b"x")
    inner = source.tree([("100644", b"config", blob)])
    deep = inner
    for _ in range(300):
        deep = source.tree([("40000", b"d", deep)])
    up = source.put("blob", b"../../etc/passwd")
    absolute = source.put("blob", b"/etc/passwd")
    long = source.put("blob", b"x" * 5000)
    return {
        "'.git' would be a repository": source.tree([("40000", b".git", inner)]),
        "'a/.GIT' would be": source.tree(
            [("40000", b"a", source.tree([("100644", b".GIT", blob)]))]
        ),
        "'..' cannot be": source.tree([("40000", b"..", inner)]),
        "'.' cannot be": source.tree([("100644", b".", blob)]),
        "'a/b' cannot be": source.tree([("100644", b"a/b", blob)]),
        "'../x' cannot be": source.tree([("100644", b"../x", blob)]),
        "'/x' cannot be": source.tree([("100644", b"/x", blob)]),
        "is in the tree twice": source.tree([("100644", b"a", blob), ("100644", b"a", blob)]),
        "differ in case": source.tree([("100644", b"A", blob), ("100644", b"a", blob)]),
        "has a target that leaves it: '../../etc": source.tree([("120000", b"l", up)]),
        "has a target that leaves it: '/etc": source.tree([("120000", b"l", absolute)]),
        "has a target that is too long": source.tree([("120000", b"l", long)]),
        "is too long": source.tree([("40000", b"d", deep)]),
        "is longer than 255 bytes": source.tree([("100644", b"n" * 300, blob)]),
    }


EVIL = [
    *("'.git' would be a repository", "'a/.GIT' would be", "'..' cannot be", "'.' cannot be"),
    *("'a/b' cannot be", "'../x' cannot be", "'/x' cannot be", "is in the tree twice"),
    *("differ in case", "has a target that leaves it: '../../etc"),
    *("has a target that leaves it: '/etc", "has a target that is too long", "is too long"),
    "is longer than 255 bytes",
]


@pytest.mark.parametrize("message", EVIL)
def test_evil_trees(place: Repository, source: Source, store: Store, message: str) -> None:
    """Names and links that would leave the entry are refused, with repository and commit."""
    commit = source.commit(evil_trees(source)[message])
    with pytest.raises(CvsError) as raised:
        fetch(store, place, commit)
    assert message in raised.value.message
    assert raised.value.message.startswith(f"{place.shown} at {commit[:12]}: ")
    assert isinstance(raised.value, TreeError)
    assert list(store.ids()) == []
    assert leftovers(store.volume) == []


def test_too_many_files(
    place: Repository, source: Source, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree made to exhaust its reader is given up early."""
    monkeypatch.setattr(git_objects, "_NODE_LIMIT", 1000)
    tree = source.files({b"a": b"1"})
    for _ in range(12):
        tree = source.tree([("40000", b"%d" % n, tree) for n in range(10)])
    with pytest.raises(SourceError, match="has more than 1,000 files"):
        fetch(store, place, source.commit(tree))


def test_too_many_files_with_submodules(
    source: Source, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is that of the tree as a whole."""
    monkeypatch.setattr(git_fetch, "NODE_LIMIT", 5)
    inner = source.commit({b"%d" % n: b"" for n in range(3)})
    commit = source.commit(
        {b"s": submodule(inner), b"t": submodule(inner), b".gitmodules": modules({"s": "."})}
    )
    with pytest.raises(TreeError, match="with its submodules it has more than 5 files"):
        fetch(store, at(source), commit)


@pytest.mark.parametrize("size", [5_000, 3_000_000])
def test_endless_name(place: Repository, source: Source, store: Store, size: int) -> None:
    """A name is given up while it is read; the message shows how it begins."""
    blob = source.put("blob", b"x")
    commit = source.commit(source.tree([("100644", b"n" * size, blob)]))
    with pytest.raises(TreeError, match=f"the path '{'n' * 80}'… is too long$"):
        fetch(store, place, commit)


def test_large_commit(place: Repository, source: Source, store: Store) -> None:
    """A message of megabytes is given up before it is read."""
    commit = source.commit({b"a": b"1"}, message="x" * (4 << 20))
    with pytest.raises(SourceError, match=f"commit {commit} of .* has 4194[0-9]* bytes, too many"):
        fetch(store, place, commit)


def test_no_valid_date(source: Source, store: Store) -> None:
    """A commit without a date that could be one is refused."""
    tree = source.files({b"a": b"1"})
    for line in (b"", b"committer T <t> x +0000\n", b"committer T <t> 99999999999999999 +0000\n"):
        commit = source.put("commit", b"tree " + tree.encode() + b"\n" + line + b"\nx\n")
        with pytest.raises(SourceError, match="has no valid date or tree"):
            fetch(store, at(source), commit)


# Submodules


def test_submodules(root: Path, server: GitServer, source: Source, store: Store) -> None:
    """A submodule's tree lies below its path: absolute, relative and nested ones."""
    leaf, middle = Source(root / "leaf.git"), Source(root / "group/middle.git")
    leaf_commit = leaf.commit({b"leaf.txt": b"leaf"})
    middle_commit = middle.commit(
        {
            b"m.txt": b"m",
            b"in/leaf": submodule(leaf_commit),
            b".gitmodules": modules({"in/leaf": "../../leaf.git"}),
        }
    )
    gitmodules = modules({"libs/middle": "../group/middle", "leaf": f"{server.url}/leaf.git"})
    commit = source.commit(
        {
            b".gitmodules": gitmodules,
            b"libs/middle": submodule(middle_commit),
            b"leaf": submodule(leaf_commit),
        }
    )
    for repository in (at(server), at(source)):
        fetched = fetch(store, repository, commit)
        found = content(store, fetched)
        assert found["libs/middle/in/leaf/leaf.txt"] == b"leaf"
        assert found["leaf/leaf.txt"] == b"leaf"
        assert found["libs/middle/m.txt"] == b"m"
        assert gitmodules == found[".gitmodules"]
        assert list(verify(store, fetched.entry)) == []
        assert fetched == fetch(store, repository, commit, offline=True)
        public = "" if repository.is_local else server.url
        assert (
            Submodule(path="leaf", repo=f"{server.url}/leaf.git", commit=leaf_commit),
            Submodule(
                path="libs/middle", repo=public and f"{public}/group/middle", commit=middle_commit
            ),
            Submodule(
                path="libs/middle/in/leaf", repo=public and f"{public}/leaf.git", commit=leaf_commit
            ),
        ) == fetched.submodules


def test_submodule_without_url(place: Repository, source: Source, store: Store) -> None:
    """A gitlink that .gitmodules does not name is an empty folder, as in a clone, and said so."""
    commit = source.commit({b"lost": submodule("a" * 40), b"a": b"1"})
    progress = Warnings()
    fetched = fetch(store, place, commit, progress=progress)
    assert content(store, fetched) == {"lost": "/", "a": b"1"}
    assert fetched.submodules == ()
    assert len(progress.texts) == 1
    assert f"lost of {place.shown} is a submodule" in progress.texts[0]


def test_submodule_missing(server: GitServer, source: Source, store: Store) -> None:
    """A submodule that is not there fails the whole commit."""
    commit = source.commit({b"s": submodule("a" * 40), b".gitmodules": modules({"s": "../gone"})})
    with pytest.raises(SourceError, match=r"there is no git repository at .*/gone"):
        fetch(store, at(server), commit)
    assert list(store.ids()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc", "is a path of this machine"),
        ("/etc", "is a path of this machine"),
        ("--upload-pack=touch x", "is an option"),
        ("ext::sh -c touch% x", "runs a helper program"),
        ("../../../../x", "climbs out of the server"),
        ("git://example.org/x", "git:// is not fetched from"),
        ("http://example.org/x", "http:// is not fetched from"),
        ("https://u:secret@example.org/x", "a password must not stand in the URL"),
    ],
)
def test_submodule_refused(
    server: GitServer, source: Source, store: Store, url: str, message: str
) -> None:
    """A server may not send its visitor to the visitor's own files, commands or other protocols."""
    commit = source.commit({b"s": submodule("a" * 40), b".gitmodules": modules({"s": url})})
    with pytest.raises(SourceError) as raised:
        fetch(store, at(server), commit)
    assert message in raised.value.message
    assert raised.value.message.startswith(f"{at(server).public}: .gitmodules: s: ")
    assert "secret" not in raised.value.message


def test_submodule_offline(server: GitServer, source: Source, store: Store) -> None:
    """A local repository whose submodule is elsewhere needs a connection after all."""
    url = f"{server.url}/other.git"
    commit = source.commit({b"s": submodule("a" * 40), b".gitmodules": modules({"s": url})})
    with pytest.raises(OfflineError, match=r"s of .* is a submodule from http://.*/other.git"):
        fetch(store, at(source), commit, offline=True)
    assert server.requests == []


def test_submodules_without_end(source: Source, store: Store) -> None:
    """Submodules below submodules end somewhere."""
    commit = source.commit({b"a": b"1"})
    for _ in range(12):
        commit = source.commit({b"s": submodule(commit), b".gitmodules": modules({"s": "."})})
    with pytest.raises(SourceError, match="submodules below submodules without end"):
        fetch(store, at(source), commit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"#" * (1 << 20) + b"\n", "is larger than 1 MiB"),
        (b'[submodule "' + b"x" * 10_000 + b'"]\n' + b"a\n" * 1000, "has sections that are too"),
    ],
    ids=["large", "multiplied"],
)
def test_gitmodules_without_end(source: Source, store: Store, text: bytes, message: str) -> None:
    """Neither a large .gitmodules nor a small one that git makes large fills the memory."""
    commit = source.commit({b"s": submodule("a" * 40), b".gitmodules": text})
    with pytest.raises(SourceError, match=rf"\.gitmodules {message}"):
        fetch(store, at(source), commit)


def test_many_submodules(source: Source, store: Store) -> None:
    """More submodules than any real commit has are refused, named or not."""
    commit = source.commit({b"%d" % n: submodule("a" * 40) for n in range(257)})
    with pytest.raises(SourceError, match="has more than 256 submodules"):
        fetch(store, at(source), commit)


def test_gitmodules_damaged(place: Repository, source: Source, store: Store) -> None:
    """A .gitmodules that git cannot read is named."""
    commit = source.commit({b"s": submodule("a" * 40), b".gitmodules": b"[submodule\n"})
    with pytest.raises(SourceError, match=r"\.gitmodules cannot be read"):
        fetch(store, place, commit)


# Credentials and the caller's surroundings


SECRET = "tok3n-that-nobody-sees"


def watch_arguments(stop: threading.Event, seen: set[str]) -> None:
    """Collects the arguments of all processes below this one."""
    while not stop.is_set():
        for name in os.listdir("/proc"):
            if name.isdecimal():
                try:
                    seen.add(Path("/proc", name, "cmdline").read_bytes().decode("utf-8", "replace"))
                except OSError:
                    continue


def test_user_of_url(server: GitServer, source: Source, store: Store) -> None:
    """The user of a URL logs in and shows up in no argument, message, lock or file."""
    commit = source.commit({b"a": b"1"})
    server.login = (SECRET, "")
    url = server.url.replace("http://", f"http://{SECRET}@") + "/repo.git"
    repository = parse(url, "test", allow_local=True)
    stop, seen = threading.Event(), set[str]()
    watcher = threading.Thread(target=watch_arguments, args=(stop, seen))
    watcher.start()
    try:
        assert commit == git.resolve(repository, "main", where=WHERE).commit
        fetched = fetch(store, repository, commit)
    finally:
        stop.set()
        watcher.join()
    assert any("remote-http" in arguments for arguments in seen)
    assert not any(SECRET in arguments for arguments in seen)
    assert SECRET not in repr(fetched) + repr(repository)
    manifest = Path(store.path(fetched.entry), "manifest.json").read_text()
    assert SECRET not in manifest
    server.login = ("other", "x")
    for call in (
        lambda: git.resolve(repository, "main", where=WHERE),
        lambda: fetch(store, repository, "b" * 40),
    ):
        with pytest.raises(SourceError) as raised:
            call()
        assert f"{server.url}/repo.git did not accept the login" == raised.value.message
        assert SECRET not in str(raised.value) + str(raised.value.hint)


def test_login_needed(server: GitServer, source: Source) -> None:
    """Without a login nobody is asked for one."""
    server.login = ("me", "secret")
    with pytest.raises(SourceError) as raised:
        git.resolve(at(server), None, where=WHERE)
    assert f"{at(server).public} does not exist or needs a login" == raised.value.message
    assert raised.value.hint is not None


def test_credential_helper(
    server: GitServer, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's own helper is asked, also for the password of a user in the URL."""
    commit = source.commit({b"a": b"1"})
    config = tmp_path / "gitconfig"
    config.write_text(
        '[credential]\n\thelper = "!f() { echo username=me; echo password=secret; }; f"\n'
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    server.login = ("me", "secret")
    assert commit == git.resolve(at(server), None, where=WHERE).commit
    url = server.url.replace("http://", "http://me@") + "/repo.git"
    repository = parse(url, "test", allow_local=True)
    assert commit == git.resolve(repository, None, where=WHERE).commit


def test_netrc(server: GitServer, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """~/.netrc is enough."""
    commit = source.commit({b"a": b"1"})
    netrc = Path(os.environ["HOME"], ".netrc")
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    server.login = ("me", "secret")
    assert commit == git.resolve(at(server), None, where=WHERE).commit


def test_foreign_variables(
    place: Repository, source: Source, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started from a hook, cvs does not work in the hook's repository."""
    other = Source(tmp_path / "other.git")
    foreign = other.commit({b"b": b"1"})
    commit = source.commit({b"a": b"1"})
    monkeypatch.setenv("GIT_DIR", str(other.folder))
    monkeypatch.setenv("GIT_WORK_TREE", str(tmp_path))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(other.folder / "objects"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.bare=false'")
    monkeypatch.chdir(other.folder)
    assert commit == git.resolve(place, None, where=WHERE).commit
    assert content(store, fetch(store, place, commit)) == {"a": b"1"}
    with pytest.raises(SourceError):
        fetch(store, place, foreign)
    assert not other.object(commit).exists()


def test_callers_config_stays(
    server: GitServer, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings that the caller's environment gives git stay in force."""
    commit = source.commit({b"a": b"1"})
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{server.url}/repo.git.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "http://127.0.0.1:1/alias")
    alias = parse("http://127.0.0.1:1/alias", "test", allow_local=True)
    assert commit == git.resolve(alias, None, where=WHERE).commit


def test_settings_of_a_local_repository_do_nothing(
    source: Source, store: Store, tmp_path: Path
) -> None:
    """Nothing that a repository's own config names is run."""
    commit = source.commit({b"a": b"1"})
    touched = tmp_path / "touched"
    (source.folder / "config").write_text(
        "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"
        f"\tfsmonitor = touch {touched}\n\tsshCommand = touch {touched}\n"
        f"\tpager = touch {touched}\n\thooksPath = {tmp_path}\n"
        f"[uploadpack]\n\tpackObjectsHook = touch {touched}\n"
        f"[credential]\n\thelper = !touch {touched}\n"
    )
    assert commit == git.resolve(at(source), None, where=WHERE).commit
    fetch(store, at(source), commit)
    assert not touched.exists()


def test_redirect_to_another_protocol(source: Source, tmp_path: Path) -> None:
    """What a repository was rewritten to by git's own settings still must be allowed."""
    source.commit({b"a": b"1"})
    config = Path(os.environ["HOME"], "config")
    config.write_text(f'[url "{source.folder}"]\n\tinsteadOf = https://example.org/x\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        with pytest.raises(SourceError, match="leads to a protocol that is not allowed"):
            git.resolve(parse("https://example.org/x", "test"), None, where=WHERE)


def test_ssh(source: Source, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh:// and user@host:path go through the user's own ssh command."""
    commit = source.commit({b"a": b"1"})
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    for text in (f"ssh://git@example.org{source.folder}", f"git@example.org:{source.folder}"):
        repository = parse(text, "test")
        assert commit == git.resolve(repository, "main", where=WHERE).commit
        assert commit == fetch(store, repository, commit, allow_local=False).commit


def test_ssh_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ssh asks nobody; a command of git's own settings is left as it is."""
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\n'
        'echo "Permission denied (publickey)." >&2\nexit 255\n'
    )
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    repository = parse("git@example.org:a/b", "test")
    with pytest.raises(SourceError, match=r"git@example\.org:a/b did not accept the login"):
        git.resolve(repository, None, where=WHERE)
    assert "BatchMode=yes" in (tmp_path / "arguments").read_text()
    config = tmp_path / "config"
    config.write_text("[core]\n\tsshCommand = ssh -o Own=1\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    with pytest.raises(SourceError):
        git.resolve(repository, None, where=WHERE)
    assert (tmp_path / "arguments").read_text().startswith("-o Own=1")


def test_no_git(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without git there is one sentence, whether GitPython was imported before or not."""
    repository = at(source)
    code = f"""
from cvs.store.errors import SourceError
from cvs.versions import git, repository
try:
    git.resolve(repository.parse({str(source.folder)!r}, "x", allow_local=True), None, where="x")
except SourceError as error:
    print(error.message)
"""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SourceError, match="git is not installed"):
        git.resolve(repository, None, where=WHERE)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "git is not installed\n"


# Many at once, and the end of all


def test_many_at_once(server: GitServer, source: Source, store: Store) -> None:
    """Threads that fetch one commit and others do not disturb each other."""
    commits = [source.commit({b"a": b"%d" % n, b"b": os.urandom(100)}) for n in range(4)]
    found: list[FetchedCommit] = []
    threads = [
        threading.Thread(target=lambda c=commit: found.append(fetch(store, at(server), c)))
        for commit in commits * 2
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(commits) * 2 == len(found)
    assert len(commits) == len({fetched.entry for fetched in found}) == len(list(store.ids()))


INTERRUPTED = """
import signal, sys
from cvs.store.entries import Store
from cvs.store.volume import Volume
from cvs.versions import git, repository
signal.signal(signal.SIGINT, signal.default_int_handler)
store = Store(Volume(sys.argv[1]))
where = repository.parse(sys.argv[2], "test", allow_local=True)
git.fetch_commit(store, where, "a" * 40, "node", where="test", allow_local=True)
"""


def test_interrupted(store: Store, temporary: Path) -> None:
    """Ctrl-C while a server does not answer leaves no process and no temporary file."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.git"
        command = [sys.executable, "-c", INTERRUPTED, store.volume.root, url]
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        connection, _ = silent.accept()
        family = descendants(child.pid)
        assert len(family) >= 2
        assert list(temporary.iterdir())
        child.send_signal(signal.SIGINT)
        assert child.wait(20) != 0
        deadline = time.monotonic() + 5
        while any(os.path.exists(f"/proc/{pid}") for pid in family) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not [pid for pid in family if os.path.exists(f"/proc/{pid}")]
        connection.close()
    assert leftovers(store.volume) == []


def descendants(pid: int) -> list[int]:
    """All processes below one."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [below for child in children for below in (int(child), *descendants(int(child)))]


def test_facts_may_be_lost(server: GitServer, source: Source, store: Store) -> None:
    """Without the noted facts, or with damaged ones, the commit is fetched again."""
    commit = source.commit({b"a": b"1"})
    fetched = fetch(store, at(server), commit)
    folder = Path(store.volume.refs, "commit-facts")
    (note,) = folder.iterdir()
    note.unlink()
    assert fetched == fetch(store, at(server), commit)
    (note,) = folder.iterdir()
    note.unlink()
    note.symlink_to("rubbish")
    with pytest.raises(OfflineError):
        fetch(store, at(server), commit, offline=True)
    assert fetched == fetch(store, at(server), commit)
    key = refs.key("commit 1", at(server).canonical, commit, "node")
    assert fetched.entry == refs.get(store.volume, "commit", key)


def test_facts_too_long(volume: Volume) -> None:
    """What does not fit into a link is a file, and the other way round later; what is too long for
    that is not kept."""
    short = Facts("2020-01-01T00:00:00Z", (Submodule(path="s", repo="", commit="a" * 40),), ("é",))
    long = Facts("2020-01-01T00:00:00Z", lfs=("x" * 5000,))
    for one in (long, short, long):
        facts.put(volume, "kind", "key", one)
        assert facts.get(volume, "kind", "key", Facts) == one
    facts.put(volume, "kind", "other", Facts("", lfs=("x" * 2_000_000,)))
    assert facts.get(volume, "kind", "other", Facts) is None


def test_disk_full(place: Repository, source: Source, store: Store) -> None:
    """An error while writing ends git, and leaves nothing staged or published."""
    commit = source.commit({str(n).encode(): os.urandom(200000) for n in range(40)})
    with fail_at(20, calls=("write",)), pytest.raises(OSError, match="quota"):
        fetch(store, place, commit)
    assert list(store.ids()) == []
    assert leftovers(store.volume) == []
    assert not [pid for pid in descendants(os.getpid()) if b"cat-file" in arguments(pid)]


def arguments(pid: int) -> bytes:
    """The command line of a process; nothing if it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
