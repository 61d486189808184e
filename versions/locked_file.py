"""The file that a lock names, a wheel or a source archive: had from the nearest place, and checked.

Every place is believed only as far as the lock's SHA-256.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from cvs.store import fs
from cvs.store.errors import IntegrityError, SourceError
from cvs.store.ingest import chunks
from cvs.store.progress import Task
from cvs.versions import parallel
from cvs.versions.lock import Wheel
from cvs.versions.spec import PythonSettings


class LockedFile(NamedTuple):
    """What a lock says of a file."""

    name: str
    sha256: str
    url: str
    """"" for one that came from a local folder."""
    size: int | None = None


def of_wheel(one: Wheel) -> LockedFile:
    """What a lock says of a wheel's file."""
    return LockedFile(one.file, one.sha256, one.url, one.size)


def _folder(link: str) -> str:
    return unquote(urlsplit(link).path) if link.startswith("file:") else link


def nearby(name: str, settings: PythonSettings, wheels_dir: str | None) -> list[str]:
    """The files of local folders that bear a name, in the order in which they are asked."""
    folders = [*([wheels_dir] if wheels_dir else []), *map(_folder, settings.find_links)]
    paths = [os.path.join(folder, name) for folder in folders if "://" not in folder]
    return [path for path in paths if os.path.isfile(path)]


def measure(path: str) -> tuple[str, int]:
    """SHA-256 and size of a local file. Raises SourceError if it cannot be read."""
    checksum, size = hashlib.sha256(), 0
    try:
        for chunk in chunks(path):
            checksum.update(chunk)
            size += len(chunk)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    return checksum.hexdigest(), size


def check_sha256(path: str, sha256: str) -> None:
    """Raises IntegrityError unless a file has that digest, SourceError if it cannot be read."""
    found, _ = measure(path)
    if found != sha256:
        raise IntegrityError(f"{path} has the SHA-256 {found} instead of {sha256}")


@contextlib.contextmanager
def obtained(
    file: LockedFile,
    near: Sequence[str],
    *,
    lenders: Sequence[str],
    scratch: str,
    task: Task,
    stop: threading.Event,
) -> Iterator[str]:
    """The path of a file that is what the lock says, under its own name.

    Args:
        near: paths that are tried first; one with other bytes is passed over.
        lenders: URLs that lend their credentials to downloads from the same place.
        scratch: a folder on local disk for what is downloaded; it is removed on leaving.

    Raises:
        SourceError: no place has it.
        Stopped: `stop` was set.
    """
    problem: IntegrityError | None = None
    for path in near:
        try:
            check_sha256(path, file.sha256)
        except IntegrityError as error:
            problem = error
            continue
        task.advance(file.size or 0)
        yield path
        return
    if not file.url:
        said = problem.message if problem else f"{file.name} is in no folder"
        raise SourceError(said) from problem
    with _downloaded(file, lenders, scratch, task, stop) as path:
        yield path


@contextlib.contextmanager
def _downloaded(
    file: LockedFile, lenders: Sequence[str], scratch: str, task: Task, stop: threading.Event
) -> Iterator[str]:
    from cvs.versions import download

    folder = os.path.join(scratch, fs.unique())
    os.mkdir(folder)
    path = os.path.join(folder, file.name)
    try:
        with open(path, "wb") as output:
            url = download.lend_credentials(file.url, lenders)
            for chunk in download.chunks(url, size=file.size):
                parallel.check(stop)
                output.write(chunk)
                task.advance(len(chunk))
        try:
            check_sha256(path, file.sha256)
        except IntegrityError:
            raise SourceError(
                f"{download.show(file.url)} is not what the lock names: it has another SHA-256",
                hint="what the index serves was replaced; `cvs update` would lock it anew",
            ) from None
        yield path
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.rmdir(folder)
