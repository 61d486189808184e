"""S3 and what speaks its protocol: what is known of an object or folder, and how an object is read
in ranges.

With the credentials that boto3 finds where there are any, else as anybody.
"""

import base64
import contextlib
import functools
import re
from collections.abc import Iterator
from typing import Any

from cvs.store.errors import InputError, SourceError
from cvs.versions.located import Folder, Located
from cvs.versions.remote import Changed, Passing, Reply
from cvs.versions.sources import S3

#: Objects of the largest folder.
_OBJECTS = 100_000

#: Bytes that are waited for at once.
_PIECE = 1 << 18

#: Where nothing else is said; most servers that are not Amazon's take any.
_REGION = "us-east-1"

_SPAN = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/([0-9]{1,18})")

#: RunPod's network volumes: the data centre stands in the address, and must be the region.
_RUNPOD = re.compile(r"https://s3api-([a-z0-9-]+)\.runpod\.io/?")

_HINT = (
    "credentials are those of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or of a profile of "
    "~/.aws that AWS_PROFILE names"
)


def locate(source: S3) -> Located | Folder:
    """What the bucket knows of an object, or of all whose keys begin with a folder's.

    Raises:
        SourceError: it does not have it, or refuses it.
        InputError: the client is not installed.
    """
    if source.folder:
        return _folder(source)
    with _told(source):
        found = _client(source).head_object(**_named(source), ChecksumMode="ENABLED")
    version = found.get("VersionId", "null")
    pinned = source if version == "null" else source._replace(version=version)
    return Located(
        source=pinned.public,
        name=source.key.rpartition("/")[2],
        size=found.get("ContentLength"),
        sha256=_sha256(found),
    )


def _sha256(found: Any) -> str | None:
    """The digest of an object; that of one which came in parts is a digest of digests."""
    text = found.get("ChecksumSHA256", "")
    if found.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT" or "-" in text:
        return None
    with contextlib.suppress(ValueError):
        digest = base64.b64decode(text, validate=True)
        return digest.hex() if len(digest) == 32 else None
    return None


def _folder(source: S3) -> Folder:
    found: list[tuple[str, Located]] = []
    with _told(source):
        pages = _client(source).get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=source.bucket, Prefix=source.key):
            for one in page.get("Contents", ()):
                # Some programs make an empty object for a folder itself.
                if not one["Key"].endswith("/"):
                    file = source._replace(key=one["Key"])
                    name = one["Key"].rpartition("/")[2]
                    place = one["Key"].removeprefix(source.key)
                    found.append((place, Located(file.public, name, one.get("Size"))))
            if len(found) > _OBJECTS:
                raise SourceError(f"{source.public} has more than {_OBJECTS} objects")
    if not found:
        raise SourceError(f"{source.public} has no objects")
    name = source.key.rstrip("/").rpartition("/")[2] or source.bucket
    return Folder(source.public, name, tuple(sorted(found)))


class S3Remote:
    """An object; see `remote.Remote`. Its ETag is what names its version."""

    def __init__(self, source: S3) -> None:
        self._source = source

    @property
    def shown(self) -> str:
        """`s3://bucket/key`"""
        return self._source.public

    def open(self, start: int, end: int | None, validator: str) -> Reply:
        """Asks for a range; see `remote.Remote.open`."""
        asked = _named(self._source)
        if start or end is not None:
            asked["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        if validator:
            asked["IfMatch"] = validator
        with _told(self._source, fetching=True):
            try:
                found = _client(self._source).get_object(**asked)
            except _client(self._source).exceptions.ClientError as error:
                # An empty object has no range.
                if _status(error) != 416 or start:
                    raise
                del asked["Range"]
                found = _client(self._source).get_object(**asked)
        name = found.get("ETag", "")
        if validator and name != validator:
            # A server that does not know IfMatch.
            found["Body"].close()
            raise Changed(f"{self.shown} changed while it was fetched")
        body = _Body(found["Body"])
        span = _SPAN.fullmatch(found.get("ContentRange", ""))
        if span is None:
            # Some servers know no ranges and give all of it.
            size = found.get("ContentLength")
            return Reply(body, 0, size, name, ranges="Range" not in asked)
        if int(span[1]) != start:
            body.close()
            raise SourceError(f"{self.shown} answers another range than was asked for")
        return Reply(body, start, int(span[2]), name, ranges=True)


class _Body:
    """The body of an answer; see `remote.Body`."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def read(self, limit: int) -> bytes:
        """Some of the bytes; see `remote.Body.read`."""
        import botocore.exceptions
        import urllib3

        try:
            data: bytes = self._stream.read(min(limit, _PIECE))
            return data
        except botocore.exceptions.ReadTimeoutError:
            raise Passing("stopped answering") from None
        except (
            botocore.exceptions.BotoCoreError,
            urllib3.exceptions.HTTPError,
            OSError,
            ValueError,
        ):
            # The last is of an answer that another thread ended.
            raise Passing("broke off") from None

    def end(self) -> None:
        """There is no way to wake up who waits: it comes back when its time is over."""

    def close(self) -> None:
        """Ends the answer."""
        self._stream.close()


def _named(source: S3) -> dict[str, str]:
    named = {"Bucket": source.bucket, "Key": source.key}
    return {**named, "VersionId": source.version} if source.version else named


def _status(error: Any) -> int:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status if isinstance(status, int) else 0


@contextlib.contextmanager
def _told(source: S3, *, fetching: bool = False) -> Iterator[None]:
    """Says in a sentence what the client raises; what may pass as that, while fetching."""
    _library()
    import botocore.exceptions

    shown = source.public
    try:
        yield
    except botocore.exceptions.ClientError as error:
        status = _status(error)
        if status == 412:
            raise Changed(f"{shown} changed while it was fetched") from None
        if status in (404, 410):
            raise SourceError(f"{shown} does not exist (answer {status})") from None
        if fetching and (status in (408, 429) or status >= 500):
            raise Passing(f"answered {status}") from None
        hint = _HINT if status in (400, 401, 403) else None
        raise SourceError(f"{shown} was refused (answer {status})", hint=hint) from None
    except (
        botocore.exceptions.ConnectionError,
        botocore.exceptions.HTTPClientError,
        OSError,
    ):
        if fetching:
            raise Passing("cannot be reached") from None
        raise SourceError(f"{shown} cannot be reached") from None
    except botocore.exceptions.BotoCoreError as error:
        # Of a setting: a profile that is not there, credentials that are half.
        raise SourceError(f"{shown}: {type(error).__name__}", hint=_HINT) from None


def _client(source: S3) -> Any:
    runpod = _RUNPOD.fullmatch(source.endpoint)
    return _made(source.endpoint, source.region or (runpod[1].upper() if runpod else ""))


@functools.cache
def _made(endpoint: str, region: str) -> Any:
    """A client; those of one endpoint and region share it."""
    boto3 = _library()
    import botocore
    from botocore.config import Config

    session = boto3.session.Session()
    anonymous = session.get_credentials() is None
    config = Config(
        connect_timeout=15,
        read_timeout=30,
        max_pool_connections=32,
        # What is ranges here is digested as a whole.
        response_checksum_validation="when_required",
        s3={"addressing_style": "path"} if endpoint else None,
        signature_version=botocore.UNSIGNED if anonymous else None,
    )
    return session.client(
        "s3",
        endpoint_url=endpoint or None,
        region_name=region or session.region_name or _REGION,
        config=config,
    )


def _library() -> Any:
    """boto3.

    Raises:
        InputError: it is not installed.
    """
    try:
        import boto3
    except ImportError:
        raise InputError(
            "s3:// sources need the client of S3", hint="pip install 'cvs[s3]'"
        ) from None
    return boto3
