"""Google Cloud Storage: what is known of an object or folder, and how an object is read in ranges.

With the default credentials where there are any, else as anybody: public objects need none.
"""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

from cvs.store.errors import InputError, SourceError
from cvs.versions.http import PASSING, ResponseBody
from cvs.versions.located import Folder, Located
from cvs.versions.remote import Changed, Passing, Reply
from cvs.versions.sources import Gcs

#: Objects of the largest folder.
_OBJECTS = 100_000

#: Seconds to connect, and between two pieces of an answer.
_TIMEOUTS = (15, 30)

#: What is asked for in the name of the default credentials.
_SCOPES = ("https://www.googleapis.com/auth/devstorage.read_only",)
_PUBLIC = "https://storage.googleapis.com"

_HINT = (
    "credentials are those of GOOGLE_APPLICATION_CREDENTIALS or of "
    "`gcloud auth application-default login`"
)


class _Service(NamedTuple):
    """The client, and what it asks with."""

    client: Any
    session: Any
    endpoint: str


def locate(source: Gcs) -> Located | Folder:
    """What the bucket knows of an object, or of all whose names begin with a folder's.

    Raises:
        SourceError: it does not have it, or refuses it.
        InputError: the client is not installed.
    """
    if source.folder:
        return _folder(source)
    return _located(source, _object(source))


def _object(source: Gcs) -> Any:
    generation = int(source.generation) if source.generation else None
    with _told(source.public):
        found = _service().client.bucket(source.bucket).blob(source.name, generation=generation)
        found.reload(timeout=_TIMEOUTS)
    return found


def _folder(source: Gcs) -> Folder:
    found: list[tuple[str, Located]] = []
    with _told(source.public):
        objects = _service().client.list_blobs(
            source.bucket, prefix=source.name, max_results=_OBJECTS + 1, timeout=_TIMEOUTS
        )
        for one in objects:
            # Some programs make an empty object for a folder itself.
            if not one.name.endswith("/"):
                place = one.name.removeprefix(source.name)
                found.append((place, _located(source._replace(name=one.name), one)))
    if len(found) > _OBJECTS:
        raise SourceError(f"{source.public} has more than {_OBJECTS} objects")
    if not found:
        raise SourceError(f"{source.public} has no objects")
    name = source.name.rstrip("/").rpartition("/")[2] or source.bucket
    return Folder(source.public, name, tuple(sorted(found)))


def _located(source: Gcs, found: Any) -> Located:
    pinned = source._replace(generation=str(found.generation))
    return Located(pinned.public, source.name.rpartition("/")[2], found.size)


class GcsRemote:
    """An object; see `remote.Remote`. Its generation is what names its version."""

    def __init__(self, source: Gcs) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._known: tuple[str, int] | None = None

    @property
    def shown(self) -> str:
        """`gs://bucket/name#generation`"""
        return self._source.public

    def open(self, start: int, end: int | None, validator: str) -> Reply:
        """Asks for a range; see `remote.Remote.open`."""
        generation, size = self._version()
        import google.auth.exceptions
        import requests

        if validator and validator != generation:
            raise Changed(f"{self.shown} changed while it was fetched")
        # An empty object has no range.
        ranged = bool(size) and (bool(start) or end is not None)
        headers = {"Accept-Encoding": "identity"}
        if ranged:
            headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        service = _service()
        source = self._source
        url = (
            f"{service.endpoint}/download/storage/v1/b/{quote(source.bucket, safe='')}"
            f"/o/{quote(source.name, safe='')}?alt=media&generation={generation}"
        )
        try:
            response = service.session.get(url, headers=headers, stream=True, timeout=_TIMEOUTS)
        except google.auth.exceptions.GoogleAuthError:
            raise SourceError(f"{self.shown}: the credentials are refused", hint=_HINT) from None
        except requests.RequestException:
            raise Passing("cannot be reached") from None
        status = response.status_code
        if status == (206 if ranged else 200):
            body = ResponseBody(response)
            return Reply(body, start if ranged else 0, size, generation, ranges=True)
        response.close()
        if status in PASSING:
            raise Passing(f"answered {status}")
        if status in (404, 412):
            raise Changed(f"{self.shown} is gone, or changed while it was fetched")
        hint = _HINT if status in (401, 403) else None
        raise SourceError(f"{self.shown} was refused (answer {status})", hint=hint)

    def _version(self) -> tuple[str, int]:
        """The generation that is read, and its size."""
        with self._lock:
            if self._known is None:
                found = _object(self._source)
                self._known = str(found.generation), int(found.size)
            return self._known


@contextlib.contextmanager
def _told(shown: str) -> Iterator[None]:
    """Says in a sentence what the client raises."""
    _service()
    import google.api_core.exceptions as answers
    import google.auth.exceptions
    import requests

    try:
        yield
    except answers.NotFound:
        raise SourceError(f"{shown} does not exist (answer 404)") from None
    except (answers.Unauthorized, answers.Forbidden) as error:
        raise SourceError(f"{shown} was refused (answer {error.code})", hint=_HINT) from None
    except google.auth.exceptions.GoogleAuthError:
        raise SourceError(f"{shown}: the credentials are refused", hint=_HINT) from None
    except answers.GoogleAPICallError as error:
        raise SourceError(f"{shown} answered {error.code}") from None
    except (answers.RetryError, requests.RequestException):
        raise SourceError(f"{shown} cannot be reached") from None


@functools.cache
def _service() -> _Service:
    """The client of the run.

    Raises:
        InputError: it is not installed.
    """
    try:
        import google.auth
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import DefaultCredentialsError
        from google.auth.transport.requests import AuthorizedSession
        from google.cloud import storage
    except ImportError:
        raise InputError(
            "gs:// sources need the client of Google Cloud Storage",
            hint="pip install 'cvs[gcs]'",
        ) from None
    credentials: Any = AnonymousCredentials()
    client = storage.Client(project=None, credentials=credentials)
    if client.api_endpoint == _PUBLIC:
        # Elsewhere is an emulator (STORAGE_EMULATOR_HOST), which wants none.
        with contextlib.suppress(DefaultCredentialsError):
            credentials, _ = google.auth.default(scopes=_SCOPES)
            client = storage.Client(project=None, credentials=credentials)
    return _Service(client, AuthorizedSession(credentials), client.api_endpoint)
