"""Realizing: a spec becomes a generation that is current.

The order is that of docs/design.md and it is what makes this safe beside other hosts and a
collection: (A1) a lease for the whole closure, (A2) then the check that every entry is there and
none is condemned, (A3) the lease's record gets its permanent name, (A4) the view is renamed into
place and `current` flips, (A5) the lease is dropped. Everything that can fail comes before A3;
the generation in use is not touched by it.
"""

import functools
import os
import socket
from collections.abc import Callable, Mapping, Sequence

import msgspec
from blake3 import blake3

from cvs.profiles import environment, home, install, state, trial, view
from cvs.profiles.generations import Profile
from cvs.store import damage, leases, reserve, scratch
from cvs.store.digest import EntryId
from cvs.store.entries import Store, content_path
from cvs.store.errors import CvsError, EntryMissing, InputError, StoreError
from cvs.store.progress import Progress
from cvs.store.record import Place, Record
from cvs.store.stage import now
from cvs.store.volume import Volume
from cvs.versions import interpreter, models, parallel, pickles, resolve, wheels
from cvs.versions import lock as locks
from cvs.versions.access import Access
from cvs.versions.lock import Commit, Lock, Model
from cvs.versions.spec import Source, Spec

#: Commits and models fetched at once, and the wheel set beside them.
PARALLEL = 4

#: How often the closure is completed again because a collection took part of it.
ATTEMPTS = 5


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a version is realized to."""

    lock_file: str
    home: str
    """COMFY_HOME."""
    models_dir: str
    local_root: str
    replace: bool = False
    """Move a real folder at COMFY_HOME aside."""
    trial: Mapping[str, str] | None = None
    """Environment variables for a trial start on new Python packages; None for no trial."""
    force: bool = False
    """Re-point a COMFY_HOME that a running process of another version uses."""


class Realized(msgspec.Struct, frozen=True, kw_only=True):
    """What a realize did."""

    version: str
    generation: int
    home: str
    view: str
    environment: str
    python: str
    new_generation: bool
    switched: bool
    entries: tuple[EntryId, ...]
    """The closure, in ascending order."""
    changed: bool
    """False when there was nothing to do."""
    moved_home: str | None
    """Where a real folder at COMFY_HOME was moved to."""


def realize(
    store: Store, spec: Spec, target: Target, access: Access, *, locked: bool = False
) -> Realized:
    """Realizes a spec; with nothing to do changes nothing.

    Args:
        locked: refuse a lock that is not fresh instead of resolving.

    Raises:
        InputError: the spec, the lock or COMFY_HOME cannot be used.
        SourceError, OfflineError, IntegrityError: something cannot be had as it was locked.
    """
    volume = store.volume
    volume.check()
    profile = Profile(volume, spec.version_id)
    _check_home(target, profile)
    old = locks.read(target.lock_file)
    if locked:
        lock = resolve.check_locked(spec, old, target.lock_file)
        volume.prepare()
    else:
        lock = resolve.resolve(store, spec, old, access)
        if lock != old:
            locks.write(target.lock_file, lock, volume.tmp)
    found = interpreter.find(resolve.minor(lock.python.interpreter), access.python)
    warning = interpreter.check(lock.python.interpreter, interpreter.probe(found).interpreter)
    if warning:
        access.progress.warn(warning)
    whole = _is_whole(store, profile)
    for _ in range(ATTEMPTS):
        completed, wheel_set = materialize(store, spec, lock, access)
        lock = _kept(completed, lock, target, volume)
        try:
            setting = install.Setting(store, found, target.local_root, access.progress)
            completed = install.complete(setting, spec, lock, wheel_set)
            lock = _kept(completed, lock, target, volume)
            wanted = _record(store, spec, lock, wheel_set)
        except EntryMissing:
            # A collection was quicker than our lease; what it took is fetched again.
            continue
        with leases.Lease.take(volume, wanted) as lease:
            if leases.missing(store, wanted.entries):
                continue
            damage.look(store, wanted.entries)
            try:
                done = _publish(
                    store, profile, wanted, lease, spec, lock, found, target, access.progress
                )
            except leases.LeaseLost:
                continue
        return msgspec.structs.replace(done, changed=done.changed or not whole)
    raise StoreError(
        f"{spec.version_id}: entries vanish as fast as they are stored",
        hint="is a collection running again and again on this volume?",
    )


def _kept(completed: Lock, lock: Lock, target: Target, volume: Volume) -> Lock:
    """Writes a lock that was completed: what was learned is not learned again."""
    if completed != lock:
        locks.write(target.lock_file, completed, volume.tmp)
    return completed


def _is_whole(store: Store, profile: Profile) -> bool:
    """Whether a generation is current and every entry of it is there."""
    try:
        number = profile.current()
        return number is not None and all(map(store.has, profile.record(number).entries))
    except CvsError:
        # Its record is gone or damaged: this realize makes another one.
        return False


def _publish(
    store: Store,
    profile: Profile,
    wanted: Record,
    lease: leases.Lease,
    spec: Spec,
    lock: Lock,
    python: str,
    target: Target,
    progress: Progress,
) -> Realized:
    core = next(place.target for place in wanted.links if not place.path)
    examples = os.path.join(store.volume.store, core, "input")
    state.prepare(store.volume, profile.version, target.models_dir, examples=examples)
    state.ensure_private(store, wanted)
    made = environment.ensure(
        store,
        wanted.wheel_set,
        lock.python.interpreter,
        python,
        target.local_root,
        progress,
        provided=wanted.provided,
        overlaps=wanted.overlaps,
    )
    if target.trial is not None:
        trial.ensure(
            store,
            spec,
            lock,
            wanted,
            made,
            base=target.trial,
            local_root=target.local_root,
            progress=progress,
        )
    number = profile.find(wanted)
    new = number is None
    if number is None:
        with view.building(store, wanted) as staged:
            number = profile.publish(lease)
            view.place(staged, profile.view(number))
    view.ensure(store, profile, number)
    switched = profile.flip(number)
    before = home.version_at(target.home, store.volume.profiles)
    moved = home.point(target.home, profile, replace=target.replace)
    return Realized(
        version=profile.version,
        generation=number,
        home=target.home,
        view=profile.view(number),
        environment=made.path,
        python=made.python,
        entries=wanted.entries,
        new_generation=new,
        switched=switched,
        changed=new or switched or moved is not None or before != profile.version,
        moved_home=moved,
    )


def _check_home(target: Target, profile: Profile) -> None:
    home.check(target.home, profile.volume, replace=target.replace)
    other = home.version_at(target.home, profile.volume.profiles)
    if other in (None, profile.version) or target.force:
        return
    held = leases.held(profile.volume)
    if any(record.version == other and age < leases.LIVE for _, record, age in held):
        raise InputError(
            f"COMFY_HOME {target.home} leads to {other}, which is in use",
            hint="--target DIR names another place, --force re-points it all the same",
        )


def materialize(store: Store, spec: Spec, lock: Lock, access: Access) -> tuple[Lock, EntryId]:
    """Puts everything that a lock names into the store.

    Returns:
        The lock, completed with what was learned of wheels and models, and the wheel set's entry.
    """
    wanted = [] if spec.skip_models else list(zip(spec.models, lock.models, strict=True))
    commits = zip([spec.core, *spec.nodes], [lock.core, *lock.nodes], strict=True)
    access.progress.expect(
        sum(known.size or 0 for _, known in wanted if models.stored(store, known) is None)
    )
    jobs: list[Callable[[], EntryId | Model]] = [
        functools.partial(
            wheels.fetch,
            store,
            lock.python,
            settings=spec.python,
            access=access,
        ),
        *(
            functools.partial(_commit, store, source, commit, access)
            for source, commit in commits
            if not install.is_done(store, source, commit, lock.python)
        ),
        *(functools.partial(models.ensure, store, model, known, access) for model, known in wanted),
    ]
    wheel_set, *others = parallel.gather(jobs, workers=PARALLEL, stop=access.stop)
    assert not isinstance(wheel_set, Model)
    lock = msgspec.structs.replace(lock, python=wheels.completed(store, lock.python))
    fetched = tuple(found for found in others if isinstance(found, Model))
    if not spec.allow_pickle:
        pickles.refuse(store, fetched, spec.file)
    if spec.skip_models:
        return lock, wheel_set
    return msgspec.structs.replace(lock, models=fetched), wheel_set


def _commit(store: Store, source: Source, commit: Commit, access: Access) -> EntryId:
    resolve.ensure_commit(store, source, commit, access)
    return commit.entry


def _record(store: Store, spec: Spec, lock: Lock, wheel_set: EntryId) -> Record:
    """The record of a lock whose every entry is in the store."""
    links = [_place(store, "", lock.core.entry)]
    links += [
        _place(store, f"custom_nodes/{node.name}", node.used, private=source.writable)
        for source, node in zip(spec.nodes, lock.nodes, strict=True)
    ]
    if not spec.skip_models:
        links += [
            _place(store, f"models/{model.path}", model.entry)
            for model in lock.models
            if model.entry is not None
        ]
    roots = [wheel_set, *(EntryId(link.target.partition("/")[0]) for link in links)]
    return Record(
        version=spec.version_id,
        created=now(),
        host=socket.gethostname(),
        parts=msgspec.to_builtins(lock.parts),
        entries=tuple(sorted(store.closure(roots))),
        wheel_set=wheel_set,
        interpreter=msgspec.to_builtins(lock.python.interpreter),
        links=tuple(sorted(links, key=lambda place: place.path)),
        lock=blake3(locks.encode(lock)).hexdigest(),
        provided=lock.python.provided,
        overlaps=spec.python.overlaps,
    )


def _place(store: Store, path: str, entry: EntryId, *, private: bool = False) -> Place:
    return Place(path, content_path(entry, store.manifest(entry)), private)


def rollback(store: Store, profile: Profile, number: int | None = None) -> tuple[int, int]:
    """Makes an earlier (or any other) generation current again; no entry is touched.

    The record is linked into leases/ first: a generation that retention removes meanwhile is
    noticed, not lost. Where the volume is full this takes what it needs from the reserve.

    Returns:
        The number that was current, and the one that is now.

    Raises:
        InputError: there is no such generation.
        StoreError: entries of it are gone.
    """
    before = profile.current()
    if before is None:
        raise InputError(
            f"{profile.version} is not realized here", hint=f"cvs realize {profile.version}"
        )
    wanted = profile.before(before) if number is None else number
    record = profile.record(wanted)
    scratch.sweep(store.volume.tmp)
    with reserve.within(store.volume.reserve), profile.lease(wanted):
        check_entries(store, record)
        view.ensure(store, profile, wanted)
        profile.flip(wanted)
    return before, wanted


def check_entries(store: Store, record: Record) -> None:
    """Raises StoreError if an entry of a generation is not there, or was found damaged or seems to
    be at a glance: asked under a lease for it."""
    damage.refuse(store.volume, record.entries)
    gone: Sequence[EntryId] = leases.missing(store, record.entries)
    if gone:
        raise StoreError(
            f"{len(gone)} entries of {record.version} are gone, the first is {gone[0][:16]}",
            hint=f"cvs realize {record.version}",
        )
    damage.look(store, record.entries)
