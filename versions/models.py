"""Models: where one lives, what is known of it beforehand, and how it gets into the store.

Sources here: http(s) URLs, file:// URLs and paths of this machine.
"""

import contextlib
import functools
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from cvs.store import refs
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError, OfflineError, SourceError
from cvs.store.ingest import chunks
from cvs.store.manifest import FileManifest
from cvs.store.progress import Task
from cvs.store.stage import Stage, Staged
from cvs.versions import parallel, sources
from cvs.versions.access import Access
from cvs.versions.lock import Model
from cvs.versions.remote import Remote
from cvs.versions.spec import Model as Wanted

if TYPE_CHECKING:
    from cvs.versions import fetch


def describe(wanted: Wanted, access: Access) -> Model:
    """What can be known of a model before it is fetched.

    Raises:
        InputError: a source of a kind that is not known, or a local file that is not there.
        SourceError: the server does not have it.
    """
    size: int | None
    path = local_path(wanted)
    if path is not None:
        try:
            size = os.stat(path).st_size
        except OSError as error:
            raise InputError(f"{wanted.where}.source: {path}: {error.strerror}") from None
        if not os.path.isfile(path):
            raise InputError(f"{wanted.where}.source: {path} is not a file")
        source = ""
    else:
        from cvs.versions import download

        source = sources.public_url(wanted.source)
        with _placed(wanted.where):
            size = None if access.offline else download.answer(_remote(wanted, access)).size
    return Model(
        name=wanted.name,
        path=wanted.path,
        request=wanted.request,
        source=source,
        size=size,
        sha256=wanted.sha256,
        entry=None,
    )


def local_path(wanted: Wanted) -> str | None:
    """The absolute path of a source on this machine; None for another kind of source.

    Raises:
        InputError: it is of a kind that is not known, or not of its kind's form.
    """
    found = sources.parse(wanted.source, f"{wanted.where}.source")
    return found.path if isinstance(found, sources.Local) else None


def _remote(wanted: Wanted, access: Access) -> Remote:
    from cvs.versions.http import HttpRemote

    return HttpRemote(wanted.source, tokens=access.tokens)


def stored(store: Store, model: Model) -> EntryId | None:
    """The entry of a model that need not be fetched.

    A sha256 counts as a name where this volume's own ingest computed it (a ref).
    """
    if model.entry is not None and store.has(model.entry):
        return model.entry
    if model.sha256 is not None:
        entry = refs.get(store.volume, "sha256", model.sha256)
        if entry is not None and store.has(entry):
            return entry
    return None


def ensure(store: Store, wanted: Wanted, model: Model, access: Access) -> Model:
    """Puts a model into the store, if it is not there, and completes what the lock says of it.

    Taken from a loose file of `access.model_dirs` where one has the right bytes, else from its
    source. What a lock knows, fetched bytes must fit; what it does not know yet is filled in.

    Raises:
        IntegrityError: the bytes have another digest; names both, keeps nothing.
        OfflineError: it would have to be fetched.
        SourceError: the server does not give it.
    """
    entry = stored(store, model)
    if entry is None:
        entry = _take_loose(store, model, access) or _fetch(store, wanted, model, access)
    document = store.manifest(entry)
    if not isinstance(document, FileManifest):
        raise IntegrityError(f"entry {entry[:16]} is not a file, {model.path} is one")
    return msgspec.structs.replace(model, entry=entry, sha256=document.sha256, size=document.size)


def _take_loose(store: Store, model: Model, access: Access) -> EntryId | None:
    """Takes a model that lies in a folder of the user already, if its bytes are the right ones."""
    for path in loose(model, access):
        with store.stage() as stage:
            try:
                staged = stage_loose(stage, path, model, access)
            except InputError:
                # It cannot be read, so the model comes from its source.
                continue
            if _fits(model, staged):
                access.progress.note(
                    f"took {model.path} from {path.removesuffix('/' + model.path)}"
                )
                return _publish(store, staged)
    return None


def loose(model: Model, access: Access) -> Iterator[str]:
    """Loose files that may be a model, by their places and sizes."""
    if model.sha256 is None and model.entry is None:
        return
    for folder in access.model_dirs:
        path = os.path.join(folder, model.path)
        try:
            size = os.stat(path).st_size
        except OSError:
            continue
        if os.path.isfile(path) and (model.size or size) == size:
            yield path


def stage_loose(stage: Stage, path: str, model: Model, access: Access) -> Staged:
    """Writes a loose file into a stage, whatever it is.

    Raises:
        InputError: it cannot be read.
    """
    with access.progress.task(f"checking {model.name}", os.path.getsize(path)) as task:
        pieces = _counted(_local_chunks(path, path), task, access)
        return stage.file(pieces, origin=model.name, name=model.name)


def _fetch(store: Store, wanted: Wanted, model: Model, access: Access) -> EntryId:
    _check_online(wanted, model, access)
    if local_path(wanted) is not None:
        with store.stage() as stage:
            staged = stage_model(stage, wanted, model, access)
            return _publish(store, staged)
    from cvs.versions import fetch

    expected = fetch.Expected(
        name=model.name,
        origin=model.source,
        where=wanted.where,
        size=model.size,
        sha256=model.sha256,
        entry=model.entry,
    )
    with _placed(wanted.where):
        return fetch.file(store, _remote(wanted, access), expected, access, _check(model, access))


def _check(model: Model, access: Access) -> "fetch.Check":
    """What a complete file must be before it is stored: where a digest says what was wanted it is
    that, unless no pickle may be."""
    from cvs.versions import formats

    if (model.sha256 or model.entry) and access.allow_pickle:
        return lambda path, name: None
    return functools.partial(
        formats.check, allow_pickle=access.allow_pickle, warn=access.progress.warn
    )


def _check_online(wanted: Wanted, model: Model, access: Access) -> None:
    if access.offline and local_path(wanted) is None:
        raise OfflineError(
            f"{wanted.where}: the model {model.name} ({model.source}) is not stored "
            "and no connection may be made"
        )


def stage_model(stage: Stage, wanted: Wanted, model: Model, access: Access) -> Staged:
    """Writes a model from its source into a stage, whatever is stored.

    Raises: as `ensure`.
    """
    _check_online(wanted, model, access)
    path = local_path(wanted)
    with access.progress.task(f"fetching {model.name}", model.size) as task:
        if path is not None:
            local = _local_chunks(path, f"{wanted.where}.source: {path}")
            pieces = _counted(local, task, access)
            staged = stage.file(pieces, origin=model.name, name=model.name)
        else:
            from cvs.versions import download

            received = download.stream(_remote(wanted, access), model.size)
            with _placed(wanted.where):
                pieces = _counted(received, task, access)
                staged = stage.file(pieces, origin=model.source, name=model.name)
        assert isinstance(staged.manifest, FileManifest)
        content = os.path.join(staged.folder, staged.manifest.content)
        _check(model, access)(content, model.name)
        if not _fits(model, staged):
            known = model.sha256 or model.entry
            found = staged.manifest.sha256 if model.sha256 else staged.id
            raise IntegrityError(
                f"{wanted.where}: {model.name} has the digest {found}, expected is {known}: "
                "nothing was kept"
            )
        return staged


def _local_chunks(path: str, what: str) -> Iterator[memoryview]:
    """A local file's bytes; that it cannot be read is told apart from what writing may raise."""
    try:
        yield from chunks(path)
    except OSError as error:
        raise InputError(f"{what}: {error.strerror}") from None


@contextlib.contextmanager
def _placed(where: str) -> Iterator[None]:
    """Puts the place in the spec before what a server is to blame for."""
    try:
        yield
    except SourceError as error:
        raise SourceError(f"{where}: {error.message}", hint=error.hint) from None


def _publish(store: Store, staged: Staged) -> EntryId:
    assert isinstance(staged.manifest, FileManifest)
    entry = store.publish(staged)[0]
    refs.put(store.volume, "sha256", staged.manifest.sha256, entry)
    return entry


def _fits(model: Model, staged: Staged) -> bool:
    assert isinstance(staged.manifest, FileManifest)
    return model.sha256 in (None, staged.manifest.sha256) and model.entry in (None, staged.id)


def _counted(pieces: Iterator[memoryview], task: Task, access: Access) -> Iterator[memoryview]:
    for piece in pieces:
        parallel.check(access.stop)
        yield piece
        task.advance(len(piece))
