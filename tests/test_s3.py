"""S3, with the real client and moto's server."""

import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cvs.store.entries import Store
from cvs.store.errors import InputError, SourceError
from cvs.store.volume import Volume
from cvs.versions import download, locate, models, s3, sources
from cvs.versions.access import Access
from cvs.versions.located import Folder, Located
from cvs.versions.remote import Changed, Passing
from cvs.versions.spec import Model as Wanted

DATA = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(DATA).hexdigest()
WHERE = "versions/x.json: models[0]"
SECRET = "canary0123456789"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server."""
    from moto.server import ThreadedMotoServer

    made = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """A client of a server with an empty bucket, and credentials in the environment."""
    import boto3
    import requests

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(s3, "_made", s3._made.__wrapped__)
    requests.post(f"{server}/moto-api/reset", timeout=10).raise_for_status()
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1")
    client.create_bucket(Bucket="models")
    yield client
    client.close()


def source(server: str, key: str = "a/m.st", version: str = "") -> sources.S3:
    """An object of the bucket."""
    return sources.S3("models", key, server, "", version)


def located(server: str, key: str = "a/m.st", version: str = "") -> Located:
    """What is known of an object."""
    found = s3.locate(source(server, key, version))
    assert isinstance(found, Located)
    return found


def test_an_object(server: str, bucket: Any) -> None:
    """Its size, and where it is found; a digest only where there is one of all of it."""
    bucket.put_object(Bucket="models", Key="a/m.st", Body=DATA)

    public = f"s3://models/a/m.st?endpoint={server}"
    assert located(server) == Located(public, "m.st", len(DATA))


def test_an_object_with_a_digest(server: str, bucket: Any) -> None:
    """A checksum that was uploaded with it is its SHA-256."""
    bucket.put_object(Bucket="models", Key="a/m.st", Body=DATA, ChecksumAlgorithm="SHA256")

    assert located(server).sha256 == SHA256


@pytest.mark.parametrize(
    ("found", "sha256"),
    [
        ({}, None),
        ({"ChecksumSHA256": base64.b64encode(bytes(32)).decode()}, "0" * 64),
        (
            {
                "ChecksumSHA256": base64.b64encode(bytes(32)).decode(),
                "ChecksumType": "COMPOSITE",
            },
            None,
        ),
        ({"ChecksumSHA256": base64.b64encode(bytes(32)).decode() + "-2"}, None),
        ({"ChecksumSHA256": "AAAA", "ChecksumType": "FULL_OBJECT"}, None),
        ({"ChecksumSHA256": "*", "ChecksumType": "FULL_OBJECT"}, None),
    ],
)
def test_digests(found: dict[str, str], sha256: str | None) -> None:
    """What came in parts has a digest of digests, which says nothing of the whole."""
    assert s3._sha256(found) == sha256


def test_a_version(server: str, bucket: Any) -> None:
    """Where a bucket keeps versions, the one of now is pinned, and still there later."""
    enabled = {"Status": "Enabled"}
    bucket.put_bucket_versioning(Bucket="models", VersioningConfiguration=enabled)
    first = bucket.put_object(Bucket="models", Key="a/m.st", Body=DATA)["VersionId"]
    found = located(server)
    bucket.put_object(Bucket="models", Key="a/m.st", Body=b"other")

    assert found.source == f"s3://models/a/m.st?endpoint={server}&versionId={first}"
    pinned = sources.parse(found.source, WHERE)
    assert isinstance(pinned, sources.S3)
    assert b"".join(download.stream(s3.S3Remote(pinned), None)) == DATA


def test_a_folder(server: str, bucket: Any) -> None:
    """All below a prefix, without the objects that stand for folders."""
    for key in ("a/x.st", "a/b/y.json", "a/b/", "ab.st"):
        bucket.put_object(Bucket="models", Key=key, Body=key.encode())
    found = s3.locate(source(server, "a/"))

    assert isinstance(found, Folder)
    assert (found.source, found.name) == (f"s3://models/a/?endpoint={server}", "a")
    assert [(path, one.source, one.size) for path, one in found.files] == [
        ("b/y.json", f"s3://models/a/b/y.json?endpoint={server}", 10),
        ("x.st", f"s3://models/a/x.st?endpoint={server}", 6),
    ]


def test_ranges(server: str, bucket: Any) -> None:
    """Each range by its place, the whole without one, and always of the same version."""
    bucket.put_object(Bucket="models", Key="a/m.st", Body=DATA)
    remote = s3.S3Remote(source(server))
    whole = remote.open(0, None, "")
    assert (whole.start, whole.size, whole.ranges) == (0, len(DATA), True)
    whole.body.end()
    whole.body.close()
    for start, end in ((0, 1), (10, 2000), (len(DATA) - 5, None)):
        reply = remote.open(start, end, whole.validator)
        read = bytearray()
        while data := reply.body.read(1000):
            read += data
        reply.body.close()
        assert (reply.start, reply.size) == (start, len(DATA))
        assert reply.validator == whole.validator
        assert bytes(read) == DATA[start:end]
    bucket.put_object(Bucket="models", Key="a/m.st", Body=DATA[::-1])
    with pytest.raises(Changed, match="changed while it was fetched"):
        remote.open(10, 20, whole.validator)


def test_an_empty_object(server: str, bucket: Any) -> None:
    """It has no range, and no byte."""
    bucket.put_object(Bucket="models", Key="a/m.st", Body=b"")
    reply = s3.S3Remote(source(server)).open(0, 1, "")

    assert (reply.size, reply.body.read(10)) == (0, b"")
    reply.body.close()


@pytest.mark.parametrize(
    ("found", "reply"),
    [
        ({"ContentLength": 9}, (0, 9, False)),
        ({"ContentLength": 2, "ContentRange": "bytes 3-4/9"}, (3, 9, True)),
        ({"ContentLength": 2, "ContentRange": "bytes 4-5/9"}, "answers another range"),
        ({"ContentLength": 2, "ContentRange": "bytes x"}, (0, 2, False)),
        ({"ETag": '"2"'}, "changed while it was fetched"),
    ],
)
def test_servers_that_are_not_amazon_s(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any], reply: tuple[object, ...] | str
) -> None:
    """Some know no ranges, or do not look at what version is asked for."""
    import io

    from botocore.response import StreamingBody

    class Client:
        exceptions = None

        def get_object(self, **_: str) -> dict[str, Any]:
            body = StreamingBody(io.BytesIO(b"123456789"), 9)  # type: ignore[no-untyped-call]
            return {"Body": body, "ETag": '"1"', **found}

    monkeypatch.setattr(s3, "_client", lambda _: Client())
    remote = s3.S3Remote(sources.S3("models", "a"))
    if isinstance(reply, str):
        with pytest.raises(SourceError, match=reply):
            remote.open(3, 5, '"1"')
    else:
        got = remote.open(3, 5, '"1"')
        assert (got.start, got.size, got.ranges) == reply


def test_what_is_not_there(server: str, bucket: Any) -> None:
    """An object, a folder, a bucket."""
    for missing, message in (
        (source(server), "does not exist (answer 404)"),
        (source(server, "a/"), "has no objects"),
        (source(server)._replace(bucket="none"), "does not exist (answer 404)"),
    ):
        with pytest.raises(SourceError) as caught:
            s3.locate(missing)
        assert caught.value.message == f"{missing.public} {message}"
    with pytest.raises(SourceError, match="does not exist"):
        s3.S3Remote(source(server)).open(0, 1, "")


def test_nobody_answers(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another try may help while fetching; at resolving it is told."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    nowhere = source("http://127.0.0.1:9")
    with pytest.raises(SourceError, match="cannot be reached"):
        s3.locate(nowhere)
    with pytest.raises(Passing, match="cannot be reached"):
        s3.S3Remote(nowhere).open(0, 1, "")


def test_without_credentials(server: str, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is public is read by anybody: the request is not signed."""
    bucket.put_object(Bucket="models", Key="a/m.st", Body=DATA, ACL="public-read")
    signed = []

    def note(request: Any, **_: object) -> None:
        signed.append(request.headers.get("Authorization"))

    def ask() -> None:
        client = s3._made(server, "")
        client.meta.events.register("before-send.s3", note)
        client.head_object(Bucket="models", Key="a/m.st")

    ask()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    ask()

    assert signed[0] is not None
    assert signed[1] is None


def test_half_of_the_credentials(server: str, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that cannot be used is told, without what it is."""
    monkeypatch.setenv("AWS_PROFILE", "none")
    with pytest.raises(SourceError) as caught:
        s3.locate(source(server))

    assert "ProfileNotFound" in caught.value.message
    assert "AWS_PROFILE" in (caught.value.hint or "")


def test_the_endpoint_of_the_environment(
    server: str, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source without an endpoint is asked where the client's own settings say."""
    bucket.put_object(Bucket="models", Key="a/m.st", Body=DATA)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server)

    assert located("") == Located("s3://models/a/m.st", "m.st", len(DATA))


@pytest.mark.parametrize(
    ("endpoint", "region", "expected"),
    [
        ("https://s3api-eu-ro-1.runpod.io", "", "EU-RO-1"),
        ("https://s3api-eu-ro-1.runpod.io/", "eu-x", "eu-x"),
        ("https://s3.example.org", "", "us-east-1"),
    ],
)
def test_the_region(bucket: Any, endpoint: str, region: str, expected: str) -> None:
    """That of a network volume of RunPod is the data centre, which its address names."""
    client = s3._client(sources.S3("volume", "a", endpoint, region))

    assert client.meta.region_name == expected
    client.close()


def test_without_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said how to install it."""
    import sys

    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(InputError) as caught:
        s3.locate(sources.S3("models", "a"))

    assert caught.value.hint == "pip install 'cvs[s3]'"


# Into the store.


@pytest.fixture
def volume(memory_volume: Volume) -> Volume:
    """A volume that syncs fast."""
    return memory_volume


def test_an_object_is_stored(store: Store, server: str, bucket: Any) -> None:
    """Fetched in ranges, under its public address; no secret is kept."""
    bucket.put_object(Bucket="models", Key="a/m.st", Body=DATA)
    text = f"s3://models/a/m.st?endpoint={server}"
    want = Wanted(name="m.st", source=text, path="m.st", sha256=None, where=WHERE)
    found = models.ensure(store, want, locate.describe(store, want, Access()), Access())

    assert (found.source, found.sha256, found.size) == (text, SHA256, len(DATA))
    assert found.entry is not None
    assert SECRET.encode() not in Path(store.path(found.entry), "manifest.json").read_bytes()


def test_a_folder_is_stored(store: Store, server: str, bucket: Any) -> None:
    """Its files become one tree."""
    for key in ("a/x.st", "a/b/y.json"):
        bucket.put_object(Bucket="models", Key=key, Body=DATA[:100])
    text = f"s3://models/a/?endpoint={server}"
    want = Wanted(name="a", source=text, path="d/a", sha256=None, where=WHERE)
    found = models.ensure(store, want, locate.describe(store, want, Access()), Access())

    assert found.entry is not None
    folder = Path(store.volume.store, store.content(found.entry))
    assert (folder / "b/y.json").read_bytes() == DATA[:100]
