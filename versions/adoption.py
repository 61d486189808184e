"""A folder of models that somebody has: which of its files become entries, and the taking in.

The files stay where they are as links (`store/relink.py`), so that whatever uses them goes on.
"""

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from cvs.store import relink, workers
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import CvsError, InputError
from cvs.store.manifest import FileManifest
from cvs.store.progress import Task
from cvs.store.relink import Group, LinkTarget, Outcome, Relinking
from cvs.store.volume import FOLDERS
from cvs.versions import formats, parallel
from cvs.versions.access import Access

T = TypeVar("T")

#: Bytes of the smallest file that is taken for a model: a textual inversion has some thousand.
SMALLEST = 1024

#: Files about models, and the bytes up to which one of them is no model.
_NOTES = (".yaml", ".yml", ".json", ".txt", ".md", ".csv", ".py", ".html")
_NOTE = 1 << 20

#: Folders of a volume that are cvs's own.
_OWN = frozenset(FOLDERS) - {"models", "state"}


class Found(NamedTuple):
    """What a folder has."""

    groups: list[Group]
    """The files to take in, each once."""
    ignored: int
    """How many files are no models by their names and sizes."""
    links: int
    """How many links there are, which stay."""


def find(store: Store, folder: str, *, everything: bool = False) -> Found:
    """Looks for the models below a folder; follows no link.

    Args:
        everything: take other files as well, but for placeholders, notes and hidden ones.

    Raises:
        InputError: it is no folder, or lies in the store.
    """
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        raise InputError(f"{folder} is not a folder")
    own = {os.path.realpath(os.path.join(store.volume.root, name)) for name in _OWN}
    if any(root == path or root.startswith(path + "/") for path in own):
        raise InputError(
            f"{folder} is a folder of cvs itself",
            hint="the loose models of all versions lie in MODELS_DIR",
        )
    chosen, counts = [], Counter[str]()
    for path, is_link, size in _files(root, own):
        if is_link:
            counts["links"] += 1
        elif is_wanted(os.path.basename(path), size, everything=everything):
            chosen.append(path)
        else:
            counts["ignored"] += 1
    return Found(relink.groups(chosen), counts["ignored"], counts["links"])


def is_wanted(name: str, size: int, *, everything: bool = False) -> bool:
    """Whether a file is taken in, by its name and size."""
    if not size or (name.startswith("put_") and name.endswith("_here")):
        return False
    if name.lower().endswith(_NOTES) and size < _NOTE:
        return False
    return everything or (formats.is_model(name) and size >= SMALLEST)


def _files(root: str, own: set[str]) -> Iterator[tuple[str, bool, int]]:
    """Every file and link below a folder, whether it is a link, and its size."""
    waiting = [root]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as scan:
                items = sorted(scan, key=lambda item: item.name)
        except PermissionError as error:
            raise InputError(f"{error.filename} cannot be read") from None
        except FileNotFoundError:
            continue
        for item in items:
            if item.name.startswith(".") or item.path in own:
                continue
            if item.is_symlink():
                yield item.path, True, 0
            elif item.is_dir(follow_symlinks=False):
                waiting.append(item.path)
            elif item.is_file(follow_symlinks=False):
                yield item.path, False, item.stat(follow_symlinks=False).st_size


def adopt(
    store: Store,
    found: Sequence[Group],
    access: Access,
    *,
    copy: bool,
    link_target: LinkTarget,
) -> list[Outcome]:
    """Takes files in; several are digested at once.

    Args:
        copy: whether what cannot be had otherwise is copied.
        link_target: what the links say that stay.

    Raises:
        InputError: files lie on another file system, and must not be copied; nothing was done.
        StoreError: the quota is used up; what was taken in stays so.
    """
    relinking = Relinking(store, copy=copy, link_target=link_target)
    relinking.check(found)

    def take(group: Group, task: Task) -> Outcome:
        try:
            formats.read(group.paths[0], os.path.basename(group.paths[0]))
            digested = relink.digest(group, _advance(task, access))
        except parallel.Stopped:
            raise
        except CvsError as error:
            return _left(group, error.message)
        except OSError as error:
            return _left(group, _why(group, error))
        return relinking.take(group, digested)

    return _each(store, found, access, "adopting", take)


def compare(store: Store, found: Sequence[Group], access: Access) -> list[Outcome]:
    """What `adopt` would do, and changes nothing.

    Files are digested only where another one, or an entry, has the same size.
    """
    there = {
        entry: document.size
        for entry in store.ids()
        if isinstance(document := _manifest(store, entry), FileManifest)
    }
    sizes = Counter(group.status.st_size for group in found) + Counter(there.values())
    seen: set[EntryId] = set()

    def look(group: Group, task: Task) -> tuple[Group, EntryId | None, str]:
        size = group.status.st_size
        try:
            formats.read(group.paths[0], os.path.basename(group.paths[0]))
            if sizes[size] > 1:
                digested = relink.digest(group, _advance(task, access))
                return group, EntryId(digested.digest.hex()), ""
        except parallel.Stopped:
            raise
        except CvsError as error:
            return group, None, error.message
        except OSError as error:
            return group, None, _why(group, error)
        task.skip(size)
        return group, None, ""

    outcomes = []
    for group, entry, fault in _each(store, found, access, "comparing", look):
        size = group.status.st_size
        if fault:
            outcomes.append(_left(group, fault))
        elif entry is None or (entry not in there and entry not in seen):
            outcomes.append(Outcome(group.paths, "adopted", size, 0, entry))
        else:
            outcomes.append(Outcome(group.paths, "duplicate", size, size, entry))
        if entry is not None:
            seen.add(entry)
    return outcomes


def _left(group: Group, why: str) -> Outcome:
    return Outcome(group.paths, "left", group.status.st_size, why=why)


def _why(group: Group, error: OSError) -> str:
    """Why a file could not be read; another run may have taken it in meanwhile."""
    if os.path.islink(group.paths[0]):
        return "it is a link by now"
    return f"it cannot be read: {error.strerror}"


def _manifest(store: Store, entry: EntryId) -> object:
    try:
        return store.manifest(entry)
    except CvsError:
        # Collected meanwhile, or damaged: nothing is a duplicate of it.
        return None


def _each(
    store: Store,
    found: Sequence[Group],
    access: Access,
    what: str,
    work: Callable[[Group, Task], T],
) -> list[T]:
    """Does something with every file, several at once, and counts bytes."""
    many = workers.count_for(store.volume.syncs_at_once)
    total = sum(group.status.st_size for group in found)
    with access.progress.task(f"{what} {len(found)} files", total) as task:
        jobs = [functools.partial(work, group, task) for group in found]
        return parallel.gather(jobs, workers=many, stop=access.stop)


def _advance(task: Task, access: Access) -> Callable[[int], None]:
    def advance(count: int) -> None:
        parallel.check(access.stop)
        task.advance(count)

    return advance
