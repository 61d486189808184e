"""The wheels of a lock: which the store lacks, and bringing them in.

A wheel is taken from the nearest place that has it: a folder given with --wheels-dir, the
folders of find_links, its URL. Every place is believed only as far as the lock's SHA-256.
"""

import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from urllib.parse import unquote, urlsplit

from cvs.store import fs, refs, temporary
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import InputError, IntegrityError, OfflineError, SourceError
from cvs.store.progress import SILENT, Progress, Task
from cvs.store.stage import Stage, Staged
from cvs.store.tree import set_id
from cvs.versions import interpreter, parallel, wheel
from cvs.versions.interpreter import Chosen, Probe
from cvs.versions.lock import Python, Wheel
from cvs.versions.spec import PythonSettings

#: Wheels worked on at once: a download is one connection, unpacking and compiling two processors.
PARALLEL = 3

#: Entries are published when so many, or so many bytes, wait: one sync serves them all, and a
#: run that is broken off has kept what was published.
_BATCH = 24
_BATCH_BYTES = 1 << 30


def missing(store: Store, python: Python) -> list[Wheel]:
    """The wheels of a lock that the store does not have."""
    return [
        one for one in python.wheels if not wheel.stored(store, one.sha256, python.interpreter.abi)
    ]


def fetch(
    store: Store,
    locked: Python,
    *,
    settings: PythonSettings,
    wheels_dir: str | None = None,
    offline: bool = False,
    python: Chosen | None = None,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> EntryId:
    """Brings the wheels of a lock into the store and returns the set of them.

    Args:
        settings: its find_links are looked into; its index URLs lend their credentials.
        wheels_dir: a folder of wheels, the first place to look.
        offline: no connection is made; the two kinds of folders are the only places.
        python: the interpreter to compile for, if settings name one; asked only if a wheel is
            missing.
        stop: set by others to end the work soon.

    Raises:
        OfflineError: names every wheel that is in no folder.
        SourceError: a wheel is not where the lock says, has other bytes, or is not sound.
        InputError: no interpreter fits the lock, or a wheel does not fit the interpreter.
    """
    lacking = missing(store, locked)
    if lacking:
        found = _places(lacking, settings, wheels_dir, offline)
        probe = _probe(lacking, locked, python)
        fetching = _Fetch(probe, settings, progress, stop or threading.Event())
        fetching.run(store, lacking, found)
    members = []
    for one in locked.wheels:
        entry = wheel.stored(store, one.sha256, locked.interpreter.abi)
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
    wheels_dir: str | None = None,
    offline: bool = False,
    python: Chosen | None = None,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
) -> Staged:
    """Writes one wheel of a lock into a stage, in its installed form, whatever is stored.

    Args, Raises: as `fetch`.
    """
    found = _places([one], settings, wheels_dir, offline)
    fetching = _Fetch(_probe([one], locked, python), settings, progress, stop or threading.Event())
    with temporary.folder() as held, progress.task(one.file, one.size) as task:
        return fetching.stage(stage, one, found[one.file], held.folder, task)


def _places(
    lacking: Sequence[Wheel], settings: PythonSettings, wheels_dir: str | None, offline: bool
) -> dict[str, list[str]]:
    """The files near by that may be the wheels, by their names; none may be nowhere."""
    found = {one.file: nearby(one, settings, wheels_dir) for one in lacking}
    _check_places(lacking, found, offline)
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


def _folder(link: str) -> str:
    return unquote(urlsplit(link).path) if link.startswith("file:") else link


def nearby(one: Wheel, settings: PythonSettings, wheels_dir: str | None) -> list[str]:
    """The files of local folders that bear a wheel's name, in the order in which they are asked."""
    folders = [*([wheels_dir] if wheels_dir else []), *map(_folder, settings.find_links)]
    paths = [os.path.join(folder, one.file) for folder in folders if "://" not in folder]
    return [path for path in paths if os.path.isfile(path)]


def _check_places(lacking: Sequence[Wheel], found: dict[str, list[str]], offline: bool) -> None:
    """Raises where a wheel is nowhere: all of them are named before the first is fetched."""
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
        progress: Progress,
        stopping: threading.Event,
    ) -> None:
        self.probe = probe
        self.lenders = [url for url in (settings.index_url, *settings.extra_index_urls) if url]
        self.progress = progress
        self.stopping = stopping

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
        self, stage: Stage, one: Wheel, nearby: Sequence[str], scratch: str, task: Task
    ) -> Staged:
        """Runs in a thread: a wheel from the nearest place, in its installed form."""
        problem: IntegrityError | None = None
        for path in nearby:
            try:
                wheel.check_sha256(path, one.sha256)
            except IntegrityError as error:
                problem = error
                continue
            staged = wheel.stage_wheel(stage, path, self.probe, self.stopping)
            task.advance(one.size or 0)
            return staged
        if not one.url:
            assert problem is not None  # Wheels that are nowhere were refused before.
            raise SourceError(problem.message) from problem
        with self._downloaded(one, scratch, task) as path:
            return wheel.stage_wheel(stage, path, self.probe, self.stopping)

    @contextlib.contextmanager
    def _downloaded(self, one: Wheel, scratch: str, task: Task) -> Iterator[str]:
        """A wheel's file on local disk, under its own name, checked."""
        from cvs.versions import download

        folder = os.path.join(scratch, fs.unique())
        os.mkdir(folder)
        path = os.path.join(folder, one.file)
        try:
            with open(path, "wb") as file:
                url = download.lend_credentials(one.url, self.lenders)
                for chunk in download.chunks(url, size=one.size):
                    parallel.check(self.stopping)
                    file.write(chunk)
                    task.advance(len(chunk))
            try:
                wheel.check_sha256(path, one.sha256)
            except IntegrityError:
                raise SourceError(
                    f"{download.show(one.url)} is not the wheel of the lock: "
                    "it has another SHA-256",
                    hint="what the index serves was replaced; `cvs update` would lock it anew",
                ) from None
            yield path
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.rmdir(folder)
