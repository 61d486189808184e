"""Models in a folder, compared with what a lock or list says; what is missing is fetched."""

import functools
import os
from collections.abc import Sequence
from typing import Literal, NamedTuple

from cvs.store import copying, fs, scratch
from cvs.store.digest import is_id
from cvs.store.entries import Store
from cvs.store.errors import CvsError
from cvs.store.relink import LinkTarget
from cvs.versions import formats, locate, model_list, models, parallel
from cvs.versions.access import Access
from cvs.versions.model_list import Listed
from cvs.versions.parallel import Stopped

State = Literal["ok", "unchecked", "fetched", "replaced", "differs", "failed"]

#: Models that are looked at or fetched at once.
PARALLEL = 4


class Checked(NamedTuple):
    """What is the case with one model."""

    path: str
    """Below the models folder."""
    state: State
    expected: str | None
    """Its checksum: SHA-256, or BLAKE3 where a lock knows that alone."""
    found: str | None = None
    why: str = ""

    @property
    def is_well(self) -> bool:
        """Whether it is there as it should be, as far as anybody knows."""
        return self.state not in ("differs", "failed")


def check(
    store: Store,
    listed: Sequence[Listed],
    models_dir: str,
    access: Access,
    *,
    overwrite: bool,
    link_target: LinkTarget,
) -> list[Checked]:
    """Compares every model; a missing one is fetched into the store, a link leads there.

    Args:
        overwrite: whether one that differs is replaced.
        link_target: what links say.
    """
    jobs = [
        functools.partial(
            _check,
            store,
            item,
            models_dir=models_dir,
            access=access,
            overwrite=overwrite,
            link_target=link_target,
        )
        for item in listed
    ]
    return parallel.gather(jobs, workers=PARALLEL, stop=access.stop)


def _check(
    store: Store,
    item: Listed,
    *,
    models_dir: str,
    access: Access,
    overwrite: bool,
    link_target: LinkTarget,
) -> Checked:
    path = item.wanted.path
    place = model_list.place(models_dir, item.wanted)
    known = _known(item)
    try:
        found = _compared(store, item, place, access)
        if found is not None and (found.is_well or not overwrite):
            return found
        locked = item.locked or locate.describe(store, item.wanted, access)
        entry = models.ensure(store, item.wanted, locked, access).entry
        assert entry is not None
        folder = os.path.dirname(place)
        fs.makedirs(folder)
        content = os.path.join(store.volume.store, store.content(entry))
        scratch.replace_symlink(link_target(content, folder), place)
    except Stopped:
        raise
    except CvsError as error:
        return Checked(path, "failed", known, why=error.message)
    except OSError as error:
        return Checked(path, "failed", known, why=f"{error.strerror}: {place}")
    return Checked(path, "fetched" if found is None else "replaced", known)


def _known(item: Listed) -> str | None:
    locked = item.locked
    return item.wanted.sha256 or (locked and (locked.sha256 or locked.entry)) or None


def _compared(store: Store, item: Listed, place: str, access: Access) -> Checked | None:
    """How the file in its place compares; None if there is none."""
    path, known = item.wanted.path, _known(item)
    if not os.path.exists(place):
        # A link that leads nowhere is none either.
        return None
    if os.path.isdir(place):
        return _folder(store, item, place)
    entry = item.locked.entry if item.locked else None
    is_sha256 = bool(known) and known != entry
    if known is None:
        try:
            formats.read(place, os.path.basename(path))
        except CvsError as error:
            return Checked(path, "differs", None, why=error.message)
        return Checked(path, "unchecked", None)
    size = os.path.getsize(place)
    opened = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with access.progress.task(f"checking {path}", size) as task:

            def advance(count: int) -> None:
                parallel.check(access.stop)
                task.advance(count)

            digested = copying.digest(opened, size=size, sha256=is_sha256, advance=advance)
    finally:
        os.close(opened)
    digest = (digested.sha256 if is_sha256 else digested.digest).hex()
    return Checked(path, "ok" if digest == known else "differs", known, digest)


def _folder(store: Store, item: Listed, place: str) -> Checked:
    """Of a model that is a folder: it is the entry itself, or another thing."""
    path, known = item.wanted.path, _known(item)
    inside = os.path.relpath(os.path.realpath(place), os.path.realpath(store.volume.store))
    entry = inside.partition("/")[0]
    if item.locked is None or not is_id(entry) or item.locked.entry != entry:
        return Checked(path, "differs", known, why="it is a folder that no entry of the store is")
    faults = store.verify(item.locked.entry)
    if faults:
        return Checked(path, "differs", known, why=f"{faults[0].path} {faults[0].what}")
    return Checked(path, "ok", known, entry)
