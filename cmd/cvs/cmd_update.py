"""`cvs update`: move pins to what refs and indexes say now, in the spec and in the lock."""

from typing import Any

from cvs import project
from cvs.cli import Parser, Session, table
from cvs.store import document
from cvs.store.errors import InputError
from cvs.versions import lock as locks
from cvs.versions import repository, resolve
from cvs.versions import spec as specs
from cvs.versions.lock import Lock

EXAMPLES = """\
  cvs update wan-demo
  cvs update wan-demo --node ComfyUI-KJNodes
  cvs update wan-demo --dry-run
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "update",
        "Move pins: commits to what their refs say now, in the spec and in the lock. Without "
        "--node also the core's, and all wheels are chosen anew.",
        EXAMPLES,
    )
    found.version_argument()
    found.add_argument(
        "--node", action="append", default=[], metavar="NAME", help="only this node; repeats"
    )
    found.add_argument("--dry-run", action="store_true", help="say what would move, write nothing")
    found.common(network=True)
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    spec = project.load_spec(session)
    access = project.access(session, spec)
    known = {node.name for node in spec.nodes}
    for name in options.node:
        if name not in known:
            raise InputError(
                f"{spec.file} has no custom node {name!r}",
                hint=f"it has: {', '.join(sorted(known))}",
            )
    store = session.store
    file = project.lock_file(session, spec.version_id)
    old = locks.read(file)
    commits: list[str | None] = []
    for source in (spec.core, *spec.nodes):
        fixed = source.ref is not None and repository.is_commit(source.ref)
        chosen = not options.node or (source is not spec.core and source.name in options.node)
        commits.append(resolve.tip(source, access) if chosen and not fixed else source.commit)
    data = document.load(spec.file)
    changed = specs.with_commits(data, commits[0], commits[1:])
    moved = [
        {"name": source.name, "from": _pin(source, old), "to": commit}
        for source, commit in zip((spec.core, *spec.nodes), commits, strict=True)
        if commit is not None and commit != _pin(source, old)
    ]
    if options.dry_run:
        _report(session, moved, [], dry_run=True)
        return 0
    wanted = specs.parse(changed, spec.file)
    lock = resolve.resolve(store, wanted, old, access, refresh=not options.node)
    packages = _packages(old, lock)
    if changed != data:
        project.write_spec(spec.file, changed, replace=True)
    if lock != old:
        locks.write(file, lock, store.volume.tmp)
    _report(session, moved, packages, dry_run=False)
    return 0


def _pin(source: specs.Source, old: Lock | None) -> str | None:
    if source.commit is not None or old is None:
        return source.commit
    commits = {commit.request: commit.commit for commit in (old.core, *old.nodes)}
    return commits.get(source.request)


def _packages(old: Lock | None, new: Lock) -> list[dict[str, str | None]]:
    before = {} if old is None else {wheel.name: wheel.version for wheel in old.python.wheels}
    after = {wheel.name: wheel.version for wheel in new.python.wheels}
    return [
        {"name": name, "from": before.get(name), "to": after.get(name)}
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _report(session: Session, moved: Any, packages: Any, *, dry_run: bool) -> None:
    rows = [
        (item["name"], (item["from"] or "-")[:12], "→", (item["to"] or "-")[:12])
        for item in (*moved, *packages)
    ]
    text = table(rows) if rows else "nothing moved"
    if dry_run and rows:
        text += "\nnothing was written; the wheels are chosen when it is done in earnest"
    session.result({"dry_run": dry_run, "commits": moved, "packages": packages}, text)
