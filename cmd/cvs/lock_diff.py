"""`cvs lock diff`: what differs between a version's lock and an older one, or what is realized."""

import os
from collections.abc import Sequence
from typing import Any

import msgspec
from blake3 import blake3

from cvs import entry as entries
from cvs import project
from cvs.cli import Parser, Session, size, table
from cvs.store import manifest
from cvs.store.digest import EntryId, is_id
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.store.record import Record
from cvs.versions import lock as locks
from cvs.versions import lock_diff, wheels
from cvs.versions import spec as specs
from cvs.versions.lock import Lock
from cvs.versions.lock_diff import Change, Difference, Side

EXAMPLES = """\
  cvs lock diff wan-demo
  cvs lock diff wan-demo wan-test
  cvs lock diff wan-demo ./old/wan-demo.lock.json --json
"""

#: Fields that are not told beside one that they follow from: another version has other bytes.
_FOLLOW = {
    "commit": {"date", "entry", "size", "submodules", "lfs"},
    "version": {"file", "sha256", "size", "url", "uploaded", "entry"},
    "file": {"sha256", "size", "url", "uploaded"},
    "built": {"sha256", "size", "uploaded", "entry"},
    "sha256": {"uploaded", "entry"},
    "entry": {"lfs"},
    "path": {"name"},
}

_MARKS = {"added": "+", "removed": "-", "changed": "~"}

Row = tuple[str, str, str]


def parser() -> Parser:
    """The options."""
    found = Parser(
        "lock diff",
        "Show what differs between the lock of a version and an older one: commits, the "
        "interpreter, packages, models. + came, - went, ~ is another. Without OLD the lock is "
        "compared with the current generation, of which the entries are known and not the lock. "
        "Asks nobody. Ends with 0 whether something differs or not.",
        EXAMPLES,
    )
    found.version_argument()
    found.add_argument(
        "old",
        nargs="?",
        metavar="OLD",
        help="the lock to compare with: a version, or the path of a lock (with / or .json in it)",
    )
    found.add_argument("--lock-file", metavar="FILE", help="the lock, instead of its place")
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    version, old = project.version_id(session), session.options.old
    lock = project.load_lock(session, version)
    after = {"kind": "lock", "version": lock.version_id}
    after["file"] = project.lock_file(session, version)
    if old is None:
        number, record = _current(session)
        before = {"kind": "generation", "version": record.version, "generation": number}
        told = f"generation {number}, which is current: its lock is not kept, its entries are"
        found, parts = _of_generation(session, lock, record), record.parts
    else:
        file, known = _old(session, old)
        before = {"kind": "lock", "version": known.version_id, "file": file}
        told, found = file, lock_diff.of_locks(known, lock)
        parts = msgspec.to_builtins(known.parts)
    asked = lock_diff.asked_otherwise(parts, msgspec.to_builtins(lock.parts))
    data = {"equal": not found.changes, "before": before, "after": after}
    lines = [table([("-", told), ("+", str(after["file"]))]), text(found) or "nothing differs"]
    if asked:
        lines.append(f"the spec asked otherwise then: {', '.join(asked)}")
    session.result({**data, "asked_otherwise": asked, **described(found)}, "\n".join(lines))
    return 0


def _old(session: Session, given: str) -> tuple[str, Lock]:
    """The lock that was named, by its path or its version."""
    if "/" in given or given.endswith((".json", ".lock")):
        file = os.path.abspath(os.path.expanduser(given))
        found = locks.read(file)
        if found is None:
            there = "is not a lock of cvs" if os.path.lexists(file) else "does not exist"
            raise InputError(f"{file} {there}")
        return file, found
    specs.check_version_id(given, "the version")
    file = os.path.join(session.volume.resolved, f"{given}.lock.json")
    found = locks.read(file)
    if found is None:
        raise InputError(
            f"there is no lock {file}", hint="the path of a lock has a / in it: ./FILE"
        )
    return file, found


def _current(session: Session) -> tuple[int, Record]:
    profile = project.profile(session)
    number = profile.current() if profile.exists() else None
    if number is None:
        raise InputError(
            f"{profile.version} is not realized here, so there is nothing to compare its lock with",
            hint="name another lock: a version, or the path of a lock",
        )
    return number, profile.record(number)


def _of_generation(session: Session, lock: Lock, record: Record) -> Difference:
    if blake3(locks.encode(lock)).hexdigest() == record.lock:
        return lock_diff.of_locks(lock, lock)
    path = project.spec_file(session)
    models = not (os.path.exists(path) and specs.load(path).skip_models)
    store = session.store
    stored = {
        one.sha256: entry
        for one in lock.python.wheels
        if (entry := wheels.stored(store, lock.python, one))
    }
    return lock_diff.compare(
        lock_diff.realized(record, _names(store, record)),
        lock_diff.as_realized(lock, record, stored, models=models),
    )


def _names(store: Store, record: Record) -> dict[EntryId, str | None]:
    """What the wheels of a generation are called; None where that cannot be read."""
    whole = store.manifest(record.wheel_set)
    assert isinstance(whole, manifest.SetManifest)
    found = {member: entries.read(store, member) for member in whole.members}
    return {
        member: None if document is None else entries.name(document)
        for member, document in found.items()
    }


def described(found: Difference) -> dict[str, Any]:
    """The JSON of a difference."""
    return {
        "core": _described(found.core),
        "nodes": [_described(one) for one in found.nodes],
        "interpreter": _described(found.interpreter),
        "python": _described(found.python),
        "packages": [_described(one) for one in found.packages],
        "models": [_described(one) for one in found.models],
    }


def _described(change: Change | None) -> dict[str, Any] | None:
    if change is None:
        return None
    return {
        "name": change.name,
        "what": change.what,
        "fields": list(change.fields),
        "before": change.before,
        "after": change.after,
    }


def text(found: Difference) -> str:
    """A difference as lines for people; "" if there is none."""
    groups: list[tuple[str, list[Row]]] = [
        ("core", _rows(found.core)),
        ("nodes", [row for one in found.nodes for row in _rows(one)]),
        ("Python", _rows(found.interpreter, "interpreter") + _rows(found.python, "python")),
        ("packages", [row for one in found.packages for row in _rows(one)]),
        ("models", [row for one in found.models for row in _rows(one)]),
    ]
    lines = iter(table([row for _, rows in groups for row in rows]).splitlines())
    told = []
    for title, rows in groups:
        told += [title] if rows else []
        told += [f"  {next(lines)}" for _ in rows]
    if not told:
        return ""
    marks = [_MARKS[change.what] for change in found.changes]
    counts = [f"{marks.count(mark)} {what}" for what, mark in _MARKS.items()]
    return "\n".join([*told, ", ".join(counts)])


def _rows(change: Change | None, name: str = "") -> list[Row]:
    """One line for each field that is told, the first with the mark and the name."""
    if change is None:
        return []
    told = _told(change) or [""]
    heads = [(_MARKS[change.what], name or change.name), *[("", "")] * (len(told) - 1)]
    return [(*head, line) for head, line in zip(heads, told, strict=True)]


def _told(change: Change) -> list[str]:
    before, after = change.before, change.after
    if before is None or after is None:
        return [_brief(after or before or {})]
    fields = change.fields
    follow = set().union(*(_FOLLOW.get(name, set()) for name in fields))
    return [_field(name, before, after) for name in fields if name not in follow]


def _brief(side: Side) -> str:
    """What something is that came or went."""
    pins = ("commit", "version", "sha256", "entry")
    pin = next((name for name in pins if side.get(name)), None)
    told = [_value(pin, side[pin])] if pin else []
    # A ref may be the commit itself.
    others = [side[name] for name in ("ref", "repo") if side.get(name)]
    told += [str(text) for text in others if text != side.get(pin or "")]
    if "path" in side and side.get("size") is not None:
        told.append(size(side["size"]))
    return "  ".join(told)


def _field(name: str, before: Side, after: Side) -> str:
    old, new = before.get(name), after.get(name)
    if name == "installed":
        return f"install.py: {_installed(old, new)}"
    if name == "path":
        return f"moved from {old}"
    if isinstance(old, list | tuple) or isinstance(new, list | tuple):
        return f"{name}: {_members(old or (), new or ())}"
    if name == "version":
        return f"{_value(name, old)} → {_value(name, new)}"
    said = f"{name} {_value(name, old)} → {_value(name, new)}"
    both = old is not None and new is not None
    return f"other bytes, {said}" if name in ("sha256", "entry") and both else said


def _installed(old: Side | None, new: Side | None) -> str:
    """What came to that which an install.py made, and what went from it."""
    if old is None or new is None:
        return "ran" if old is None else "to run again, or not at all"
    before, after = [
        [*side["wrote"], *(f"{path} removed" for path in side["removed"])] for side in (old, new)
    ]
    if before == after:
        return "made another tree" if old["entry"] != new["entry"] else "ran once more"
    return _members(before, after)


def _value(name: str, value: Any) -> str:
    if value is None or value == "":
        return "-"
    if name == "size":
        return size(value)
    if name == "commit" or (isinstance(value, str) and is_id(value)):
        return str(value)[:12]
    return str(value)


def _members(old: Sequence[Any], new: Sequence[Any]) -> str:
    """What came to a list and what went from it."""
    before, after = [list(map(_member, side)) for side in (old, new)]
    told = [f"+{one}" for one in after if one not in before]
    told += [f"-{one}" for one in before if one not in after]
    return ", ".join(told) or "in another order"


def _member(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return " ".join(_value(name, inner) for name, inner in value.items())
