"""Models: from a server, a file or a loose folder into the store, by digest."""

import concurrent.futures
import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from faults import assert_whole, fail_at, leftovers
from hypothesis import example, given
from hypothesis import strategies as st

from cvs.store import refs
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError, OfflineError, SourceError
from cvs.store.manifest import FileManifest
from cvs.store.volume import Volume
from cvs.versions import locate, models, retry, sources
from cvs.versions.access import Access
from cvs.versions.lock import Model
from cvs.versions.spec import Model as Wanted

#: Longer than one piece of a download.
DATA = bytes(range(256)) * 6000
SHA256 = hashlib.sha256(DATA).hexdigest()
BLAKE3 = blake3(DATA).hexdigest()
OTHER = "0" * 64
WHERE = "versions/x.json: models[0]"
#: Calls that a full volume refuses; cleaning up uses none of them.
ADDING = ("mkdir", "create", "write", "fsync", "syncfs", "close", "rename", "symlink")
ONLINE = Access()
OFFLINE = Access(offline=True)


class Server:
    """Files on loopback; the first folder of a path says how they are served."""

    def __init__(self) -> None:
        self.files = {"m.safetensors": DATA}
        self.requests: list[tuple[str, str | None]] = []
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))
        self._thread.start()

    def url(self, path: str = "plain/m.safetensors", user: str = "") -> str:
        """The address of a file."""
        return f"http://{user}127.0.0.1:{self._http.server_address[1]}/{path}"

    def close(self) -> None:
        """Stops serving."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.owner.requests.append((self.path, self.headers.get("Range")))
        try:
            self._serve()
        except (BrokenPipeError, ConnectionResetError):
            pass  # `measure` hangs up before the body.

    def _serve(self) -> None:
        way, _, name = self.path.partition("?")[0].strip("/").partition("/")
        data = self.owner.files.get(name)
        if way == "moved":
            self._head(302, 0, Location=f"/plain/{name}")
        elif way == "page":
            self._head(200, 5, **{"Content-Type": "text/html; charset=utf-8"})
            self.wfile.write(b"login")
        elif way == "denied":
            self._head(403, 0)
        elif data is None:
            self._head(404, 0)
        elif way == "unsized":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
        elif way == "short":
            self._head(200, len(data) + 1)
            self.wfile.write(data)
        else:
            self._ranged(data, broken=way == "broken")

    def _ranged(self, data: bytes, *, broken: bool) -> None:
        start = 0
        asked = self.headers.get("Range")
        if asked:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(data)) + 1, len(data))
            if start >= len(data):
                self._head(416, 0, **{"Content-Range": f"bytes */{len(data)}"})
                return
            place = f"bytes {start}-{stop - 1}/{len(data)}"
            self._head(206, stop - start, ETag='"1"', **{"Content-Range": place})
            data = data[:stop]
        else:
            self._head(200, len(data), ETag='"1"')
        # A broken connection ends a little later each time.
        end = start + 600_000 if broken else len(data)
        self.wfile.write(data[start:end])

    def _head(self, status: int, length: int, **headers: str) -> None:
        self.send_response(status)
        # Said, or the client may send the next request before it sees that the connection ends.
        self.send_header("Connection", "close")
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, and downloads that do not wait between tries."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(retry, "pause", lambda seconds, stop: None)
    made = Server()
    yield made
    made.close()


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


def wanted(source: str, sha256: str | None = None, where: str = WHERE) -> Wanted:
    """What a spec asks for."""
    name = "m.safetensors"
    return Wanted(name=name, source=source, path=f"checkpoints/{name}", sha256=sha256, where=where)


def ensure(store: Store, want: Wanted, access: Access = ONLINE, **known: object) -> Model:
    """Describes and stores a model; `known` is what the lock says beyond the description."""
    described = locate.describe(store, want, Access(offline=True))
    return models.ensure(store, want, msgspec.structs.replace(described, **known), access)


def assert_nothing_kept(store: Store) -> None:
    """Neither an entry nor a ref nor a staged file."""
    assert list(store.ids()) == []
    assert refs.get(store.volume, "sha256", SHA256) is None
    assert leftovers(store.volume) == []


# From a server.


def test_a_model_is_described(store: Store, server: Server) -> None:
    """Before it is fetched: its size, its public URL; the digest that the spec gives."""
    url = server.url("moved/m.safetensors?token=secret&type=Model", user="me:pass@")
    found = locate.describe(store, wanted(url, SHA256), ONLINE)

    assert found == Model(
        name="m.safetensors",
        path="checkpoints/m.safetensors",
        request=wanted(url, SHA256).request,
        source=server.url("moved/m.safetensors?type=Model"),
        size=len(DATA),
        sha256=SHA256,
        entry=None,
    )


def test_a_model_is_stored(store: Store, server: Server) -> None:
    """Its bytes become an entry named by BLAKE3, and what was learned completes the lock."""
    found = ensure(store, wanted(server.url() + "?token=secret"))

    assert (found.entry, found.sha256, found.size) == (BLAKE3, SHA256, len(DATA))
    assert found.entry is not None
    assert Path(store.volume.store, store.content(found.entry)).read_bytes() == DATA
    manifest = store.manifest(found.entry)
    assert isinstance(manifest, FileManifest)
    assert (manifest.content, manifest.origin) == ("content.safetensors", server.url())
    assert refs.get(store.volume, "sha256", SHA256) == BLAKE3
    assert leftovers(store.volume) == []
    assert_whole(store)


@pytest.mark.parametrize("known", ["spec", "lock", "entry"])
def test_other_bytes_are_not_kept(store: Store, server: Server, known: str) -> None:
    """Bytes of another digest than is known are refused, both digests are named."""
    with pytest.raises(IntegrityError) as caught:
        if known == "spec":
            ensure(store, wanted(server.url(), OTHER))
        elif known == "lock":
            ensure(store, wanted(server.url()), sha256=OTHER)
        else:
            ensure(store, wanted(server.url()), entry=OTHER)

    found = BLAKE3 if known == "entry" else SHA256
    assert caught.value.message == (
        f"{WHERE}: m.safetensors has the digest {found}, expected is {OTHER}: nothing was kept"
    )
    assert_nothing_kept(store)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("plain/none", "{url} does not exist (answer 404)"),
        ("page/m.safetensors", "{url} gives a web page instead of the file"),
        ("denied/m.safetensors", "{url} was refused (answer 403)"),
    ],
)
def test_what_a_server_refuses(store: Store, server: Server, path: str, message: str) -> None:
    """What is not the file is refused by place and address, and no credential is repeated."""
    source = server.url(path, user="me:pass@") + "?token=secret"
    expected = f"{WHERE}: {message.format(url=server.url(path))}"
    for call in (
        lambda: locate.describe(store, wanted(source), ONLINE),
        lambda: ensure(store, wanted(source)),
    ):
        with pytest.raises(SourceError) as caught:
            call()

        assert caught.value.message == expected
    assert_nothing_kept(store)


def test_a_server_that_is_not_there(store: Store, server: Server) -> None:
    """A connection that is refused is told after some tries, with the place in the spec."""
    url = server.url()
    server.close()
    with pytest.raises(SourceError) as caught:
        ensure(store, wanted(url))

    assert (
        caught.value.message == f"{WHERE}: {url} cannot be reached, {retry.ATTEMPTS} times in a row"
    )
    assert_nothing_kept(store)


def test_a_server_that_lies_about_the_size(store: Store, server: Server) -> None:
    """A file that is not as long as the server or the lock says is not kept."""
    for path, size in (
        ("plain/m.safetensors", len(DATA) + 1),
        ("unsized/m.safetensors", len(DATA) - 1),
        ("unsized/m.safetensors", len(DATA) + 1),
        ("short/m.safetensors", None),
    ):
        with pytest.raises(SourceError, match=f"^{WHERE[:-3]}"):
            ensure(store, wanted(server.url(path)), size=size)

        assert_nothing_kept(store)


def test_a_redirect_is_followed(store: Store, server: Server) -> None:
    """The file may lie elsewhere; the lock keeps the address that the spec has."""
    found = ensure(store, wanted(server.url("moved/m.safetensors")))

    assert (found.entry, found.source) == (BLAKE3, server.url("moved/m.safetensors"))


def test_a_break_is_resumed(store: Store, server: Server) -> None:
    """A connection that breaks goes on where it stopped; no byte is fetched twice."""
    found = ensure(store, wanted(server.url("broken/m.safetensors"), SHA256))

    assert found.entry == BLAKE3
    first, *others = [str(asked).removeprefix("bytes=") for _, asked in server.requests]
    assert first.startswith("0-")
    assert others
    assert all(int(asked.partition("-")[0]) >= 600_000 for asked in others)


def test_an_unsized_file(store: Store, server: Server) -> None:
    """A server need not say how long a file is."""
    assert locate.describe(store, wanted(server.url("unsized/m.safetensors")), ONLINE).size is None
    assert ensure(store, wanted(server.url("unsized/m.safetensors"))).size == len(DATA)


def test_an_empty_file(store: Store, server: Server) -> None:
    """A file of no bytes is a file."""
    server.files["empty"] = b""
    found = ensure(store, wanted(server.url("plain/empty"), hashlib.sha256().hexdigest()))

    assert (found.size, found.entry) == (0, blake3(b"").hexdigest())
    with pytest.raises(IntegrityError, match="is empty"):
        ensure(store, wanted(server.url("plain/empty")), size=0)


# What need not be fetched.


def test_a_known_sha256_is_not_fetched(store: Store, server: Server) -> None:
    """Bytes that this volume has under their SHA-256 are there, whatever the address."""
    ensure(store, wanted(server.url()))
    count = len(server.requests)
    found = ensure(store, wanted("https://elsewhere.invalid/x", SHA256), OFFLINE)

    assert (found.entry, len(server.requests)) == (BLAKE3, count)


def test_a_known_entry_is_not_fetched(store: Store, server: Server) -> None:
    """An entry that the lock names and the store has is there, without any ref."""
    ensure(store, wanted(server.url()))
    os.unlink(os.path.join(store.volume.refs, "sha256", SHA256))
    found = ensure(store, wanted("https://elsewhere.invalid/x"), OFFLINE, entry=BLAKE3)

    assert (found.entry, found.sha256, found.size) == (BLAKE3, SHA256, len(DATA))


def test_a_lost_entry_is_fetched_again(store: Store, server: Server) -> None:
    """A ref or a lock may name an entry that is gone; the same bytes come back."""
    first = ensure(store, wanted(server.url()))
    assert first.entry is not None
    os.rename(store.path(first.entry), os.path.join(store.volume.root, "gone"))

    assert models.stored(store, first) is None
    assert models.ensure(store, wanted(server.url()), first, ONLINE) == first
    assert_whole(store)


def test_what_is_stored_without_a_digest(store: Store, server: Server) -> None:
    """A model of which nothing is known is stored for nobody."""
    ensure(store, wanted(server.url()))

    assert models.stored(store, locate.describe(store, wanted(server.url()), ONLINE)) is None


def test_offline_names_the_model(store: Store) -> None:
    """Without a connection the model and its public address are named."""
    source = "https://me:pass@example.org/m.safetensors?token=secret"
    with pytest.raises(OfflineError) as caught:
        ensure(store, wanted(source, SHA256), OFFLINE)

    assert caught.value.message == (
        f"{WHERE}: the model m.safetensors (https://example.org/m.safetensors) is not stored "
        "and no connection may be made"
    )
    assert_nothing_kept(store)


def test_an_entry_that_is_no_file(store: Store) -> None:
    """A lock that names a tree or a set as a model is refused."""
    with store.stage() as stage:
        (entry,) = store.publish(stage.set([]))
    with pytest.raises(IntegrityError, match="is not a file"):
        ensure(store, wanted("https://example.org/x"), OFFLINE, entry=entry)


# Loose models.


@pytest.fixture
def loose(tmp_path: Path) -> Path:
    """The user's own folder of models, with the model in it."""
    path = tmp_path / "models" / "checkpoints" / "m.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    return path


def with_loose(loose: Path, *more: str) -> Access:
    """Access to the folder that a loose model lies in, offline."""
    return Access(offline=True, model_dirs=(*more, str(loose.parents[1])))


def test_a_loose_model_is_taken(store: Store, loose: Path) -> None:
    """A file of the right bytes in MODELS_DIR is taken without a connection, and stays there."""
    source = "https://example.org/m.safetensors"
    access = with_loose(loose, "/nowhere")
    for known in ({"sha256": SHA256}, {"entry": BLAKE3}):
        assert ensure(store, wanted(source), access, **known).entry == BLAKE3
        assert loose.read_bytes() == DATA
    with loose.open("r+b") as file:
        file.write(b"changed")

    assert_whole(store)


def test_a_loose_model_of_other_bytes_is_left(store: Store, server: Server, loose: Path) -> None:
    """Same name and size are not enough: the model is fetched, the loose one left alone."""
    loose.write_bytes(DATA[::-1])
    access = Access(model_dirs=(str(loose.parents[1]),))
    found = ensure(store, wanted(server.url(), SHA256), access, size=len(DATA))

    assert found.entry == BLAKE3
    assert loose.read_bytes() == DATA[::-1]
    assert [*store.ids()] == [BLAKE3]
    assert leftovers(store.volume) == []


def test_a_loose_model_without_a_digest_is_left(store: Store, loose: Path) -> None:
    """Of a model that nothing is known of, nobody can say that a loose file is it."""
    with pytest.raises(OfflineError):
        ensure(store, wanted("https://example.org/m.safetensors"), with_loose(loose))


def test_a_loose_model_of_another_size_is_not_read(
    store: Store, loose: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A glance at its size is enough to leave it."""

    def read(_: object) -> Iterator[memoryview]:
        raise AssertionError("it was read")
        yield

    monkeypatch.setattr(models, "chunks", read)
    with pytest.raises(OfflineError):
        ensure(store, wanted("https://example.org/x", SHA256), with_loose(loose), size=1)


@pytest.mark.parametrize("kind", ["folder", "dangling link", "unreadable"])
def test_what_is_no_loose_model(
    store: Store, loose: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read in a folder of models is no model, and no error."""
    if kind == "unreadable":

        def read(_: object) -> Iterator[memoryview]:
            raise PermissionError(13, "Permission denied")
            yield

        monkeypatch.setattr(models, "chunks", read)
    else:
        loose.unlink()
    if kind == "folder":
        loose.mkdir()
    if kind == "dangling link":
        loose.symlink_to("nowhere")
    with pytest.raises(OfflineError):
        ensure(store, wanted("https://example.org/x", SHA256), with_loose(loose))


# Files of this machine.


@pytest.mark.parametrize("form", ["path", "link", "url", "localhost", "relative", "home", "cwd"])
def test_local_files(store: Store, loose: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, a file:// URL, and a path relative to the spec, the home or the working folder."""
    folder = loose.parent
    where = f"{folder.parent}/versions/x.json: models[0]"
    (folder / "link").symlink_to(loose.name)
    spaced = folder / "a b#1.safetensors"
    spaced.write_bytes(DATA)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    source = {
        "path": str(loose),
        "link": str(folder / "link"),
        "url": f"file://{folder}/a%20b%231.safetensors",
        "localhost": f"FILE://localhost{loose}",
        "relative": "../checkpoints/m.safetensors",
        "home": "~/m.safetensors",
        "cwd": "m.safetensors",
    }[form]
    want = wanted(source, where=where)
    (folder.parent / "versions").mkdir()
    described = locate.describe(store, want, OFFLINE)
    assert (described.source, described.size, described.entry) == ("", len(DATA), None)
    found = models.ensure(store, want, described, OFFLINE)

    assert (found.source, found.entry, found.sha256) == ("", BLAKE3, SHA256)
    assert (
        str(folder).encode()
        not in Path(store.path(store.find(BLAKE3)), "manifest.json").read_bytes()
    )


def test_a_local_file_beside_the_spec_comes_first(tmp_path: Path, loose: Path) -> None:
    """A relative path means the file beside the spec, if there is one."""
    where = f"{loose.parent}/x.json: models[0]"
    want = wanted("m.safetensors", where=where)
    assert models.local_path(want) == str(loose)
    loose.unlink()

    assert models.local_path(want) == os.path.abspath("m.safetensors")


def test_a_local_file_with_another_digest(store: Store, loose: Path) -> None:
    """A local file is believed no more than a server."""
    with pytest.raises(IntegrityError, match=f"{SHA256}, expected is {OTHER}"):
        ensure(store, wanted(str(loose), OTHER))
    assert_nothing_kept(store)


def test_local_files_that_are_none(store: Store, tmp_path: Path) -> None:
    """A missing file and a folder are refused with place and path, before and at realizing."""
    missing, folder = f"{tmp_path}/none", str(tmp_path)
    for path, message in (
        (missing, f"{missing}: No such file or directory"),
        (folder, f"{folder} is not a file"),
    ):
        with pytest.raises(InputError) as caught:
            locate.describe(store, wanted(path), ONLINE)
        assert caught.value.message == f"{WHERE}.source: {message}"
    described = Model(name="m", path="m", request="", source="", size=None, sha256=None, entry=None)
    for path, message in (
        (missing, f"{missing}: No such file or directory"),
        (folder, f"{folder}: Is a directory"),
    ):
        with pytest.raises(InputError) as caught:
            models.ensure(store, wanted(path), described, ONLINE)
        assert caught.value.message == f"{WHERE}.source: {message}"
    assert_nothing_kept(store)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ftp://example.org/x", "ftp: sources are not known"),
        ("magnet:?xt=1", "magnet: sources are not known"),
        ("https://", "'https://' has no host"),
        ("https:///x", "'https:///x' has no host"),
        ("https://[::1/x", "the https: URL is not one"),
        ("https://me:pass@[x]/x", "the https: URL is not one"),
        ("https://me:pass@h\uff0fx/x", "the https: URL is not one"),
        ("file://other/x", "'file://other/x' is not a file of this machine"),
        ("file:x", "'file:x' is not a file of this machine"),
        ("file:///a%00b", "'file:///a%00b' is not a file of this machine"),
        ("file://[::1/x", "the file: URL is not one"),
    ],
)  # fmt: skip
def test_sources_that_are_none(store: Store, source: str, message: str) -> None:
    """A source of no known kind is refused, and no password repeated."""
    with pytest.raises(InputError) as caught:
        locate.describe(store, wanted(source), OFFLINE)

    assert caught.value.message == f"{WHERE}.source: {message}"


@given(
    st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)
    | st.text(alphabet="htpsfile:/@[]%0?#.~", min_size=1, max_size=20)
)
@example("https://[")
def test_any_source(source: str) -> None:
    """Whatever the source, it is a path, a URL, or refused in one sentence."""
    try:
        path = models.local_path(wanted(source))
    except InputError as error:
        assert error.message.startswith(WHERE)
    else:
        assert path is None or os.path.isabs(path)
        assert path is not None or "@" not in sources.public_url(source).split("/")[2]


# Secrets.


@pytest.mark.parametrize(
    "name",
    [
        *("token", "Token", "access_token", "private_token", "hf_token", "api_token", "api_key"),
        *("apikey", "key", "Authorization", "auth", "sig", "Signature", "X-Amz-Signature"),
        *("X-Amz-Credential", "X-Amz-Security-Token", "X-Goog-Signature", "X-Amz-Date", "Expires"),
        *("AWSAccessKeyId", "Key-Pair-Id", "Policy", "password", "passwd", "pwd", "client_secret"),
        *("session", "jwt", "se", "sp", "sv", "st", "sr", "spr", "to%6ben"),
    ],
)
def test_secret_parameters_are_not_kept(name: str) -> None:
    """A parameter that may be a secret, or dies soon, is in no public URL."""
    url = f"https://example.org/a?type=Model&{name}=hidden&format=fp16"

    assert sources.public_url(url) == "https://example.org/a?type=Model&format=fp16"


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://example.org/a/b.st", "https://example.org/a/b.st"),
        ("https://me@example.org:8/a", "https://example.org:8/a"),
        ("https://me:p@ss@example.org/a", "https://example.org/a"),
        ("https://example.org/a#token=x", "https://example.org/a"),
        ("https://example.org/a?download=true&x=", "https://example.org/a?download=true&x="),
        ("https://example.org/a?x=1;token=2", "https://example.org/a"),
    ],
)
def test_public_url(url: str, public: str) -> None:
    """User, password, fragment and secrets go; what names the file stays."""
    assert sources.public_url(url) == public
    assert sources.public_url(public) == public


# Failing and meeting.


def test_any_change_may_fail(store: Store, loose: Path) -> None:
    """Whichever change fails: what is named is whole, nothing is left, the next try succeeds."""
    number, failed = 1, True
    while failed:
        try:
            with fail_at(number, calls=ADDING):
                ensure(store, wanted(str(loose)))
            failed = False
        except OSError:
            number += 1
        assert_whole(store)
        assert leftovers(store.volume) == []

    assert number > 5
    assert [*store.ids()] == [BLAKE3]


def test_many_fetch_one_model(store: Store, server: Server) -> None:
    """Threads that fetch one model at once all get it, and there is one entry."""
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(ensure, store, wanted(server.url())) for _ in range(4)]

    assert {future.result().entry for future in futures} == {BLAKE3}
    assert_whole(store)
    assert leftovers(store.volume) == []
