"""Where an entry comes from: what the locks of a volume know of it, as sources for a repair.

Everything is fetched anew, whatever is stored: what is stored is what was found damaged. A source
is believed in nothing, so that a guess does no harm: the origin in a manifest is one.
"""

import functools
import glob
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import msgspec

from cvs.store import manifest, record, refs, tree
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, SourceError, StoreError
from cvs.store.progress import SILENT, Progress
from cvs.store.source import Maker
from cvs.store.stage import Stage, Staged
from cvs.store.volume import Volume
from cvs.versions import locate, locked_file, models, wheel, wheels
from cvs.versions import lock as locks
from cvs.versions import repository as repositories
from cvs.versions.access import Access
from cvs.versions.lock import Commit, Lock, Model, Wheel
from cvs.versions.repository import Repository
from cvs.versions.spec import Model as Wanted
from cvs.versions.spec import PythonSettings, Source, Spec

#: How the locks of a volume are called.
_LOCK = ".lock.json"

#: What the manifest of a commit's tree says of its origin.
_COMMIT = re.compile(r"(.+)@([0-9a-f]{40}|[0-9a-f]{64})")

#: What the origin of a model begins with that can be fetched again.
_FETCHED = ("https://", "http://", "gs://", "s3://")

#: Where a manifest says so, for messages.
_ORIGIN = "the origin of the entry"


class Known(NamedTuple):
    """A lock, and the spec of its version where that is at hand."""

    lock: Lock
    spec: Spec | None


def read_locks(
    volume: Volume,
    spec_of: Callable[[str], Spec | None],
    more: Iterable[str] = (),
    progress: Progress = SILENT,
) -> list[Known]:
    """The locks of a volume; of one that cannot be read a warning is given.

    Args:
        spec_of: the spec of a version, if it is there: it has the local paths and credentials that
            a lock must not have.
        more: the files of other locks.
    """
    try:
        names = sorted(os.listdir(volume.resolved))
    except FileNotFoundError:
        names = []
    files = [os.path.join(volume.resolved, name) for name in names if name.endswith(_LOCK)]
    found = []
    for file in [*more, *files]:
        try:
            lock = locks.read(file)
            if lock is not None:
                found.append(Known(lock, spec_of(lock.version_id)))
        except InputError as error:
            progress.warn(f"what it names is not known: {error.message}")
    return found


def sources(store: Store, entry: EntryId, known: Iterable[Known], access: Access) -> list[Maker]:
    """What may have an entry once more, the nearest first, each once."""
    found: list[Maker] = list(_records(store, entry))
    names = _names(store, entry)
    for one in known:
        own = access
        if one.spec is not None and one.spec.offline:
            own = msgspec.structs.replace(access, offline=True)
        found += _set(store, entry, one.lock)
        found += _models(store, entry, one, own)
        found += _wheels(store, entry, one, names, own)
        found += _commits(entry, one, own)
        found += _installs(store, entry, one)
    found += _origin(store, entry, access)
    return list({source.shown: source for source in reversed(found)}.values())[::-1]


def _document(store: Store, entry: EntryId) -> manifest.Manifest | None:
    try:
        return store.manifest(entry)
    except (StoreError, OSError):
        return None


def _names(store: Store, entry: EntryId) -> set[str]:
    """What the tree of an entry may be called."""
    document = _document(store, entry)
    if isinstance(document, manifest.TreeManifest):
        return {document.name}
    try:
        return set(os.listdir(store.path(entry)))
    except OSError:
        return set()


# Commits


def _commits(entry: EntryId, one: Known, access: Access) -> Iterator[Maker]:
    for commit in (one.lock.core, *one.lock.nodes):
        if commit.entry != entry:
            continue
        place = _place(one.spec, commit)
        version = one.lock.version_id
        if place is not None:
            find = functools.partial(place.repository, allow_local=access.allow_local)
            yield _commit(commit, place.repository(allow_local=True), find, place.where, access)
        elif commit.repo:
            where = f"the lock of {version}: {commit.name}"
            parse = functools.partial(repositories.parse, commit.repo, where)
            find = functools.partial(parse, allow_local=access.allow_local)
            yield _commit(commit, parse(allow_local=True), find, where, access)
        else:
            why = f"it came from a folder of this machine that only the spec of {version} names"
            write = functools.partial(_refuse, why)
            yield Maker(f"{commit.name} at {commit.commit[:12]}", write)


def _installs(store: Store, entry: EntryId, one: Known) -> Iterator[Maker]:
    """What the install.py of a node made. Only a realize can run that, and it does so where the
    entry is not there."""
    for node in one.lock.nodes:
        if node.installed and node.installed.entry == entry:
            why = (
                f"install.py of {node.name} made it: remove {store.path(entry)} and `cvs realize "
                f"{one.lock.version_id}` runs it again"
            )
            yield Maker(f"install.py of {node.name}", functools.partial(_refuse, why))


def _place(spec: Spec | None, commit: Commit) -> Source | None:
    """The place in a spec that a commit came from, though another one may be wanted there now."""
    places = [] if spec is None else [spec.core, *spec.nodes]
    for place in places:
        if place.request == commit.request:
            return place
    for place in places:
        public = place.repository(allow_local=True).public
        if public == commit.repo and (public or place.name == commit.name):
            return place
    return None


def _commit(
    commit: Commit,
    repository: Repository,
    find: Callable[[], Repository],
    where: str,
    access: Access,
) -> Maker:
    """A commit as a source.

    Args:
        repository: what it is called after, whether it may be asked or not.
        find: gives it, or raises InputError where it may not.
    """

    def write(stage: Stage) -> Staged:
        from cvs.versions import git

        staged, _ = git.stage_commit(
            stage,
            find(),
            commit.commit,
            commit.name,
            where=where,
            ref=commit.ref,
            offline=access.offline,
            allow_local=access.allow_local,
            progress=access.progress,
        )
        return staged

    origin = f"{repository.public or commit.name}@{commit.commit}"
    return Maker(f"{repository.shown} at {commit.commit[:12]}", write, origin)


def _refuse(why: str, _: Stage) -> Staged:
    raise SourceError(why)


# Wheels


def _wheels(
    store: Store, entry: EntryId, one: Known, names: set[str], access: Access
) -> Iterator[Maker]:
    settings = PythonSettings() if one.spec is None else one.spec.python
    for item in one.lock.python.wheels:
        if entry != _stored(store, one.lock, item) and _tree_name(one.lock, item) not in names:
            continue
        write = functools.partial(
            wheels.stage_wheel,
            one=item,
            locked=one.lock.python,
            settings=settings,
            access=access,
        )
        near = locked_file.nearby(item.file, settings, access.wheels_dir)
        source = item.url or (item.built.shown if item.built is not None else item.file)
        yield Maker((near or [source])[0], write, item.file, packs=True)


def _stored(store: Store, lock: Lock, item: Wheel) -> EntryId | None:
    """The entry that a wheel became, whether it is there or not."""
    key = wheel.ref_key(item.sha256, lock.python.interpreter.abi)
    return refs.get(store.volume, wheel.REFS, key) or item.entry


def _tree_name(lock: Lock, item: Wheel) -> str | None:
    try:
        return wheel.tree_name(item.file, lock.python.interpreter.abi)[1]
    except SourceError:
        return None


# Sets of wheels


def _set(store: Store, entry: EntryId, lock: Lock) -> Iterator[Maker]:
    """The set of a lock's wheels, if that is the entry."""
    members = [_stored(store, lock, item) for item in lock.python.wheels]
    yield from _members(entry, [one for one in members if one], f"the lock of {lock.version_id}")


def _records(store: Store, entry: EntryId) -> Iterator[Maker]:
    """The set of a generation's wheels, if that is the entry: all of its entries that no link
    leads to."""
    for path in sorted(glob.glob(os.path.join(glob.escape(store.volume.profiles), "*", "*.json"))):
        try:
            found = record.read(path)
        except (StoreError, OSError):
            continue
        if found.wheel_set == entry:
            linked = {place.target.partition("/")[0] for place in found.links}
            members = set(found.entries) - linked - {entry}
            yield from _members(entry, members, f"a generation of {found.version}")


def _members(entry: EntryId, members: Collection[EntryId], shown: str) -> Iterator[Maker]:
    if tree.set_id(members) == entry:
        yield Maker(shown, lambda stage: stage.set(members))


# Models


def _models(store: Store, entry: EntryId, one: Known, access: Access) -> Iterator[Maker]:
    for locked in one.lock.models:
        found = refs.get(store.volume, "sha256", locked.sha256) if locked.sha256 else None
        if entry not in (locked.entry, found):
            continue
        model = msgspec.structs.replace(locked, entry=entry)
        for path in models.loose(model, access):
            stage = functools.partial(models.stage_loose, path=path, model=model, access=access)
            yield Maker(path, stage, model.name)
        version = one.lock.version_id
        places = () if one.spec is None else one.spec.models
        wanted = next((place for place in places if place.request == model.request), None)
        if wanted is None and model.source:
            wanted = Wanted(
                name=model.name,
                source=model.source,
                path=model.path,
                sha256=model.sha256,
                where=f"the lock of {version}: {model.path}",
                mirrors=model.mirrors,
            )
        if wanted is not None:
            yield _model(wanted, model, access)
        else:
            why = f"it came from a file of this machine that only the spec of {version} names"
            yield Maker(model.path, functools.partial(_refuse, why), model.name)


def _model(wanted: Wanted, model: Model, access: Access) -> Maker:
    write = functools.partial(models.stage_model, wanted=wanted, model=model, access=access)
    shown = model.source or models.local_path(wanted) or model.path
    return Maker(shown, write, model.source or model.name)


# Whatever no lock knows any more


def _origin(store: Store, entry: EntryId, access: Access) -> Iterator[Maker]:
    """What the manifest says of where the entry came from: a commit or a URL."""
    document = _document(store, entry)
    if isinstance(document, manifest.TreeManifest):
        match = _COMMIT.fullmatch(document.origin)
        if match is None:
            if document.origin.startswith(_FETCHED):
                yield from _folder(store, document, access)
            return
        parse = functools.partial(repositories.parse, match[1], _ORIGIN)
        try:
            repository = parse(allow_local=True)
        except InputError:
            return
        commit = Commit(
            name=document.name,
            request="",
            repo=match[1],
            ref=None,
            commit=match[2],
            date="",
            entry=entry,
            size=document.size,
        )
        find = functools.partial(parse, allow_local=access.allow_local)
        if not repository.is_local:
            yield _commit(commit, repository, find, _ORIGIN, access)
    elif isinstance(document, manifest.FileManifest):
        origin = document.origin
        if not origin.startswith(_FETCHED):
            return
        # The name decides the suffix, which is that of the content.
        name = document.content
        wanted = Wanted(name=name, source=origin, path=name, sha256=None, where=_ORIGIN)
        model = Model(
            name=name,
            path=name,
            request="",
            source=origin,
            size=document.size,
            sha256=None,
            entry=entry,
        )
        yield _model(wanted, model, access)


def _folder(store: Store, document: manifest.TreeManifest, access: Access) -> Iterator[Maker]:
    """A folder of models, whose files its origin lists once more."""
    name, origin = document.name, document.origin
    wanted = Wanted(name=name, source=origin, path=name, sha256=None, where=_ORIGIN)

    def write(stage: Stage) -> Staged:
        model = locate.describe(store, wanted, access)
        return models.stage_model(stage, wanted, model, access)

    yield Maker(origin, write, origin)
