"""`cvs store`: look at and verify the entries of the store."""

from collections.abc import Sequence
from typing import Any

import msgspec

from cvs.cli import Parser, Session, size, table
from cvs.store import manifest
from cvs.store.digest import EntryId
from cvs.store.entries import Store
from cvs.store.errors import EntryMissing, InputError, IntegrityError
from cvs.store.verify import Damage, verify

EXAMPLES = """\
  cvs store ls
  cvs store show 4f1c2a9b
  cvs store verify
  cvs store verify 4f1c2a9b --json
"""


def parser() -> Parser:
    """The options."""
    found = Parser("store", "Look at and verify the entries of the store.", EXAMPLES)
    found.add_argument("action", choices=["ls", "show", "verify"], help="what to do")
    found.add_argument(
        "hashes", nargs="*", metavar="HASH", help="entries, by 8 or more digits of their hash"
    )
    found.common()
    return found


def run(arguments: list[str]) -> int:
    """Runs the command."""
    session = Session(parser().parse_args(arguments))
    hashes: list[str] = session.options.hashes
    store = session.store
    if session.options.action == "ls":
        if hashes:
            raise InputError("`cvs store ls` takes no entry", hint="cvs store show HASH")
        return _ls(session, store)
    chosen = [store.find(text) for text in hashes]
    if session.options.action == "show":
        if not chosen:
            raise InputError("`cvs store show` needs the hash of an entry")
        return _show(session, store, chosen)
    return _verify(session, store, chosen or sorted(store.ids()))


def _ls(session: Session, store: Store) -> int:
    data: list[dict[str, Any]] = []
    rows = [("HASH", "KIND", "SIZE", "NAME")]
    total = 0
    for entry in sorted(store.ids()):
        try:
            document = store.manifest(entry)
        except (EntryMissing, IntegrityError):
            # Collected meanwhile, or damaged: `verify` says which.
            data.append({"id": entry, "kind": "damaged", "size": None, "name": ""})
            rows.append((entry[:16], "damaged", "?", ""))
            continue
        kind, count = _kind(document), manifest.content_size(document)
        total += count
        data.append({"id": entry, "kind": kind, "size": count, "name": _name(document)})
        rows.append((entry[:16], kind, size(count), _name(document)))
    text = f"{table(rows)}\n{len(data)} entries, {size(total)}" if data else "the store is empty"
    session.result(data, text)
    return 0


def _show(session: Session, store: Store, entries: Sequence[EntryId]) -> int:
    data, text = [], []
    for entry in entries:
        document = store.manifest(entry)
        data.append({"id": entry, **msgspec.to_builtins(document)})
        text += [f"{entry}", f"kind     {_kind(document)}", f"name     {_name(document)}"]
        text += [
            f"size     {size(manifest.content_size(document))}",
            f"path     {store.path(entry)}",
        ]
        text += [f"origin   {document.origin or '-'}", f"created  {document.created}"]
        if isinstance(document, manifest.FileManifest):
            text.append(f"sha256   {document.sha256}")
        elif isinstance(document, manifest.TreeManifest):
            text.append(f"nodes    {len(document.nodes)}")
        else:
            text += [f"member   {member}" for member in document.members]
    session.result(data, "\n".join(text))
    return 0


def _verify(session: Session, store: Store, entries: Sequence[EntryId]) -> int:
    damaged: list[Damage] = []
    with session.progress.task("verifying", len(entries), "items") as task:
        for entry in entries:
            try:
                damaged += verify(store, entry)
            except EntryMissing:
                continue
            task.advance(1)
    data = {
        "entries": len(entries),
        "damaged": [{"id": d.entry, "path": d.path, "what": d.what} for d in damaged],
    }
    lines = [f"{d.entry[:16]}/{d.path} {d.what}" for d in damaged]
    count = len({d.entry for d in damaged})
    summary = f"{count} of {len(entries)} entries are damaged"
    lines.append(summary if damaged else f"{len(entries)} entries, all well")
    session.result(data, "\n".join(lines))
    return 1 if damaged else 0


def _kind(document: manifest.Manifest) -> str:
    if isinstance(document, manifest.FileManifest):
        return "file"
    return "tree" if isinstance(document, manifest.TreeManifest) else "set"


def _name(document: manifest.Manifest) -> str:
    if isinstance(document, manifest.TreeManifest):
        return document.name
    if isinstance(document, manifest.SetManifest):
        return f"{len(document.members)} members"
    return document.origin.rpartition("/")[2]
