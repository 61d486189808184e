"""`cvs store repair`: make damaged entries whole again from where they came from."""

import functools
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from cvs import entry as entries
from cvs import project
from cvs.cli import Parser, Session
from cvs.store import damage, repair, source
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import EntryMissing, InputError
from cvs.store.repair import Repaired
from cvs.store.source import Source
from cvs.store.verify import Damage
from cvs.versions import restore
from cvs.versions import spec as specs
from cvs.versions.spec import Spec

EXAMPLES = """\
  cvs store repair
  cvs store repair 4f1c2a9b --dry-run
  cvs store repair --all --from /mnt/other/cache
"""

#: Paths of one entry that are listed as text.
_LISTED = 20


def parser() -> Parser:
    """The options."""
    found = Parser(
        "store repair",
        "Make entries whole again: all that are marked as damaged, or those named. What is sound "
        "is not touched; what is damaged is fetched from where it came from (repository, package "
        "index, model source, as the locks and specs say) or from another store, compared, and "
        "put in place; what was there is kept aside in damaged/. Ends with 1 if something could "
        "not be restored.",
        EXAMPLES,
    )
    entries.argument(found, nargs="*")
    found.add_argument("--all", action="store_true", help="verify all entries first")
    found.add_argument(
        "--from",
        dest="sources",
        action="append",
        default=[],
        metavar="PATH",
        help="another volume, or a copy of the file or folder, asked before anything else; repeats",
    )
    found.add_argument(
        "--dry-run", action="store_true", help="say what is damaged and who may have it"
    )
    found.common(network=True)
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    given = [source.at(os.path.abspath(os.path.expanduser(path))) for path in options.sources]
    if options.all and options.entries:
        raise InputError("--all is for all entries, and some are named")
    store = session.store
    chosen = _chosen(store, options.entries, everything=options.all)
    sources = _sources(session, store, given)
    if options.dry_run:
        return _dry_run(session, store, chosen, sources)
    if chosen:
        store.volume.prepare()
    done: list[Repaired] = []
    try:
        with session.progress.task("repairing", len(chosen), "items") as task:
            for entry in chosen:
                one = repair.repair(store, entry, sources(entry), session.progress)
                task.advance(1)
                if one.restored or one.lost or not options.all:
                    done.append(one)
    except BaseException:
        # What was done before stays done, and is told before what ended it.
        if done:
            session.say("\n".join(_outcomes(store, done)))
        raise
    data = {"entries": len(chosen), "repaired": [_described(one) for one in done]}
    session.result(data, "\n".join(_lines(store, len(chosen), done)))
    lost = [one for one in done if one.lost]
    if lost:
        session.say("hint: --from PATH names another volume, or a copy, that has it")
    return 1 if lost else 0


def _chosen(store: Store, named: Sequence[str], *, everything: bool) -> list[EntryId]:
    """The entries to repair: of those that are gone the marked ones are known."""
    marked = damage.marked(store.volume)
    if not named:
        return sorted({*store.ids(), *marked} if everything else marked)
    chosen = []
    for text in named:
        matching = [entry for entry in {*store.ids(), *marked} if entry.startswith(text)]
        chosen.append(matching[0] if len(matching) == 1 else entries.find(store, text))
    return sorted(set(chosen))


def _sources(
    session: Session, store: Store, given: Sequence[Source]
) -> Callable[[EntryId], list[Source]]:
    """What to ask for an entry; locks are read when the first is damaged."""
    access = project.access(session)
    more = [os.path.abspath(session.options.lock_file)] if session.options.lock_file else []

    def spec_of(version: str) -> Spec | None:
        file = session.settings.spec_file(version, session.options.versions_dir)
        try:
            return specs.load(file) if os.path.exists(file) else None
        except InputError as error:
            session.progress.warn(f"what it names is not known: {error.message}")
            return None

    @functools.cache
    def known() -> list[restore.Known]:
        return restore.read_locks(store.volume, spec_of, more, session.progress)

    def sources(entry: EntryId) -> list[Source]:
        return [*given, *restore.sources(store, entry, known(), access)]

    return sources


def _described(one: Repaired) -> dict[str, Any]:
    return {
        "id": one.entry,
        "whole": not one.lost,
        "restored": list(one.restored),
        "kept_aside": one.kept_aside,
        "lost": [{"path": lost.path, "why": lost.why} for lost in one.lost],
    }


def _lines(store: Store, count: int, done: Sequence[Repaired]) -> Iterator[str]:
    yield from _outcomes(store, done)
    lost = sum(bool(one.lost) for one in done)
    if lost:
        yield f"{lost} of {count} entries are still damaged"
    elif count:
        yield f"{count} entries, all well"
    else:
        yield "no entry is marked as damaged; `cvs store verify` looks"


def _outcomes(store: Store, done: Sequence[Repaired]) -> Iterator[str]:
    for one in done:
        short = one.entry[: entries.DIGITS]
        yield from _some(f"{short}/{path} is restored" for path in one.restored)
        yield from _some(f"{short}/{lost.path} is not restored: {lost.why}" for lost in one.lost)
        if one.kept_aside:
            yield f"what was there is kept in {os.path.join(store.volume.root, one.kept_aside)}"


def _some(lines: Iterable[str]) -> Iterator[str]:
    """The first of many lines, and how many there are more."""
    rest = iter(lines)
    yield from itertools.islice(rest, _LISTED)
    more = sum(1 for _ in rest)
    if more:
        yield f"and {more} more"


def _dry_run(
    session: Session,
    store: Store,
    chosen: Sequence[EntryId],
    sources: Callable[[EntryId], list[Source]],
) -> int:
    data = []
    lines: list[str] = []
    for entry in chosen:
        short = entry[: entries.DIGITS]
        found = _found(store, entry)
        if not found:
            continue
        steps = repair.plan(store, entry, found)
        asked = [one.shown for one in sources(entry)]
        data.append(
            {
                "id": entry,
                "damaged": [{"path": one.path, "what": one.what} for one in found],
                "steps": [
                    {"path": repair.shown(step.path), "needs_source": step.needs_bytes}
                    for step in steps
                ],
                "sources": asked,
            }
        )
        lines += _some(f"{short}/{one.path} {one.what}" for one in found)
        count = sum(step.needs_bytes for step in steps)
        if count:
            whom = "; ".join(asked) or "nobody is known"
            lines.append(
                f"  {count} of {len(steps)} steps need a source, asked in this order: {whom}"
            )
        else:
            lines.append("  no source is needed")
    lines.append(f"{len(data)} of {len(chosen)} entries are damaged; nothing was changed")
    session.result({"entries": len(chosen), "damaged": data}, "\n".join(lines))
    return 0


def _found(store: Store, entry: EntryId) -> list[Damage]:
    try:
        return store.verify(entry)
    except EntryMissing:
        return [Damage(entry, ".", "is missing")]
