"""Git LFS: pointers become their content, or an error that names the file; never an entry."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from gitserver import GitServer, Source, lfs_pointer, modules, script, submodule
from hypothesis import given
from hypothesis import strategies as st

from cvs.store.entries import Store
from cvs.store.errors import CvsError, OfflineError, SourceError
from cvs.store.verify import verify
from cvs.versions import git, lfs
from cvs.versions.git import FetchedCommit
from cvs.versions.lfs import Pointer
from cvs.versions.repository import Repository, parse

BIG = bytes(range(256)) * 12000
FILES = {b"model.bin": BIG, b"bin/tool": b"tool"}


@pytest.fixture
def source(tmp_path: Path) -> Source:
    (tmp_path / "served").mkdir()
    return Source(tmp_path / "served/repo.git")


@pytest.fixture
def server(source: Source, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitServer]:
    """A server of `source` whose Git LFS has FILES."""
    monkeypatch.setattr(lfs, "_PAUSES", (0.0, 0.0))
    with GitServer(source.folder.parent) as running:
        for data in FILES.values():
            running.keep(data)
        yield running


@pytest.fixture
def commit(source: Source) -> str:
    """A commit with two pointers, one of them executable, and an ordinary file."""
    return source.commit(
        {
            b"model.bin": lfs_pointer(BIG),
            b"bin/tool": script(lfs_pointer(b"tool")),
            b"readme": b"text",
        }
    )


def at(server: GitServer) -> Repository:
    return parse(f"{server.url}/repo.git", "test", allow_local=True)


def fetch(store: Store, repository: Repository, commit: str, **options: bool) -> FetchedCommit:
    return git.fetch_commit(
        store, repository, commit, "node", where="test", allow_local=True, **options
    )


def check(store: Store, fetched: FetchedCommit) -> None:
    """The entry has the content and the mode, and the paths are listed."""
    folder = Path(store.path(fetched.entry), "node")
    assert (folder / "model.bin").read_bytes() == BIG
    assert (folder / "bin/tool").read_bytes() == b"tool"
    assert (folder / "readme").read_bytes() == b"text"
    assert [os.access(folder / name, os.X_OK) for name in ("bin/tool", "readme")] == [True, False]
    assert fetched.lfs == ("bin/tool", "model.bin")
    assert fetched.size == len(BIG) + len(b"tool") + len(b"text")
    assert list(verify(store, fetched.entry)) == []


def fails(store: Store, repository: Repository, commit: str) -> CvsError:
    """The error of a fetch that leaves nothing behind."""
    with pytest.raises(SourceError) as raised:
        fetch(store, repository, commit)
    assert list(store.ids()) == []
    assert os.listdir(store.volume.tmp) == []
    return raised.value


def test_served(server: GitServer, store: Store, commit: str) -> None:
    """One batch request names all objects; each is downloaded once."""
    fetched = fetch(store, at(server), commit)
    check(store, fetched)
    assert server.count("POST", "/repo.git/info/lfs/objects/batch") == 1
    downloads = [r for r in server.requests if r.path.startswith("/lfs/")]
    assert len(downloads) == len(FILES)
    server.requests.clear()
    assert fetch(store, at(server), commit, offline=True) == fetched
    assert server.requests == []


def test_local(source: Source, store: Store, commit: str) -> None:
    """A local repository has the content itself, or fails with the cure."""
    repository = parse(str(source.folder), "test", allow_local=True)
    error = fails(store, repository, commit)
    assert "is stored with Git LFS and its content is not there" in error.message
    assert error.hint == "`git lfs fetch --all` fetches it"
    for data in FILES.values():
        oid = hashlib.sha256(data).hexdigest()
        folder = source.folder / "lfs/objects" / oid[:2] / oid[2:4]
        folder.mkdir(parents=True)
        (folder / oid).write_bytes(data)
    check(store, fetch(store, repository, commit, offline=True))


def test_local_damaged(source: Source, store: Store) -> None:
    """What lies under the name of the content is checked too."""
    commit = source.commit({b"a": lfs_pointer(b"right")})
    oid = hashlib.sha256(b"right").hexdigest()
    folder = source.folder / "lfs/objects" / oid[:2] / oid[2:4]
    folder.mkdir(parents=True)
    (folder / oid).write_bytes(b"wrong")
    error = fails(store, parse(str(source.folder), "test", allow_local=True), commit)
    assert error.message == (
        f"a of {source.folder} is stored with Git LFS and other bytes came than its pointer names"
    )


def test_not_there(server: GitServer, store: Store, commit: str) -> None:
    """An object that the server lacks fails the commit, by its path."""
    del server.objects[hashlib.sha256(b"tool").hexdigest()]
    error = fails(store, at(server), commit)
    assert error.message == (
        f"bin/tool of {at(server).public} is stored with Git LFS and "
        "the server does not have its content"
    )


def test_no_lfs_at_all(
    server: GitServer, store: Store, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server without Git LFS says 404, or something that is no answer."""
    monkeypatch.setattr("gitserver._Handler._batch", lambda self, _: self._answer(404, b""))
    assert "the server does not have its content" in fails(store, at(server), commit).message
    for body in (
        *(b"<html>", b"[]", b'{"objects": [{}]}', b'{"objects": [], "transfer": "tus"}'),
        *(b'{"x":' + b"[" * 100_000, b'{"objects": [{"oid": "\xff"}]}', b" " * ((4 << 20) + 1)),
    ):
        monkeypatch.setattr(
            "gitserver._Handler._batch", lambda self, _, body=body: self._answer(200, body)
        )
        assert "is not one of Git LFS" in fails(store, at(server), commit).message
    body = b'{"objects": [{"oid": "%s", "error": {"code": 403}}]}' % (
        hashlib.sha256(b"tool").hexdigest().encode()
    )
    monkeypatch.setattr("gitserver._Handler._batch", lambda self, _: self._answer(200, body))
    assert "does not give its content (status 403)" in fails(store, at(server), commit).message
    monkeypatch.setattr("gitserver._Handler._batch", lambda self, _: self._answer(503, b""))
    assert "the server answered with status 503" in fails(store, at(server), commit).message


@pytest.mark.parametrize("wrong", [b"x" * len(BIG), BIG[:-1], BIG + b"x", b""])
def test_wrong_bytes(server: GitServer, store: Store, commit: str, wrong: bytes) -> None:
    """Other, fewer or more bytes than the pointer names are not stored."""
    server.objects[hashlib.sha256(BIG).hexdigest()] = wrong
    message = fails(store, at(server), commit).message
    if len(wrong) < len(BIG):
        assert f"the transfer broke off after {len(wrong)} of {len(BIG)} bytes" in message
    else:
        assert "other bytes came than its pointer names" in message


def test_truncated(server: GitServer, store: Store, commit: str) -> None:
    """A transfer that breaks off each time fails after some attempts."""
    server.cut = 1 << 20
    message = fails(store, at(server), commit).message
    assert message.endswith(f"the transfer broke off after {1 << 20} of {len(BIG)} bytes")


def test_resumed(server: GitServer, store: Store, commit: str) -> None:
    """A server that knows ranges goes on where the transfer broke off."""
    server.cut, server.ranges = 1 << 20, True
    check(store, fetch(store, at(server), commit))
    assert len([r for r in server.requests if "Range" in r.headers]) == 2


def test_token_and_redirect(
    server: GitServer, source: Source, store: Store, commit: str, tmp_path: Path
) -> None:
    """Headers of the answer go to the host they are for, not where that redirects to."""
    (tmp_path / "other").mkdir()
    with GitServer(tmp_path / "other", objects=server.objects) as other:
        server.token, server.elsewhere = "s3cret", other
        check(store, fetch(store, at(server), commit))
        assert len(other.requests) == len(FILES)
        for request in other.requests:
            assert "X-Token" not in request.headers
            assert "Authorization" not in request.headers
    assert all(r.headers.get("X-Token") for r in server.requests if r.path.startswith("/lfs/"))


@pytest.mark.parametrize("href", ["http://example.org/x", "file:///etc/passwd", "ftp://x/y", "x"])
def test_download_elsewhere(
    server: GitServer, store: Store, commit: str, monkeypatch: pytest.MonkeyPatch, href: str
) -> None:
    """No server sends its visitor to files, or to hosts without encryption."""
    monkeypatch.setattr(GitServer, "url", property(lambda _: href.rstrip("/")))
    repository = parse(
        f"http://127.0.0.1:{server._http.server_address[1]}/repo.git", "test", allow_local=True
    )
    assert "not to https://" in fails(store, repository, commit).message


def test_endless_redirect(server: GitServer, store: Store, commit: str) -> None:
    """A server that redirects to itself is not followed for ever."""
    server.elsewhere = server
    assert "redirects without end" in fails(store, at(server), commit).message


def test_login(
    server: GitServer, store: Store, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The login of git's credential helper serves for Git LFS too, and goes to no download."""
    server.login = ("me", "s3cret")
    config = tmp_path / "config"
    config.write_text(
        '[credential]\n\thelper = "!f() { echo username=me; echo password=s3cret; }; f"\n'
    )
    with monkeypatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        check(store, fetch(store, at(server), commit))
    for request in server.requests:
        if request.path.startswith("/lfs/"):
            assert "Authorization" not in request.headers


def test_login_of_url_and_netrc(
    server: GitServer, source: Source, store: Store, commit: str, tmp_path: Path
) -> None:
    """So do the user of the URL and ~/.netrc."""
    server.login = ("t0ken", "")
    url = server.url.replace("http://", "http://t0ken@") + "/repo.git"
    check(store, fetch(store, parse(url, "test", allow_local=True), commit))
    server.login = ("me", "s3cret")
    netrc = Path(os.environ["HOME"], ".netrc")
    netrc.write_text("machine 127.0.0.1 login me password s3cret\n")
    netrc.chmod(0o600)
    other = source.commit({b"x": server.keep(b"more")})
    fetch(store, at(server), other)
    for request in server.requests:
        if request.path.startswith("/lfs/"):
            assert "Authorization" not in request.headers


def test_login_missing(
    server: GitServer, store: Store, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only Git LFS wants a login and there is none, that is what is said."""
    monkeypatch.setattr("gitserver._Handler._batch", lambda self, _: self._answer(401, b""))
    assert "the server wants a login" in fails(store, at(server), commit).message


def test_ssh(
    source: Source, store: Store, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git LFS through ssh is not spoken, and said so."""
    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    error = fails(store, parse(f"ssh://git@example.org{source.folder}", "test"), commit)
    assert "is not fetched through ssh" in error.message
    assert error.hint == "name the repository by its https:// URL"


def test_submodule(server: GitServer, source: Source, store: Store, commit: str) -> None:
    """The pointers of a submodule are looked for where the submodule comes from."""
    shutil.copytree(source.folder, source.folder.parent / "inner.git")
    outer = source.commit({b"s": submodule(commit), b".gitmodules": modules({"s": "../inner.git"})})
    fetched = fetch(store, at(server), outer)
    assert fetched.lfs == ("s/bin/tool", "s/model.bin")
    assert Path(store.path(fetched.entry), "node/s/model.bin").read_bytes() == BIG
    assert server.count("POST", "/inner.git/info/lfs/objects/batch") == 1


def test_offline(server: GitServer, commit: str) -> None:
    """Without a connection only what a local repository has is there."""
    item = Pointer(b"a", "0" * 64, 1)
    with pytest.raises(OfflineError, match=r"^a of .* and no connection may be made"):
        list(lfs.fetch([item], at(server), objects=None, login=lambda: None, offline=True))
    assert list(lfs.fetch([], at(server), objects=None, login=lambda: None, offline=True)) == []
    assert server.requests == []


def test_pointers() -> None:
    """What is a pointer and what only resembles one."""
    data = lfs_pointer(b"x")
    oid = hashlib.sha256(b"x").hexdigest()
    assert lfs.pointer(b"a", data) == Pointer(b"a", oid, 1)
    assert lfs.pointer(b"a", data, True) == Pointer(b"a", oid, 1, True)
    assert lfs.pointer(b"a", data.replace(b"\n", b"\r\n")) == Pointer(b"a", oid, 1)
    assert lfs.pointer(b"a", data.rstrip(b"\n")) == Pointer(b"a", oid, 1)
    for other in (b"", data + b"more", data[1:], data.upper(), data.replace(b"size 1", b"size x")):
        assert lfs.pointer(b"a", other) is None
    extended = data.replace(b"oid", b"ext-0-crypt sha256:" + b"0" * 64 + b"\noid")
    with pytest.raises(SourceError, match="some/file is stored with a Git LFS extension"):
        lfs.pointer(b"some/file", extended)


def test_empty(server: GitServer, source: Source, store: Store) -> None:
    """The pointer to an empty file is one."""
    commit = source.commit({b"a": server.keep(b"")})
    fetched = fetch(store, at(server), commit)
    assert Path(store.path(fetched.entry), "node/a").read_bytes() == b""


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Telling a pointer from a file never fails."""
    assert lfs.pointer(b"a", data) is None
    assert lfs.pointer(b"a", lfs_pointer(data)) == Pointer(
        b"a", hashlib.sha256(data).hexdigest(), len(data)
    )
