"""`cvs list`: the versions that have a spec or a generation."""

import os

from cvs.cli import Parser, Session, table
from cvs.profiles.generations import Profile
from cvs.versions.spec import is_version_id

EXAMPLES = "  cvs list\n  cvs list --json\n"


def parser() -> Parser:
    """The options."""
    found = Parser("list", "The versions that have a spec here or a generation.", EXAMPLES)
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    volume = session.volume
    volume.check()
    folder = session.settings.versions_dir(session.options.versions_dir)
    specs = {name.removesuffix(".json") for name in _names(folder) if name.endswith(".json")}
    realized = set(_names(volume.profiles))
    found = []
    for version in filter(is_version_id, sorted(specs | realized)):
        profile = Profile(volume, version)
        found.append(
            {
                "version": version,
                "spec": f"{folder}/{version}.json" if version in specs else None,
                "locked": os.path.exists(os.path.join(volume.resolved, f"{version}.lock.json")),
                "generations": len(profile.numbers()),
                "current": profile.current() if profile.exists() else None,
            }
        )
    rows = [("VERSION", "GENERATION", "LOCK", "SPEC")]
    for item in found:
        current = f"{item['current']} of {item['generations']}" if item["current"] else "-"
        lock = "locked" if item["locked"] else "-"
        rows.append((str(item["version"]), current, lock, str(item["spec"] or "-")))
    session.result(found, table(rows) if found else f"no versions in {folder}")
    return 0


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
