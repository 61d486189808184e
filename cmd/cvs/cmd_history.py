"""`cvs history`: the generations of a version."""

from typing import Any

from cvs import project
from cvs.cli import Parser, Session, table
from cvs.profiles.generations import Profile
from cvs.store.errors import InputError
from cvs.store.record import Record

EXAMPLES = "  cvs history wan-demo\n  cvs history wan-demo --json\n"


def parser() -> Parser:
    """The options."""
    found = Parser("history", "The generations of a version and what is in each.", EXAMPLES)
    found.version_argument()
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    profile = project.profile(session)
    current = profile.current() if profile.exists() else None
    found = list(generations(profile))
    if not found:
        raise InputError(
            f"{profile.version} has no generations here", hint=f"cvs realize {profile.version}"
        )
    rows = [("", "N", "CREATED", "ENTRIES", "CHANGED", "BY")]
    before: Record | None = None
    data: list[dict[str, Any]] = []
    for number, record in found:
        changed = changes(before, record)
        rows.append(
            (
                "*" if number == current else "",
                str(number),
                record.created,
                str(len(record.entries)),
                changed,
                record.host,
            )
        )
        data.append(
            {
                "generation": number,
                "current": number == current,
                "created": record.created,
                "host": record.host,
                "entries": len(record.entries),
                "changed": changed,
            }
        )
        before = record
    session.result(data, table(rows))
    return 0


def generations(profile: Profile) -> list[tuple[int, Record]]:
    """The generations that are there, ascending; one that vanishes meanwhile is left out."""
    found = []
    for number in profile.numbers():
        try:
            found.append((number, profile.record(number)))
        except InputError:
            continue
    return found


def changes(before: Record | None, record: Record) -> str:
    """What differs between two generations, in one line."""
    if before is None:
        return "first"
    old = {place.path: place.target for place in before.links}
    new = {place.path: place.target for place in record.links}
    parts = [
        f"{mark}{path or 'ComfyUI'}"
        for path in sorted(old.keys() | new.keys())
        if (mark := _mark(old.get(path), new.get(path)))
    ]
    if before.wheel_set != record.wheel_set:
        parts.append("~wheels")
    return " ".join(parts) or "nothing"


def _mark(old: str | None, new: str | None) -> str:
    if old == new:
        return ""
    return "+" if old is None else "-" if new is None else "~"
