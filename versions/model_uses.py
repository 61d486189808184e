"""Which versions use a model, and where: what locks and roots of a volume say."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import StoreError
from cvs.store.progress import SILENT, Progress
from cvs.store.record import Record
from cvs.store.roots import Root
from cvs.versions import restore
from cvs.versions.lock import Lock

_MODELS = "models/"

Kind = Literal["lock", "generation", "lease", "pin"]


class Use(NamedTuple):
    """One place where a model is used."""

    version: str
    kind: Kind
    name: str
    """`wan-demo` of a lock, `wan-demo@3` of a generation, of a lease or pin its own."""
    path: str
    """Below models/; "" for a pin."""
    entry: EntryId | None
    """None where a lock names a model that was never fetched."""
    sha256: str | None
    """As far as a lock says it."""


def find(store: Store, progress: Progress = SILENT) -> list[Use]:
    """Every use of every model, locks first; of what cannot be read a warning is given."""
    known = restore.read_locks(store.volume, lambda _: None, progress=progress)
    found = [use for one in known for use in of_lock(one.lock)]
    for root in store.roots():
        if isinstance(root.record, StoreError):
            progress.warn(f"what it uses is not known: {root.record.message}")
        else:
            found += _of_root(root, root.record)
    return found


def of_lock(lock: Lock) -> list[Use]:
    """The models of a lock."""
    name = lock.version_id
    return [Use(name, "lock", name, model.path, model.entry, model.sha256) for model in lock.models]


def _of_root(root: Root, record: Record) -> Iterable[Use]:
    if root.kind == "pin":
        for entry in record.entries:
            yield Use(record.version, "pin", root.name, "", entry, None)
        return
    for link in record.links:
        if link.path.startswith(_MODELS):
            entry = EntryId(link.target.partition("/")[0])
            path = link.path.removeprefix(_MODELS)
            yield Use(record.version, root.kind, root.name, path, entry, None)
