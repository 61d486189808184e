"""`cvs resolve`: resolve a spec into its lock."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cvs import project
from cvs.cli import Parser, Session, size, table
from cvs.versions import lock as locks
from cvs.versions import pickles, resolve
from cvs.versions.lock import Lock
from cvs.versions.pickles import Pickle
from cvs.versions.spec import Spec

EXAMPLES = """\
  cvs resolve wan-demo
  cvs resolve wan-demo --offline
  cvs resolve ./versions/wan-demo.json --json
"""

#: Paths of what an install.py wrote that are named.
_NAMED = 8


def parser() -> Parser:
    """The options."""
    found = Parser("resolve", "Resolve a spec into its lock: commits, wheels, models.", EXAMPLES)
    found.version_argument()
    found.common(network=True)
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    lock, changed, file = resolved(session)
    state = "resolved" if changed else "nothing to resolve"
    session.result(report(lock, changed, file), f"{lock.version_id}: {state}, {file}")
    return 0


def resolved(session: Session) -> tuple[Lock, bool, str]:
    """Resolves what the lock lacks; the lock, whether it changed, and its file."""
    spec = project.load_spec(session)
    store = session.store
    file = project.lock_file(session, spec.version_id)
    old = locks.read(file)
    lock = resolve.resolve(store, spec, old, project.access(session, spec))
    if lock != old:
        locks.write(file, lock, store.volume.tmp)
    return lock, lock != old, file


def report(lock: Lock, changed: bool, file: str) -> dict[str, Any]:
    """The JSON result."""
    return {"changed": changed, "file": file, "lock": msgspec.to_builtins(lock)}


def installs(lock: Lock) -> list[str]:
    """What the install.py of nodes made, for people; one line each."""
    lines = []
    for node in lock.nodes:
        if not node.installed:
            continue
        parts = (("wrote", node.installed.wrote), ("removed", node.installed.removed))
        told = [f"{verb} {_some(paths)}" for verb, paths in parts if paths]
        lines.append(f"install.py of {node.name} {' and '.join(told) or 'changed nothing'}")
    return lines


def _some(paths: Sequence[str]) -> str:
    named = ", ".join(paths[:_NAMED])
    more = len(paths) - _NAMED
    return f"{named} and {more} more" if more > 0 else named


def flags(session: Session, lock: Lock, spec: Spec | None) -> list[Pickle]:
    """The models of a lock that are pickles, if they are wanted."""
    if spec is not None and spec.skip_models:
        return []
    return pickles.find(session.store, lock.models)


def told(found: Sequence[Pickle], spec: Spec | None) -> list[str]:
    """What people should know of pickles; a line each."""
    refused = spec is not None and not spec.allow_pickle
    lines = []
    for one in found:
        what = "is a pickle" if one.seen else "is a pickle by its name"
        end = "options.allow_pickle refuses it" if refused else "which may run any program"
        lines.append(f"models/{one.path} {what}, {end}")
    return lines


def rows(lock: Lock) -> str:
    """A lock as a table for people."""
    lines = [("core", lock.core.name, lock.core.commit[:12], size(lock.core.size))]
    lines += [("node", node.name, node.commit[:12], size(node.size)) for node in lock.nodes]
    lines += [
        ("wheel", wheel.name, wheel.version, size(wheel.size)) for wheel in lock.python.wheels
    ]
    lines += [
        ("model", model.path, (model.entry or model.sha256 or "?")[:12], size(model.size))
        for model in lock.models
    ]
    return table(lines)
