"""Models: how one gets into the store, from wherever it lives."""

import functools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

import msgspec

from cvs.store import refs
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import (
    CvsError,
    InputError,
    IntegrityError,
    OfflineError,
    SourceError,
)
from cvs.store.ingest import chunks
from cvs.store.manifest import FileManifest, TreeManifest
from cvs.store.progress import Task
from cvs.store.stage import Stage, Staged
from cvs.versions import locate, parallel, sources
from cvs.versions.access import Access
from cvs.versions.lock import Model, ModelFile
from cvs.versions.remote import Remote
from cvs.versions.sources import Local, Source
from cvs.versions.spec import Model as Wanted

if TYPE_CHECKING:
    from cvs.versions import fetch

T = TypeVar("T")


def local_path(wanted: Wanted) -> str | None:
    """The absolute path of a source on this machine; None for another kind of source.

    Raises:
        InputError: it is of a kind that is not known, or not of its kind's form.
    """
    found = sources.parse(wanted.source, f"{wanted.where}.source")
    return found.path if isinstance(found, sources.Local) else None


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
    if isinstance(document, FileManifest) and not model.files:
        known = {"sha256": document.sha256, "size": document.size}
        return msgspec.structs.replace(model, entry=entry, **known)
    if not isinstance(document, TreeManifest) or model.sha256:
        raise IntegrityError(f"entry {entry[:16]} is not a file, {model.path} is one")
    return msgspec.structs.replace(model, entry=entry, size=document.size)


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
    """Fetches a model from the first of its origins that has it."""

    def once(origin: Source) -> EntryId:
        if isinstance(origin, Local):
            with store.stage() as stage:
                return _publish(store, _stage_local(stage, origin, wanted, model, access))
        if model.files:
            return _fetch_folder(store, wanted, model, access)
        from cvs.versions import fetch

        expected = fetch.Expected(
            name=model.name,
            origin=origin.public,
            where=wanted.where,
            size=model.size,
            sha256=model.sha256,
            entry=model.entry,
        )
        remote = locate.remote(origin, access)
        return fetch.file(store, remote, expected, access, _check(model, access))

    return _from_any(wanted, model, access, once)


def _fetch_folder(store: Store, wanted: Wanted, model: Model, access: Access) -> EntryId:
    from cvs.versions import fetch

    files = []
    for one, remote in _remotes(wanted, model, access):
        expected = fetch.Expected(
            name=one.path,
            origin=one.source,
            where=wanted.where,
            size=one.size,
            sha256=one.sha256,
            git=one.git,
        )
        files.append((one.path, remote, expected))
    check = _check(model, access)
    entry = fetch.folder(
        store, model.name, files, access, check, origin=model.source, where=wanted.where
    )
    if model.entry not in (None, entry):
        raise IntegrityError(
            f"{wanted.where}: {model.name} has become the entry {entry}, expected is {model.entry}"
        )
    return entry


def _remotes(wanted: Wanted, model: Model, access: Access) -> Iterator[tuple[ModelFile, Remote]]:
    """The files of a folder, at their origin."""
    for one in model.files:
        origin = sources.parse(one.source, f"{wanted.where}: {one.path}")
        yield one, locate.remote(origin, access)


def _from_any(wanted: Wanted, model: Model, access: Access, once: Callable[[Source], T]) -> T:
    """What the first origin of a model gives that has it.

    Raises:
        OfflineError: all of them are elsewhere, and no connection may be made.
        InputError, IntegrityError, SourceError: none of them gives it; tells what each one said.
    """
    found = locate.origins(wanted, model)
    near = [one for one in found if not access.offline or isinstance(one, Local)]
    if not near:
        raise OfflineError(
            f"{wanted.where}: the model {model.name} ({model.source}) is not stored "
            "and no connection may be made"
        )
    failures: list[CvsError] = []
    for origin in near:
        try:
            with locate.placed(wanted.where):
                return once(origin)
        except (InputError, IntegrityError, SourceError) as error:
            failures.append(error)
            if origin is not near[-1]:
                access.progress.note(f"{error.message}; the next source is tried")
    raise locate.of_all(wanted, failures)


def _check(model: Model, access: Access) -> "fetch.Check":
    """What a complete file must be before it is stored: where a digest says what was wanted it is
    that, unless no pickle may be."""
    from cvs.versions import formats

    if (model.sha256 or model.entry) and access.allow_pickle:
        return lambda path, name: None
    return functools.partial(
        formats.check, allow_pickle=access.allow_pickle, warn=access.progress.warn
    )


def stage_model(stage: Stage, wanted: Wanted, model: Model, access: Access) -> Staged:
    """Writes a model from its origin into a stage, whatever is stored.

    Raises: as `ensure`.
    """

    def once(origin: Source) -> Staged:
        if isinstance(origin, Local):
            return _stage_local(stage, origin, wanted, model, access)
        if model.files:
            return _stage_folder(stage, wanted, model, access)
        from cvs.versions import download

        with access.progress.task(f"fetching {model.name}", model.size) as task:
            received = download.stream(locate.remote(origin, access), model.size)
            pieces = _counted(received, task, access)
            staged = stage.file(pieces, origin=origin.public, name=model.name)
        return _checked(staged, wanted, model, access)

    return _from_any(wanted, model, access, once)


def _stage_folder(stage: Stage, wanted: Wanted, model: Model, access: Access) -> Staged:
    """Writes the files of a folder; a repair compares the tree with the one that was there."""
    from cvs.versions import download

    tree = stage.tree(model.name)
    with access.progress.task(f"fetching {model.name}", model.size) as task:
        for one, remote in _remotes(wanted, model, access):
            received = download.stream(remote, one.size)
            tree.write_chunks(os.fsencode(one.path), _counted(received, task, access))
    return tree.finish(origin=model.source)


def _stage_local(
    stage: Stage, origin: Local, wanted: Wanted, model: Model, access: Access
) -> Staged:
    with access.progress.task(f"fetching {model.name}", model.size) as task:
        local = _local_chunks(origin.path, f"{wanted.where}.source: {origin.path}")
        pieces = _counted(local, task, access)
        staged = stage.file(pieces, origin=model.name, name=model.name)
    return _checked(staged, wanted, model, access)


def _checked(staged: Staged, wanted: Wanted, model: Model, access: Access) -> Staged:
    """A staged file, if it is what was wanted.

    Raises:
        IntegrityError: it has another digest.
        SourceError: it is no model, or one that may not be.
    """
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
