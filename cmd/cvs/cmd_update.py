"""`cvs update`: move pins to what refs and indexes say now, in the spec and in the lock."""

import sys
from typing import Any

import msgspec

from cvs import lock_diff, project
from cvs.cli import Parser, Session
from cvs.store import document
from cvs.store.errors import InputError
from cvs.versions import lock as locks
from cvs.versions import lock_diff as differences
from cvs.versions import repository, resolve
from cvs.versions import spec as specs
from cvs.versions.access import Access
from cvs.versions.lock import Lock
from cvs.versions.spec import Spec

EXAMPLES = """\
  cvs update wan-demo
  cvs update wan-demo --node ComfyUI-KJNodes
  cvs update wan-demo --package torch --package torchvision
  cvs update wan-demo --dry-run
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "update",
        "Move pins: commits to what their refs say now, in the spec and in the lock. Without "
        "--node and --package these are the core's and all nodes', and all wheels are chosen anew. "
        "What changes is shown before it is written.",
        EXAMPLES,
    )
    found.version_argument()
    found.add_argument(
        "--node", action="append", default=[], metavar="NAME", help="only this node; repeats"
    )
    found.add_argument(
        "--package",
        action="append",
        default=[],
        metavar="NAME",
        help="only this Python package, to the newest that fits; others keep their versions where "
        "they can, commits where no --node is given; repeats",
    )
    found.add_argument(
        "--dry-run",
        action="store_true",
        help="show what would change and write neither spec nor lock; to know it, commits may be "
        "fetched into the store",
    )
    found.common(network=True)
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    spec = project.load_spec(session)
    access = project.access(session, spec)
    _check_nodes(spec, options.node)
    store = session.store
    file = project.lock_file(session, spec.version_id)
    old = project.load_lock(session, spec.version_id) if options.package else locks.read(file)
    packages = [] if old is None else [project.locked_package(old, p) for p in options.package]
    commits = _commits(spec, access, options.node, everything=not options.node + options.package)
    data = document.load(spec.file)
    changed = specs.with_commits(data, commits[0], commits[1:])
    wanted = specs.parse(changed, spec.file)
    everything = not options.node and not packages
    known = old and _without_installed(old, options.node)
    lock = resolve.resolve(store, wanted, known, access, refresh=everything, packages=packages)
    result, text = _report(spec, old, lock, commits, dry_run=options.dry_run)
    if not session.json:
        session.result(result, text)
        sys.stdout.flush()
    if not options.dry_run:
        if changed != data:
            project.write_spec(spec.file, changed, replace=True)
        if lock != old:
            locks.write(file, lock, store.volume.tmp)
    for name in packages:
        _say_if_unmoved(session, name, old, lock)
    if session.json:
        session.result(result, text)
    return 0


def _without_installed(lock: Lock, nodes: list[str]) -> Lock:
    """A lock that has forgotten what the install.py of these nodes made: it is the same no more, or
    is to be made anew."""
    changed = tuple(
        resolve.without_installed(node) if node.name in nodes else node for node in lock.nodes
    )
    return msgspec.structs.replace(lock, nodes=changed)


def _check_nodes(spec: Spec, names: list[str]) -> None:
    known = {node.name for node in spec.nodes}
    for name in names:
        if name not in known:
            raise InputError(
                f"{spec.file} has no custom node {name!r}",
                hint=f"it has: {', '.join(sorted(known))}",
            )


def _commits(spec: Spec, access: Access, nodes: list[str], *, everything: bool) -> list[str | None]:
    """The commits of the core and the nodes for the spec; None where it goes on without one."""
    commits: list[str | None] = []
    for source in (spec.core, *spec.nodes):
        fixed = source.ref is not None and repository.is_commit(source.ref)
        chosen = everything or (source is not spec.core and source.name in nodes)
        commits.append(resolve.tip(source, access) if chosen and not fixed else source.commit)
    return commits


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


def _report(
    spec: Spec, old: Lock | None, lock: Lock, commits: list[str | None], *, dry_run: bool
) -> tuple[dict[str, Any], str]:
    """What changes, as JSON and as text."""
    found = differences.of_locks(old, lock)
    moved = [
        {"name": source.name, "from": _pin(source, old), "to": commit}
        for source, commit in zip((spec.core, *spec.nodes), commits, strict=True)
        if commit is not None and commit != _pin(source, old)
    ]
    text = lock_diff.text(found)
    if text and dry_run:
        text += "\nneither spec nor lock was written"
    data = {
        "dry_run": dry_run,
        "commits": moved,
        "packages": _packages(old, lock),
        "diff": lock_diff.described(found),
    }
    return data, text or "nothing moved"


def _say_if_unmoved(session: Session, name: str, old: Lock | None, lock: Lock) -> None:
    before, after = [] if old is None else _versions(old, name), _versions(lock, name)
    if before != after:
        return
    date = lock.python.exclude_newer
    why = f", and nothing newer than {date} counts: see python.exclude_newer" if date else ""
    session.say(f"note: {name} stays at {', '.join(after)}: nothing newer fits{why}")


def _versions(lock: Lock, package: str) -> list[str]:
    from packaging.utils import canonicalize_name

    wheels = lock.python.wheels
    return [one.version for one in wheels if canonicalize_name(one.name) == package]
