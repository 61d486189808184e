"""The plan: what a realize would do, with sizes, told before anything is done. Changes nothing."""

from collections.abc import Iterator
from typing import Literal

import msgspec

from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.versions import models, resolve
from cvs.versions.lock import Commit, Lock
from cvs.versions.spec import Spec

Kind = Literal["core", "node", "wheel", "model"]


class Item(msgspec.Struct, frozen=True):
    """One part of a version."""

    kind: Kind
    name: str
    pin: str
    """Commit, version or digest; "" if not known yet."""
    size: int | None
    """Bytes; None if not known yet."""
    stored: bool
    """Whether nothing has to be fetched for it."""


class Plan(msgspec.Struct, frozen=True):
    """What a version consists of and what of it is there."""

    version: str
    stale: tuple[str, ...]
    """Parts of the spec that have to be resolved first; their items are missing here."""
    items: tuple[Item, ...]

    @property
    def to_fetch(self) -> tuple[Item, ...]:
        """What is not stored yet."""
        return tuple(item for item in self.items if not item.stored)

    @property
    def bytes_to_fetch(self) -> int:
        """Bytes of what is not stored yet, as far as sizes are known."""
        return sum(item.size or 0 for item in self.to_fetch)


def plan(store: Store, spec: Spec, lock: Lock | None) -> Plan:
    """The plan for a spec, from its lock and the store alone; asks nobody.

    Entries that a set or a ref names count as stored if they are there.
    """
    stale = tuple(resolve.stale(spec, lock))
    items = () if lock is None else tuple(_items(store, spec, lock, stale))
    return Plan(version=spec.version_id, stale=stale, items=items)


def _items(store: Store, spec: Spec, lock: Lock, stale: tuple[str, ...]) -> Iterator[Item]:
    if "core" not in stale:
        yield _commit(store, "core", lock.core)
    requests = {(node.name, node.request) for node in spec.nodes}
    for node in lock.nodes:
        if (node.name, node.request) in requests:
            yield _commit(store, "node", node)
    if "python" not in stale and "interpreter" not in stale:
        from cvs.versions import wheels

        missing = {wheel.file for wheel in wheels.missing(store, lock.python)}
        for wheel in lock.python.wheels:
            stored = wheel.file not in missing
            yield Item("wheel", wheel.name, wheel.version, wheel.size, stored)
    if not spec.skip_models:
        wanted = {(model.path, model.request) for model in spec.models}
        for model in lock.models:
            if (model.path, model.request) in wanted:
                entry = models.stored(store, model)
                pin = entry or model.entry or model.sha256 or ""
                yield Item("model", model.path, pin, model.size, entry is not None)


def _commit(store: Store, kind: Kind, commit: Commit) -> Item:
    return Item(kind, commit.name, commit.commit, commit.size, store.has(EntryId(commit.entry)))
