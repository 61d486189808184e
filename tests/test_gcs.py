"""Google Cloud Storage, with the real client and an emulator."""

import hashlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvs.store.entries import Store
from cvs.store.errors import InputError, SourceError
from cvs.store.volume import Volume
from cvs.versions import download, gcs, locate, models, sources
from cvs.versions.access import Access
from cvs.versions.located import Folder, Located
from cvs.versions.remote import Changed
from cvs.versions.sources import Gcs
from cvs.versions.spec import Model as Wanted

DATA = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(DATA).hexdigest()
WHERE = "versions/x.json: models[0]"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of an emulator."""
    from gcp_storage_emulator.server import create_server

    logging.getLogger("gcp_storage_emulator").setLevel(logging.ERROR)
    made = create_server("127.0.0.1", 0, in_memory=True, default_bucket="models")
    made.start()
    yield f"http://127.0.0.1:{made._api._httpd.server_address[1]}"
    made.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The bucket of an emulator that the environment names."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    gcs._service.cache_clear()
    found = gcs._service().client.bucket("models")
    yield found
    for blob in list(found.list_blobs()):
        blob.delete()
    gcs._service.cache_clear()


def put(bucket: Any, name: str, data: bytes = DATA) -> str:
    """Makes an object; its generation."""
    blob = bucket.blob(name)
    blob.upload_from_string(data)
    blob.reload()
    return str(blob.generation)


def test_an_object(bucket: Any) -> None:
    """Its size, and the generation that is there now."""
    generation = put(bucket, "a/m b.st")

    public = f"gs://models/a/m b.st#{generation}"
    assert gcs.locate(Gcs("models", "a/m b.st")) == Located(public, "m b.st", len(DATA))


def test_a_folder(bucket: Any) -> None:
    """All below a prefix, without the objects that stand for folders."""
    first = put(bucket, "a/x.st", b"1")
    second = put(bucket, "a/b/y.json", b"22")
    for name in ("a/b/", "ab.st"):
        put(bucket, name, b"")
    found = gcs.locate(Gcs("models", "a/"))

    assert isinstance(found, Folder)
    assert (found.source, found.name) == ("gs://models/a/", "a")
    assert found.files == (
        ("b/y.json", Located(f"gs://models/a/b/y.json#{second}", "y.json", 2)),
        ("x.st", Located(f"gs://models/a/x.st#{first}", "x.st", 1)),
    )


def test_ranges(bucket: Any) -> None:
    """Each range by its place, the whole without one, and always of the same generation."""
    generation = put(bucket, "m.st")
    remote = gcs.GcsRemote(Gcs("models", "m.st"))
    for start, end in ((0, None), (0, 1), (10, 2000), (len(DATA) - 5, None)):
        reply = remote.open(start, end, generation)
        read = bytearray()
        while data := reply.body.read(1000):
            read += data
        reply.body.close()
        assert (reply.start, reply.size) == (start, len(DATA))
        assert (reply.validator, reply.ranges) == (generation, True)
        assert bytes(read) == DATA[start:end]
    with pytest.raises(Changed, match="changed while it was fetched"):
        remote.open(10, 20, "1")


def test_an_empty_object(bucket: Any) -> None:
    """It has no range, and no byte."""
    put(bucket, "m.st", b"")
    reply = gcs.GcsRemote(Gcs("models", "m.st")).open(0, 1, "")

    assert (reply.size, reply.body.read(10)) == (0, b"")
    reply.body.close()


def test_what_is_not_there(bucket: Any) -> None:
    """An object, a folder, and an object that goes while it is fetched."""
    with pytest.raises(SourceError) as caught:
        gcs.locate(Gcs("models", "none"))
    assert caught.value.message == "gs://models/none does not exist (answer 404)"
    with pytest.raises(SourceError) as caught:
        gcs.locate(Gcs("models", "none/"))
    assert caught.value.message == "gs://models/none/ has no objects"
    put(bucket, "m.st")
    remote = gcs.GcsRemote(Gcs("models", "m.st"))
    remote.open(0, 1, "").body.close()
    bucket.blob("m.st").delete()
    with pytest.raises(Changed, match="is gone, or changed"):
        remote.open(1, 2, "")


@pytest.mark.parametrize("status", [401, 403])
def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """It is said where credentials come from."""
    from google.api_core.exceptions import from_http_status

    class Refusing:
        def bucket(self, name: str) -> Any:
            raise from_http_status(status, "canary")

    monkeypatch.setattr(gcs, "_service", lambda: gcs._Service(Refusing(), None, ""))
    with pytest.raises(SourceError) as caught:
        gcs.locate(Gcs("models", "m.st"))

    assert caught.value.message == f"gs://models/m.st was refused (answer {status})"
    assert "GOOGLE_APPLICATION_CREDENTIALS" in (caught.value.hint or "")


def test_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Those of the environment are used, and without any there is somebody who is nobody."""
    import google.auth
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import DefaultCredentialsError

    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    mine = AnonymousCredentials()  # type: ignore[no-untyped-call]
    asked: list[object] = []

    def default(scopes: object) -> tuple[object, None]:
        asked.append(scopes)
        if len(asked) > 1:
            raise DefaultCredentialsError
        return mine, None

    monkeypatch.setattr(google.auth, "default", default)
    make = gcs._service.__wrapped__
    found = make()
    assert found.session.credentials is mine
    assert found.endpoint == "https://storage.googleapis.com"
    nobody = make()
    assert nobody.session.credentials is not mine
    assert isinstance(nobody.session.credentials, AnonymousCredentials)
    assert asked == [("https://www.googleapis.com/auth/devstorage.read_only",)] * 2


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said how to install it."""
    gcs._service.cache_clear()
    for name in ("google.cloud.storage", "google.auth", "google.api_core.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "google.cloud", None)
    for call in (
        lambda: gcs.locate(Gcs("models", "a")),
        lambda: gcs.locate(Gcs("models", "a/")),
        lambda: gcs.GcsRemote(Gcs("models", "a")).open(0, 1, ""),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.hint == "pip install 'cvs[gcs]'"


# Into the store.


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


def test_an_object_is_stored(store: Store, bucket: Any) -> None:
    """Fetched in ranges of the generation that the lock names."""
    generation = put(bucket, "a/m.st")
    text = "gs://models/a/m.st"
    want = Wanted(name="m.st", source=text, path="m.st", sha256=None, where=WHERE)
    described = locate.describe(store, want, Access())
    found = models.ensure(store, want, described, Access())

    assert (found.source, found.sha256) == (f"{text}#{generation}", SHA256)
    pinned = sources.parse(found.source, WHERE)
    assert b"".join(download.stream(locate.remote(pinned, Access()), None)) == DATA
    assert os.path.isdir(store.path(found.entry)) if found.entry else pytest.fail()
