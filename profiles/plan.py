"""The plan: what a realize would do, with sizes, told before anything is done. Changes nothing."""

from collections.abc import Iterator
from typing import Literal

import msgspec

from cvs.profiles import install
from cvs.store import damage
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.versions import locate, models, pickles, resolve
from cvs.versions.access import Access
from cvs.versions.lock import Commit, Lock
from cvs.versions.spec import Source, Spec

Kind = Literal["core", "node", "wheel", "model"]


class Item(msgspec.Struct, frozen=True):
    """One part of a version."""

    kind: Kind
    name: str
    pin: str
    """Commit, version or digest; what the spec says where it is not resolved yet."""
    size: int | None
    """Bytes; None if not known yet."""
    stored: bool
    """Whether nothing has to be fetched for it."""
    resolved: bool = True
    """Whether the lock has it."""
    damaged: bool = False
    """Whether what is stored was found damaged: a realize refuses it."""
    to_install: bool = False
    """Whether its install.py will be run."""
    pickle: bool = False
    """Whether it is a model that may run any program, by its bytes or, before these, its name."""


class Plan(msgspec.Struct, frozen=True):
    """What a version consists of and what of it is there."""

    version: str
    stale: tuple[str, ...]
    """Parts of the spec that have to be resolved first. Without the lock of the Python packages
    nobody knows which wheels there will be."""
    items: tuple[Item, ...]

    @property
    def to_fetch(self) -> tuple[Item, ...]:
        """What is not stored yet."""
        return tuple(item for item in self.items if not item.stored)

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes of what is not stored yet, as far as sizes are known; models that are the same are
        fetched once."""
        sizes = {
            (item.kind, item.pin if item.kind == "model" and item.pin else item.name): item.size
            for item in self.to_fetch
        }
        return sum(size or 0 for size in sizes.values())


def plan(store: Store, spec: Spec, lock: Lock | None, access: Access) -> Plan:
    """The plan for a spec, from its lock and the store; of models that are not locked yet the
    servers are asked for the size.

    Raises:
        InputError, SourceError: a model's source cannot be used or does not have it.
    """
    stale = tuple(resolve.stale(spec, lock))
    marked = damage.marked(store.volume)
    found = [
        msgspec.structs.replace(item, damaged=entry in marked)
        for item, entry in _items(store, spec, lock, stale, access)
    ]
    return Plan(spec.version_id, stale, tuple(found))


def _items(
    store: Store, spec: Spec, lock: Lock | None, stale: tuple[str, ...], access: Access
) -> Iterator[tuple[Item, EntryId | None]]:
    """The parts with their entries, as far as these are known."""
    core = None if lock is None else lock.core
    yield _commit(store, "core", spec.core, core)
    nodes = {} if lock is None else {node.name: node for node in lock.nodes}
    for node in spec.nodes:
        item, entry = _commit(store, "node", node, nodes.get(node.name))
        if lock is not None and item.resolved and not {"python", "interpreter"} & {*stale}:
            due = install.is_due(store, node, nodes[node.name], lock.python)
        else:
            due = node.run_install
        yield msgspec.structs.replace(item, to_install=due), entry
    if lock is not None and "python" not in stale and "interpreter" not in stale:
        from cvs.versions import wheels

        for one in lock.python.wheels:
            entry = wheels.stored(store, lock.python, one)
            yield Item("wheel", one.name, one.version, one.size, entry is not None), entry
    if spec.skip_models:
        return
    for wanted in spec.models:
        locked = None if lock is None else resolve.locked_model(wanted, lock.models)
        model = locked or locate.describe(store, wanted, access)
        entry = models.stored(store, model)
        # What most origins tell comes first: two that are the same are to be seen as such.
        pin = entry or model.sha256 or model.entry or ""
        stored = entry is not None
        item = Item("model", model.path, pin, model.size, stored, locked is not None)
        is_pickle = bool(pickles.find(store, [model]))
        yield msgspec.structs.replace(item, pickle=is_pickle), entry


def _commit(
    store: Store, kind: Kind, source: Source, locked: Commit | None
) -> tuple[Item, EntryId | None]:
    if locked is None or locked.request != source.request:
        pin = source.commit or source.ref or "HEAD"
        return Item(kind, source.name, pin, None, stored=False, resolved=False), None
    # Of a node whose install.py ran, the tree that runs is all that it takes.
    entry = next((one for one in (locked.used, locked.entry) if store.has(one)), None)
    item = Item(kind, locked.name, locked.commit, locked.size, entry is not None)
    return item, entry or locked.entry
