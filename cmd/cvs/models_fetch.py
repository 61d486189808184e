"""`cvs models fetch`: put the models of a version into the store, without realizing it."""

import functools

import msgspec

from cvs import entry as entries
from cvs import model, project
from cvs.cli import Parser, Session, size, table
from cvs.store.entries import Store
from cvs.store.errors import InputError
from cvs.versions import locate, model_check, model_list, models, parallel
from cvs.versions import lock as locks
from cvs.versions.access import Access
from cvs.versions.lock import Model
from cvs.versions.model_list import Listed

EXAMPLES = """\
  cvs models fetch wan-demo
  cvs models fetch wan-demo checkpoints/sd15.safetensors
  cvs models fetch --lock resolved/wan-demo.lock.json --offline
"""


def parser() -> Parser:
    """The options."""
    found = Parser(
        "models fetch",
        "Put the models of a version, or some of them, into the store: on a cheap machine, say, "
        "before one with a GPU realizes it. What is learned of them (size, checksum, hash) is "
        "written into the lock.",
        EXAMPLES,
    )
    found.add_argument(
        "names",
        nargs="*",
        metavar="ID [MODEL …]",
        help="the version, and its models by name or place; with --lock the models alone",
    )
    found.add_argument("--lock", metavar="FILE", help="a lock or list, instead of a version")
    found.add_argument("--lock-file", metavar="FILE", help="the version's lock")
    found.common()
    model.fetching(found)
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    if options.lock and options.lock_file:
        raise InputError("--lock stands for a version, which --lock-file needs")
    version, *names = [None, *options.names] if options.lock else (options.names or [None])
    if version is None and not options.lock:
        raise InputError("a version or --lock is needed", hint="`cvs list` shows the versions")
    listed, access = model.listed(session, version, options.lock)
    where = options.lock or f"version {version}"
    chosen = model_list.named(listed, names, where)
    store = session.store
    store.volume.prepare()
    is_there = [
        one.locked is not None and models.stored(store, one.locked) is not None for one in chosen
    ]
    missing = zip(chosen, is_there, strict=True)
    access.progress.expect(
        sum(one.locked.size or 0 for one, there in missing if one.locked and not there)
    )
    jobs = [functools.partial(_fetch, store, one, access) for one in chosen]
    found = parallel.gather(jobs, workers=model_check.PARALLEL, stop=access.stop)
    file = options.lock or project.lock_file(session, project.version_id(session))
    if any(one.locked for one in listed):
        _complete(store, file, found)
    data = [
        {**msgspec.to_builtins(one), "fetched": not there}
        for one, there in zip(found, is_there, strict=True)
    ]
    rows = [
        (
            (one.entry or "?")[: entries.DIGITS],
            size(one.size),
            "was there" if there else "fetched",
            entries.shown(one.path),
        )
        for one, there in zip(found, is_there, strict=True)
    ]
    session.result(data, table(rows) if rows else f"{where} has no models")
    return 0


def _fetch(store: Store, one: Listed, access: Access) -> Model:
    locked = one.locked or locate.describe(store, one.wanted, access)
    return models.ensure(store, one.wanted, locked, access)


def _complete(store: Store, file: str, found: list[Model]) -> None:
    """Writes what was learned into the lock, as it is by now."""
    lock = locks.read(file)
    if lock is None:
        return
    known = {(one.path, one.request): one for one in found}
    whole = msgspec.structs.replace(
        lock, models=tuple(known.get((one.path, one.request), one) for one in lock.models)
    )
    if whole != lock:
        locks.write(file, whole, store.volume.tmp)
