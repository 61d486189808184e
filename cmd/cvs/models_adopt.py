"""`cvs models adopt`: take a folder of models into the store; links stay in their places."""

import functools
import os
from collections.abc import Sequence
from typing import Any

from cvs import entry as entries
from cvs.cli import Parser, Session, size
from cvs.profiles.state import link_target
from cvs.store import tree
from cvs.store.relink import Outcome
from cvs.versions import adoption
from cvs.versions.access import Access

EXAMPLES = """\
  cvs models adopt /workspace/ComfyUI/models --dry-run
  cvs models adopt /workspace/ComfyUI/models
  cvs models adopt /mnt/old/models --copy
"""

#: Duplicates that are named one by one.
_NAMED = 20


def parser() -> Parser:
    """The options."""
    found = Parser(
        "models adopt",
        "Take the models of a folder into the store, one after the other, and leave links in "
        "their places: what uses the folder, such as a ComfyUI that runs, goes on. A file is not "
        "copied but becomes the entry itself, so nothing is written twice. What is there twice, "
        "under any name, is kept once. It may be ended at any time: every path can be read at any "
        "instant, and the next run goes on. Links, placeholders, notes (small .yaml, .json, .txt "
        "files) and what somebody is writing stay as they are. What was adopted is pinned: a "
        "collection keeps it.",
        EXAMPLES,
    )
    found.add_argument("folder", metavar="DIR", help="the folder, with all below it")
    found.add_argument("--dry-run", action="store_true", help="say what would be done")
    found.add_argument(
        "--copy",
        action="store_true",
        help="copy what cannot be had otherwise: from another file system, or with other owners "
        "or other names",
    )
    found.add_argument(
        "--all", action="store_true", help="other files than models as well, by name and size"
    )
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the action."""
    session = Session(parser().parse_args(arguments))
    options = session.options
    store = session.store
    folder = os.path.abspath(os.path.expanduser(options.folder))
    found = adoption.find(store, folder, everything=options.all)
    access = Access(progress=session.progress)
    if options.dry_run:
        outcomes = adoption.compare(store, found.groups, access)
    else:
        store.volume.prepare()
        target = functools.partial(link_target, volume=store.volume)
        outcomes = adoption.adopt(
            store, found.groups, access, copy=options.copy, link_target=target
        )
    root = os.path.realpath(folder)

    def shorten(path: str) -> str:
        return tree.quote(os.fsencode(os.path.relpath(path, root)))

    data: dict[str, Any] = {
        "folder": folder,
        "dry_run": options.dry_run,
        "won": sum(one.won for one in outcomes),
        "files": [
            {**one._asdict(), "paths": [shorten(path) for path in one.paths]} for one in outcomes
        ],
        "links": found.links,
        "ignored": found.ignored,
    }
    text = _text(outcomes, [shorten(one.paths[0]) for one in outcomes], options.dry_run)
    rest = [
        *([f"{found.links} links stay as they are"] if found.links else []),
        *([f"{found.ignored} other files are no models"] if found.ignored else []),
    ]
    session.result(data, "\n".join([*text, *rest]))
    return 0


def _text(outcomes: Sequence[Outcome], names: Sequence[str], dry_run: bool) -> list[str]:
    would = "would be " if dry_run else ""
    told = list(zip(outcomes, names, strict=True))
    first = {one.entry: name for one, name in told if one.state == "adopted"}
    lines = []
    for state, what in (("adopted", f"{would}adopted"), ("duplicate", "there already")):
        these = [one for one in outcomes if one.state == state]
        if these:
            lines.append(f"{len(these)} files {what}, {size(sum(one.size for one in these))}")
    if won := sum(one.won for one in outcomes):
        lines[-1] += f": {size(won)} {would}won"
    twins = [(one, name) for one, name in told if one.state == "duplicate"]
    for one, name in twins[:_NAMED]:
        other = first.get(one.entry, "an entry of the store")
        lines.append(f"  {name} is the same as {other}")
    if len(twins) > _NAMED:
        lines.append(f"  and {len(twins) - _NAMED} more; --json lists all")
    left = [(one, name) for one, name in told if one.state == "left"]
    if left:
        lines.append(f"{len(left)} files stay as they are:")
        lines += [f"  {name}: {entries.shown(one.why)}" for one, name in left]
    return lines or ["there is nothing to adopt"]
