"""What differs between two locks, or between a lock and what is realized. Pure.

The sides of a change are parts of a lock as `msgspec.to_builtins` has them, so that a field that
comes to locks is compared without code of its own. Left out are the digests of what the spec asks
for: they say whether a lock is stale, not what a version is.
"""

import itertools
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from packaging.utils import canonicalize_name

from cvs.store.digest import EntryId
from cvs.store.record import Record
from cvs.versions.lock import Built, Lock
from cvs.versions.spec import digest
from cvs.versions.wheel import tree_name

What = Literal["added", "removed", "changed"]
Side = dict[str, Any]

#: Digests of what the spec asks for.
_ASKED = ("request", "requirements")


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What is compared of a version; without arguments, of none at all."""

    core: Side | None = None
    nodes: tuple[Side, ...] = ()
    interpreter: Side | None = None
    python: Side | None = None
    """What counts for all packages together, such as `exclude_newer`."""
    packages: tuple[Side, ...] = ()
    models: tuple[Side, ...] = ()


class Change(msgspec.Struct, frozen=True):
    """One thing that differs; of one that came or went one side is None."""

    before: Side | None
    after: Side | None

    @property
    def what(self) -> What:
        """Whether it came, went or is another."""
        if self.before is None:
            return "added"
        return "removed" if self.after is None else "changed"

    @property
    def name(self) -> str:
        """What it is called now, or was: a model by its path; "" for what has no name."""
        side = self.after or self.before or {}
        return str(side.get("path", side.get("name", "")))

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that differ, in their order; none of what came or went."""
        if self.before is None or self.after is None:
            return ()
        names = dict.fromkeys([*self.before, *self.after])
        return tuple(name for name in names if self.before.get(name) != self.after.get(name))


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """All that differs; every list in the order of names."""

    core: Change | None
    nodes: tuple[Change, ...]
    interpreter: Change | None
    python: Change | None
    packages: tuple[Change, ...]
    models: tuple[Change, ...]

    @property
    def changes(self) -> tuple[Change, ...]:
        """All changes; none if nothing differs."""
        alone = (self.core, self.interpreter, self.python)
        found = [one for one in alone if one is not None]
        return (*found, *self.nodes, *self.packages, *self.models)


def compare(before: Contents, after: Contents) -> Difference:
    """What differs between two versions."""
    return Difference(
        core=_change(before.core, after.core),
        nodes=_changes(before.nodes, after.nodes, _name),
        interpreter=_change(before.interpreter, after.interpreter),
        python=_change(before.python, after.python),
        packages=_changes(before.packages, after.packages, _package),
        models=_models(before.models, after.models),
    )


def of_locks(before: Lock | None, after: Lock) -> Difference:
    """What differs between two locks; all is new where there was none."""
    return compare(Contents() if before is None else of_lock(before), of_lock(after))


def of_lock(lock: Lock) -> Contents:
    """What is compared of a lock."""
    found = msgspec.to_builtins(lock)
    python = found["python"]
    interpreter, wheels = python.pop("interpreter"), python.pop("wheels")
    # What a wheel became follows from it, and is known only once it is stored.
    python.pop("layout", None)
    for side, wheel in zip(wheels, lock.python.wheels, strict=True):
        side.pop("entry", None)
        if isinstance(wheel.built, Built):
            # What else a build used follows from it, or is told by its bytes.
            side["built"] = wheel.built.shown
    for side in found["models"]:
        files = side.get("files")
        if isinstance(files, tuple):
            # There may be a thousand, each with an address.
            side["files"] = f"{len(files)} files, {digest(files)[:12]}"
    return Contents(
        core=_plain(found["core"]),
        nodes=tuple(map(_plain, found["nodes"])),
        interpreter=_plain(interpreter),
        python=_plain(python),
        packages=tuple(map(_plain, wheels)),
        models=tuple(map(_plain, found["models"])),
    )


def asked_otherwise(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The parts of a spec whose digests differ: they may be resolved to the same all the same."""
    return [name for name in after if before.get(name) != after[name]]


def realized(record: Record, names: Mapping[EntryId, str | None]) -> Contents:
    """What is compared of a generation whose lock is gone: its record has entries alone.

    Args:
        names: the members of its wheel set, and what their trees are called; None if unknown.
    """
    places = {
        place.path: {"entry": place.target.partition("/")[0]}
        for place in record.links
        if not place.path or place.path.startswith(("custom_nodes/", "models/"))
    }
    core = {"name": _core_name(record), **places.pop("")}
    nodes = [
        {"name": path.removeprefix("custom_nodes/"), **side}
        for path, side in places.items()
        if path.startswith("custom_nodes/")
    ]
    models = [
        {"path": path.removeprefix("models/"), **side}
        for path, side in places.items()
        if path.startswith("models/")
    ]
    return Contents(
        core=core,
        nodes=tuple(nodes),
        interpreter=dict(record.interpreter),
        python={"provided": record.provided},
        packages=tuple(
            {**_of_tree(name or f"{entry}--"), "entry": entry} for entry, name in names.items()
        ),
        models=tuple(models),
    )


def as_realized(
    lock: Lock, record: Record, stored: Mapping[str, EntryId], *, models: bool = True
) -> Contents:
    """What a generation would have of a lock, to be compared with that of a record.

    Args:
        stored: the entries of those wheels that are stored, by SHA-256.
        models: whether the generation would have models at all.
    """
    interpreter = msgspec.to_builtins(lock.python.interpreter)
    abi = lock.python.interpreter.abi
    return Contents(
        core={"name": lock.core.name, "entry": lock.core.entry},
        nodes=tuple({"name": node.name, "entry": node.used} for node in lock.nodes),
        # A record that was written before there was a field says nothing of it.
        interpreter={name: interpreter.get(name) for name in record.interpreter},
        python={"provided": lock.python.provided},
        packages=tuple(
            {**_of_tree(tree_name(one.file, abi)[1]), "entry": stored.get(one.sha256)}
            for one in lock.python.wheels
        ),
        models=tuple({"path": model.path, "entry": model.entry} for model in lock.models if models),
    )


def _core_name(record: Record) -> str:
    return next(place.target for place in record.links if not place.path).partition("/")[2]


def _of_tree(name: str) -> Side:
    """Name and version of a wheel, from what its tree is called: `numpy-2.4.6-cp311`."""
    package, _, version = name.rpartition("-")[0].rpartition("-")
    return {"name": package, "version": version}


def _plain(found: Side) -> Side:
    return {name: value for name, value in found.items() if name not in _ASKED}


def _name(side: Side) -> str:
    return str(side["name"])


def _package(side: Side) -> str:
    return canonicalize_name(_name(side))


def _path(side: Side) -> str:
    return str(side["path"])


def _change(before: Side | None, after: Side | None) -> Change | None:
    return None if before == after else Change(before, after)


def _changes(
    before: Iterable[Side], after: Iterable[Side], key: Callable[[Side], str]
) -> tuple[Change, ...]:
    """Compares what has one name. A lock made by hand may have two wheels of one."""
    old, new = _grouped(before, key), _grouped(after, key)
    found = [
        _change(*pair)
        for name in sorted(old.keys() | new.keys())
        for pair in itertools.zip_longest(old.get(name, []), new.get(name, []))
    ]
    return tuple(one for one in found if one is not None)


def _grouped(sides: Iterable[Side], key: Callable[[Side], str]) -> dict[str, list[Side]]:
    found: dict[str, list[Side]] = {}
    for side in sides:
        found.setdefault(key(side), []).append(side)
    return found


def _models(before: Iterable[Side], after: Iterable[Side]) -> tuple[Change, ...]:
    """Compares models by their places; bytes that went from one place and came to another moved."""
    found = list(_changes(before, after, _path))
    gone = [one.before for one in found if one.before is not None and one.after is None]
    came = [one.after for one in found if one.after is not None and one.before is None]
    moved = _moved(gone, came)
    paths = {_path(side) for pair in moved for side in pair}
    left = [one for one in found if one.what == "changed" or one.name not in paths]
    changes = [*left, *(Change(old, new) for old, new in moved)]
    return tuple(sorted(changes, key=_first_path))


def _moved(gone: Sequence[Side], came: Sequence[Side]) -> list[tuple[Side, Side]]:
    """Pairs of one content; whichever side is asked first, they are the same."""
    pairs: list[tuple[Side, Side]] = []
    for field in ("entry", "sha256"):
        waiting = _grouped([side for side in came if side.get(field)], operator.itemgetter(field))
        for old in gone:
            if same := waiting.get(old.get(field) or ""):
                pairs.append((old, same.pop(0)))
        used = [id(side) for pair in pairs for side in pair]
        gone = [side for side in gone if id(side) not in used]
        came = [side for side in came if id(side) not in used]
    return pairs


def _first_path(change: Change) -> str:
    return min(_path(side) for side in (change.before, change.after) if side is not None)
