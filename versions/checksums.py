"""The SHA-256 of many files: of links into the store from their manifests, of others by reading."""

import functools
import hashlib
import os
from collections.abc import Sequence

from cvs.store import workers
from cvs.store.digest import EntryId, is_id
from cvs.store.entries import Store
from cvs.store.errors import CvsError, InputError
from cvs.store.ingest import chunks
from cvs.store.manifest import FileManifest
from cvs.store.progress import Task
from cvs.versions import parallel
from cvs.versions.access import Access


def of_files(store: Store, paths: Sequence[str], access: Access) -> list[str]:
    """The SHA-256 of files, in their order; several are read at once, each once.

    Raises:
        InputError: one cannot be read.
    """
    real = [os.path.realpath(path) for path in paths]
    sizes = {path: os.path.getsize(path) for path in real}
    many = workers.count_for(store.volume.syncs_at_once)
    count = "1 file" if len(sizes) == 1 else f"{len(sizes)} files"
    with access.progress.task(f"checksums of {count}", sum(sizes.values())) as task:
        jobs = [functools.partial(_of_file, store, path, task, access) for path in sizes]
        found = dict(zip(sizes, parallel.gather(jobs, workers=many, stop=access.stop), strict=True))
    return [found[path] for path in real]


def _of_file(store: Store, path: str, task: Task, access: Access) -> str:
    known = _stored(store, path)
    if known:
        task.skip(os.path.getsize(path))
        return known
    digest = hashlib.sha256()
    try:
        for chunk in chunks(path):
            parallel.check(access.stop)
            digest.update(chunk)
            task.advance(len(chunk))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    return digest.hexdigest()


def _stored(store: Store, path: str) -> str:
    """What the manifest of an entry says of the file that it is; "" for another file."""
    inside = os.path.relpath(path, os.path.realpath(store.volume.store))
    entry, _, name = inside.partition("/")
    if not is_id(entry):
        return ""
    try:
        document = store.manifest(EntryId(entry))
    except CvsError:
        return ""
    if isinstance(document, FileManifest) and document.content == name:
        return document.sha256
    return ""
