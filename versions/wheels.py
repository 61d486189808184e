"""The wheels of a lock: which the store lacks, and bringing them in.

A wheel is taken from the nearest place that has it: a folder given with --wheels-dir, the
folders of find_links, its URL. One that nobody publishes is built from the source that the lock
names. Every place, and every build, is believed only as far as the lock's SHA-256.
"""

import concurrent.futures
import contextlib
import os
from collections.abc import Sequence

import msgspec

from cvs.store import fs, refs, temporary
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError, OfflineError, SourceError
from cvs.store.progress import Task
from cvs.store.stage import Stage, Staged
from cvs.store.tree import set_id
from cvs.versions import interpreter, locked_file, wheel
from cvs.versions.access import Access
from cvs.versions.interpreter import Chosen, Probe
from cvs.versions.lock import Python, Wheel
from cvs.versions.spec import PythonSettings

#: Wheels worked on at once: a download is one connection, unpacking and compiling two processors.
PARALLEL = 3

#: Entries are published when so many, or so many bytes, wait: one sync serves them all, and a
#: run that is broken off has kept what was published.
_BATCH = 24
_BATCH_BYTES = 1 << 30


def stored(store: Store, locked: Python, one: Wheel) -> EntryId | None:
    """The entry of a wheel of a lock, if the store has it.

    A ref is written by who made the entry from the wheel. A volume that was filled with entries
    alone has none; what the lock says then counts for this lock, and makes no ref for others.
    """
    found = wheel.stored(store, one.sha256, locked.interpreter.abi)
    if found is not None or one.entry is None or locked.layout != wheel.LAYOUT:
        return found
    return one.entry if store.has(one.entry) else None


def missing(store: Store, python: Python) -> list[Wheel]:
    """The wheels of a lock that the store does not have."""
    return [one for one in python.wheels if not stored(store, python, one)]


def completed(store: Store, locked: Python) -> Python:
    """The wheels of a lock with the entries that they became, where it does not name them yet."""
    known = locked.layout == wheel.LAYOUT
    found = tuple(
        one
        if known and one.entry is not None
        else msgspec.structs.replace(one, entry=stored(store, locked, one))
        for one in locked.wheels
    )
    return msgspec.structs.replace(locked, wheels=found, layout=wheel.LAYOUT)


def fetch(
    store: Store,
    locked: Python,
    *,
    settings: PythonSettings,
    access: Access | None = None,
) -> EntryId:
    """Brings the wheels of a lock into the store and returns the set of them.

    Args:
        settings: its find_links are looked into; its index URLs lend their credentials.
        access: its wheels_dir is the first place to look; offline, the two kinds of folders are
            the only ones. Its interpreter is asked only if a wheel is missing.

    Raises:
        OfflineError: names every wheel that is in no folder.
        SourceError: a wheel is not where the lock says, has other bytes, or is not sound.
        InputError: no interpreter fits the lock, or a wheel does not fit the interpreter.
    """
    access = access or Access()
    lacking = missing(store, locked)
    if lacking:
        found = _places(lacking, settings, access)
        probe = _probe(lacking, locked, access.python)
        _Fetch(probe, settings, access).run(store, lacking, found)
    members = []
    for one in locked.wheels:
        entry = stored(store, locked, one)
        if entry is None:
            raise IntegrityError(f"the wheel {one.file} vanished from the store while it was used")
        members.append(entry)
    whole = set_id(members)
    if not store.has(whole):
        with store.stage() as stage:
            store.publish(stage.set(members))
    return whole


def stage_wheel(
    stage: Stage,
    one: Wheel,
    locked: Python,
    *,
    settings: PythonSettings,
    access: Access | None = None,
) -> Staged:
    """Writes one wheel of a lock into a stage, in its installed form, whatever is stored.

    Args, Raises: as `fetch`.
    """
    access = access or Access()
    found = _places([one], settings, access)
    fetching = _Fetch(_probe([one], locked, access.python), settings, access)
    with temporary.folder() as held, access.progress.task(one.file, one.size) as task:
        return fetching.stage(stage, one, found[one.file], held.folder, task)


def _places(
    lacking: Sequence[Wheel], settings: PythonSettings, access: Access
) -> dict[str, list[str]]:
    """The files near by that may be the wheels, by their names; none may be nowhere."""
    found = {one.file: locked_file.nearby(one.file, settings, access.wheels_dir) for one in lacking}
    _check_places(lacking, found, access)
    return found


def _probe(lacking: Sequence[Wheel], locked: Python, python: Chosen | None) -> Probe:
    """The interpreter that wheels are compiled for."""
    minor = ".".join(locked.interpreter.version.split(".")[:2])
    probe = interpreter.probe(interpreter.find(minor, python))
    interpreter.check(locked.interpreter, probe.interpreter)
    for one in lacking:
        if probe.rank(one.file) is None:
            raise InputError(
                f"the wheel {one.file} does not fit this interpreter on this system",
                hint="lock again on this system",
            )
    return probe


def _check_places(lacking: Sequence[Wheel], found: dict[str, list[str]], access: Access) -> None:
    """Raises where a wheel is nowhere: all of them are named before the first is fetched."""
    built = [one for one in lacking if one.built is not None and not found[one.file]]
    if built and access.no_build:
        raise SourceError(
            f"wheels that are not stored would have to be built: "
            f"{', '.join(one.file for one in built)}",
            hint="without python.no_build and --no-build they are",
        )
    # What a build needs may lie in the folders too: it says itself what is missing.
    offline, lacking = access.offline, [one for one in lacking if one.built is None]
    nowhere = [one.file for one in lacking if not found[one.file] and (offline or not one.url)]
    if not nowhere:
        return
    names = ", ".join(nowhere)
    if offline:
        raise OfflineError(
            f"{len(nowhere)} wheels are not stored and no connection may be made: {names}",
            hint="give a folder that has them with --wheels-dir",
        )
    raise SourceError(
        f"wheels that came from a local folder are in none of the folders: {names}",
        hint="give the folder with --wheels-dir, or in python.find_links",
    )


class _Fetch:
    """One run: threads stage wheels, this thread publishes them."""

    def __init__(
        self,
        probe: Probe,
        settings: PythonSettings,
        access: Access,
    ) -> None:
        # Not on the way of those who lack nothing.
        from cvs.versions.builds import Builder

        self.probe = probe
        self.builder = Builder(settings, probe, access)
        self.progress = access.progress
        self.stopping = access.stop

    def run(self, store: Store, lacking: Sequence[Wheel], found: dict[str, list[str]]) -> None:
        """Fetches wheels, the largest first: they take longest."""
        store.volume.prepare()
        ordered = sorted(lacking, key=lambda one: (-(one.size or 0), one.file))
        total = sum(one.size or 0 for one in lacking)
        with (
            temporary.folder() as held,
            contextlib.ExitStack() as stages,
            self.progress.task(f"{len(lacking)} Python packages", total) as task,
            concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool,
        ):
            waiting: list[tuple[Wheel, Staged]] = []

            def work(one: Wheel) -> Staged:
                stage = stages.enter_context(store.stage())
                return wheel.in_form(
                    store,
                    stage,
                    lambda stage: self.stage(stage, one, found[one.file], held.folder, task),
                )

            futures = {pool.submit(work, one): one for one in ordered}
            try:
                for future in concurrent.futures.as_completed(futures):
                    waiting.append((futures[future], future.result()))
                    size = sum(one.size or 0 for one, _ in waiting)
                    if len(waiting) >= _BATCH or size >= _BATCH_BYTES:
                        self._publish(store, waiting)
                        waiting = []
                self._publish(store, waiting)
            except BaseException:
                # The other downloads end at their next piece instead of running to their end.
                self.stopping.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _publish(self, store: Store, waiting: Sequence[tuple[Wheel, Staged]]) -> None:
        if not waiting:
            return
        store.publish(*(staged for _, staged in waiting))
        for one, staged in waiting:
            key = wheel.ref_key(one.sha256, self.probe.abi)
            refs.put(store.volume, wheel.REFS, key, staged.id)

    def stage(
        self, stage: Stage, one: Wheel, near: Sequence[str], scratch: str, task: Task
    ) -> Staged:
        """Runs in a thread: a wheel from the nearest place, in its installed form."""
        if one.built is not None and not near:
            folder = os.path.join(scratch, fs.unique())
            os.mkdir(folder)
            path = self.builder.again(one, folder)
            task.advance(one.size or 0)
            return wheel.stage_wheel(stage, path, self.probe, self.stopping)
        with locked_file.obtained(
            locked_file.of_wheel(one),
            near,
            lenders=self.builder.lenders,
            scratch=scratch,
            task=task,
            stop=self.stopping,
        ) as path:
            return wheel.stage_wheel(stage, path, self.probe, self.stopping)
